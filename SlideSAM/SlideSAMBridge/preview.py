"""The preview: a second segmentation node that shows what may become part of a segment. No Qt.

It is never saved, hangs under the same transform as the segmentation, and shares its voxels. Two
segments in one labelmap show the slices that the model is sure of and, dimmed, the others. The
latter have no outline of Slicer's; the overlays of all views draw one for them, dashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import lattice as lattices
from .dashes import outlines
from .editing import image_array
from .lattice import Lattice

NAME = "Slide-SAM preview"
SURE, WEAK = "sure", "weak"
LABELS = {SURE: 1, WEAK: 2}
# (fill, outline) opacity: the dimmed slices ask to be looked at.
OPACITY = {SURE: (0.45, 1.0), WEAK: (0.2, 0.0)}

# Slice index (from the start of the part) -> (mask, bool (H, W); confidence, 0..1).
Slices = Mapping[int, tuple[np.ndarray, float]]


class Preview:
    """Shows masks of slices; makes its node when there is something to show."""

    def __init__(self) -> None:
        self._node: Any = None
        self._image: Any = None
        self._voxels: np.ndarray | None = None  # (slice, row, column), a view into the image
        self._part: Lattice | None = None
        self._shown: set[int] = set()
        self._weak: set[int] = set()  # those of them that the model is not sure of
        self._outlines: dict[tuple[int, int], list[np.ndarray]] = {}  # (axis, index) -> lines
        self.color: tuple[float, ...] = (1.0, 1.0, 1.0)
        self.version = 0  # counts up when what is shown changes

    @property
    def node(self) -> Any:
        """The preview segmentation node, or None while there is none in the scene."""
        if self._node is not None and self._node.GetScene() is None:
            self._forget()  # the scene was closed, or somebody deleted it
        return self._node

    @property
    def shown(self) -> frozenset[int]:
        """The slices that have something on them."""
        return frozenset(self._shown) if self.node is not None else frozenset()

    def show(
        self,
        segmentation_node: Any,
        part: Lattice,
        axis: int,
        slices: Slices,
        color: Sequence[float],
        weak_below: float,
        only: Iterable[int] | None = None,
    ) -> None:
        """Show exactly these slices, counted along `axis` from the start of `part`.

        only : the slices that changed, where the others are known to be as they were.
        """
        fresh = self._prepare(segmentation_node, part, axis)
        changed = set(self._shown) | set(slices) if only is None or fresh else set(only)
        for index in changed:
            self._write(index, slices.get(index), weak_below)
        self._color(color)
        if changed:
            self.version += 1
            self._image.Modified()  # numpy writes go unnoticed
            self._node.GetDisplayNode().Modified()  # or views that stand still keep their picture

    def weak_outlines(self, axis: int, index: int) -> list[np.ndarray]:
        """The outlines, on one slice of any orientation, of what the model is not sure of.

        index : counts along `axis` from the start of the part. See `dashes.outlines`.
        """
        if self.node is None or not self._weak or (axis == self._axis and index not in self._weak):
            return []
        if (axis, index) not in self._outlines:
            voxels = np.moveaxis(image_array(self._image), 2 - axis, 0)  # (K, J, I) as `_voxels`
            if not 0 <= index < len(voxels):
                return []
            self._outlines[axis, index] = outlines(voxels[index] == LABELS[WEAK])
        return self._outlines[axis, index]

    def clear(self) -> None:
        """Show nothing, and take the node out of the scene."""
        node = self.node
        if node is not None:
            display = node.GetDisplayNode()
            scene = node.GetScene()
            scene.RemoveNode(node)
            if display is not None and display.GetScene() is not None:
                scene.RemoveNode(display)
        self._forget()

    def _forget(self) -> None:
        self._node = self._image = self._voxels = self._part = None
        self._shown, self._weak = set(), set()
        self._outlines = {}
        self.version += 1

    def _write(self, index: int, entry: tuple[np.ndarray, float] | None, weak_below: float) -> None:
        was_weak = index in self._weak
        self._weak.discard(index)
        if entry is None:
            self._voxels[index] = 0
            self._shown.discard(index)
        else:
            mask, confidence = entry
            kind = WEAK if confidence < weak_below else SURE
            self._voxels[index] = np.where(mask, np.uint8(LABELS[kind]), np.uint8(0))
            self._shown.add(index)
            if kind == WEAK:
                self._weak.add(index)
        if was_weak or index in self._weak:
            self._outlines.clear()  # slices of other orientations cross this one

    def _prepare(self, segmentation_node: Any, part: Lattice, axis: int) -> bool:
        """Make the node where there is none that fits; True where it is empty now."""
        fits = self.node is not None and self._part.same_voxels(part)
        if not fits:
            self.clear()
            self._make(segmentation_node, part)
        self._node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
        # (K, J, I) to (slice, row, column)
        self._voxels = np.moveaxis(image_array(self._image), 2 - axis, 0)
        if fits and self._axis != axis:
            self._voxels[...] = 0
            self._shown, self._weak = set(), set()
            self._outlines = {}
            fits = False
        self._axis = axis
        return not fits

    def _make(self, segmentation_node: Any, part: Lattice) -> None:
        import slicer
        import vtk

        scene = segmentation_node.GetScene()
        node = slicer.vtkMRMLSegmentationNode()
        node.SetName(NAME)
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)  # nobody should choose it to edit
        node.UndoEnabledOff()
        scene.AddNode(node)
        node.CreateDefaultDisplayNodes()  # before the segments, which then get properties of theirs
        contents = node.GetSegmentation()
        contents.SetSourceRepresentationName("Binary labelmap")
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*part.extent)
        image.SetImageToWorldMatrix(lattices.to_matrix(part.ijk_to_local))
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        image.GetPointData().GetScalars().Fill(0)
        for name, value in LABELS.items():
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetLabelValue(value)
            segment.AddRepresentation("Binary labelmap", image)
            contents.AddSegment(segment, name)
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetVisibility3D(False)  # a surface at every slice would take longer than the model
        for name, (fill, outline) in OPACITY.items():
            display.SetSegmentOpacity2DFill(name, fill)
            display.SetSegmentOpacity2DOutline(name, outline)
        self._node, self._image, self._part, self._axis = node, image, part, None

    def _color(self, color: Sequence[float]) -> None:
        if self.color != tuple(color):
            self.color = tuple(color)
            self.version += 1
        contents = self._node.GetSegmentation()
        for name in LABELS:
            segment = contents.GetSegment(name)
            if not np.allclose(segment.GetColor(), color):
                segment.SetColor(*color)
