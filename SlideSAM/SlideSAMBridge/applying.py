"""Writing a result into the selected segment through the effect: one undo step. No Qt.

The Segment Editor's own modify call is used, so editable area, intensity range and overwrite mode
act as for any other effect. Results are corrected after they were applied; so what the last apply
changed is remembered, and where the corrected result no longer covers it, it is changed back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import editing
from .lattice import Lattice
from .source import Source
from .text import tr as _
from .work import Work

MODES = ("add", "replace", "remove")
NOTHING_FOUND = "Nothing was found at the marked place: mark it with a box, or with more points."
ALL_MASKED = (
    "Nothing was changed: the masking settings (editable area or intensity range) leave out "
    "everything that was found."
)


@dataclass(frozen=True, eq=False)
class Written:
    """What the last apply of a piece of work changed: bool (K, J, I) on `part`."""

    mode: str
    voxels: np.ndarray
    part: Lattice

    def on(self, part: Lattice) -> np.ndarray:
        """The same on a lattice that has all of it: bool (K, J, I)."""
        mask = np.zeros(part.shape, bool)
        mask[part.slices(self.part)] = self.voxels
        return mask


def apply(effect: Any, work: Work, mode: str) -> None:
    """Write the result of `work` into its segment, which must be the selected one.

    effect : the `scriptedEffect`. mode : "add", "replace" or "remove".
    Raises RuntimeError with a sentence, and changes nothing, where there is nothing to write.
    """
    import slicer

    mask, earlier, part = _masks(work, mode)
    before = selected_mask(effect, part)
    judged = _judged(work, part)
    back = earlier & ~mask & judged  # no longer covered: change it back
    back &= before if mode == "add" else ~before
    if mode == "replace":
        back[...] = False
    editable = _editable(effect, work.source, part)
    if not ((mask | back) & editable).any():
        raise RuntimeError(_(ALL_MASKED))
    effect.saveStateForUndo()
    kind = slicer.qSlicerSegmentEditorAbstractEffect
    forward, backward = {
        "add": (kind.ModificationModeAdd, kind.ModificationModeRemove),
        "replace": (kind.ModificationModeSet, None),
        "remove": (kind.ModificationModeRemove, kind.ModificationModeAdd),
    }[mode]
    if back.any():
        _modify(effect, work.segment_id, back, part, backward)
    _modify(effect, work.segment_id, mask, part, forward)
    changed = mask & editable & (before if mode == "remove" else ~before)
    work.written = Written(mode, changed | (earlier & (mask | ~judged)), part)
    work.dirty = False


def _masks(work: Work, mode: str) -> tuple[np.ndarray, np.ndarray, Lattice]:
    """The result, what was written before, and the part of the source that holds both.

    Most objects are small in their volume, and all that follows costs as much as that part.
    """
    source = work.source.part
    mask = result_mask(work)
    if not mask.any():
        raise RuntimeError(_(NOTHING_FOUND))
    part = editing.bounding_part(mask, source)
    again = work.written is not None and work.written.mode == mode
    if again:
        known = work.written.part
        low, high = np.minimum(part.first, known.first), np.maximum(part.last, known.last)
        part = source.cropped(np.stack([low, high], axis=1).ravel())
    earlier = work.written.on(part) if again else np.zeros(part.shape, bool)
    return mask[source.slices(part)], earlier, part


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


def result_mask(work: Work) -> np.ndarray:
    """The result of the slide: bool (K, J, I) on the source's part."""
    mask = np.zeros(work.source.part.shape, bool)
    stacked = np.moveaxis(mask, 2 - work.axis, 0)  # (K, J, I) to (slice, row, column), a view
    for index, (slice_mask, _confidence) in work.slices.items():
        stacked[index] = slice_mask
    return mask


def selected_mask(effect: Any, part: Lattice) -> np.ndarray:
    """The voxels of the selected segment: bool (K, J, I) on `part`."""
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
    box = editing.bounding_part(mask, part)
    image = editing.label_image(mask[part.slices(box)], box)
    node = effect.parameterSetNode().GetSegmentationNode()
    if mode == effect.ModificationModeSet:
        image = editing.replacement(node, segment_id, image)
    effect.modifySegmentByLabelmap(node, segment_id, image, mode)
