"""The one place that reads the segmentation's lattice and writes into a segmentation.

Everything goes through Slicer's vtkSlicerSegmentEditorLogic, so mask mode, overwrite mode and
editable intensity range act as in the Segment Editor, and transforms and oversampling are its own.

What undo means:

- An editor made with `Editor.around(editor_logic)` writes with a logic that a script has made. One
  undo state is saved there, and that logic's Undo takes the whole result back. Slicer does not give
  out the logic of a Segment Editor widget.
- An editor made with `Editor.private(scene)` has a logic of its own, with a hidden editor node.
  Its `undo` and `redo` step through what this editor wrote to the segmentation it was pointed at
  last; pointing it at another segmentation drops that history. A Segment Editor widget that shows
  the same segmentation does not know of these states: its Undo restores the whole segmentation
  as it was at its own last state. So a script that calls `saveStateForUndo()` of the widget first
  makes the whole result one step of the widget's Undo. The panel does so, see
  `segmenting.UndoStep`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import checks
from ..text import tr as _
from . import lattice as lattices
from .lattice import Lattice

UNDO_STATES = 10
_states = itertools.count(1)
NODE_NAME = "SlideSAM editor"
GEOMETRY = "Reference image geometry"
NO_MASK = _("The editable area of the Segment Editor cannot be worked out.")


class Editor:
    """Reads from and writes to one segmentation through a segment editor logic.

    saved : grows with every undo state that any editor saves; 0 where this one has saved none.
    """

    def __init__(self, logic: Any, node: Any, owned: bool) -> None:
        self.logic = logic
        self.node = node
        self.saved = 0
        self._owned = owned

    @classmethod
    def private(cls, scene: Any, app_logic: Any) -> Editor:
        """An editor with a logic and a hidden, unsaved editor node of its own."""
        import slicer

        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetName(NODE_NAME)
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        scene.AddNode(node)
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLApplicationLogic(app_logic)
        logic.SetMRMLScene(scene)
        logic.SetSegmentEditorNode(node)
        logic.SetMaximumNumberOfUndoStates(UNDO_STATES)
        return cls(logic, node, owned=True)

    @classmethod
    def around(cls, editor_logic: Any) -> Editor:
        """An editor that writes with a logic that somebody else has made.

        Raises ValueError where that logic has no editor node yet.
        """
        checks.editor_logic(editor_logic)
        node = editor_logic.GetSegmentEditorNode()
        if node is None:
            raise ValueError(_("The segment editor logic has no editor node: set one first."))
        return cls(editor_logic, node, owned=False)

    @property
    def alive(self) -> bool:
        """Whether the editor node is still in a scene; closing a scene takes it out."""
        return self.node.GetScene() is not None

    @property
    def _has_segmentation(self) -> bool:
        """The logic keeps the states of one that was taken out of the scene, and does nothing."""
        return self.alive and self.node.GetSegmentationNode() is not None

    def release(self) -> None:
        """Take a private editor node out of the scene; its undo states go with it."""
        if self._owned and self.alive:
            self.logic.SetSegmentEditorNode(None)
            self.node.GetScene().RemoveNode(self.node)

    def point_at(self, segmentation_node: Any, volume_node: Any) -> None:
        """Choose segmentation and source volume.

        Raises ValueError where the logic is somebody else's and edits something else.
        """
        if self._owned:
            # The segmentation first: the logic keeps the volume with it.
            self.node.SetAndObserveSegmentationNode(segmentation_node)
            self.node.SetAndObserveSourceVolumeNode(volume_node)
        elif self.node.GetSegmentationNode() is not segmentation_node:
            raise ValueError(
                _("The segment editor logic edits another segmentation: choose it there.")
            )
        elif self.node.GetSourceVolumeNode() is not volume_node:
            raise ValueError(
                _("The segment editor logic has another source volume: choose it there.")
            )

    def take_settings(self, editor_node: Any | None) -> None:
        """Copy masking, overwrite and intensity range from a Segment Editor's node.

        None means neutral: edit everywhere, and take no voxel from another segment.
        Somebody else's logic keeps the settings of its own node.
        """
        import slicer

        if not self._owned:
            return
        if editor_node is None:
            editor_node = slicer.vtkMRMLSegmentEditorNode()
            editor_node.SetOverwriteMode(editor_node.OverwriteNone)
        checks.editor_node(editor_node)
        self.node.SetMaskMode(editor_node.GetMaskMode())
        self.node.SetMaskSegmentID(editor_node.GetMaskSegmentID())
        self.node.SetOverwriteMode(editor_node.GetOverwriteMode())
        self.node.SetSourceVolumeIntensityMaskRange(
            *editor_node.GetSourceVolumeIntensityMaskRange()
        )
        self.node.SetSourceVolumeIntensityMask(editor_node.GetSourceVolumeIntensityMask())

    def source(self) -> tuple[np.ndarray, Lattice]:
        """The source volume on the voxels of the labels that it covers: a copy (K, J, I), and them.

        Raises RuntimeError where the logic cannot work it out, ValueError where it covers none.
        """
        volume_node = self.node.GetSourceVolumeNode()
        part = lattices.covered_part(self.lattice(), lattices.of_volume(volume_node))
        voxels = own_voxels(volume_node, part)
        if voxels is not None:
            return voxels, part
        if not self.logic.UpdateAlignedSourceVolume():
            raise RuntimeError(_("The volume cannot be brought onto the segmentation's geometry."))
        image = self.logic.GetAlignedSourceVolume()
        lattice = lattices.of_image(image, self.node.GetSegmentationNode())
        # A copy, because the logic refills the image at the next edit with an intensity range.
        return copied(image_array(image)[lattice.slices(part)]), part

    def lattice(self) -> Lattice:
        """The lattice of the labels as it is now."""
        if not self.logic.UpdateReferenceGeometryImage():
            raise RuntimeError(_("The segmentation has no geometry."))
        image = self.logic.GetReferenceGeometryImage()
        return lattices.of_image(image, self.node.GetSegmentationNode())

    def editable(self, volume: np.ndarray, lattice: Lattice) -> np.ndarray:
        """The voxels that masking and intensity range let an edit change: bool (K, J, I).

        `volume` is the source volume on `lattice`.
        """
        masked = None
        if self.node.GetMaskMode() != self.node.GetSegmentationNode().EditAllowedEverywhere:
            if not self.logic.UpdateMaskLabelmap():
                raise RuntimeError(NO_MASK)
            masked = self.logic.GetMaskLabelmap()
        return editable_voxels(self.node, masked, volume, lattice)

    def writable(
        self, mask: np.ndarray, volume: np.ndarray, lattice: Lattice
    ) -> tuple[np.ndarray, Lattice] | None:
        """The smallest part of a mask (K, J, I) that has all of it, and where that part lies.

        None where there is nothing in it that an edit may change. `volume` as for `editable`.
        """
        if not mask.any():
            return None
        part = bounding_part(mask, lattice)
        where = lattice.slices(part)
        editable = self.editable(volume[where], part)
        return (mask[where], part) if (mask[where] & editable).any() else None

    def save_state(self) -> None:
        """Save one undo state, unless undo is off. Call it once per action, after all checks."""
        if self.logic.GetMaximumNumberOfUndoStates() > 0 and not self.logic.SaveStateForUndo():
            raise RuntimeError(_("The state of the segmentation cannot be saved for undo."))
        self.saved = next(_states)

    def write(self, segment_id: str, mask: np.ndarray, lattice: Lattice, replace: bool) -> None:
        """Add a mask (K, J, I) on `lattice` to a segment, or put it in the segment's place."""
        part = bounding_part(mask, lattice)
        image = label_image(mask[lattice.slices(part)], part)
        node, logic = self.node.GetSegmentationNode(), self.logic

        def modify(image: Any, mode: Any) -> None:
            logic.ModifySegmentByLabelmap(node, segment_id, image, mode, True, False)

        # Modes are members of the logic's own enum: an int is refused.
        add = partial(modify, mode=logic.ModificationModeAdd)
        if replace:
            modify(replacement(node, segment_id, image, add), logic.ModificationModeSet)
        else:
            add(image)

    def can_undo(self) -> bool:
        return self._has_segmentation and bool(self.logic.CanUndo())

    def can_redo(self) -> bool:
        return self._has_segmentation and bool(self.logic.CanRedo())

    def undo(self) -> None:
        self.logic.Undo()

    def redo(self) -> None:
        self.logic.Redo()

    def forget(self) -> None:
        """Drop all undo states."""
        self.logic.ClearUndoState()


