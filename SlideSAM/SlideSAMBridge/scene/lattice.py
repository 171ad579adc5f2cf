"""The voxel lattice of a segmentation: its extent, and where its voxels lie in the world.

Frames: IJK are voxel indices of the lattice (centres at whole numbers, the first index is the
start of the extent and may be negative), "local" is the frame of the segmentation node in mm, RAS
is the world in mm. Everything is double precision; matrices map column vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..text import tr as _

# Fraction of a voxel that rounding errors of the matrices may make.
TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Lattice:
    """A grid of voxels in a node.

    extent : (i0, i1, j0, j1, k0, k1), inclusive.
    ijk_to_local : 4 x 4, voxel indices to the node's frame; may be oblique, left-handed, sheared.
    local_to_ras : 4 x 4, the node's parent transforms.
    """

    extent: tuple[int, int, int, int, int, int]
    ijk_to_local: np.ndarray
    local_to_ras: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Index (i, j, k) of the first voxel, which is element [0, 0, 0] of an array."""
        return np.array(self.extent[0::2])

    @property
    def last(self) -> np.ndarray:
        """Index (i, j, k) of the last voxel."""
        return np.array(self.extent[1::2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (K, J, I) of an array on this lattice."""
        i, j, k = (self.last - self.first + 1).tolist()
        return (k, j, i)

    @property
    def ijk_to_ras(self) -> np.ndarray:
        return self.local_to_ras @ self.ijk_to_local

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (sk, sj, si) in mm of the world."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0).tolist()
        return (k, j, i)

    def position(self, ras: Sequence[float]) -> np.ndarray:
        """World RAS in mm to IJK with fractions: float64 (3,)."""
        return np.linalg.solve(self.ijk_to_ras, np.append(np.asarray(ras, float), 1.0))[:3]

    def voxel(self, ras: Sequence[float]) -> np.ndarray:
        """World RAS in mm to the voxel it lies in: int (3,), not limited to the extent.

        A position half way between two voxels belongs to the upper one; the tiny step keeps one
        that misses the half by rounding error there too.
        """
        return np.floor(self.position(ras) + 0.5 + TINY).astype(int)

    def voxel_of_local(self, local: Sequence[float]) -> np.ndarray:
        """As `voxel`, for a position in the frame of the node in mm."""
        return self.voxels_of_local(np.asarray(local, float)[None])[0]

    def voxels_of_local(self, local: np.ndarray) -> np.ndarray:
        """As `voxel_of_local`, for many positions at once: (N, 3) to int (N, 3)."""
        columns = np.vstack([local.T, np.ones(len(local))])
        ijk = np.linalg.solve(self.ijk_to_local, columns)[:3].T
        return np.floor(ijk + 0.5 + TINY).astype(int)

    def local(self, ijk: Sequence[float]) -> np.ndarray:
        """A voxel index, with or without fractions, in the frame of the node in mm: (3,)."""
        return (self.ijk_to_local @ np.append(np.asarray(ijk, float), 1.0))[:3]

    def same_grid(self, other: Lattice) -> bool:
        """Whether an index means the same on the other lattice; both in the same node."""
        return np.allclose(self.ijk_to_local, other.ijk_to_local, rtol=0, atol=1e-9)

    def same_voxels(self, other: Lattice) -> bool:
        """Whether an array means the same on the other lattice; both in the same node."""
        return self.extent == other.extent and self.same_grid(other)

    def shift_to(self, other: Lattice) -> np.ndarray | None:
        """What to add to an index (i, j, k) for the same voxel's index on the other lattice.

        Whole numbers, int (3,); None where the two do not have the same voxels in the world.
        """
        borders = np.repeat((self.first - 0.5)[:, None], 4, axis=1)
        borders[[0, 1, 2], [1, 2, 3]] = self.last + 0.5  # one corner, and one along each axis
        ras = self.ijk_to_ras @ np.vstack([borders, np.ones(4)])
        moved = np.linalg.solve(other.ijk_to_ras, ras)[:3] - borders
        shift = np.rint(moved[:, :1])
        return shift[:, 0].astype(int) if np.all(np.abs(moved - shift) <= TINY) else None

    def contains(self, ijk: Sequence[int]) -> bool:
        """Whether a voxel index lies in the extent."""
        return bool(np.all(self.first <= ijk) and np.all(ijk <= self.last))

    def plane_normals(self) -> np.ndarray:
        """Unit normals in RAS of the planes i, j, k = constant, one a row: (3, 3).

        These are the rows of the inverse matrix. On a sheared lattice (gantry tilt) they differ
        from the axis directions, and what a person calls a slice is the plane.
        """
        rows = np.linalg.inv(self.ijk_to_ras[:3, :3])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def cropped(self, extent: Sequence[int]) -> Lattice:
        """The same voxels, but only those of a smaller extent."""
        return Lattice(tuple(int(e) for e in extent), self.ijk_to_local, self.local_to_ras)

    def slices(self, part: Lattice) -> tuple[slice, slice, slice]:
        """Where `part` (a crop of this lattice) lies in an array (K, J, I) on this lattice."""
        start, stop = part.first - self.first, part.last - self.first + 1
        i, j, k = (slice(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True))
        return (k, j, i)


def of_image(image: Any, node: Any) -> Lattice:
    """The lattice of a vtkOrientedImageData that belongs to a segmentation node.

    Raises ValueError where the node hangs under a transform that is not linear.
    """
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)  # "world" of the image: the frame of the node
    return Lattice(tuple(image.GetExtent()), to_array(matrix), local_to_ras(node))


def of_volume(node: Any) -> Lattice:
    """The lattice of a volume node.

    Raises ValueError where the node hangs under a transform that is not linear.
    """
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return Lattice(tuple(node.GetImageData().GetExtent()), to_array(matrix), local_to_ras(node))


def local_to_ras(node: Any) -> np.ndarray:
    """The matrix from a node's frame to the world: float64 (4, 4)."""
    import vtk

    parent = node.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            raise ValueError(
                _(
                    "'{name}' lies under a transform that is not linear: harden it or take it off"
                    " before segmenting."
                ).format(name=node.GetName())
            )
        parent.GetMatrixTransformToWorld(matrix)
    return to_array(matrix)


def covered_part(lattice: Lattice, volume: Lattice) -> Lattice:
    """The part of a lattice that a volume covers: the index box around the volume's voxels.

    A segmentation can be larger than the volume, and what lies outside is filler, not image.
    Raises ValueError where the two do not overlap, or the lattice has no volume.
    """
    low, high = volume.first - 0.5, volume.last + 0.5
    corners = np.array(
        [
            [i, j, k, 1.0]
            for i in (low[0], high[0])
            for j in (low[1], high[1])
            for k in (low[2], high[2])
        ]
    )
    try:
        ijk = np.linalg.solve(lattice.ijk_to_ras, volume.ijk_to_ras @ corners.T)[:3]
    except np.linalg.LinAlgError:
        raise ValueError(
            _("The segmentation is squashed flat: mend its transform or its geometry.")
        ) from None
    # Voxels whose centre lies inside; a centre on the border counts despite rounding errors.
    first = np.maximum(np.ceil(ijk.min(1) - TINY).astype(int), lattice.first)
    last = np.minimum(np.floor(ijk.max(1) + TINY).astype(int), lattice.last)
    if np.any(first > last):
        raise ValueError(_("The volume and the segmentation do not overlap: they share no voxel."))
    return lattice.cropped(np.stack([first, last], axis=1).ravel())


def to_array(matrix: Any) -> np.ndarray:
    """A vtkMatrix4x4 as float64 (4, 4)."""
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def to_matrix(array: np.ndarray) -> Any:
    """A (4, 4) array as a vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix
