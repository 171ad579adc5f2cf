"""Prompts: what a person marks on one slice. No torch here.

Coordinates are voxels of the slice: x is the column, y the row, voxel centres are integers.
Boxes are (x0, y0, x1, y1) with inclusive corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .boxes import Box
from .errors import InputError


@dataclass(frozen=True, eq=False)
class SlicePrompt:
    """What was marked on one slice: a box, points, a mask, or any mix of them.

    Parameters
    ----------
    index : int
        Slice index along the slide axis.
    box : (x0, y0, x1, y1), optional
        Corners in voxels, inclusive.
    points : sequence of (x, y), optional
        Points in voxels; fractions are allowed. In the order in which they were given: without a
        box the built-in model takes the size of the object from the first positive one, and of more
        than 16 it sees the newest.
    labels : sequence of int, optional
        One per point: 1 positive (the default), 0 negative.
    mask : bool array (H, W), optional
        An existing mask of the slice to start from.

    Raises
    ------
    InputError
        Nothing is marked, the box is empty, inverted or not finite, the labels do not fit the
        points, a label is neither 0 nor 1, there is nothing but negative points, or something is
        of another kind than it must be.
    """

    index: int
    box: Box | None = None
    points: Sequence[tuple[float, float]] | None = None
    labels: Sequence[int] | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", _whole(self.index))
        object.__setattr__(self, "box", _box(self.box))
        points, labels = checked_points(self.points, self.labels)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask, self.index))
        if self.box is None and self.mask is None and 1 not in labels:
            raise InputError(
                f"The prompt on slice {self.index} marks nothing: give a box, a positive point or "
                "a mask."
            )

    def check_inside(self, slices: int, height: int, width: int) -> None:
        """Raise InputError unless the prompt lies inside a stack of (slices, height, width)."""
        if not 0 <= self.index < slices:
            raise InputError(
                f"Slice {self.index} is outside the volume: the slices along this axis are 0 to "
                f"{slices - 1}."
            )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x1 < -0.5 or y1 < -0.5 or x0 > width - 0.5 or y0 > height - 0.5:
                raise InputError(
                    f"The box {self.box} on slice {self.index} is outside the slice "
                    f"({width} columns x {height} rows)."
                )
        for x, y in self.points:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise InputError(
                    f"The point ({x:g}, {y:g}) on slice {self.index} is outside the slice "
                    f"({width} columns x {height} rows)."
                )
        if self.mask is not None and self.mask.shape != (height, width):
            raise InputError(
                f"The mask prompt on slice {self.index} has the shape {self.mask.shape}, but the "
                f"slice is {height} rows x {width} columns."
            )

    @property
    def points_alone(self) -> bool:
        """Whether neither a box nor a mask says how large the object is."""
        return self.box is None and self.mask is None

    def clamped_box(self, height: int, width: int) -> Box | None:
        """The box cut to the slice, or None where there is none."""
        if self.box is None:
            return None
        x0, y0, x1, y1 = self.box
        return (max(x0, 0.0), max(y0, 0.0), min(x1, width - 1.0), min(y1, height - 1.0))


def check_kind(prompt: object) -> None:
    """Raise InputError unless it is a SlicePrompt."""
    if not isinstance(prompt, SlicePrompt):
        raise InputError(
            f"Prompts must be SlicePrompt objects, not {type(prompt).__name__}: "
            "use SlicePrompt(index=..., box=..., points=..., labels=...)."
        )


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, of whatever type; True and False are none."""
    try:
        return not isinstance(value, bool | np.bool_) and bool(int(value) == value)
    except (TypeError, ValueError, OverflowError):
        return False


def _whole(index: int) -> int:
    if not is_whole(index):
        raise InputError(f"The slice index must be a whole number, not {index!r}.")
    return int(index)


def _mask(values: np.ndarray, index: int) -> np.ndarray:
    mask = np.asarray(values)
    if mask.dtype.kind not in "biuf" or (mask.dtype.kind == "f" and not _all_0_or_1(mask)):
        raise InputError(f"The mask prompt on slice {index} must be an array of True and False.")
    if mask.ndim != 2 or not mask.any():
        raise InputError(
            f"The mask prompt on slice {index} must be a 2D array with at least one voxel set."
        )
    return mask.astype(bool)


def _all_0_or_1(mask: np.ndarray) -> bool:
    return bool(((mask == 0) | (mask == 1)).all())


def _box(box: Sequence[float] | None) -> Box | None:
    if box is None:
        return None
    try:
        values = () if isinstance(box, str) else tuple(float(v) for v in box)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if len(values) != 4 or not np.isfinite(values).all():
        raise InputError(f"A box needs four finite numbers X0 Y0 X1 Y1, not {box!r}.")
    x0, y0, x1, y1 = values
    if x1 < x0 or y1 < y0:
        raise InputError(f"The box {values} is inverted: X1 must be >= X0 and Y1 >= Y0.")
    if x1 == x0 or y1 == y0:
        raise InputError(f"The box {values} is empty: it must cover more than one voxel each way.")
    return values


def checked_points(
    points: Sequence[tuple[float, float]] | None, labels: Sequence[int] | None
) -> tuple[tuple[tuple[float, float], ...], tuple[int, ...]]:
    """Points and labels as a `SlicePrompt` holds them; raises InputError as it does."""
    try:
        pairs = tuple((float(x), float(y)) for x, y in ([] if points is None else points))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"Points must be pairs (x, y) of numbers, not {points!r}.") from None
    if not np.isfinite(pairs).all():
        raise InputError(f"Points must be finite numbers, not {pairs}.")
    try:
        signs = (1,) * len(pairs) if labels is None else tuple(labels)
        good = all(sign in (0, 1) for sign in signs)
    except (TypeError, ValueError):
        raise InputError(f"Point labels must be a list of 1 and 0, not {labels!r}.") from None
    if len(signs) != len(pairs):
        raise InputError(f"There are {len(pairs)} points but {len(signs)} labels: give one each.")
    if not good:
        raise InputError("Point labels must be 1 (positive) or 0 (negative).")
    return pairs, tuple(int(sign) for sign in signs)
