"""Who may read a file that was written under a temporary name."""

from __future__ import annotations

import os
from pathlib import Path


def make_ordinary(path: Path) -> None:
    """Give a file the mode that any new file has; temporary files and safetensors are private."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
