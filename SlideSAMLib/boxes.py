"""Boxes in a slice: around masks, around each other, and larger. No torch here.

A box is (x0, y0, x1, y1) in voxels of the slice, corners inclusive.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Box = tuple[float, float, float, float]


def mask_box(mask: np.ndarray, ignore_fraction: float = 0.0) -> Box:
    """Bounding box of a mask with at least one voxel, bool (h, w).

    Connected parts smaller than `ignore_fraction` of the largest one are left out.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1], rows[-1]
    if ignore_fraction > 0:
        part = mask[y0 : y1 + 1, x0 : x1 + 1]  # parts are looked for where there are any
        kept = _without_specks(part, ignore_fraction)
        if kept is not part:
            left, top, right, bottom = mask_box(kept)
            return (left + x0, top + y0, right + x0, bottom + y0)
    return (float(x0), float(y0), float(x1), float(y1))


def _without_specks(mask: np.ndarray, fraction: float) -> np.ndarray:
    if _is_plainly_one(mask):
        return mask
    from scipy import ndimage  # only when it is needed: importing it takes a while

    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= fraction * sizes.max())[parts]


def _is_plainly_one(mask: np.ndarray) -> bool:
    """Whether every row has one run of voxels, next to that of the row above: then there is one
    part. False may be either; labelling the parts takes ten times as long."""
    first, count = mask.argmax(axis=1), np.count_nonzero(mask, axis=1)
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    if (last - first + 1 != count).any():  # gaps, or a row without voxels
        return False
    return bool((np.maximum(first[1:], first[:-1]) <= np.minimum(last[1:], last[:-1])).all())


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around boxes."""
    columns = list(zip(*boxes, strict=True))
    return (min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3]))


def grown(box: Box, dx: float, dy: float, shape: tuple[int, int]) -> Box:
    """The box, larger by dx on either side and by dy above and below, cut to the slice (H, W)."""
    x0, y0, x1, y1 = box
    height, width = shape
    return (
        max(x0 - dx, 0.0),
        max(y0 - dy, 0.0),
        min(x1 + dx, width - 1.0),
        min(y1 + dy, height - 1.0),
    )
