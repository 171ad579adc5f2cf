"""Results, from when their effect or segment is left until it is chosen again. No Qt.

An effect ends without asking: with Esc or Space, by another effect or module. Whoever erases by
hand and comes back wants to go on correcting, so those that were applied wait, too. What waits is
masks only, packed to bits, without observers and without a hold on nodes; whether they still fit is
asked on coming back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..scene import segments
from ..scene.prompt_set import slice_shape
from ..tasks.work import Work
from ..text import tr as _
from .options import corrected_text, marked_text, refined_text, start_text, waiting_text
from .prompt_book import PromptBook

DROPPED = _(
    "The result that was not applied is gone: the volume or the segmentation is not the one that "
    "it was made for."
)
UNFIT = _(
    "Nothing was written: the volume, its place or the segmentation's geometry is not as it was "
    "when the result was made. Put it back, or press Segment again."
)


class Waiting:
    """What waits for one effect; all of it belongs to one segmentation."""

    def __init__(self, book: PromptBook) -> None:
        self._book = book
        self._node: Any = None  # vtkWeakReference to the segmentation node
        # Segment id -> (work, vtkWeakReference to the segment, its marks as they are saved): a new
        # segment may get an old id, and scripts segment from marks of their own.
        self._results: dict[str, tuple[Work, Any, str]] = {}

    def __len__(self) -> int:
        return len(self._results)

    def keep(self, works: Iterable[Work]) -> None:
        """Keep those that have a result; no job may be under way."""
        node = self._book.segmentation_node
        found = [work for work in works if work.has_result]
        if node is None or not found:
            return
        if self._node is None or self._node.Get() is not node:
            self._node, self._results = _weak(node), {}
        for work in found:
            segment = node.GetSegmentation().GetSegment(work.segment_id)
            if segment is not None:
                marks = segments.saved_text(node, work.segment_id)
                self._results[work.segment_id] = (_bare(work), _weak(segment), marks)

    def take_up(self, works: dict[str, Work]) -> str:
        """Add to `works` what still fits, and forget the rest; returns what to tell, or ""."""
        self.prune()
        node = None if self._node is None else self._node.Get()
        found = [
            work
            for work, _segment, marks in self._results.values()
            if unapplied(work) or marks == segments.saved_text(node, work.segment_id)
        ]
        self.clear()
        if not found:
            return ""
        reader = self._book.reader
        same = node is self._book.segmentation_node
        fitting = [work for work in found if same and reader.unchanged(work.source)]
        text = DROPPED if any(map(unapplied, set(found) - set(fitting))) else ""
        if not fitting:
            return text
        try:
            source = reader.read()
        except (ValueError, RuntimeError) as error:
            return str(error)
        for work in fitting:
            work.source = source
            works.setdefault(work.segment_id, work)
        return text or self._told(works, [work for work in fitting if unapplied(work)])

    def prune(self) -> None:
        """Drop what belongs to segments that are gone, as after the scene was closed."""
        node = None if self._node is None else self._node.Get()
        if node is None or node.GetScene() is None:
            self.clear()
            return
        contents = node.GetSegmentation()
        for segment_id, (_work, segment, _marks) in list(self._results.items()):
            if segment.Get() is None or contents.GetSegment(segment_id) is not segment.Get():
                del self._results[segment_id]

    def clear(self) -> None:
        """Drop everything."""
        self._node, self._results = None, {}

    def _told(self, works: dict[str, Work], found: list[Work]) -> str:
        """What to say of those that are not applied, or ""."""
        if not found:
            return ""
        shown = works.get(self._book.segment_id or "")
        if shown is not None and unapplied(shown):
            return waiting_text(len(shown.slices))
        contents = self._book.segmentation_node.GetSegmentation()
        names = [contents.GetSegment(work.segment_id).GetName() for work in found]
        return _("Not applied yet, and waiting at their segments: the results of {names}.").format(
            names=", ".join(names)
        )


def unapplied(work: Work) -> bool:
    """Whether there is a result, and the segment does not have it."""
    return work.dirty and work.has_result


def standing(work: Work | None, marked: bool) -> str:
    """How far a segment is, and what to do next. marked : whether it has prompts."""
    if work is not None and unapplied(work):
        return waiting_text(len(work.slices))
    if work is not None and work.has_result:
        return corrected_text()
    if work is not None and work.previews:
        return refined_text()
    return marked_text() if marked else start_text()


def rest(works: dict[str, Work], but: Work | None) -> None:
    """Make all works small but one: there may be one for each of a hundred segments.

    As masks, an object on fifty large slices has the size of a volume; and sessions keep what
    models have offered. No job may be under way for those that are made small.
    """
    for segment_id, work in works.items():
        if work is not but and not work.packed:
            works[segment_id] = _packed(work)


def awake(work: Work | None) -> Work | None:
    """The work, with masks again where it was made small."""
    if work is None or not work.packed:
        return work
    shape = slice_shape(work.source.part, work.axis)
    count = shape[0] * shape[1]
    work.slices = {
        index: (np.unpackbits(bits, count=count).reshape(shape).view(bool), value)
        for index, (bits, value) in work.slices.items()
    }
    work.initial, work.packed = dict(work.slices), False
    return work


def _packed(work: Work) -> Work:
    """The same result as bits, without the session."""
    bits = {index: (np.packbits(mask), value) for index, (mask, value) in work.slices.items()}
    small = work.renewed(bits)
    small.initial, small.packed = {}, True
    return small


def _bare(work: Work) -> Work:
    """As `_packed`, and without a copy of the volume."""
    nothing = np.empty((0, 0, 0), work.source.voxels.dtype)
    source = dataclasses.replace(work.source, voxels=nothing, stacks={})
    return dataclasses.replace(work if work.packed else _packed(work), source=source)


def _weak(thing: Any) -> Any:
    import vtk

    reference = vtk.vtkWeakReference()
    reference.Set(thing)
    return reference
