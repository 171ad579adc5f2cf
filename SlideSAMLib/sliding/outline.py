"""How far an object's outline may move from one slice to the next. No torch here.

Where an edge is hard to see, masks leak into what lies beside the object, a little more with every
slice. Real surfaces are rarely so flat that their outline jumps. So what lies farther outside the
outline of the slice before than the *reach* needs better evidence the farther it lies, and what
lies deeper inside needs a little less: only what is in doubt comes back. What has come back is part
of what is known of the next slice, and a wall that comes up inside an object would stay filled.

A vessel that runs at a flat angle to the slices moves by more than that, but it does so from slice
to slice. What has moved is expected to move on: see `moved_on`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..patches import REMOTE, Patch, common_extent

MOVING = 3  # slices that must tell of a movement: once, a mask may have jumped to something else
SAME_SIZE = 1.25  # ratio of areas up to which one mask may be the other, moved: leaks grow
SAME_WAY = 0.97  # cosine between two movements, the least: 14 degrees
STEEPNESS = 3.0  # logits per voxel beyond the reach
SURE = REMOTE  # logits: what is that sure, p > 0.98, is left as it is
MOST_AWAY = 5.0  # logits taken at most: a network that is sure of a jump is believed ...
MOST_BACK = 1.0  # ... and given, p > 0.27: less, since objects end and have hollows
MOST_STEPS = 32  # along both axes together; more cost more than a full transform
SLACK = 1.0 + 1e-6  # for rounding, where voxels are sorted by whether they lie within a distance
ENOUGH = 1.01  # so much farther away than is needed, rounding cannot leave less than the most


def reach_mm(spacing: tuple[float, float, float], slope: float, voxels: float) -> float:
    """How far an outline may move: `slope` mm per mm along the slide, plus voxels of the slice.

    spacing : (gap, row, column) in mm.
    """
    return slope * spacing[0] + voxels * min(spacing[1:])


def moved_on(past: Sequence[Patch], spacing: tuple[float, float], reach: float) -> Patch:
    """What the next slice's outline is held to: the newest mask, and that mask moved on.

    It is moved on where the masks of the last three slices have about the same size, and their
    middles have moved by more than the reach twice, the same way: by the shorter of the two
    movements. Else it is the newest patch itself.

    past : the newest first; spacing : (row, column) in mm; reach : mm.
    """
    newest = past[0]
    areas = [patch.voxels for patch in past[:MOVING]]
    if len(areas) < MOVING or not all(areas) or max(areas) > SAME_SIZE * min(areas):
        return newest
    middles = np.array([patch.middle for patch in past[:MOVING]])
    steps = (middles[:-1] - middles[1:]) * spacing  # mm, the newest first
    ways = np.hypot(*steps.T)
    if ways.min() <= reach or steps[0] @ steps[1] < SAME_WAY * ways.prod():
        return newest
    rows, columns = np.rint(steps[0] * (ways.min() / ways[0]) / spacing).astype(int).tolist()
    moved = Patch(
        (newest.corner[0] + rows, newest.corner[1] + columns), newest.logits, newest.extent
    )
    return _united(newest, moved)


def _united(first: Patch, second: Patch) -> Patch:
    """The masks of two patches in one, without their logits."""
    top, left, bottom, right = common_extent([first, second], (0, 0))
    logits = np.full((bottom - top, right - left), -SURE, np.float32)
    for patch in (first, second):
        y, x = patch.start[0] - top, patch.start[1] - left
        part = logits[y : y + patch.filled.shape[0], x : x + patch.filled.shape[1]]
        part[patch.filled] = SURE
    return Patch((top, left), logits)


def held(patch: Patch, before: Patch, spacing: tuple[float, float], reach: float) -> Patch:
    """The patch with its outline held to that of the slice before, or what is expected of it.

    Beyond the reach, logits outside the outline fall with the distance and logits inside rise;
    those that are SURE the same way are left. An empty mask stays empty, and one that follows an
    empty one as it is.

    patch : logits (h, w); before : the slice before.
    spacing : (row, column) in mm; reach : mm, inf for no limit.
    """
    if not np.isfinite(reach) or not patch.voxels or not before.voxels:
        return patch
    frame = _Frame(patch, before)
    logits = patch.logits[frame.seen]
    outline = frame.outline[frame.part]
    # `>` of two masks: what is in the first only.
    gained, lost = (logits > -SURE) > outline, (logits < SURE) & outline
    taken = _moved(gained, frame.part, frame.outline, spacing, reach, (MOST_AWAY, 1.0))
    given = _moved(lost, frame.part, ~frame.outline, spacing, reach, (MOST_BACK, ENOUGH))
    if taken is None and given is None:
        return patch
    changed = patch.logits.copy()
    here = changed[frame.seen]
    if taken is not None:
        here -= taken
    if given is not None:
        here += given
    rows, columns = frame.seen
    return Patch(patch.corner, changed, (rows.start, columns.start, rows.stop, columns.stop))


class _Frame:
    """The part of the slice in which anything can change, one voxel wider on every side.

    It holds the extent of the patch and that of the slice before; nothing else is inside or near.

    outline : the mask before.
    part : the piece of the frame that the patch has looked at; seen : the same in its own rows and
        columns.
    """

    def __init__(self, patch: Patch, before: Patch) -> None:
        top, left, bottom, right = common_extent([patch, before], (0, 0))
        top, left = top - 1, left - 1
        shape = (bottom + 1 - top, right + 1 - left)
        height, width = patch.logits.shape
        y, x = patch.corner[0] - top, patch.corner[1] - left
        self.part = np.s_[
            max(y, 0) : min(y + height, shape[0]), max(x, 0) : min(x + width, shape[1])
        ]
        self.seen = tuple(
            slice(axis.start - corner, axis.stop - corner)
            for axis, corner in zip(self.part, (y, x), strict=True)
        )
        self.outline = np.zeros(shape, bool)
        y, x = before.start[0] - top, before.start[1] - left
        self.outline[y : y + before.filled.shape[0], x : x + before.filled.shape[1]] = before.filled


def _moved(
    voxels: np.ndarray,
    part: tuple[slice, slice],
    origin: np.ndarray,
    spacing: tuple[float, float],
    reach: float,
    most: tuple[float, float],
) -> np.ndarray | None:
    """By how many logits to move voxels for being beyond the reach of `origin`: float32 (h, w).

    None where there is nothing to move. `voxels` are a part of what `origin` covers, and so is the
    answer.

    most : logits at most, and how much farther away than these are worth distances are told apart.
    """
    if not voxels.any():
        return None
    finest = min(spacing)
    limit = reach + most[1] * (most[0] / STEEPNESS * finest)  # mm

    def logits(distances: np.ndarray) -> np.ndarray:
        return np.minimum(STEEPNESS * np.maximum(distances - reach, 0) / finest, most[0])

    if _steps(origin.shape, spacing, limit) > MOST_STEPS:
        return logits(_transformed(origin, spacing, limit)[part]) * voxels
    steps = _Steps(origin, spacing, limit)
    doubtful = voxels > steps.within(reach / SLACK)[part]
    if not doubtful.any():
        return None
    far = doubtful > steps.within(limit * SLACK)[part]
    moved = far * logits(steps.limit)
    # Between the two there are few: an index of booleans, or one for each axis, would take longer.
    places = np.flatnonzero(doubtful ^ far)
    rows = places // far.shape[1]
    columns = places - rows * far.shape[1]
    measured = steps.distances(rows + part[0].start, columns + part[1].start)
    moved.reshape(-1)[places] = logits(measured)
    return moved


class _Steps:
    """Distances from the nearest voxel of `origin`, exact up to `most` mm, where they matter.

    Most voxels in doubt lie within the reach, or so far beyond it that it does not matter how far.
    Whole numbers of steps, a byte for each voxel, tell at next to no cost which do not; only those
    are measured.

    down, across : how many steps are of use along either axis.
    steps : how many rows away the nearest voxel of the origin in the same column is, at most one
        more than are of use; wider than the origin, so that no step to the side leaves its row.
    """

    def __init__(self, origin: np.ndarray, spacing: tuple[float, float], most: float) -> None:
        self.spacing, self.most, self.width = spacing, most, origin.shape[1]
        self.down, self.across = (
            min(int(most / size), length - 1)
            for size, length in zip(spacing, origin.shape, strict=True)
        )
        start = np.full((len(origin), self.width + 2 * self.across), self.down + 1, np.uint8)
        inner = start[:, self.across : self.across + self.width]
        inner *= ~origin  # an index of booleans would take ten times as long
        self.steps = start.copy()
        for step in range(1, self.down + 1):
            moved = start[:-step] + np.uint8(step)
            np.minimum(self.steps[step:], moved, out=self.steps[step:])
            moved = start[step:] + np.uint8(step)
            np.minimum(self.steps[:-step], moved, out=self.steps[:-step])

    def within(self, reach: float) -> np.ndarray:
        """Where the origin is within reach, to within rounding: bool (h, w)."""
        row, column = self.spacing
        flat = self.steps.ravel()
        within = flat <= min(int(reach / row), self.down)
        for step in range(1, min(int(reach / column), self.across) + 1):
            left = math.sqrt(max(reach**2 - (step * column) ** 2, 0.0))
            near = flat <= min(int(left / row), self.down)
            within[step:] |= near[:-step]
            within[:-step] |= near[step:]
        return within.reshape(self.steps.shape)[:, self.across : self.across + self.width]

    @property
    def limit(self) -> np.ndarray:
        """The distance, mm, of what has no voxel of the origin near."""
        return np.sqrt(np.array([self.most**2], np.float32))  # a scalar may become float64

    def distances(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distance of some voxels from the origin, mm, at most `most`: float32 (n,)."""
        limit = np.float32(self.most**2)
        squares = [(n * self.spacing[0]) ** 2 for n in range(self.down + 1)]
        squares = np.minimum(np.array([*squares, limit], np.float32), limit)
        flat, places = self.steps.ravel(), rows * self.steps.shape[1] + (columns + self.across)
        nearest = squares.take(flat.take(places))
        for step in range(1, self.across + 1):
            beside = np.minimum(flat.take(places - step), flat.take(places + step))
            beside = squares.take(beside)
            beside += np.float32((step * self.spacing[1]) ** 2)
            np.minimum(nearest, beside, out=nearest)
        return np.sqrt(nearest)


def _transformed(origin: np.ndarray, spacing: tuple[float, float], most: float) -> np.ndarray:
    """Distance of every voxel from the nearest one of `origin`, mm, at most `most`: float32 (h, w).

    Quicker than steps where they are many, which grow with the slice gap.
    """
    if not origin.any():  # the transform needs one
        return np.full(origin.shape, most, np.float32)
    from scipy import ndimage  # here, for few need it

    full = ndimage.distance_transform_edt(~origin, sampling=spacing)
    return np.minimum(full, most).astype(np.float32)


def _steps(shape: tuple[int, int], spacing: tuple[float, float], most: float) -> int:
    """How many steps along both axes together are of use in a plane."""
    return sum(
        min(int(most / size) + 1, length) for size, length in zip(spacing, shape, strict=True)
    )
