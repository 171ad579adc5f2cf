"""The prompts of one segment, as a person gave them: any number, on slices of any orientation.

Positions are kept in the frame of the segmentation node in mm. So they move with the segmentation
when a transform does, and stay in place when its geometry changes. They are saved as JSON in a
tag of the segment: scenes, .seg.nrrd files and undo states carry them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import marks as marking
from .lattice import Lattice
from .marks import IN_PLANE
from .orientation import AXES

Position = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Mark:
    """One prompt: a point, a box, or the mask of a slice.

    axis : slide axis of the slice it was made on, as an index into (I, J, K).
    positions : mm in the frame of the segmentation: the point, the two corners of the box, or the
        first voxel of the slice that `mask` belongs to.
    label : 1 positive, 0 negative.
    mask : bool (H, W) of the whole slice, or None.
    """

    axis: int
    positions: tuple[Position, ...]
    label: int = 1
    mask: np.ndarray | None = None

    @property
    def kind(self) -> str:
        if self.mask is not None:
            return "mask"
        return "point" if len(self.positions) == 1 else "box"

    @cached_property
    def key(self) -> tuple:
        """Equal for marks that say the same."""
        positions = tuple(_rounded(v) for position in self.positions for v in position)
        voxels = None if self.mask is None else hash(self.mask.tobytes())
        return (self.kind, self.axis, positions, self.label, voxels)

    @cached_property
    def saved(self) -> dict[str, Any]:
        """What is saved of it, for JSON. For every mark again at each click masks are too large."""
        return _to_object(self)

    def slice_index(self, lattice: Lattice, axis: int | None = None) -> int:
        """The slice of `lattice` (counted in its voxel indices) along `axis` that it lies on."""
        axis = self.axis if axis is None else axis
        return int(lattice.voxel_of_local(self.positions[0])[axis])


@dataclass(frozen=True, eq=False)
class PromptSet:
    """All prompts of a segment, in the order they were given."""

    marks: tuple[Mark, ...] = ()

    def __len__(self) -> int:
        return len(self.marks)

    def with_mark(self, mark: Mark, lattice: Lattice) -> PromptSet:
        """With one more; a new box or mask takes the place of its slice's old one."""
        kept = self.marks
        if mark.kind != "point":
            place = (mark.kind, mark.axis, mark.slice_index(lattice))
            kept = tuple(m for m in kept if (m.kind, m.axis, m.slice_index(lattice)) != place)
        return PromptSet((*kept, mark))

    def without(self, number: int) -> PromptSet:
        """Without the mark at this place."""
        return PromptSet(self.marks[:number] + self.marks[number + 1 :])

    def slide_axis(self) -> int | None:
        """The axis to slide along, an index into (I, J, K); None where nothing is marked.

        That of the last box or mask, which count along their own axis only, else of the last point
        on the object: what is outside says nothing about the direction.
        """
        shaped = [mark for mark in self.marks if mark.kind != "point"]
        inside = [mark for mark in self.marks if mark.label]
        found = shaped or inside or self.marks
        return found[-1].axis if found else None

    def on_slices(self, lattice: Lattice, axis: int) -> dict[int, list[Mark]]:
        """The marks that count for slides along `axis`, by slice of `lattice` (from its start).

        The slices are in the order in which they were marked: the model sees the object in an
        intensity window that the first of them has a say in, see `SlideSAMLib.sliding.seen`.
        Points count whatever orientation they were made in: they say something about a voxel.
        Boxes and masks count on slices of their own orientation only. What lies outside the
        lattice is left out, and so are masks that were taken from other voxels than its own.
        """
        found: dict[int, list[Mark]] = {}
        for mark, voxels in zip(self.marks, self.voxels(lattice), strict=True):
            if mark.kind != "point" and mark.axis != axis:
                continue
            if mark.mask is not None and not _fits(mark, voxels[0], lattice):
                continue
            if all(lattice.contains(voxel) for voxel in voxels):
                found.setdefault(int(voxels[0][axis] - lattice.first[axis]), []).append(mark)
        return found

    def voxels(self, lattice: Lattice) -> list[np.ndarray]:
        """The voxels (i, j, k) of the positions of every mark: int (1 or 2, 3) each."""
        if not self.marks:
            return []
        positions = np.array([each for mark in self.marks for each in mark.positions], float)
        return per_mark(lattice.voxels_of_local(positions), self.marks)

    def to_json(self) -> str:
        """Text for the segment's tag; `from_json` reads it."""
        entries = [mark.saved for mark in self.marks]
        return json.dumps({"version": 2, "marks": entries}, separators=(",", ":"))


