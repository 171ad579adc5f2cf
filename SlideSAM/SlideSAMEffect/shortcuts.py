"""Keys that work in the whole main window while the effect is active.

Slicer's Segment Editor has 0 to 9, Esc, Space, Z, Y, Q, W, I and some punctuation, slice views have
B, F, G, R, T and V. Enter and Delete are not here: they would fire while a number is typed. They
work in the slice views, through the effect's events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer

NEXT_CANDIDATE, WEAKEST = "C", "X"


class Shortcuts:
    """Shortcuts on the main window, from `enable` to `disable`; none without a main window."""

    def __init__(self, actions: Mapping[str, Callable[[], Any]]) -> None:
        self._actions = dict(actions)
        self._shortcuts: list = []

    def enable(self) -> None:
        self.disable()
        window = slicer.util.mainWindow()
        if window is None:
            return
        for key, action in self._actions.items():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.connect("activated()", action)
            self._shortcuts.append((shortcut, action))

    def disable(self) -> None:
        shortcuts, self._shortcuts = self._shortcuts, []
        for shortcut, action in shortcuts:
            try:
                shortcut.setEnabled(False)
                shortcut.disconnect("activated()", action)
                shortcut.setParent(None)
                shortcut.deleteLater()
            except ValueError:  # what PythonQt raises once the main window is gone
                continue
