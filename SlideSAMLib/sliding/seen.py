"""The intensity window in which a model sees what is prompted. No torch here.

The window of a volume suits most of what it shows, not all: a lung, its airways and what lies in it
are one black in that of CT, teeth and metal one white. Where it cuts off the edge of what is
prompted, it is widened for that prompt.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..boxes import Box, mask_box
from ..intensity import widened_window
from ..prompts import SlicePrompt
from ..protocol import SliceModel
from ..stack import Stack

AROUND = 1.7  # of a box's sides: what counts as its surroundings
POINT_INSIDE, POINT_AROUND = 1, 24  # voxels on each side of a point
# Of the window's width. A point in a lung mostly means the lung, which is seen best as one black.
POINT_CONTRAST = 0.15
SAMPLED = 128  # so many rows and columns of a larger part are looked at, or up to twice as many


def seen_stack(stack: Stack, prompts: Iterable[SlicePrompt], model: SliceModel) -> Stack:
    """The stack as the model is to see it: with a window that no other prompts change any more.

    A window that somebody chose stays as it is, and so does that of a model that sees whole slices:
    what it makes of them is kept for all prompts, and takes too long to be made for each.

    prompts : one per slice, inside the stack. The first one counts, and those with a box or without
        a mask: corrections of what the slide found elsewhere must not change the window.
    """
    if stack.settled:
        return stack
    low, high = stack.intensity
    if model.traits.region == "crop":
        for number, prompt in enumerate(prompts):
            if number == 0 or prompt.box is not None or prompt.mask is None:
                window = _window_for(stack, prompt)
                low, high = min(low, window[0]), max(high, window[1])
    return stack.in_window((low, high))


def _window_for(stack: Stack, prompt: SlicePrompt) -> tuple[float, float]:
    """The stack's window, wider where it hides the edge of what is prompted."""
    box = prompt.clamped_box(stack.height, stack.width)
    points = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if label]
    if box is None and not points:
        box = mask_box(prompt.mask)
    if box is None:  # nobody knows how large the object is: its surroundings may be more of it
        return widened_window(
            stack.intensity, *_about_point(stack, prompt.index, *points[0]), POINT_CONTRAST
        )
    return widened_window(stack.intensity, *_in_box(stack, prompt.index, box))


def _in_box(stack: Stack, index: int, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Grey values in the middle of a box, and of its surroundings."""
    x0, y0, x1, y1 = box
    x, y, half_x, half_y = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
    greys, across, down = _part(stack, index, x, y, AROUND * half_x, AROUND * half_y)
    u, v = across / half_x, down / half_y
    return greys[u**2 + v**2 <= 0.5], greys[np.maximum(u, v) > 1.05]


def _about_point(stack: Stack, index: int, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Grey values at a point, and of all about it."""
    greys, across, down = _part(stack, index, x, y, POINT_AROUND, POINT_AROUND)
    return greys[np.maximum(across, down) < POINT_INSIDE + 0.5], greys


def _part(
    stack: Stack, index: int, x: float, y: float, reach_x: float, reach_y: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greys (h, w) about a place of a slice, and how far it is to their columns and rows."""
    columns, rows = _places(x, reach_x, stack.width), _places(y, reach_y, stack.height)
    greys = stack.greys(index)[np.ix_(rows, columns)].astype(np.float64)
    return greys, np.abs(columns - x)[None], np.abs(rows - y)[:, None]


def _places(centre: float, reach: float, size: int) -> np.ndarray:
    """Rows or columns up to `reach` from the centre; of many only some, evenly spaced."""
    first, last = max(0, int(np.ceil(centre - reach))), min(size - 1, int(centre + reach))
    return np.arange(first, last + 1, max(1, (last - first) // SAMPLED))
