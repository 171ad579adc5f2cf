"""Slice and 3D views with simulated mouse and keys, on the off-screen views of the bridge.

Positions are render window pixels with the origin at the bottom left, which is what
`GetEventPosition` gives in Slicer and what XYToRAS takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
from SlideSAMBridge.pictures import offscreen

ThreeDView = offscreen.ThreeDView


class SliceView(offscreen.SliceView):
    """A slice view that can be clicked.

    pixel_ratio : render window pixels per Qt pixel. laid_out : whether Qt has given the widget its
    size. closed : whether the widget is destroyed.
    cursor : the mouse pointer, a QCursor; None until an editor has set one.
    """

    pixel_ratio = 1.0
    cursor: Any = None
    closed = False
    laid_out = True

    def close(self) -> None:
        self.closed = True
        super().close()

    def event(
        self,
        name: str,
        xy: Sequence[float],
        ctrl: int = 0,
        shift: int = 0,
        key: str = "",
        alt: int = 0,
    ) -> None:
        """Send one VTK event, for example "LeftButtonPressEvent"."""
        x, y = round(xy[0]), round(xy[1])
        self.interactor.SetEventInformation(x, y, ctrl, shift, key[:1] or "\0", 0, key or None)
        self.interactor.SetAltKey(alt)
        self.interactor.InvokeEvent(name)

    def click(self, xy: Sequence[float], **modifiers: int) -> None:
        """Press and release the left button."""
        self.event("MouseMoveEvent", xy)
        self.event("LeftButtonPressEvent", xy, **modifiers)
        self.event("LeftButtonReleaseEvent", xy, **modifiers)

    def press_key(self, key: str, xy: Sequence[float] = (5, 5)) -> None:
        """Press and release a key, by its name in VTK."""
        self.event("KeyPressEvent", xy, key=key)
        self.event("KeyReleaseEvent", xy, key=key)

    def drag(self, start: Sequence[float], end: Sequence[float], steps: int = 5) -> None:
        """Press at `start`, move in `steps`, release at `end`."""
        self.event("EnterEvent", start)
        self.event("MouseMoveEvent", start)
        self.event("LeftButtonPressEvent", start)
        for step in range(1, steps + 1):
            t = step / steps
            self.event("MouseMoveEvent", [a + t * (b - a) for a, b in zip(start, end, strict=True)])
        self.event("LeftButtonReleaseEvent", end)

    def ras_to_xy(self, ras: Sequence[float]) -> np.ndarray:
        """Where a world position in mm is shown: pixels (2,)."""
        xy_to_ras = slicer.util.arrayFromVTKMatrix(self.node.GetXYToRAS())
        return np.linalg.solve(xy_to_ras, np.append(ras, 1.0))[:2]
