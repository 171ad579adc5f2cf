"""Marks of a person in RAS: to voxels of the lattice, to prompts on slices, to saved text.

A mark is kept as voxel indices (i, j, k) of the segmentation's lattice, so it moves with the
segmentation when a transform does. Arrays are (K, J, I), so the slide axis I, J, K (0, 1, 2)
is array axis 2, 1, 0, and a slice has the other two array axes as rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text import tr as _
from .lattice import Lattice
from .orientation import AXES

TAG = "SlideSAM.Prompts"
# (column axis, row axis) of a slice for each slide axis, as indices into (I, J, K).
IN_PLANE = {0: (1, 2), 1: (0, 2), 2: (0, 1)}

Voxel = tuple[int, int, int]

# What texts of others can raise: numbers beyond all bounds, too many brackets, masks too large.
UNREADABLE = (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Marks:
    """What was marked, in voxels (i, j, k) of the lattice.

    axis : slide axis as an index into (I, J, K).
    points, labels : voxels, and 1 (positive) or 0 (negative) for each.
    box : two opposite corners on one slice, or None.
    """

    axis: int
    points: tuple[Voxel, ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[Voxel, Voxel] | None = None

    def to_json(self) -> str:
        """Text for the segment's tag; `from_json` reads it."""
        content: dict[str, object] = {
            "version": 1,
            "axis": AXES[self.axis],
            "points": self.points,
            "labels": self.labels,
        }
        if self.box is not None:
            content["box"] = self.box
        return json.dumps(content, separators=(",", ":"))


@contextmanager
def reading(text: str) -> Iterator[None]:
    """Around the reading of a segment's tag: ValueError, whatever is wrong with the text."""
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(
            _("The saved prompts cannot be read ({error}): {text!r}.").format(
                error=error, text=text[:80]
            )
        ) from error


def from_json(text: str) -> Marks:
    """Read what `Marks.to_json` wrote. Raises ValueError where the text is something else."""
    with reading(text):
        return from_content(json.loads(text))


def from_content(content: dict[str, Any]) -> Marks:
    """The marks of what was JSON; for use within `reading`."""
    if content["version"] != 1:
        raise ValueError("unknown version")
    if any(label not in (0, 1) for label in content["labels"]):
        raise ValueError("labels are 0 or 1")
    box = content.get("box")
    return Marks(
        axis=AXES.index(content["axis"]),
        points=tuple(_voxel(p) for p in content["points"]),
        labels=tuple(int(v) for v in content["labels"]),
        box=None if box is None else (_voxel(box[0]), _voxel(box[1])),
    )


def from_ras(
    lattice: Lattice,
    axis: int,
    points: Sequence[Sequence[float]] | None,
    labels: Sequence[int] | None,
    box: Sequence[Sequence[float]] | None,
) -> Marks:
    """World points and box corners (RAS, mm) to marks on the lattice.

    Raises
    ------
    ValueError
        Nothing is marked; a number is missing or not finite; a point or the box lies outside the
        lattice; the corners of the box lie on different slices; labels that do not fit.
    """
    ras = _triples(points, "points")
    try:
        signs = [1] * len(ras) if labels is None else list(labels)
        usable = all(sign in (0, 1) for sign in signs)
    except (TypeError, ValueError):  # no sequence, or one of arrays
        usable = False
    if not usable:
        raise ValueError(_("Point labels must be 1 (positive) or 0 (negative)."))
    if len(signs) != len(ras):
        raise ValueError(
            _("There are {count} points but {labels} labels: give one each.").format(
                count=len(ras), labels=len(signs)
            )
        )
    if box is None and 1 not in signs:
        raise ValueError(_("Nothing is marked: give a positive point or a box."))
    voxels = []
    for point in ras:
        voxel = lattice.voxel(point)
        if not lattice.contains(voxel):
            raise ValueError(
                _("The point {position} is outside the volume.").format(position=_text(point))
            )
        voxels.append(_voxel(voxel))
    return Marks(axis, tuple(voxels), tuple(int(s) for s in signs), _box(lattice, axis, box))


def to_prompts(marks: Marks, lattice: Lattice) -> list:
    """The marks as prompts on slices of an array on `lattice`, one per marked slice.

    Raises ValueError (SlideSAMLib.InputError) where a slice has negative points only.
    """
    from SlideSAMLib import SlicePrompt

    column, row = IN_PLANE[marks.axis]
    first = lattice.first
    points: dict[int, list] = {}
    for voxel, label in zip(marks.points, marks.labels, strict=True):
        here = np.array(voxel) - first
        entry = (float(here[column]), float(here[row]), label)
        points.setdefault(int(here[marks.axis]), []).append(entry)
    boxes = {}
    if marks.box is not None:
        a, b = (np.array(corner) - first for corner in marks.box)
        low, high = np.minimum(a, b), np.maximum(a, b)
        boxes[int(a[marks.axis])] = tuple(
            float(v) for v in (low[column], low[row], high[column], high[row])
        )
    return [
        SlicePrompt(
            index=index,
            box=boxes.get(index),
            points=[(x, y) for x, y, _ in points.get(index, [])],
            labels=[label for _, _, label in points.get(index, [])],
        )
        for index in sorted({*points, *boxes})
    ]


def _box(
    lattice: Lattice, axis: int, box: Sequence[Sequence[float]] | None
) -> tuple[Voxel, Voxel] | None:
    if box is None:
        return None
    corners = _triples(box, "box")
    if len(corners) != 2:
        raise ValueError(_("A box needs two opposite corners [[R, A, S], [R, A, S]]."))
    a, b = (lattice.voxel(corner) for corner in corners)
    if a[axis] != b[axis]:
        raise ValueError(
            _(
                "The corners of the box lie on the slices {a} and {b} along {axis}: put both "
                "on one slice."
            ).format(a=a[axis], b=b[axis], axis=AXES[axis])
        )
    low, high = np.minimum(a, b), np.maximum(a, b)
    if np.any(high < lattice.first) or np.any(low > lattice.last):
        raise ValueError(
            _("The box {start} to {end} is outside the volume.").format(
                start=_text(corners[0]), end=_text(corners[1])
            )
        )
    low, high = np.maximum(low, lattice.first), np.minimum(high, lattice.last)
    if any(low[n] == high[n] for n in IN_PLANE[axis]):
        raise ValueError(_("The box is empty: it must cover more than one voxel each way."))
    return (_voxel(low), _voxel(high))


def _triples(values: Sequence[Sequence[float]] | None, what: str) -> np.ndarray:
    """RAS triples as float64 (N, 3)."""
    try:
        rows = [[float(v) for v in triple] for triple in (() if values is None else values)]
        array = np.array(rows) if rows else np.empty((0, 3))
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 3 or not np.isfinite(array).all():
        raise ValueError(
            _("The {what} must be triples [R, A, S] of finite numbers in mm.").format(what=what)
        )
    return array


def _voxel(values: Sequence[int]) -> Voxel:
    i, j, k = (int(v) for v in values)
    return (i, j, k)


def _text(ras: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.1f}" for v in ras) + ") mm"
