"""What an apply takes from other segments, and giving it back where a correction lets go. No Qt.

With Slicer's usual overwrite mode a voxel belongs to one segment: a result that leaks takes voxels
from its neighbours, and a correction that lets go of them would leave a hole there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import editing
from . import lattice as lattices
from .lattice import Lattice
from .text import tr as _


def owned(
    segmentation_node: Any, but: str, part: Lattice, where: np.ndarray
) -> dict[str, np.ndarray]:
    """The voxels of the other segments among some voxels: segment id -> bool (K, J, I) on `part`.

    but : the id of the segment that is left out; where : bool (K, J, I), the voxels that matter.
    Segments without any of them are left out.
    """
    contents = segmentation_node.GetSegmentation()
    layers: dict[Any, tuple[np.ndarray, set[int]] | None] = {}
    found = {}
    for number in range(contents.GetNumberOfSegments()):
        segment_id = contents.GetNthSegmentID(number)
        image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        if segment_id == but or image is None:
            continue
        if image not in layers:  # segments share layers
            layers[image] = _values(image, segmentation_node, part, where)
        layer = layers[image]
        value = contents.GetSegment(segment_id).GetLabelValue()
        if layer is None or value not in layer[1]:
            continue
        found[segment_id] = np.zeros(part.shape, bool)
        found[segment_id][where] = layer[0] == value
    return found


def lost(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What segments had before and have no longer; both as `owned` gives them for the same."""
    gone = {
        segment_id: mask & ~after[segment_id] if segment_id in after else mask
        for segment_id, mask in before.items()
    }
    return {segment_id: mask for segment_id, mask in gone.items() if mask.any()}


def together(masks: dict[str, np.ndarray], part: Lattice) -> np.ndarray:
    """The voxels that any of them has: bool (K, J, I) on `part`."""
    found = np.zeros(part.shape, bool)
    for mask in masks.values():
        found |= mask
    return found


def _values(
    image: Any, segmentation_node: Any, part: Lattice, where: np.ndarray
) -> tuple[np.ndarray, set[int]] | None:
    """The labels of a layer at some voxels of `part`, and which there are; None without any."""
    if image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return None
    values = _on_part(image, lattices.of_image(image, segmentation_node), part)[where]
    return values, set(np.unique(values).tolist())


def _on_part(image: Any, layer: Lattice, part: Lattice) -> np.ndarray:
    """The labels of a layer (K, J, I) on `part`; imported segments have lattices of their own."""
    shift = part.shift_to(layer)
    if shift is not None:  # the same voxels, perhaps counted from elsewhere
        extent = np.stack([part.first + shift, part.last + shift], axis=1).ravel()
        return editing.on_lattice(image, layer.cropped(extent))
    return editing.on_lattice(_resampled(image, part), part)


def _resampled(image: Any, part: Lattice) -> Any:
    """An image brought onto `part`, nearest neighbour: as Slicer does it when it edits a layer."""
    import slicer

    reference, found = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    reference.SetExtent(*part.extent)
    reference.SetImageToWorldMatrix(lattices.to_matrix(part.ijk_to_local))
    resample = slicer.vtkOrientedImageDataResample
    if not resample.ResampleOrientedImageToReferenceOrientedImage(image, reference, found):
        raise RuntimeError(_("Another segment cannot be brought onto the segmentation's geometry."))
    return found
