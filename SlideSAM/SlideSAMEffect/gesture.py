"""Press, move and release of the left button in a slice view: a click, or a box being dragged.

A press need not be followed by a release (a dialog may swallow it), and a release need not follow
a press (a double click ends with one): each press starts anew, and a lone release means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from SlideSAMBridge.drawing import slice_views

# A drag begins this far from the press, in Qt pixels; hands shake.
THRESHOLD = 4


@dataclass(frozen=True)
class Click:
    """A click at a world position in mm (RAS); label 1 positive, 0 negative."""

    ras: tuple[float, ...]
    label: int


@dataclass(frozen=True)
class Box:
    """Two corners as world positions in mm (RAS)."""

    corners: tuple[tuple[float, ...], tuple[float, ...]]


class Gesture:
    """What the left button is doing in one of the views.

    view : the view widget where it was pressed; None while it is up.
    start : world position of the press, mm. dragging : whether it has become a box.
    """

    def __init__(self) -> None:
        self.view: Any = None
        self.start: np.ndarray | None = None
        self.dragging = False
        self._xy = np.zeros(2)
        self._label = 1
        self._plane: np.ndarray | None = None
        self._threshold = float(THRESHOLD)

    def press(
        self, view: Any, slice_node: Any, xy: Sequence[float], negative: bool, ratio: float
    ) -> None:
        """The button went down; `ratio` is render window pixels per Qt pixel."""
        self.view, self.dragging = view, False
        self._xy, self._label = np.array(xy, float), 0 if negative else 1
        # Kept in mm: after pan or zoom the pixel would be another place.
        self.start = slice_views.ras_of(slice_node, xy)
        self._plane = slice_views.plane(slice_node)
        self._threshold = THRESHOLD * ratio

    def move(self, slice_node: Any, xy: Sequence[float]) -> bool:
        """The mouse moved; whether a box is being dragged now."""
        if self._label and np.linalg.norm(np.array(xy, float) - self._xy) > self._threshold:
            self.dragging = True
        return self.dragging

    def holds(self, slice_node: Any) -> bool:
        """Whether the view still shows the plane where the button went down."""
        return self._plane is not None and slice_views.same_plane(slice_node, self._plane)

    def release(self, slice_node: Any, xy: Sequence[float]) -> Click | Box | None:
        """The button went up; what that means, if anything."""
        if self.view is None:
            return None
        start, dragging, label = self.start, self.dragging, self._label
        far = np.linalg.norm(np.array(xy, float) - self._xy) > self._threshold
        same = self.holds(slice_node)
        self.cancel()
        if not same:
            return None
        if dragging:
            end = slice_views.ras_of(slice_node, xy)
            return Box((tuple(start.tolist()), tuple(end.tolist())))
        # A negative press that was dragged away is a change of mind.
        return None if far else Click(tuple(start.tolist()), label)

    def cancel(self) -> None:
        """Forget the press."""
        self.view = self.start = self._plane = None
        self.dragging = False
