"""Writing a result into the selected segment through the effect: one undo step. No Qt.

The Segment Editor's own modify call is used, so editable area, intensity range and overwrite mode
act as for any other effect. Results are corrected after they were applied; so what the last apply
wrote and changed is remembered, in this segment and in others. A correction writes what is new,
and where it no longer covers what was changed, that is changed back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..scene import editing, neighbours
from ..scene.lattice import Lattice
from ..scene.source import Source
from ..tasks.work import Work
from ..text import tr as _

MODES = ("add", "replace", "remove")
NOTHING_FOUND = _("Nothing was found at the marked place: mark it with a box, or with more points.")
ALL_MASKED = _(
    "Nothing was changed: the masking settings (editable area or intensity range) leave out "
    "everything that was found."
)
NOTHING_TO_REMOVE = _("Nothing was changed: the segment has nothing of what was found.")


@dataclass(frozen=True, eq=False)
class Written:
    """What the last apply of a piece of work did.

    voxels : what it changed, bool (K, J, I) on `part`. mask : the result that it applied, with what
    masking left out, likewise. taken : what other segments lost by it, by their ids, see
    `neighbours.voxels_at`. marks : see `Work.marks`.
    """

    mode: str
    voxels: np.ndarray
    mask: np.ndarray
    part: Lattice
    taken: dict[str, np.ndarray] = field(default_factory=dict)
    marks: Counter = field(default_factory=Counter)

    def on(self, part: Lattice) -> Written:
        """The same on a lattice that has all of it."""

        def moved(voxels: np.ndarray) -> np.ndarray:
            mask = np.zeros(part.shape, bool)
            mask[part.slices(self.part)] = voxels
            return mask

        return self._with(moved, part)

    def trimmed(self) -> Written:
        """The same on the smallest lattice that has all of it; the result of a leak is large."""
        if not self.mask.any():
            return self
        part = editing.bounding_part(self.mask, self.part)
        where = self.part.slices(part)
        return self._with(lambda voxels: voxels[where].copy(), part)

    def _with(self, moved: Callable[[np.ndarray], np.ndarray], part: Lattice) -> Written:
        voxels, mask = moved(self.voxels), moved(self.mask)
        return Written(self.mode, voxels, mask, part, self.taken, self.marks)


@dataclass(frozen=True, eq=False)
class Change:
    """What an apply is to change: bool (K, J, I) on `last.part`.

    last : what was written before, without anything where that was in another mode.
    mask : the whole result. new : what is to be written of it. gone : what was written before and
    is let go of. back : what is changed back of that. settled : where the result tells the object
    from the rest. whole : whether the segment is replaced by the result in one go.
    """

    last: Written
    mask: np.ndarray
    new: np.ndarray
    gone: np.ndarray
    back: np.ndarray
    settled: np.ndarray
    whole: bool


def apply(effect: Any, work: Work, mode: str, correction: bool = False) -> None:
    """Write the result of `work` into its segment, which must be the selected one.

    effect : the `scriptedEffect`. mode : "add", "replace" or "remove".
    correction : write what is new in the result only. What was applied before may have been
        changed by hand, undone or given to another segment since; on the slices that got new
        marks all is written nevertheless, since those the user looks at.
    Raises RuntimeError with a sentence, and changes nothing, where there is nothing to write.
    """
    mask, last = _masks(work, mode, correction)
    before = selected_mask(effect, last.part)
    change = _change(work, mask, last, before, correction)
    if mode == "remove" and not _again(work, mode) and not (mask & before).any():
        raise RuntimeError(NOTHING_TO_REMOVE)  # it would be no step for Undo, either
    editable = _editable(effect, work.source, last.part)
    wanted = change.new | change.back
    if wanted.any() and not (wanted & editable).any():
        raise RuntimeError(ALL_MASKED)
    if wanted.any() or change.gone.any():
        effect.saveStateForUndo()
        taken = _write(effect, work.segment_id, change, editable)
    else:
        taken = last.taken  # a correction that has changed nothing
    changed = change.new & editable & (before if mode == "remove" else ~before)
    work.written = Written(
        mode,
        changed | (last.voxels & ~change.gone),
        mask | (last.mask & ~change.settled),
        last.part,
        taken,
        work.marks,
    ).trimmed()
    work.dirty = False


def undone(effect: Any, work: Work) -> bool:
    """Whether the selected segment has none of what the last apply of its work changed.

    So it is after Undo, and after the user has emptied the segment.
    """
    written = work.written
    if not work.has_result or work.dirty or written is None or not written.voxels.any():
        return False
    now = selected_mask(effect, written.part)
    return not (written.voxels & (~now if written.mode == "remove" else now)).any()


def _change(
    work: Work, mask: np.ndarray, last: Written, before: np.ndarray, correction: bool
) -> Change:
    """before : what the segment has now."""
    mode, part = last.mode, last.part
    correction = correction and _again(work, mode)
    replaced = mode == "replace"
    new = mask
    if correction:
        marked = {index for index, _key in work.marks - last.marks}
        new = mask & (~last.mask | _on_slices(work, part, marked))
    settled = _on_slices(work, part, work.slices) | (replaced or not work.unfinished)
    gone = (last.mask if replaced else last.voxels) & ~mask & settled
    back = gone & (~before if mode == "remove" else before)
    whole = replaced and not correction
    if whole:
        back = np.zeros_like(gone)  # it goes with all that is replaced
    return Change(last, mask, new, gone, back, settled, whole)


def _write(
    effect: Any, segment_id: str, change: Change, editable: np.ndarray
) -> dict[str, np.ndarray]:
    """Change the segment; returns what other segments have lost to it by now, by their ids.

    editable : what could be edited before.
    """
    import slicer

    kind = slicer.qSlicerSegmentEditorAbstractEffect
    forward, backward = kind.ModificationModeAdd, kind.ModificationModeRemove
    if change.last.mode == "remove":
        forward, backward = backward, forward
    elif change.whole:
        forward = kind.ModificationModeSet
    last, gone, part = change.last, change.gone, change.last.part
    node = effect.parameterSetNode()
    segmentation_node = node.GetSegmentationNode()
    where = change.new | gone
    near = editing.bounding_part(where, part)  # a correction changes little of a large result
    inside = part.slices(near)
    had = neighbours.owned(segmentation_node, segment_id, near, where[inside])
    back = change.back
    if last.mode == "remove" and node.GetOverwriteMode() != node.OverwriteNone:
        back = back.copy()
        back[inside] &= ~neighbours.together(had, near)  # what others have got meanwhile is theirs
    if back.any():
        _modify(effect, segment_id, back, part, backward)
    if change.new.any():
        _modify(effect, segment_id, change.new, part, forward)
    have = neighbours.owned(segmentation_node, segment_id, near, where[inside])
    free = (gone & editable)[inside] & ~selected_mask(effect, near)
    _give_back(effect, last.taken, free, near, have)
    taken = {}
    for other, places in neighbours.lost(had, have).items():
        taken[other] = neighbours.places_of(neighbours.voxels_at(places, near), part)
    for other, voxels in last.taken.items():
        places = neighbours.places_of(voxels, part)
        kept = places[~gone.ravel()[places]]
        taken[other] = np.union1d(taken.get(other, kept), kept)
    return {other: neighbours.voxels_at(places, part) for other, places in taken.items()}


def _again(work: Work, mode: str) -> bool:
    """Whether the last apply was one of this mode; what another one has done stays."""
    return work.written is not None and work.written.mode == mode


def _masks(work: Work, mode: str, correction: bool = False) -> tuple[np.ndarray, Written]:
    """The result, and what was written before, both on the part of the source that holds them.

    Most objects are small in their volume, and all that follows costs as much as that part.
    """
    source = work.source.part
    found = _found(work)
    again = _again(work, mode)
    if found is None:
        if not again or (mode == "replace" and not correction):
            raise RuntimeError(NOTHING_FOUND)
        part = work.written.part  # a correction has left nothing: take back what was applied
    else:
        part = found
        if again:
            known = work.written.part
            low, high = np.minimum(part.first, known.first), np.maximum(part.last, known.last)
            part = source.cropped(np.stack([low, high], axis=1).ravel())
    nothing = np.zeros(part.shape, bool)
    last = work.written.on(part) if again else Written(mode, nothing, nothing, part)
    return _result(work, part), last


def _give_back(
    effect: Any,
    taken: dict[str, np.ndarray],
    free: np.ndarray,
    part: Lattice,
    have: dict[str, neighbours.Places],
) -> None:
    """Give other segments what was taken from them, where a correction has let go of it.

    free : bool (K, J, I) on `part`, what may be edited of that; have : what other segments have
        now stays theirs. It is in no segment now, so a mask of "inside segments" would forbid it.
    """
    import slicer

    free = free & ~neighbours.together(have, part)
    if not free.any():
        return
    contents = effect.parameterSetNode().GetSegmentationNode().GetSegmentation()
    add = slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd
    for segment_id, voxels in taken.items():
        places = neighbours.places_of(voxels, part)
        returned = neighbours.mask_of(places[free.ravel()[places]], part)
        if returned.any() and contents.GetSegment(segment_id) is not None:
            _modify(effect, segment_id, returned, part, add, True)


def _on_slices(work: Work, part: Lattice, indices: Iterable[int]) -> np.ndarray:
    """What lies on some slices of the work: bool, to be broadcast to (K, J, I) on `part`."""
    axis = 2 - work.axis  # (I, J, K) to the array axes (K, J, I)
    chosen = np.zeros(part.shape[axis], bool)
    start = int(part.first[work.axis] - work.source.part.first[work.axis])
    for index in indices:
        if 0 <= index - start < len(chosen):
            chosen[index - start] = True
    shape = [1, 1, 1]
    shape[axis] = len(chosen)
    return chosen.reshape(shape)


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


def _modify(
    effect: Any,
    segment_id: str,
    mask: np.ndarray,
    part: Lattice,
    mode: Any,
    everywhere: bool = False,
) -> None:
    """everywhere : without the editable area, and taking nothing from other segments."""
    import slicer

    box = editing.bounding_part(mask, part)
    image = editing.label_image(mask[part.slices(box)], box)
    node = effect.parameterSetNode().GetSegmentationNode()

    def modify(image: Any, mode: Any) -> None:
        effect.modifySegmentByLabelmap(node, segment_id, image, mode, everywhere)

    kind = slicer.qSlicerSegmentEditorAbstractEffect
    if mode == kind.ModificationModeSet:
        add = partial(modify, mode=kind.ModificationModeAdd)
        image = editing.replacement(node, segment_id, image, add)
    modify(image, mode)
