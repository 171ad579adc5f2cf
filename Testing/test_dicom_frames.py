"""DICOM files of many frames: ITK stacks these as they are stored, whatever they say."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.images import volumes

CT = "1.2.840.10008.5.1.4.1.1.2.1"  # Enhanced CT Image Storage
SYNTAXES = {"implicit": "1.2.840.10008.1.2", "explicit": "1.2.840.10008.1.2.1"}
TURN = "1\\0\\0\\0\\1\\0"
Element = tuple[int, str, object]  # tag, kind, and value: text, numbers, bytes or data sets


@dataclass
class Writer:
    """Writes little endian data sets; the lengths of sequences and items may be left open."""

    implicit: bool = False
    open_ended: bool = False

    def data_set(self, elements: list[Element]) -> bytes:
        return b"".join(self._element(*each) for each in elements)

    def _element(self, tag: int, kind: str, value: object) -> bytes:
        open_ended = kind == "SQ" and self.open_ended
        data = b"".join(map(self._item, value)) if kind == "SQ" else self._plain(kind, value)
        length = 0xFFFFFFFF if open_ended else len(data)
        if open_ended:
            data += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        place = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if self.implicit:
            return place + struct.pack("<I", length) + data
        if kind in ("SQ", "OW", "OB"):
            return place + kind.encode() + struct.pack("<HI", 0, length) + data
        return place + kind.encode() + struct.pack("<H", length) + data

    def _item(self, elements: list[Element]) -> bytes:
        data = self.data_set(elements)
        if self.open_ended:
            head = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            return head + data + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data

    @staticmethod
    def _plain(kind: str, value: object) -> bytes:
        if isinstance(value, bytes):
            return value
        if kind in ("US", "UL"):
            return struct.pack("<H" if kind == "US" else "<I", value)
        text = str(value).encode()
        return text + (b"\0" if kind == "UI" else b" ") * (len(text) % 2)


@dataclass
class Frames:
    """What an enhanced CT file is made of; `scale` : slope of each frame."""

    positions: list[str]
    turns: list[str] = field(default_factory=lambda: [TURN])
    scales: list[str] = field(default_factory=lambda: ["1"])
    implicit: bool = False
    open_ended: bool = False

    def values(self) -> np.ndarray:
        """The stored voxels, (frame, row, column)."""
        shape = (len(self.positions), 8, 9)
        return np.random.default_rng(1).integers(0, 900, shape, np.int16)

    def groups(self) -> list[list[Element]]:
        turns, scales = itertools.cycle(self.turns), itertools.cycle(self.scales)
        return [
            [
                *([(0x00209113, "SQ", [[(0x00200032, "DS", place)]])] if place else []),
                (0x00209116, "SQ", [[(0x00200037, "DS", turn)]]),
                (0x00289145, "SQ", [[(0x00281052, "DS", "-7"), (0x00281053, "DS", scale)]]),
            ]
            for place, turn, scale in zip(self.positions, turns, scales, strict=False)
        ]

    def write(self, path: Path) -> Path:
        stored = self.values()
        syntax = SYNTAXES["implicit" if self.implicit else "explicit"]
        uids: list[Element] = [(0x00020002, "UI", CT), (0x00020003, "UI", "1.2.3.5")]
        meta = Writer().data_set([*uids, (0x00020010, "UI", syntax)])
        size = Writer().data_set([(0x00020000, "UL", len(meta))])
        content = Writer(self.implicit, self.open_ended).data_set(
            [
                (0x00080016, "UI", CT),
                (0x00080018, "UI", "1.2.3.5"),
                (0x00080060, "CS", "CT"),
                (0x0020000D, "UI", "1.2.3"),
                (0x0020000E, "UI", "1.2.3.4"),
                (0x00280002, "US", 1),
                (0x00280004, "CS", "MONOCHROME2"),
                (0x00280008, "IS", len(stored)),
                (0x00280010, "US", stored.shape[1]),
                (0x00280011, "US", stored.shape[2]),
                (0x00280100, "US", 16),
                (0x00280101, "US", 16),
                (0x00280102, "US", 15),
                (0x00280103, "US", 1),
                (0x52009229, "SQ", [[(0x00289110, "SQ", [[(0x00280030, "DS", "0.8\\0.7")]])]]),
                (0x52009230, "SQ", self.groups()),
                (0x7FE00010, "OW", stored.tobytes()),
            ]
        )
        path.write_bytes(b"\0" * 128 + b"DICM" + size + meta + content)
        return path


def along_z(*places: float) -> list[str]:
    return [f"1\\2\\{place}" for place in places]


def as_file(path: Path) -> Path:
    return path


def as_folder(path: Path) -> Path:
    return path.parent


@pytest.mark.parametrize("place", [as_file, as_folder])
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("open_ended", [False, True])
@pytest.mark.parametrize("way", [1, -1])
def test_positions_that_are_rounded(
    tmp_path: Path, place: Callable[[Path], Path], implicit: bool, open_ended: bool, way: int
) -> None:
    # ITK takes 1 x 1 x 1 mm where the distances differ by some thousandths of a mm.
    heights = np.array([0, 1.33, 2.67, 4, 5.33, 6.67])[::way]
    frames = Frames(along_z(*heights), implicit=implicit, open_ended=open_ended)
    image = volumes.read_image(place(frames.write(tmp_path / "frames.dcm")))
    np.testing.assert_array_equal(image.array, frames.values() - 7)
    np.testing.assert_allclose(image.spacing, (4 / 3, 0.8, 0.7), atol=2e-3)
    np.testing.assert_allclose(image.geometry.origin, (1, 2, heights[0]))
    np.testing.assert_allclose(image.geometry.direction, np.diag([1, 1, way]).ravel())
    assert not image.note


def test_oblique_frames_that_are_rounded(tmp_path: Path) -> None:
    cosine, sine = 0.921, 0.3894
    places = [f"1\\{-1.5 * n * sine:.2f}\\{1.5 * n * cosine:.2f}" for n in range(5)]
    frames = Frames(places, [f"1\\0\\0\\0\\{cosine}\\{sine}"])
    image = volumes.read_image(frames.write(tmp_path / "frames.dcm"))
    np.testing.assert_allclose(image.spacing, (1.5, 0.8, 0.7), atol=5e-3)
    axes = np.reshape(image.geometry.direction, (3, 3))
    np.testing.assert_allclose(axes, [[1, 0, 0], [0, 0.921, -0.389], [0, 0.389, 0.921]], atol=1e-3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("place", [as_file, as_folder])
@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (Frames(along_z(0, 2, 4, 0, 2, 4)), "several images at one position"),
        (Frames(along_z(0, 4, 8, 2, 6, 10)), "another order"),
        (Frames(along_z(0, 2, 4, 10, 12, 14)), "not evenly spaced"),
        (Frames(["1\\2\\0", "1\\4\\2", "1\\6\\4"]), "straight above each other"),
        (Frames(along_z(0, 2, 4), [TURN, TURN, "0\\1\\0\\0\\0\\-1"]), "several orientations"),
        (Frames(along_z(0, 2, 4), scales=["1", "1.5"]), "scaled differently"),
    ],
)
def test_frames_that_are_no_volume_are_refused(
    tmp_path: Path, place: Callable[[Path], Path], frames: Frames, words: str
) -> None:
    path = place(frames.write(tmp_path / "frames.dcm"))
    with pytest.raises(InputError, match=words):
        volumes.read_image(path)


def test_frames_that_do_not_say_where_they_lie(tmp_path: Path) -> None:
    path = Frames([""] * 4).write(tmp_path / "frames.dcm")
    image = volumes.read_image(path)
    assert image.spacing == (1, 1, 1)
    assert "do not say where they lie" in image.note
    assert "--spacing K J I" in image.note
    assert not volumes.read_image(path, spacing=(3, 2, 2)).note
