"""Files that appear whole or not at all: written beside their place, then moved there; hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import Cancelled, InputError

_CHUNK = 1 << 22


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to: that file comes to `path` at the end, and goes where anything fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone where all went well
            part.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there; raises InputError where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} cannot be written to.")


def make_ordinary(path: Path) -> None:
    """Give a file the mode that any new file has; temporary files and safetensors are private."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def file_sha256(path: Path, cancelled: Callable[[], bool] | None = None) -> str:
    """SHA-256 of a file in hexadecimal; raises Cancelled on request, InputError if unreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if cancelled is not None and cancelled():
                    raise Cancelled(f"Checking '{path.name}' was cancelled.")
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"The file '{path}' cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
