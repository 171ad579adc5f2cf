"""How far an object's outline may move from one slice to the next. No torch here.

Where an edge is hard to see, masks leak into what lies beside the object, a little more with every
slice. Real surfaces are rarely so flat that their outline jumps. So what lies farther outside the
outline of the slice before than the *reach* needs better evidence the farther it lies, and what
lies deeper inside needs less.
"""

from __future__ import annotations

import numpy as np

from .fusion import BACKGROUND, Patch, union

STEEPNESS = 3.0  # logits per voxel beyond the reach
SURE = 4.0  # logits: what is that sure, p > 0.98, is left as it is
MOST = 5.0  # logits taken or given at most: a network that is sure of a jump is believed


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
        logits -= np.minimum(STEEPNESS * won[part] / finest, MOST)
    if lost is not None:
        logits += np.minimum(STEEPNESS * lost[part] / finest, MOST)
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
    """How far beyond the reach of `origin` the voxels lie, float32 mm; 0 where they do not.

    None where all of them lie within the reach, which is the rule and quickly seen.
    """
    from scipy import ndimage  # only when it is needed: importing it takes a while

    if not voxels.any():
        return None
    steps = ndimage.distance_transform_cdt(~origin, "chessboard")
    if steps[voxels].max() * np.hypot(*spacing) <= reach:
        return None
    distance = ndimage.distance_transform_edt(~origin, sampling=spacing)
    beyond = np.where(voxels, np.maximum(distance - reach, 0), 0).astype(np.float32)
    return beyond if beyond.any() else None
