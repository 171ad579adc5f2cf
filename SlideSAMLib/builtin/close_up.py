"""Looking closer at a correction: where to look, once the whole object has been asked. No torch.

A click mends little where the object is large beside its error: on the raster of the whole object
the error is a few cells. So the same prompts, with the mask that they led to, are asked once more
on a small region about the click and what it has changed.

Source: focus crops of X. Chen et al., FocalClick, CVPR 2022 (arXiv:2204.02574).
"""

from __future__ import annotations

import numpy as np

from ..next_prompt import Box, around, mask_box

LEAST = 0.25  # side of what is looked at, and reach of a click, over the longer side of the object
MOST = 0.75  # of the side of the region of the whole object: no closer look beyond that
FACTOR = 1.6  # side of the region over the longer side of what is looked at


def changed_box(
    before: np.ndarray,
    after: np.ndarray,
    point: tuple[float, float],
    spacing: tuple[float, float],
) -> Box:
    """The box in voxels around a click (x, y) and the piece of change nearest to it.

    before, after : bool (H, W), masks of a slice before and after the click; `after` has voxels.
    spacing : (row, column) in mm. Pieces farther off than a quarter of the object do not count.
    """
    from scipy import ndimage

    row_mm, column_mm = spacing
    x0, y0, x1, y1 = mask_box(after)
    reach = LEAST * max((x1 - x0 + 1) * column_mm, (y1 - y0 + 1) * row_mm)
    x, y = point
    dx, dy = reach / 2 / column_mm, reach / 2 / row_mm
    boxes = [(x - dx, y - dy, x + dx, y + dy)]
    pieces, _ = ndimage.label(before != after)
    rows, columns = np.nonzero(pieces)
    if len(rows):
        distance = np.hypot((columns - x) * column_mm, (rows - y) * row_mm)
        nearest = distance.argmin()
        if distance[nearest] <= reach:
            boxes.append(mask_box(pieces == pieces[rows[nearest], columns[nearest]]))
    return around(boxes)