def from_json(text: str, lattice: Lattice) -> PromptSet:
    """Read what `PromptSet.to_json` wrote, or `Marks.to_json`, whose voxels are those of `lattice`.

    Raises ValueError where the text is something else.
    """
    with marking.reading(text):
        content = json.loads(text)
        if content["version"] != 2:
            return _from_marks(marking.from_content(content), lattice)
        return PromptSet(tuple(_from_object(entry) for entry in content["marks"]))


def slice_prompt(index: int, marks: Iterable[Mark], part: Lattice, axis: int) -> Any:
    """The marks of one slice of `part` as a SlideSAMLib.SlicePrompt.

    Raises SlideSAMLib.InputError where they are negative points only.
    """
    from SlideSAMLib import SlicePrompt

    box = mask = None
    points, labels = [], []
    for mark in marks:
        if mark.kind == "mask":
            mask = mark.mask
        elif mark.kind == "box":
            box = _box(mark, part, axis)
        else:
            points.append(in_slice(part, axis, mark.positions[0]))
            labels.append(mark.label)
    return SlicePrompt(index, box=box, points=points, labels=labels, mask=mask)


def per_mark(rows: np.ndarray, marks: Iterable[Mark]) -> list[np.ndarray]:
    """Rows of an array, one for each position of the marks, by mark."""
    ends = itertools.accumulate((len(mark.positions) for mark in marks), initial=0)
    return [rows[a:b] for a, b in itertools.pairwise(ends)]


def in_slice(part: Lattice, axis: int, position: Position) -> tuple[float, float]:
    """The column and row of the voxel at a position, counted from the start of `part`."""
    column, row = IN_PLANE[axis]
    voxel = part.voxel_of_local(position) - part.first
    return (float(voxel[column]), float(voxel[row]))


def slice_shape(part: Lattice, axis: int) -> tuple[int, int]:
    """(rows, columns) of the slices along an axis (I, J, K)."""
    column, row = IN_PLANE[axis]
    sizes = part.last - part.first + 1
    return (int(sizes[row]), int(sizes[column]))


def _fits(mark: Mark, voxel: np.ndarray, lattice: Lattice) -> bool:
    """Whether a mask, whose first voxel (i, j, k) is given, is that of a slice of the lattice."""
    in_plane = list(IN_PLANE[mark.axis])
    starts = np.array_equal(voxel[in_plane], lattice.first[in_plane])
    return starts and mark.mask.shape == slice_shape(lattice, mark.axis)


def _box(mark: Mark, part: Lattice, axis: int) -> tuple[float, float, float, float]:
    (xa, ya), (xb, yb) = (in_slice(part, axis, position) for position in mark.positions)
    return (min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))


def _from_marks(marks: marking.Marks, lattice: Lattice) -> PromptSet:
    def at(voxel: marking.Voxel) -> Position:
        return _position(lattice.local(voxel))

    points = [
        Mark(marks.axis, (at(voxel),), label)
        for voxel, label in zip(marks.points, marks.labels, strict=True)
    ]
    boxes = [] if marks.box is None else [Mark(marks.axis, (at(marks.box[0]), at(marks.box[1])))]
    return PromptSet((*boxes, *points))


def _to_object(mark: Mark) -> dict[str, Any]:
    from SlideSAMLib.prompt_json import mask_to_object

    positions = [[_rounded(value) for value in position] for position in mark.positions]
    entry: dict[str, Any] = {"axis": AXES[mark.axis], mark.kind: positions}
    if mark.kind == "point":
        entry["label"] = mark.label
    elif mark.kind == "mask":
        entry["voxels"] = mask_to_object(mark.mask)
    return entry


def _from_object(entry: dict[str, Any]) -> Mark:
    from SlideSAMLib.prompt_json import mask_from_object

    kind = next((name for name in ("point", "box", "mask") if name in entry), None)
    if kind is None:
        raise ValueError("a mark is neither a point nor a box nor a mask")
    positions = tuple(_position(position) for position in entry[kind])
    if len(positions) != (2 if kind == "box" else 1):
        raise ValueError(f"wrong number of positions in a {kind}")
    label = int(entry.get("label", 1))
    if label not in (0, 1):
        raise ValueError("labels are 0 or 1")
    mask = mask_from_object(entry["voxels"]) if kind == "mask" else None
    return Mark(AXES.index(entry["axis"]), positions, label, mask)


def _rounded(value: float) -> float:
    """To what is exact in voxels of any size; decimals in mm would not be."""
    return float(f"{value:.12g}")


def _position(values: Any) -> Position:
    x, y, z = (float(v) for v in values)
    if not np.isfinite((x, y, z)).all():
        raise ValueError("a position is not finite")
    return (x, y, z)
