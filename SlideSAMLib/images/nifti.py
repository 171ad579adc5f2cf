"""What ITK does not say of NIfTI files: voxels that are not finite, files that were cut off, and
that a file may hold two transforms.

It silently turns the first into zeros, fills up the second and keeps one transform of the third,
so the file has to be asked itself.
"""

from __future__ import annotations

import gzip
import io
import math
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError

SINGLE = (".nii", ".nii.gz")
PAIR = ((".hdr", ".hdr.gz"), (".img", ".img.gz"))  # header and voxels in two files
FLOATS = {16: "f4", 64: "f8"}  # NIfTI data type codes of real floating point voxels
GZIP = 16 + zlib.MAX_WBITS
BLOCK = 1 << 18  # bytes that are read at once
HEADER = 348  # bytes of a NIfTI-1 header
# Where it has pixdim 0 to 3, the units, the codes of qform and sform, and the numbers of both.
SIZES, UNITS, CODES, MATRICES = slice(76, 92), 123, slice(252, 256), slice(256, 328)
SPACE = 0b111  # the bits of the units that are those of lengths
NEAR = 0.5  # of a voxel: what two transforms may differ by without a word


@dataclass(frozen=True)
class _Layout:
    """bits : of a voxel. kind : its type, where it is floating point. offset : of the voxels."""

    bits: int
    kind: np.dtype | None
    offset: int


@dataclass(frozen=True)
class Placement:
    """How a NIfTI-1 header places its voxels: what it has at the slices above, little endian."""

    sizes: bytes
    units: int
    codes: bytes
    matrices: bytes

    def into(self, header: bytes) -> bytes:
        """A little endian NIfTI-1 header that places its voxels like this."""
        other = bytearray(header)
        other[SIZES], other[CODES], other[MATRICES] = self.sizes, self.codes, self.matrices
        other[UNITS] = other[UNITS] & ~SPACE | self.units
        return bytes(other)

    def differs(self, size: tuple[int, int, int]) -> bool:
        """Whether qform and sform both count and place voxels of a size (I, J, K) differently."""
        if (np.frombuffer(self.codes, "<i2") <= 0).any():
            return False
        factor, *sizes = np.frombuffer(self.sizes, "<f4").astype(float)
        quaternion, rows = np.split(np.frombuffer(self.matrices, "<f4").astype(float), [6])
        sform = rows.reshape(3, 4)
        axes = _rotation(quaternion[:3]) * np.abs(sizes)
        axes[:, 2] *= -1 if factor < 0 else 1
        corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(size)[:, None] - 1)
        with np.errstate(all="ignore"):  # numbers that are not finite differ
            shift = (sform[:, 3] - quaternion[3:])[:, None] + (sform[:, :3] - axes) @ corners
            return not np.linalg.norm(shift, axis=0).max() <= NEAR * np.abs(sizes).min()


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """The matrix of a quaternion's last three numbers b, c, d."""
    b, c, d = quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def read_placement(path: Path) -> Placement | None:
    """The placement of a NIfTI-1 file, of either byte order, one file or two; None for others."""
    files = _files(path)
    header = next(_blocks(files[0]), b"") if files else b""
    order, size = _version(header)
    if size != HEADER or header[344:348] not in (b"n+1\0", b"ni1\0"):
        return None

    def numbers(part: slice, kind: str) -> bytes:
        return np.frombuffer(header[part], order + kind).astype("<" + kind).tobytes()

    return Placement(
        numbers(SIZES, "f4"),
        header[UNITS] & SPACE,
        numbers(CODES, "i2"),
        numbers(MATRICES, "f4"),
    )


def place(path: Path, placement: Placement) -> None:
    """Give a little endian .nii or .nii.gz file, as ITK writes it, the placement of another."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else path.open("r+b") as file:
        header = file.read(HEADER)
        placed = placement.into(header)
        if placed == header:
            return
        if not packed:
            file.seek(0)
            file.write(placed)
            return
        whole = io.BytesIO()  # a packed mask is small
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=whole, mtime=0) as target:
            target.write(placed)
            shutil.copyfileobj(file, target, BLOCK)
    path.write_bytes(whole.getbuffer())


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
    """What NIfTI-1, NIfTI-2 and Analyze headers say of the voxels; None for anything else.

    Raises EOFError where the place of the voxels is no number.
    """
    order, size = _version(header)
    if size == HEADER:
        code, bits = struct.unpack_from(order + "hh", header, 70)
        offset = struct.unpack_from(order + "f", header, 108)[0]
        if not math.isfinite(offset):
            raise EOFError
    elif size:
        code, bits = struct.unpack_from(order + "hh", header, 12)
        offset = struct.unpack_from(order + "q", header, 168)[0]
    else:
        return None
    kind = np.dtype(order + FLOATS[code]) if code in FLOATS else None
    return _Layout(bits, kind, max(int(offset), size if single else 0))


def _version(header: bytes) -> tuple[str, int]:
    """Byte order and length of a NIfTI-1 (Analyze) or NIfTI-2 header; length 0 for others."""
    for order in "<>" if len(header) >= HEADER else "":
        size = struct.unpack_from(order + "i", header)[0]
        if size == HEADER or (size == 540 and len(header) >= size):
            return order, size
    return "<", 0
