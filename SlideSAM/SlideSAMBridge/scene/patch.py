"""A labelmap that covers only the box around what is written to it. No Qt.

One that covers a large volume is hundreds of megabytes, and Slicer goes through all of them, with
two more copies, when a segment leaves a labelmap that it shares with another one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import lattice as lattices
from .editing import image_array
from .lattice import Lattice

# From and to, exclusive, along (K, J, I), counted from the start of the lattice: int (3, 2).
Bounds = np.ndarray


class Patch:
    """8-bit labels on a lattice, 0 where nothing was written.

    image : vtkOrientedImageData in the frame of the segmentation; the same object at any size. Its
        array is replaced, never resized: views draw from shallow copies of the image, which have
        the extent of before until they are told.
    """

    def __init__(self, lattice: Lattice) -> None:
        import slicer

        self.lattice = lattice
        self.image = slicer.vtkOrientedImageData()
        self.image.SetImageToWorldMatrix(lattices.to_matrix(lattice.ijk_to_local))
        self._bounds: Bounds | None = None
        self.empty()

    def empty(self) -> None:
        """Write 0 everywhere, and let go of the memory."""
        self._bounds = None
        self.image.SetExtent(0, -1, 0, -1, 0, -1)  # first, or it would be larger than its voxels
        self.image.GetPointData().SetScalars(_scalars(0))

    def cover(self, bounds: Bounds) -> None:
        """Have room for these bounds, too; see `at`."""
        grown = self._grown(bounds)
        if grown is None:
            return
        scalars = _scalars(int(np.prod(grown[:, 1] - grown[:, 0])))
        low, high = self.lattice.first + grown[::-1, 0], self.lattice.first + grown[::-1, 1] - 1
        before, old = self._bounds, None if self._bounds is None else image_array(self.image)
        self.image.GetPointData().SetScalars(scalars)
        self.image.SetExtent(*np.stack([low, high], axis=1).ravel().tolist())
        self._bounds = grown
        if before is not None:
            self.at(before)[...] = old

    def at(self, bounds: Bounds) -> np.ndarray:
        """A view of the voxels in bounds that are covered: (K, J, I)."""
        inside = (bounds - self._bounds[:, :1]).tolist()
        return image_array(self.image)[tuple(slice(a, b) for a, b in inside)]

    def on_slice(self, axis: int, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """What is covered of a slice: a view (row, column), and where that starts; or None.

        axis : an index into (I, J, K). index : counts from the start of the lattice.
        """
        along = 2 - axis
        if self._bounds is None or not self._bounds[along, 0] <= index < self._bounds[along, 1]:
            return None
        bounds = self._bounds.copy()
        bounds[along] = index, index + 1
        return self.at(bounds).squeeze(along), np.delete(bounds[:, 0], along)

    def _grown(self, bounds: Bounds) -> Bounds | None:
        """The bounds to cover from now on, None where they suffice as they are.

        Where they grow, they do by half, so that a slide does not copy them at every slice.
        """
        if self._bounds is None:
            return bounds.copy()
        low = np.minimum(bounds[:, 0], self._bounds[:, 0])
        high = np.maximum(bounds[:, 1], self._bounds[:, 1])
        lower, higher = low < self._bounds[:, 0], high > self._bounds[:, 1]
        if not (lower.any() or higher.any()):
            return None
        room = (high - low) // 2
        low = np.where(lower, np.maximum(low - room, 0), low)
        high = np.where(higher, np.minimum(high + room, self.lattice.shape), high)
        return np.stack([low, high], axis=1)


def _scalars(count: int) -> Any:
    """So many zeros as a VTK array."""
    import vtk

    scalars = vtk.vtkUnsignedCharArray()
    scalars.SetNumberOfTuples(count)
    scalars.Fill(0)
    return scalars
