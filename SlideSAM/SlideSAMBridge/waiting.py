"""Results that were not applied when their effect was left, until it is chosen again. No Qt.

An effect ends without asking: with Esc or Space, by another effect or module. What waits is masks
only, without observers and without a hold on nodes; whether they still fit is asked on coming back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from .prompt_book import PromptBook
from .text import tr as _
from .work import Work

DROPPED = _(
    "The result that was not applied is gone: the volume or the segmentation is not the one that "
    "it was made for."
)


class Waiting:
    """What waits for one effect; all of it belongs to one segmentation."""

    def __init__(self, book: PromptBook) -> None:
        self._book = book
        self._node: Any = None  # vtkWeakReference to the segmentation node
        # Segment id -> (work, vtkWeakReference to the segment): a new segment may get an old id.
        self._results: dict[str, tuple[Work, Any]] = {}

    def __len__(self) -> int:
        return len(self._results)

    def keep(self, works: Iterable[Work]) -> None:
        """Keep those that have something to apply; no job may be under way."""
        node = self._book.segmentation_node
        found = [work for work in works if unapplied(work)]
        if node is None or not found:
            return
        if self._node is None or self._node.Get() is not node:
            self._node, self._results = _weak(node), {}
        for work in found:
            segment = node.GetSegmentation().GetSegment(work.segment_id)
            if segment is not None:
                self._results[work.segment_id] = (_bare(work), _weak(segment))

    def take_up(self, works: dict[str, Work]) -> str:
        """Add to `works` what still fits, and forget the rest; returns what to tell, or ""."""
        self.prune()
        node = None if self._node is None else self._node.Get()
        found = [work for work, _segment in self._results.values()]
        self.clear()
        if not found:
            return ""
        reader = self._book.reader
        same = node is self._book.segmentation_node
        if not same or not all(reader.unchanged(work.source) for work in found):
            return DROPPED
        try:
            source = reader.read()
        except (ValueError, RuntimeError) as error:
            return str(error)
        for work in found:
            work.source = source
            works.setdefault(work.segment_id, work)
        return self._told(works, found)

    def prune(self) -> None:
        """Drop what belongs to segments that are gone, as after the scene was closed."""
        node = None if self._node is None else self._node.Get()
        if node is None or node.GetScene() is None:
            self.clear()
            return
        contents = node.GetSegmentation()
        for segment_id, (_work, segment) in list(self._results.items()):
            if segment.Get() is None or contents.GetSegment(segment_id) is not segment.Get():
                del self._results[segment_id]

    def clear(self) -> None:
        """Drop everything."""
        self._node, self._results = None, {}

    def _told(self, works: dict[str, Work], found: list[Work]) -> str:
        shown = works.get(self._book.segment_id or "")
        if shown is not None and unapplied(shown):
            return _(
                "{count} slices in the preview are not applied yet. Apply them, discard them, or "
                "segment again."
            ).format(count=len(shown.slices))
        contents = self._book.segmentation_node.GetSegmentation()
        names = [contents.GetSegment(work.segment_id).GetName() for work in found]
        return _("Not applied yet, and waiting at their segments: the results of {names}.").format(
            names=", ".join(names)
        )


def unapplied(work: Work) -> bool:
    """Whether there is a result, and the segment does not have it."""
    return work.dirty and work.has_result


def _bare(work: Work) -> Work:
    """The same result without the session, and without a copy of the volume."""
    bare = work.renewed(work.slices)
    bare.stops, bare.weakest = dict(work.stops), work.weakest
    nothing = np.empty((0, 0, 0), work.source.voxels.dtype)
    bare.source = dataclasses.replace(work.source, voxels=nothing, stacks={})
    return bare


def _weak(thing: Any) -> Any:
    import vtk

    reference = vtk.vtkWeakReference()
    reference.Set(thing)
    return reference
