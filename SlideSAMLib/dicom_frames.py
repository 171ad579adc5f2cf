"""What the frames of one DICOM file of many say: where each lies and how it is scaled. No ITK here.

ITK hands out no sequences, and of the frames only what it makes of them. The bytes of the file are
walked through for it, as DICOM PS3.5 describes them (7.1 elements, 7.5 sequences).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARED, EACH = 0x52009229, 0x52009230  # functional groups of all frames, of each frame
POSITION = (0x00209113, 0x00200032)  # group, and tag in it
ORIENTATION = (0x00209116, 0x00200037)
PIXELS = (0x00289110, 0x00280030)
SCALING = ((0x00289145, 0x00281052), (0x00289145, 0x00281053))
GROUPS = {SHARED, EACH, POSITION[0], ORIENTATION[0], PIXELS[0], SCALING[0][0]}
VOXELS, SYNTAX = 0x7FE00010, 0x00020010
ITEM, ITEM_END = 0xFFFEE000, 0xFFFEE00D
UNKNOWN_LENGTH = 0xFFFFFFFF
IMPLICIT, BIG_ENDIAN = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2"
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
LONGEST = 1024  # bytes of a value that is kept
DAMAGED = (struct.error, ValueError, KeyError, RecursionError, OSError)


@dataclass(frozen=True, eq=False)
class Frame:
    """position : x, y, z in mm, LPS. turn : direction of rows, then of columns. pixels : distance
    of rows, then of columns, in mm. scale : intercept and slope. None for what is not said.
    """

    position: np.ndarray | None
    turn: np.ndarray | None
    pixels: np.ndarray | None
    scale: tuple[float | None, ...]


def read_frames(path: Path) -> list[Frame]:
    """The frames of a file; none where it does not describe them one by one, or is damaged."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data[128:132] != b"DICM":
                return []
            own, start = _Walk(data, "<", True).dataset(132, len(data), only=0x0002)
            syntax = own[SYNTAX].strip(b"\0 ")
            order = ">" if syntax == BIG_ENDIAN else "<"
            content, _ = _Walk(data, order, syntax != IMPLICIT).dataset(start, len(data))
    except DAMAGED:
        return []
    shared = _first(content.get(SHARED))
    each = content.get(EACH)
    return [_frame(own, shared) for own in each] if isinstance(each, list) else []


def numbers(text: str, count: int) -> np.ndarray | None:
    """The numbers of a value of DICOM; None where they are others than `count` finite ones."""
    try:
        values = np.array(text.split("\\"), float)
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _frame(own: dict, shared: dict) -> Frame:
    def said(place: tuple[int, int], count: int) -> np.ndarray | None:
        group, tag = place
        for groups in (own, shared):
            value = _first(groups.get(group)).get(tag)
            if isinstance(value, bytes):
                return numbers(value.decode("ascii", "replace").strip("\0 "), count)
        return None

    scale = (said(place, 1) for place in SCALING)
    return Frame(
        said(POSITION, 3),
        said(ORIENTATION, 6),
        said(PIXELS, 2),
        tuple(None if value is None else float(value[0]) for value in scale),
    )


def _first(items: object) -> dict:
    return items[0] if isinstance(items, list) and items else {}


class _Walk:
    """Reads data sets: tag -> bytes, or a list of data sets. Long values are left out.

    Raises struct.error or RecursionError where the bytes make no sense.
    """

    def __init__(self, data: mmap.mmap, order: str, explicit: bool) -> None:
        self._data, self._order, self._explicit = data, order, explicit

    def dataset(self, place: int, end: int, only: int | None = None) -> tuple[dict, int]:
        """The elements up to `end`, to the end of their item, the voxels, or another group than
        `only`; and the place behind them.
        """
        found: dict[int, bytes | list] = {}
        while place + 8 <= end:
            tag = self._tag(place)
            if tag == ITEM_END:
                return found, place + 8
            if tag == VOXELS or only not in (None, tag >> 16):
                break
            kind, length, place = self._head(place)
            known = length != UNKNOWN_LENGTH
            if not known or kind == b"SQ" or (not self._explicit and tag in GROUPS):
                # Of unknown kind and length is what somebody copied from an implicit file.
                walk = _Walk(self._data, "<", False) if kind == b"UN" else self
                found[tag], place = walk._items(place, place + length if known else end)
                continue
            if length <= LONGEST:
                found[tag] = self._data[place : place + length]
            place += length
        return found, place

    def _items(self, place: int, end: int) -> tuple[list[dict], int]:
        items = []
        while place + 8 <= end:
            tag, length = self._tag(place), self._number("I", place + 4)
            place += 8
            if tag != ITEM:
                break
            if length == UNKNOWN_LENGTH:
                item, place = self.dataset(place, end)
            else:
                item, place = self.dataset(place, place + length)[0], place + length
            items.append(item)
        return items, place

    def _tag(self, place: int) -> int:
        return self._number("H", place) << 16 | self._number("H", place + 2)

    def _head(self, place: int) -> tuple[bytes, int, int]:
        """Kind and length of the element at a place, and where its value begins."""
        if not self._explicit:
            return b"", self._number("I", place + 4), place + 8
        kind = self._data[place + 4 : place + 6]
        if kind in LONG:
            return kind, self._number("I", place + 8), place + 12
        return kind, self._number("H", place + 6), place + 8

    def _number(self, kind: str, place: int) -> int:
        return struct.unpack_from(self._order + kind, self._data, place)[0]
