"""What an apply takes from other segments, and giving it back where a correction lets go. No Qt.

With Slicer's usual overwrite mode a voxel belongs to one segment: a result that leaks takes voxels
from its neighbours, and a correction that lets go of them would leave a hole there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..text import tr as _
from . import editing
from . import lattice as lattices
from .lattice import Lattice

# Some voxels of a part of a lattice: int64 (N,), indices into the flattened array (K, J, I), going
# up. A mask for each segment would be as large as the part, and there may be a hundred of them.
Places = np.ndarray


def owned(segmentation_node: Any, but: str, part: Lattice, where: np.ndarray) -> dict[str, Places]:
    """The voxels of the other segments among some voxels: segment id -> `Places` on `part`.

    but : the id of the segment that is left out; where : bool (K, J, I), the voxels that matter.
    Segments without any of them are left out.
    """
    contents = segmentation_node.GetSegmentation()
    own_image = segmentation_node.GetBinaryLabelmapInternalRepresentation(but)
    own = 0 if own_image is None else contents.GetSegment(but).GetLabelValue()
    layers: dict[Any, tuple[Places, np.ndarray, set[int]]] = {}
    found = {}
    for number in range(contents.GetNumberOfSegments()):
        segment_id = contents.GetNthSegmentID(number)
        image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        if segment_id == but or image is None:
            continue
        if image not in layers:  # segments share layers
            mine = own if image is own_image else 0
            places, labels = _labels(image, segmentation_node, part, where, mine)
            layers[image] = places, labels, set(np.unique(labels).tolist())
        places, labels, values = layers[image]
        value = contents.GetSegment(segment_id).GetLabelValue()
        if value in values:
            found[segment_id] = places[labels == value]
    return found


def lost(before: dict[str, Places], after: dict[str, Places]) -> dict[str, Places]:
    """What segments had before and have no longer; both as `owned` gives them for the same."""
    gone = {
        segment_id: np.setdiff1d(places, after.get(segment_id, places[:0]), assume_unique=True)
        for segment_id, places in before.items()
    }
    return {segment_id: places for segment_id, places in gone.items() if len(places)}


def together(found: dict[str, Places], part: Lattice) -> np.ndarray:
    """The voxels that any of them has: bool (K, J, I) on `part`."""
    return mask_of(np.concatenate([np.empty(0, np.int64), *found.values()]), part)


def mask_of(places: Places, part: Lattice) -> np.ndarray:
    """Places of a part as a mask, bool (K, J, I)."""
    mask = np.zeros(part.shape, bool)
    np.put(mask, places, True)
    return mask


def voxels_at(places: Places, part: Lattice) -> np.ndarray:
    """The voxels (k, j, i) of the lattice at some places of a part: int32 (N, 3)."""
    inside = np.stack(np.unravel_index(places, part.shape), axis=1)
    return (inside + part.first[::-1]).astype(np.int32)


def places_of(voxels: np.ndarray, part: Lattice) -> Places:
    """The places on a part of voxels (k, j, i) of the lattice; those outside are left out."""
    inside = voxels - part.first[::-1]
    inside = inside[((inside >= 0) & (inside < part.shape)).all(axis=1)]
    return np.ravel_multi_index(tuple(inside.T), part.shape)


def _labels(
    image: Any, segmentation_node: Any, part: Lattice, where: np.ndarray, but: int
) -> tuple[Places, np.ndarray]:
    """Where a layer has labels other than `but` at some voxels of `part`, and which.

    Imported segments have lattices of their own. Only where the layer and the part overlap is
    anything read: a segmentation may have a hundred layers.
    """
    nothing = np.empty(0, np.int64), np.empty(0, np.uint8)
    if image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return nothing
    layer = lattices.of_image(image, segmentation_node)
    shift = part.shift_to(layer)  # the same voxels, perhaps counted from elsewhere
    if shift is None:
        image, layer, shift = _resampled(image, part), part, np.zeros(3, int)
    first = np.maximum(part.first, layer.first - shift)
    last = np.minimum(part.last, layer.last - shift)
    if np.any(first > last):
        return nothing
    both = part.cropped(np.stack([first, last], axis=1).ravel())
    there = layer.cropped(np.stack([first + shift, last + shift], axis=1).ravel())
    labels = editing.on_lattice(image, there)
    inside = part.slices(both)
    used = np.nonzero((labels != 0) & (labels != but) & where[inside])
    places = tuple(at + step.start for at, step in zip(used, inside, strict=True))
    return np.ravel_multi_index(places, part.shape), labels[used]


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
