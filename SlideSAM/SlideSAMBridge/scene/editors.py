"""The private editors of one module logic, so that a try elsewhere costs no undo step. No Qt.

An editor that is pointed at another segmentation drops its history. So each segmentation has its
own, and the one that was written last keeps its steps until another one is written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .editing import Editor


class Editors:
    """Editors by segmentation, made with `Editor.private` when they are needed."""

    def __init__(self) -> None:
        self._all: list[Editor] = []

    @property
    def last(self) -> Editor | None:
        """The one that was written last; None where nothing was written, or its scene is closed."""
        written = [editor for editor in self._all if editor.alive and editor.saved]
        return max(written, key=lambda editor: editor.saved, default=None)

    @contextmanager
    def of(self, segmentation_node: Any, scene: Any, app_logic: Any) -> Iterator[Editor]:
        """The editor for a segmentation; one that was made for a call that fails goes again."""
        self._prune()
        made = None
        for editor in self._all:
            if editor.node.GetSegmentationNode() in (None, segmentation_node):
                break
        else:
            made = editor = Editor.private(scene, app_logic)
            self._all.append(made)
        try:
            yield editor
        except BaseException:
            if made is not None:
                self._drop(made)
            raise

    def release(self) -> None:
        """Take all of them out of the scene.

        Garbage may be collected on the worker, which must not touch the scene: then they stay.
        """
        if threading.current_thread() is threading.main_thread():
            for editor in self._all:
                editor.release()

    def _prune(self) -> None:
        """Only the steps for the segmentation that was written last are kept."""
        for editor in list(self._all):
            if not editor.alive or (editor.saved and editor is not self.last):
                self._drop(editor)

    def _drop(self, editor: Editor) -> None:
        editor.release()
        self._all.remove(editor)
