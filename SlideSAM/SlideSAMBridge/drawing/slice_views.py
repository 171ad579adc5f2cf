"""Positions in slice views: pixels to RAS, which slice is shown, and moving there. No Qt.

XY are pixels of the render window, origin at the bottom left, as events report them.

What is drawn, and where a click lands, is XYToRAS. Slicer leaves it as it is where no element would
change by more than about 0.001, while SliceToRAS, in mm, moves on: with slices closer than a
micrometre the two show different slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..scene.lattice import Lattice, to_array
from ..scene.orientation import PARALLEL

# How far, in slices, the plane of a view may lie from the slice that the view counts as. A parallel
# view between two slices is up to half a slice away, everywhere; a tilted one more and more.
NEAR = 0.75


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
    normal, middle = _drawn(slice_node)
    fits = np.abs(lattice.plane_normals() @ normal)
    axis = int(np.argmax(fits))
    if fits[axis] < PARALLEL:
        return None
    return axis, int(lattice.voxel(middle)[axis])


def is_near(
    slice_node: Any, lattice: Lattice, axis: int, index: int, ras: np.ndarray
) -> np.ndarray:
    """Whether a view shows a slice at world positions (N, 3), see NEAR: bool (N,).

    Positions off the plane count as where they are seen. `shown_slice` asks for the middle of the
    view only: over a large field 2 degrees are several slices.
    """
    xy_to_ras = to_array(slice_node.GetXYToRAS())
    pixels = np.linalg.solve(xy_to_ras, np.column_stack([ras, np.ones(len(ras))]).T)
    pixels[2] = 0  # onto the plane
    here = np.linalg.solve(lattice.ijk_to_ras, xy_to_ras @ pixels)
    return np.abs(here[axis] - index) <= NEAR


def same_plane(slice_node: Any, before: np.ndarray) -> bool:
    """Whether a view still shows the plane of `plane(slice_node)`; pan and zoom do not count."""
    now = plane(slice_node)
    return bool(np.allclose(now, before, rtol=0, atol=1e-6))


def plane(slice_node: Any) -> np.ndarray:
    """Normal and distance from the origin of the plane that is shown: float64 (4,)."""
    normal, middle = _drawn(slice_node)
    return np.append(normal, normal @ middle)


def jump(slice_node: Any, lattice: Lattice, axis: int, index: int) -> None:
    """Move a view of this orientation to a slice, without panning it."""
    normal, middle = _drawn(slice_node)
    here = lattice.position(middle)
    here[axis] = index
    ras = (lattice.ijk_to_ras @ np.append(here, 1.0))[:3]
    slice_node.JumpSliceByOffsetting(*ras.tolist())
    if shown_slice(slice_node, lattice) != (axis, index):
        # Too small a move to be drawn: go 1 mm away first, which nobody gets to see.
        modifying = slice_node.StartModify()
        slice_node.JumpSliceByOffsetting(*(ras + normal).tolist())
        slice_node.JumpSliceByOffsetting(*ras.tolist())
        slice_node.EndModify(modifying)


def middle(slice_node: Any) -> np.ndarray:
    """The world position in mm of the middle of a view: float64 (3,)."""
    return _drawn(slice_node)[1]


def _drawn(slice_node: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit normal of the plane that is drawn, and its point in the middle of the view (RAS, mm)."""
    x, y = to_array(slice_node.GetXYToRAS())[:3, :2].T
    normal = np.cross(x, y)
    width, height = slice_node.GetDimensions()[:2]
    return normal / np.linalg.norm(normal), ras_of(slice_node, (width / 2, height / 2))
