"""Names of files that ITK reads and writes. A module of its own: it needs no SimpleITK."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError

OUTPUT_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")  # of label maps


def check_name(path: str | Path) -> None:
    """Raise InputError for a name that is not UTF-8: ITK would end the whole process.

    Such names come from old archives; Python keeps their bytes as surrogates.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError(f"The name {shown} is not UTF-8: rename it.") from None
