"""Finding NaN and infinite voxels in NIfTI files.

ITK's NIfTI reader silently turns such voxels into zeros, so the file has to be asked itself.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

SUFFIXES = (".nii", ".nii.gz")
FLOATS = {16: "f4", 64: "f8"}  # NIfTI data type codes of real floating point voxels


def non_finite_voxels(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Where a NIfTI file of shape (K, J, I) has voxels that are not finite.

    Returns a bool array (K, J, I), or None where there is none, the voxels are not floating
    point numbers, or the file is not a single-file NIfTI.
    """
    if not path.name.lower().endswith(SUFFIXES):
        return None
    with open(path, "rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
        header = stream.read(352)
        found = _layout(header)
        if found is None:
            return None
        dtype, offset = found
        stream.read(max(offset - len(header), 0))
        bad = np.zeros(shape, bool)
        for plane in bad:  # NIfTI stores i fastest, then j, then k: planes (J, I) one by one
            data = stream.read(plane.size * dtype.itemsize)
            if len(data) < plane.size * dtype.itemsize:
                break
            plane[:] = ~np.isfinite(np.frombuffer(data, dtype).reshape(plane.shape))
    return bad if bad.any() else None


def _layout(header: bytes) -> tuple[np.dtype, int] | None:
    """(voxel type, offset of the voxels) of NIfTI-1 and NIfTI-2 headers, if floating point."""
    for order in "<>":
        size = struct.unpack_from(order + "i", header)[0]
        if size == 348:
            code = struct.unpack_from(order + "h", header, 70)[0]
            offset = int(struct.unpack_from(order + "f", header, 108)[0])
        elif size == 540:
            code = struct.unpack_from(order + "h", header, 12)[0]
            offset = struct.unpack_from(order + "q", header, 168)[0]
        else:
            continue
        return (np.dtype(order + FLOATS[code]), offset) if code in FLOATS else None
    return None
