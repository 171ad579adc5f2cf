"""One step of undo for all that a batch writes. No Qt.

The state before the first write is saved in the history of the batch's editor, and in that of the
Segment Editor's widget where it shows the segmentation; without a state of its own there, the
widget's Undo would go back behind the last edit made in it. Only one of the two histories then
takes the batch back: what one of them brings back is an edit for the other, which would keep its
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import segments
from .editing import Editor


class BatchUndo:
    """Takes back what was written, as long as nobody else has changed the segmentation since.

    widget_of : gives the Segment Editor's widget that shows a segmentation, or None.
    """

    def __init__(
        self,
        editor: Editor,
        segmentation_node: Any,
        widget_of: Callable[[Any], Any] = lambda segmentation_node: None,
    ) -> None:
        self._editor, self._node, self._widget_of = editor, segmentation_node, widget_of
        self._widget: Any = None  # that has the state, too
        self._left: tuple | None = None  # how the last write left the segmentation
        self.written = 0  # how many writes would be taken back

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around each write. After somebody else's edit a new step begins, or it would go along."""
        if self._left is None or self._left != _contents(self._node):
            self._editor.save_state()
            self._widget = self._widget_of(self._node)
            if self._widget is not None:
                self._widget.saveStateForUndo()
            self.written = 0
        try:
            yield
            self.written += 1
        finally:
            self._left = _contents(self._node)

    @property
    def possible(self) -> bool:
        """Whether there is something to take back, and nothing of anybody else's with it."""
        return (
            self.written > 0
            and self._node.GetScene() is not None
            and self._editor.can_undo()
            and self._left == _contents(self._node)
        )

    def take_back(self) -> int:
        """Call it where it is `possible`; returns how many writes were taken back."""
        if self._widget is not None and self._widget_of(self._node) is self._widget:
            self._widget.undo()
        if self._left == _contents(self._node):
            # No widget had the state, or it has lost it: undo is off there, or it has shown
            # another segmentation meanwhile.
            self._editor.undo()
        else:
            self._editor.forget()
        count, self.written = self.written, 0
        return count


def _contents(segmentation_node: Any) -> tuple:
    """What an undo would bring back; other states of a segmentation have something else here.

    The surfaces that Slicer makes of the labels are not among it.
    """
    segmentation, found = segmentation_node.GetSegmentation(), []
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(number)
        segment = segmentation.GetSegment(segment_id)
        image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        found.append(
            (
                segment_id,
                segment.GetName(),
                segment.GetColor(),
                segments.saved_text(segmentation_node, segment_id),
                segment.GetLabelValue(),
                None if image is None else image.GetMTime(),  # no two images have the same
            )
        )
    return tuple(found)
