"""Writing a result into the selected segment through the effect: one undo step. No Qt.

The Segment Editor's own modify call is used, so editable area, intensity range and overwrite mode
act as for any other effect. Results are corrected after they were applied; so what the last apply
changed is remembered, in this segment and in others, and where the corrected result no longer
covers it, it is changed back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from . import editing, neighbours
from .lattice import Lattice
from .source import Source
from .text import tr as _
from .work import Work

MODES = ("add", "replace", "remove")
NOTHING_FOUND = _("Nothing was found at the marked place: mark it with a box, or with more points.")
ALL_MASKED = _(
    "Nothing was changed: the masking settings (editable area or intensity range) leave out "
    "everything that was found."
)


@dataclass(frozen=True, eq=False)
class Written:
    """What the last apply of a piece of work changed: bool (K, J, I) on `part`.

    taken : what other segments lost by it, by their ids.
    """

    mode: str
    voxels: np.ndarray
    part: Lattice
    taken: dict[str, np.ndarray] = field(default_factory=dict)

    def on(self, part: Lattice) -> Written:
        """The same on a lattice that has all of it."""

        def moved(voxels: np.ndarray) -> np.ndarray:
            mask = np.zeros(part.shape, bool)
            mask[part.slices(self.part)] = voxels
            return mask

        taken = {segment_id: moved(voxels) for segment_id, voxels in self.taken.items()}
        return Written(self.mode, moved(self.voxels), part, taken)


def apply(effect: Any, work: Work, mode: str) -> None:
    """Write the result of `work` into its segment, which must be the selected one.

    effect : the `scriptedEffect`. mode : "add", "replace" or "remove".
    Raises RuntimeError with a sentence, and changes nothing, where there is nothing to write.
    """
    import slicer

    mask, last = _masks(work, mode)
    earlier, part = last.voxels, last.part
    before = selected_mask(effect, part)
    judged = _judged(work, part)
    gone = earlier & ~mask & (judged | (mode == "replace"))  # no longer covered
    back = gone & (before if mode == "add" else ~before)  # change it back
    if mode == "replace":
        back[...] = False
    editable = _editable(effect, work.source, part)
    if not ((mask | back) & editable).any():
        raise RuntimeError(ALL_MASKED)
    effect.saveStateForUndo()
    kind = slicer.qSlicerSegmentEditorAbstractEffect
    forward, backward = {
        "add": (kind.ModificationModeAdd, kind.ModificationModeRemove),
        "replace": (kind.ModificationModeSet, None),
        "remove": (kind.ModificationModeRemove, kind.ModificationModeAdd),
    }[mode]
    segmentation_node = effect.parameterSetNode().GetSegmentationNode()
    where = mask | gone
    had = neighbours.owned(segmentation_node, work.segment_id, part, where)
    if back.any():
        _modify(effect, work.segment_id, back, part, backward)
    if mask.any():
        _modify(effect, work.segment_id, mask, part, forward)
    have = neighbours.owned(segmentation_node, work.segment_id, part, where)
    _give_back(effect, last.taken, gone & ~selected_mask(effect, part), part, have)
    taken = neighbours.lost(had, have)
    for segment_id, voxels in last.taken.items():
        taken[segment_id] = taken.get(segment_id, False) | (voxels & ~gone)
    changed = mask & editable & (before if mode == "remove" else ~before)
    work.written = Written(mode, changed | (earlier & ~gone), part, taken)
    work.dirty = False


def _masks(work: Work, mode: str) -> tuple[np.ndarray, Written]:
    """The result, and what was written before, both on the part of the source that holds them.

    Most objects are small in their volume, and all that follows costs as much as that part.
    """
    source = work.source.part
    found = _found(work)
    again = work.written is not None and work.written.mode == mode
    if found is None:
        if not again or mode == "replace":
            raise RuntimeError(NOTHING_FOUND)
        part = work.written.part  # a correction has left nothing: take back what was applied
    else:
        part = found
        if again:
            known = work.written.part
            low, high = np.minimum(part.first, known.first), np.maximum(part.last, known.last)
            part = source.cropped(np.stack([low, high], axis=1).ravel())
    earlier = work.written.on(part) if again else Written(mode, np.zeros(part.shape, bool), part)
    return _result(work, part), earlier


def _give_back(
    effect: Any,
    taken: dict[str, np.ndarray],
    free: np.ndarray,
    part: Lattice,
    have: dict[str, np.ndarray],
) -> None:
    """Give other segments what was taken from them, where a correction has let go of it.

    free : bool (K, J, I) on `part`; have : what other segments have now stays theirs.
    """
    import slicer

    for mask in have.values():
        free = free & ~mask
    segmentation_node = effect.parameterSetNode().GetSegmentationNode()
    add = slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd
    for segment_id, voxels in taken.items():
        returned = voxels & free
        known = segmentation_node.GetSegmentation().GetSegment(segment_id) is not None
        if known and returned.any():
            _modify(effect, segment_id, returned, part, add)


def _judged(work: Work, part: Lattice) -> np.ndarray:
    """Where the result tells the object from the rest: bool, to be broadcast to (K, J, I).

    Everywhere, but after a run that was stopped only on the slices that it had finished.
    """
    axis = 2 - work.axis  # (I, J, K) to the array axes (K, J, I)
    judged = np.full(part.shape[axis], not work.unfinished)
    start = int(part.first[work.axis] - work.source.part.first[work.axis])
    for index in work.slices:
        if 0 <= index - start < len(judged):
            judged[index - start] = True
    shape = [1, 1, 1]
    shape[axis] = len(judged)
    return judged.reshape(shape)


def _found(work: Work) -> Lattice | None:
    """The smallest part of the source that has all of the result; None where nothing was found."""
    part, axis = work.source.part, 2 - work.axis  # (I, J, K) to the array axes (K, J, I)
    used = [np.zeros(size, bool) for size in part.shape]
    rows, columns = (used[each] for each in range(3) if each != axis)
    for index, (mask, _confidence) in work.slices.items():
        used[axis][index] = mask.any()
        rows |= mask.any(axis=1)
        columns |= mask.any(axis=0)
    if not rows.any():
        return None
    spans = [np.flatnonzero(each)[[0, -1]] for each in reversed(used)]  # I, J, K
    return part.cropped((part.first[:, None] + spans).ravel())


def _result(work: Work, part: Lattice) -> np.ndarray:
    """The result of the slide: bool (K, J, I) on a part of the source."""
    axis = 2 - work.axis
    mask = np.zeros(part.shape, bool)
    stacked = np.moveaxis(mask, axis, 0)  # (K, J, I) to (slice, row, column), a view
    where = work.source.part.slices(part)
    rows, columns = (where[each] for each in range(3) if each != axis)
    for index, (slice_mask, _confidence) in work.slices.items():
        if where[axis].start <= index < where[axis].stop:
            stacked[index - where[axis].start] = slice_mask[rows, columns]
    return mask


def selected_mask(effect: Any, part: Lattice) -> np.ndarray:
    """The voxels of the selected segment: bool (K, J, I) on `part`."""
    node = effect.parameterSetNode()
    segmentation_node, segment_id = node.GetSegmentationNode(), node.GetSelectedSegmentID()
    if editing.has_grid(segmentation_node, segment_id, part):
        return editing.segment_mask(segmentation_node, segment_id, part)
    # The logic brings the whole segment onto its reference geometry, which takes seconds and the
    # memory of a volume.
    image = effect.selectedSegmentLabelmap()
    if image is None or image.GetPointData().GetScalars() is None:
        return np.zeros(part.shape, bool)
    return editing.on_lattice(image, part) != 0


def _editable(effect: Any, source: Source, part: Lattice) -> np.ndarray:
    node = effect.parameterSetNode()
    masked = None
    if node.GetMaskMode() != node.GetSegmentationNode().EditAllowedEverywhere:
        masked = effect.maskLabelmap()
        if masked is None:
            raise RuntimeError(editing.NO_MASK)
    voxels = source.voxels[source.part.slices(part)]
    return editing.editable_voxels(node, masked, voxels, part)


def _modify(effect: Any, segment_id: str, mask: np.ndarray, part: Lattice, mode: Any) -> None:
    import slicer

    box = editing.bounding_part(mask, part)
    image = editing.label_image(mask[part.slices(box)], box)
    node = effect.parameterSetNode().GetSegmentationNode()

    def modify(image: Any, mode: Any) -> None:
        effect.modifySegmentByLabelmap(node, segment_id, image, mode)

    kind = slicer.qSlicerSegmentEditorAbstractEffect
    if mode == kind.ModificationModeSet:
        add = partial(modify, mode=kind.ModificationModeAdd)
        image = editing.replacement(node, segment_id, image, add)
    modify(image, mode)
