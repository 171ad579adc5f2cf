"""Positions in slice views: pixels to RAS, which slice is shown, and moving there. No Qt.

XY are pixels of the render window, origin at the bottom left, as events report them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .lattice import Lattice, to_array
from .orientation import PARALLEL


def ras_of(slice_node: Any, xy: Sequence[float]) -> np.ndarray:
    """The world position in mm of a pixel, on the plane that is shown: float64 (3,)."""
    return (to_array(slice_node.GetXYToRAS()) @ [xy[0], xy[1], 0.0, 1.0])[:3]


def xy_of(slice_node: Any, ras: Sequence[float]) -> np.ndarray:
    """The pixel where a world position is shown, with fractions: float64 (2,)."""
    return np.linalg.solve(to_array(slice_node.GetXYToRAS()), np.append(ras, 1.0))[:2]


def shown_slice(slice_node: Any, lattice: Lattice) -> tuple[int, int] | None:
    """(axis, index) of the slice that a view shows, None where it is oblique to the lattice.

    The axis is an index into (I, J, K); the index is a voxel index and may lie outside.
    """
    slice_to_ras = to_array(slice_node.GetSliceToRAS())
    normal = slice_to_ras[:3, 2] / np.linalg.norm(slice_to_ras[:3, 2])
    fits = np.abs(lattice.plane_normals() @ normal)
    axis = int(np.argmax(fits))
    if fits[axis] < PARALLEL:
        return None
    return axis, int(lattice.voxel(slice_to_ras[:3, 3])[axis])


def same_plane(slice_node: Any, before: np.ndarray) -> bool:
    """Whether a view still shows the plane of `plane(slice_node)`; pan and zoom do not count."""
    now = plane(slice_node)
    return bool(np.allclose(now, before, rtol=0, atol=1e-6))


def plane(slice_node: Any) -> np.ndarray:
    """Normal and distance from the origin of the plane that is shown: float64 (4,)."""
    slice_to_ras = to_array(slice_node.GetSliceToRAS())
    normal = slice_to_ras[:3, 2]
    return np.append(normal, normal @ slice_to_ras[:3, 3])


def jump(slice_node: Any, lattice: Lattice, axis: int, index: int) -> None:
    """Move a view of this orientation to a slice, without panning it."""
    here = lattice.position(to_array(slice_node.GetSliceToRAS())[:3, 3])
    here[axis] = index
    ras = (lattice.ijk_to_ras @ np.append(here, 1.0))[:3]
    slice_node.JumpSliceByOffsetting(*ras.tolist())
