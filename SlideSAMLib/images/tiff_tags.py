"""The tags of the first page of a TIFF file, classic or BigTIFF: ITK hands out only some."""

from __future__ import annotations

import os
import struct
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

ORDERS = {b"II": "<", b"MM": ">"}
CLASSIC, BIG = 42, 43
TEXT, RATIONAL = 2, 5
NUMBERS = {3: "H", 4: "I", 16: "Q"}  # TIFF's types of whole numbers
MOST_TEXT = 1 << 24  # bytes
SIZES = {TEXT: 1, RATIONAL: 8, 3: 2, 4: 4, 16: 8}  # bytes of one value


def read_tags(path: Path, wanted: Container[int]) -> dict[int, str | float]:
    """The wanted tags that the first page has: text as it stands, the first value of numbers.

    Empty where the file is no TIFF or ends too early: whoever reads the voxels says so.
    """
    with path.open("rb") as file:
        head = file.read(16)
        order = ORDERS.get(head[:2])
        if order is None:
            return {}
        try:
            return _page(file, order, head, wanted)
        except (struct.error, OverflowError, ValueError, OSError):  # offsets that lead nowhere
            return {}


def is_cut_off(path: Path) -> bool:
    """Whether a page of a TIFF file lies behind its end: ITK leaves it out and says nothing."""
    with path.open("rb") as file:
        head = file.read(16)
        order = ORDERS.get(head[:2])
        version = struct.unpack_from(order + "H", head, 2)[0] if order and len(head) == 16 else 0
        if version not in (CLASSIC, BIG):
            return False
        offset, count = ("Q", "Q") if version == BIG else ("I", "H")
        width = struct.calcsize(offset)
        seen = set()
        (place,) = struct.unpack_from(order + offset, head, width)
        try:
            while place and place not in seen:
                seen.add(place)
                file.seek(place)
                (tags,) = struct.unpack(order + count, file.read(struct.calcsize(count)))
                file.seek(tags * (4 + 2 * width), os.SEEK_CUR)
                (place,) = struct.unpack(order + offset, file.read(width))
        except (struct.error, OverflowError, ValueError, OSError):  # offsets that lead nowhere
            return True
    return False


def _page(
    file: BinaryIO, order: str, head: bytes, wanted: Container[int]
) -> dict[int, str | float]:
    """See `read_tags`; raises one of several errors where the file is damaged."""
    (version,) = struct.unpack_from(order + "H", head, 2)
    if version not in (CLASSIC, BIG):
        return {}
    # The widths of offsets and of the number of tags.
    offset, count = ("Q", "Q") if version == BIG else ("I", "H")
    width = struct.calcsize(offset)
    file.seek(struct.unpack_from(order + offset, head, width)[0])
    (tags,) = struct.unpack(order + count, file.read(struct.calcsize(count)))
    found: dict[int, str | float] = {}
    entries = file.read(min(tags, 1 << 16) * (4 + 2 * width))
    for tag, kind, length, field in struct.iter_unpack(f"{order}HH{offset}{width}s", entries):
        if tag not in wanted or kind not in SIZES or not length:
            continue
        size = min(length, MOST_TEXT) if kind == TEXT else SIZES[kind]
        if SIZES[kind] * length > width:  # it does not fit into the entry, which says where it is
            file.seek(struct.unpack(order + offset, field)[0])
            field = file.read(size)
        found[tag] = _value(order, kind, field[:size])
    return found


def _value(order: str, kind: int, field: bytes) -> str | float:
    """One value of a tag; 0 for a fraction without a denominator."""
    if kind == TEXT:
        text = field.split(b"\0")[0]
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            return text.decode("latin-1")
    if kind == RATIONAL:
        above, below = struct.unpack(order + "II", field)
        return above / below if below else 0.0
    return struct.unpack(order + NUMBERS[kind], field)[0]
