"""How far an object's outline may move from one slice to the next. No torch here.

Where an edge is hard to see, masks leak into what lies beside the object, a little more with every
slice. Real surfaces are rarely so flat that their outline jumps. So what lies farther outside the
outline of the slice before than the *reach* needs better evidence the farther it lies, and what
lies deeper inside needs less.
"""

from __future__ import annotations

import numpy as np

from .fusion import BACKGROUND, Patch, union
from .next_prompt import mask_box

STEEPNESS = 3.0  # logits per voxel beyond the reach
SURE = 4.0  # logits: what is that sure, p > 0.98, is left as it is
MOST_AWAY = 5.0  # logits taken at most: a network that is sure of a jump is believed ...
MOST_BACK = 2.0  # ... and given: less, since objects end and have hollows


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
    logits, outline, part = _framed(patch, before)
    won = _beyond((logits > -SURE) & ~outline, outline, spacing, reach)
    lost = _beyond((logits < SURE) & outline, ~outline, spacing, reach)
    logits = logits[part].copy()
    finest = min(spacing)
    if won is not None:
        logits -= np.minimum(STEEPNESS * won[part] / finest, MOST_AWAY)
    if lost is not None:
        logits += np.minimum(STEEPNESS * lost[part] / finest, MOST_BACK)
    return Patch(patch.corner, logits)


def _framed(patch: Patch, before: Patch) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """The patch's logits and the mask before on a frame around both, and where in it the patch is.

    The frame is a voxel wider than both: what lies outside of it is no part of the object.
    """
    top, left, bottom, right = union([patch, before])
    shape = (bottom - top + 2, right - left + 2)
    row, column = patch.corner[0] - top + 1, patch.corner[1] - left + 1
    part = np.s_[row : row + patch.logits.shape[0], column : column + patch.logits.shape[1]]
    logits = np.full(shape, BACKGROUND, np.float32)
    logits[part] = patch.logits
    corner = (before.corner[0] - top + 1, before.corner[1] - left + 1)
    return logits, Patch(corner, before.logits).mask(shape), part


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
    """Distance of every voxel from the nearest one of `origin`, mm, exact up to `most`; (h, w).

    Axis by axis; for the short distances of interest many times quicker than a full transform.
    """
    squares = np.where(origin, np.float32(0), np.float32(most**2))
    for axis, size in enumerate(spacing):
        along = np.moveaxis(squares, axis, 0)  # the axis in front
        start = along.copy()
        for steps in range(1, min(int(most / size) + 1, len(start))):
            moved = start + np.float32((steps * size) ** 2)
            np.minimum(along[steps:], moved[:-steps], out=along[steps:])
            np.minimum(along[:-steps], moved[steps:], out=along[:-steps])
    return np.sqrt(squares)
