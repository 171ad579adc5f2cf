"""How far an object's outline may move from one slice to the next. No torch here.

Where an edge is hard to see, masks leak into what lies beside the object, a little more with every
slice. Real surfaces are rarely so flat that their outline jumps. So what lies farther outside the
outline of the slice before than the *reach* needs better evidence the farther it lies, and what
lies deeper inside needs less.
"""

from __future__ import annotations

import numpy as np

from .next_prompt import mask_box
from .patches import BACKGROUND, REMOTE, Patch, common_extent

STEEPNESS = 3.0  # logits per voxel beyond the reach
SURE = REMOTE  # logits: what is that sure, p > 0.98, is left as it is
MOST_AWAY = 5.0  # logits taken at most: a network that is sure of a jump is believed ...
MOST_BACK = 2.0  # ... and given: less, since objects end and have hollows
MOST_STEPS = 32  # along both axes together; more cost more than a full transform


def reach_mm(spacing: tuple[float, float, float], slope: float, voxels: float) -> float:
    """How far an outline may move: `slope` mm per mm along the slide, plus voxels of the slice.

    spacing : (gap, row, column) in mm.
    """
    return slope * spacing[0] + voxels * min(spacing[1:])


def held(patch: Patch, before: Patch, spacing: tuple[float, float], reach: float) -> Patch:
    """The patch with its outline held to that of the slice before.

    Beyond the reach, logits outside the outline fall with the distance and logits inside rise;
    those that are SURE the same way are left. An empty mask stays empty, and one that follows an
    empty one as it is.

    patch : logits (h, w); before : the slice before.
    spacing : (row, column) in mm; reach : mm, inf for no limit.
    """
    if not np.isfinite(reach) or not patch.voxels or not before.voxels:
        return patch
    frame = _Frame(patch, before)
    won = _beyond((frame.logits > -SURE) & ~frame.outline, frame.outline, spacing, reach)
    lost = _beyond((frame.logits < SURE) & frame.outline, ~frame.outline, spacing, reach)
    if won is None and lost is None:
        return patch
    logits = patch.logits.copy()
    finest = min(spacing)
    here = logits[frame.seen]
    if won is not None:
        here -= np.minimum(STEEPNESS * won[frame.part] / finest, MOST_AWAY)
    if lost is not None:
        here += np.minimum(STEEPNESS * lost[frame.part] / finest, MOST_BACK)
    rows, columns = frame.seen
    return Patch(patch.corner, logits, (rows.start, columns.start, rows.stop, columns.stop))


class _Frame:
    """The part of the slice in which anything can change, one voxel wider on every side.

    It holds the extent of the patch and that of the slice before; nothing else is inside or near.

    logits : those of the patch, BACKGROUND where it did not look or nothing is near.
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
        self.logits = np.full(shape, BACKGROUND, np.float32)
        self.logits[self.part] = patch.logits[self.seen]
        self.outline = np.zeros(shape, bool)
        y, x = before.start[0] - top, before.start[1] - left
        self.outline[y : y + before.filled.shape[0], x : x + before.filled.shape[1]] = before.filled


def _beyond(
    voxels: np.ndarray, origin: np.ndarray, spacing: tuple[float, float], reach: float
) -> np.ndarray | None:
    """How far beyond the reach of `origin` the voxels lie, mm, up to where nothing changes.

    None where there are no such voxels.
    """
    if not voxels.any():
        return None
    most = reach + MOST_AWAY / STEEPNESS * min(spacing)
    x0, y0, x1, y1 = (int(edge) for edge in mask_box(voxels))
    rows, columns = (int(most / size) + 1 for size in spacing)
    part = np.s_[max(y0 - rows, 0) : y1 + rows + 1, max(x0 - columns, 0) : x1 + columns + 1]
    out = np.zeros(voxels.shape, np.float32)
    out[part] = np.maximum(_distances(origin[part], spacing, most) - reach, 0)
    return out * voxels


def _distances(origin: np.ndarray, spacing: tuple[float, float], most: float) -> np.ndarray:
    """Distance of every voxel from the nearest one of `origin`, mm, exact up to `most`.

    float32 (h, w). Steps are many times quicker than a full transform for short distances; their
    number grows with the slice gap.
    """
    steps = sum(
        min(int(most / size) + 1, length)
        for size, length in zip(spacing, origin.shape, strict=True)
    )
    if steps <= MOST_STEPS or not origin.any():  # a full transform needs an origin
        return _by_steps(origin, spacing, most)
    from scipy import ndimage  # here, for few need it

    full = ndimage.distance_transform_edt(~origin, sampling=spacing)
    return np.minimum(full, most).astype(np.float32)


def _by_steps(origin: np.ndarray, spacing: tuple[float, float], most: float) -> np.ndarray:
    """See `_distances`; axis by axis, every step once."""
    squares = np.where(origin, np.float32(0), np.float32(most**2))
    for axis, size in enumerate(spacing):
        along = np.moveaxis(squares, axis, 0)  # the axis in front
        start = along.copy()
        for steps in range(1, min(int(most / size) + 1, len(start))):
            moved = start + np.float32((steps * size) ** 2)
            np.minimum(along[steps:], moved[:-steps], out=along[steps:])
            np.minimum(along[:-steps], moved[steps:], out=along[:-steps])
    return np.sqrt(squares)