class Preparation:
    """What a segmentation needs before an edit, and the way back when nothing is written."""

    def __init__(self, segmentation_node: Any, volume_node: Any) -> None:
        self._node = segmentation_node
        self._segmentation = segmentation_node.GetSegmentation()
        self._role = segmentation_node.GetReferenceImageGeometryReferenceRole()
        self._geometry = self._segmentation.GetConversionParameter(GEOMETRY)
        self._reference = segmentation_node.GetNodeReferenceID(self._role)
        self._representation = self._segmentation.GetSourceRepresentationName()
        if not self._geometry:
            segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        if self._segmentation.GetNumberOfSegments() == 0:
            self._segmentation.SetSourceRepresentationName("Binary labelmap")
        self._given = self._segmentation.GetConversionParameter(GEOMETRY)

    def revert(self) -> None:
        """Put geometry, its reference and the source representation back.

        A geometry that somebody else has given meanwhile stays.
        """
        if self._segmentation.GetConversionParameter(GEOMETRY) != self._given:
            return
        self._segmentation.SetConversionParameter(GEOMETRY, self._geometry)
        self._node.SetNodeReferenceID(self._role, self._reference)
        if self._segmentation.GetNumberOfSegments() == 0:
            self._segmentation.SetSourceRepresentationName(self._representation)


