"""What ITK's NIfTI reader does not say: voxels that are not finite, and files that were cut off.

It silently turns the former into zeros and fills up the latter, so the file has to be asked itself.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError

SINGLE = (".nii", ".nii.gz")
PAIR = ((".hdr", ".hdr.gz"), (".img", ".img.gz"))  # header and voxels in two files
FLOATS = {16: "f4", 64: "f8"}  # NIfTI data type codes of real floating point voxels
GZIP = 16 + zlib.MAX_WBITS
BLOCK = 1 << 18  # bytes that are read at once


@dataclass(frozen=True)
class _Layout:
    """bits : of a voxel. kind : its type, where it is floating point. offset : of the voxels."""

    bits: int
    kind: np.dtype | None
    offset: int


def non_finite_voxels(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Where a NIfTI file of shape (K, J, I) has voxels that are not finite; reads it to its end.

    Returns a bool array (K, J, I), or None where there is none, the voxels are not floating
    point numbers, or the file is no NIfTI. Raises InputError where it was cut off or its
    compressed part is damaged.
    """
    files = _files(path)
    try:
        layout = files and _layout(next(_blocks(files[0]), b""), files[0] == files[1])
        return _search(files[1], layout, shape) if layout else None
    except (EOFError, zlib.error):
        raise InputError(
            f"{path} is damaged or was cut off before its end: copy or download it again."
        ) from None


def _search(path: Path, layout: _Layout, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The voxels that are not finite; EOFError where some are not there."""
    voxels = math.prod(shape)
    bad = None if layout.kind is None else np.zeros(voxels, bool)
    before, read, done, rest = layout.offset, 0, 0, b""
    for block in _blocks(path):
        skipped = min(before, len(block))
        before -= skipped
        read += len(block) - skipped
        if bad is not None and done < voxels:
            data = rest + block[skipped:]
            values = np.frombuffer(data, layout.kind, len(data) // layout.kind.itemsize)
            rest = data[values.nbytes :]
            values = values[: voxels - done]
            bad[done : done + len(values)] = ~np.isfinite(values)
            done += len(values)
    if read * 8 < voxels * layout.bits:
        raise EOFError
    return bad.reshape(shape) if bad is not None and bad.any() else None


def _files(path: Path) -> tuple[Path, Path] | None:
    """The files of the header and of the voxels; None for names that NIfTI does not have."""
    name = path.name.lower()
    if name.endswith(SINGLE):
        return path, path
    if not name.endswith(PAIR[0] + PAIR[1]):
        return None
    stem = path.name[: -len(".hdr.gz" if name.endswith(".gz") else ".hdr")]
    found = [
        next((p for p in map(path.with_name, (stem + s for s in suffixes)) if p.is_file()), None)
        for suffixes in PAIR
    ]
    return None if None in found else tuple(found)


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked where it is packed; EOFError where it ends too early.

    By hand, since gzip's reader is slower and refuses what may follow the packed part.
    """
    with path.open("rb") as file:
        raw = file.read(BLOCK)
        packed = raw.startswith(b"\x1f\x8b")
        decoder = None
        while raw:
            if not packed:
                yield raw
                raw = b""
            elif decoder is None and not raw.startswith(b"\x1f"):
                return
            else:
                decoder = decoder or zlib.decompressobj(GZIP)
                yield decoder.decompress(raw)
                raw = decoder.unused_data
                decoder = None if decoder.eof else decoder
            raw = raw or file.read(BLOCK)
    if decoder is not None:
        raise EOFError


def _layout(header: bytes, single: bool) -> _Layout | None:
    """What NIfTI-1, NIfTI-2 and Analyze headers say of the voxels; None for anything else."""
    for order in "<>" if len(header) >= 348 else "":
        size = struct.unpack_from(order + "i", header)[0]
        if size == 348:
            code, bits = struct.unpack_from(order + "hh", header, 70)
            offset = int(struct.unpack_from(order + "f", header, 108)[0])
        elif size == 540 and len(header) >= size:
            code, bits = struct.unpack_from(order + "hh", header, 12)
            offset = struct.unpack_from(order + "q", header, 168)[0]
        else:
            continue
        kind = np.dtype(order + FLOATS[code]) if code in FLOATS else None
        return _Layout(bits, kind, max(offset, size if single else 0))
    return None
