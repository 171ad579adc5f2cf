"""What a segmentation has, so that its states can be compared. No Qt.

Slicer gives labels other values and other layers now and then, as each time it saves a scene. So a
segment counts as the same as long as its voxels, its name, its colour and its prompts are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import lattice as lattices
from . import segments
from .editing import image_array
from .lattice import Lattice

# Label value -> how many voxels have it, and the sum of numbers that stand for their places.
Sums = dict[int, tuple[int, float]]

_PRIMES = (73856093, 19349663, 83492791)  # for i, j, k
_MASK = 2**24 - 1  # sums of up to 2**29 numbers are exact then


def stamps(segmentation_node: Any) -> tuple:
    """Equal to those of another moment only where nothing has changed, but not always then.

    Slicer changes them without changing a voxel, see above; to ask for them costs nothing.
    """
    segmentation = segmentation_node.GetSegmentation()
    found = []
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(number)
        segment = segmentation.GetSegment(segment_id)
        image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        time = None if image is None else image.GetMTime()  # no two images have the same
        text = segments.saved_text(segmentation_node, segment_id)
        shown = (segment.GetName(), segment.GetColor())
        found.append((segment_id, *shown, text, segment.GetLabelValue(), time))
    return tuple(found)


class Contents:
    """Makes what can be compared; images that have not changed are not looked at again."""

    def __init__(self) -> None:
        self._known: dict[int, Sums] = {}  # by time of change; no two images have the same

    def of(self, segmentation_node: Any) -> tuple:
        """Equal to that of another moment if an undo between the two would bring nothing back.

        The surfaces that Slicer makes of the labels are not among it.
        """
        segmentation, found = segmentation_node.GetSegmentation(), []
        known, self._known = self._known, {}
        for number in range(segmentation.GetNumberOfSegments()):
            segment_id = segmentation.GetNthSegmentID(number)
            segment = segmentation.GetSegment(segment_id)
            image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
            voxels = None
            if image is not None and image.GetPointData().GetScalars() is not None:
                time = image.GetMTime()
                if time not in self._known:
                    self._known[time] = known[time] if time in known else _sums(image)
                sums = self._known[time].get(segment.GetLabelValue())
                voxels = sums and (sums, _place(image))
            text = segments.saved_text(segmentation_node, segment_id)
            found.append((segment_id, segment.GetName(), segment.GetColor(), text, voxels))
        return tuple(found)


def _place(image: Any) -> tuple[float, ...]:
    """Where the voxels of an image lie in the frame of the segmentation."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return tuple(np.round(lattices.to_array(matrix), 6).ravel().tolist())


def _sums(image: Any) -> Sums:
    """All labels of a layer at once, slice by slice: there may be a hundred of them."""
    voxels = image_array(image)  # (K, J, I)
    extent = Lattice(tuple(image.GetExtent()), np.eye(4), np.eye(4))
    i, j, k = (
        np.arange(low, high + 1) * prime
        for low, high, prime in zip(extent.first, extent.last, _PRIMES, strict=True)
    )
    in_slice = (i[None, :] ^ j[:, None]).ravel()
    sums: Sums = {}
    for labels, here in zip(voxels, k, strict=True):
        flat = labels.ravel()
        where = np.flatnonzero(flat > 0)
        if where.size == 0:
            continue
        values = flat[where].astype(np.int64)
        counts = np.bincount(values)
        totals = np.bincount(values, ((in_slice[where] ^ here) & _MASK).astype(float))
        for label in np.flatnonzero(counts).tolist():
            count, total = sums.get(label, (0, 0.0))
            sums[label] = (count + int(counts[label]), total + float(totals[label]))
    return sums