def editable_voxels(
    editor_node: Any, mask_image: Any, volume: np.ndarray, lattice: Lattice
) -> np.ndarray:
    """The voxels that masking and intensity range let an edit change: bool (K, J, I).

    mask_image : the mask labelmap (non-zero is not editable), or None where all is editable. It
        need not cover the lattice, nor the lattice it; what it does not cover is editable.
    volume : the source volume on `lattice`.
    """
    allowed = np.ones(lattice.shape, bool)
    if mask_image is not None:
        allowed = on_lattice(mask_image, lattice) == 0
    if editor_node.GetSourceVolumeIntensityMask():
        low, high = editor_node.GetSourceVolumeIntensityMaskRange()
        allowed &= (volume >= low) & (volume <= high)
    return allowed


def own_voxels(volume_node: Any, part: Lattice) -> np.ndarray | None:
    """A copy of a volume's voxels (K, J, I) on a part of a segmentation's lattice that it covers.

    None where the lattice has other voxels than the volume; where it has the same, the logic would
    copy them, too, and keep its copy. Not a view: the voxels may be changed, or their memory freed,
    while the worker reads them.
    """
    image, volume = volume_node.GetImageData(), lattices.of_volume(volume_node)
    shift = part.shift_to(volume)
    single = image.GetNumberOfScalarComponents() == 1
    if shift is None or not single or image.GetPointData().GetScalars() is None:
        return None
    extent = np.stack([part.first + shift, part.last + shift], axis=1).ravel()
    return copied(image_array(image)[volume.slices(volume.cropped(extent))])


def copied(voxels: np.ndarray) -> np.ndarray:
    """A copy of voxels; raises RuntimeError with a sentence where there is no memory for it."""
    try:
        return voxels.copy()
    except MemoryError:
        raise RuntimeError(
            _(
                "There is no memory for a copy of the volume ({size:.1f} GB): close other data, or "
                "crop the volume to the object."
            ).format(size=voxels.nbytes / 1e9)
        ) from None


def on_lattice(image: Any, lattice: Lattice) -> np.ndarray:
    """The voxels of an image that shares the grid of `lattice`: (K, J, I), 0 outside the image."""
    values = np.zeros(lattice.shape, image_array(image).dtype)
    extent = np.array(image.GetExtent())
    first, last = np.maximum(extent[0::2], lattice.first), np.minimum(extent[1::2], lattice.last)
    if not np.any(first > last):
        part = lattice.cropped(np.stack([first, last], axis=1).ravel())
        values[lattice.slices(part)] = image_array(image)[lattice.cropped(extent).slices(part)]
    return values


def has_grid(segmentation_node: Any, segment_id: str, lattice: Lattice) -> bool:
    """Whether a segment has a labelmap that `segment_mask` can read on a lattice."""
    image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    if image is None or image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return False
    return lattices.of_image(image, segmentation_node).same_grid(lattice)


def segment_mask(segmentation_node: Any, segment_id: str, lattice: Lattice) -> np.ndarray:
    """The voxels of a segment on a lattice that its labelmap shares: bool (K, J, I)."""
    image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    value = segmentation_node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    return on_lattice(image, lattice) == value


def image_array(image: Any) -> np.ndarray:
    """The voxels of a vtkImageData as a view (K, J, I)."""
    from vtk.util.numpy_support import vtk_to_numpy

    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def label_image(mask: np.ndarray, lattice: Lattice) -> Any:
    """A mask (K, J, I) as vtkOrientedImageData in the frame of the segmentation."""
    import slicer
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    image.SetExtent(*lattice.extent)
    image.SetImageToWorldMatrix(lattices.to_matrix(lattice.ijk_to_local))
    voxels = np.ascontiguousarray(mask, np.uint8).ravel()  # i runs fastest, as VTK stores it
    image.GetPointData().SetScalars(numpy_to_vtk(voxels, deep=True))
    return image


def replacement(
    segmentation_node: Any, segment_id: str, image: Any, add: Callable[[Any], None]
) -> Any:
    """A labelmap with which mode Set replaces all that a segment has.

    add : adds a labelmap to the segment; called after the state was saved for undo.
    By itself Set leaves everything outside of a small image where the segment's labelmap is on
    another lattice, and takes what masking protects out there where it is on the same one. So this
    brings the segment onto the lattice of `image`, and gives `image` the size of both.
    """
    import slicer

    match = slicer.vtkOrientedImageDataResample.DoGeometriesMatch
    part = lattices.of_image(image, segmentation_node)
    own = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    if own is not None and not own.IsEmpty() and not match(own, image):
        add(label_image(np.zeros(part.shape, bool), part))  # any edit resamples the segment
        own = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    if own is None or own.IsEmpty():
        return image
    extent = np.array(own.GetExtent())
    low, high = np.minimum(part.first, extent[0::2]), np.maximum(part.last, extent[1::2])
    both = part.cropped(np.stack([low, high], axis=1).ravel())
    return label_image(on_lattice(image, both) != 0, both)


def bounding_part(mask: np.ndarray, lattice: Lattice) -> Lattice:
    """The smallest part of the lattice that holds all voxels of the mask."""
    extent: list[int] = []
    for axis, start in zip((2, 1, 0), lattice.first.tolist(), strict=True):  # I, J, K
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(mask.any(axis=others))
        extent += [start + int(used[0]), start + int(used[-1])]
    return lattice.cropped(extent)
