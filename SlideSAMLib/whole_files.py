"""Files that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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


def make_ordinary(path: Path) -> None:
    """Give a file the mode that any new file has; temporary files and safetensors are private."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
