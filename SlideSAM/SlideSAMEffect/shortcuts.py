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
# Of all editor widgets whose effect is active, the one chosen last at the end. Only its keys work:
# to Qt, two shortcuts of one key are ambiguous, and it tells neither.
_enabled: list[Shortcuts] = []


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
        _enabled.append(self)
        _let_the_last_work()

    def disable(self) -> None:
        if self in _enabled:
            _enabled.remove(self)
            _let_the_last_work()
        shortcuts, self._shortcuts = self._shortcuts, []
        for shortcut, action in shortcuts:
            try:
                shortcut.setEnabled(False)
                shortcut.disconnect("activated()", action)
                shortcut.setParent(None)
                shortcut.deleteLater()
            except ValueError:  # what PythonQt raises once the main window is gone
                continue

    def let_work(self, works: bool) -> None:
        for shortcut, _action in self._shortcuts:
            try:
                shortcut.setEnabled(works)
            except ValueError:  # as above
                continue


def _let_the_last_work() -> None:
    for each in _enabled:
        each.let_work(each is _enabled[-1])
