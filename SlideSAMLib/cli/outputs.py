"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import InputError
from ..files.whole_files import make_ordinary
from ..images.formats import OUTPUT_SUFFIXES


def check_writable(path: Path, what: str = "The output") -> None:
    """Raise InputError unless `path` can be written; leaves nothing behind.

    Pipes and devices (/dev/stdout) cannot: a file that appears whole would take their place.
    """
    folder = _place(path).parent
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder: give a file name.")
    if path.exists() and not path.is_file():
        raise InputError(f"{what} {path} is a pipe or a device: give the name of a file.")
    if not folder.is_dir():
        raise InputError(f"{what} {path} cannot be written: there is no folder {folder}.")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{what} {path} cannot be written: the file is read-only.")
    try:
        handle, name = tempfile.mkstemp(prefix=".slidesam-", dir=folder)
    except OSError as error:
        raise InputError(f"{what} {path} cannot be written: {error.strerror}.") from None
    os.close(handle)
    os.unlink(name)


def check_different(paths: Mapping[str, Path]) -> None:
    """Raise InputError where two of the named paths are the same file."""
    seen: dict[Path, str] = {}
    for what, path in paths.items():
        other = seen.setdefault(path.resolve(), what)
        if other != what:
            raise InputError(f"{what} and {other} are the same file, {path}: give two.")


def write_together(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write several files beside their places, then move them all into place.

    Each writer gets the path of a temporary file with the right suffix. Whatever goes wrong,
    Ctrl-C too, the temporary files are removed and no file has been replaced by a part.
    """
    ready: list[tuple[Path, Path]] = []
    try:
        for path, write in writers.items():
            place = _place(path)
            temporary = _temporary(path, place.parent)
            ready.append((temporary, place))
            write(temporary)
        for temporary, path in ready:
            os.replace(temporary, path)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)


def _place(path: Path) -> Path:
    """Where a file goes: to what a link leads to, so that the link stays."""
    return path.resolve() if path.is_symlink() else path


def _temporary(path: Path, folder: Path) -> Path:
    suffix = next((s for s in OUTPUT_SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    handle, name = tempfile.mkstemp(prefix=".slidesam-", suffix=suffix, dir=folder)
    os.close(handle)
    make_ordinary(Path(name))
    return Path(name)
