"""Which lattice axis the window slides along."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..text import tr as _
from .lattice import Lattice, to_array

# Normals of the anatomical planes in RAS.
ANATOMICAL = {"Axial": (0, 0, 1), "Sagittal": (1, 0, 0), "Coronal": (0, 1, 0)}
AXES = "IJK"
# A view counts as parallel to the slices up to 2.6 degrees, which is cosine 0.999.
PARALLEL = 0.999
# Two axes this alike in their fit to a plane (within about 3 degrees of the middle) are a toss-up.
AMBIGUOUS = 0.9


def slide_axis(orientation: Any, lattice: Lattice) -> int:
    """The slide axis as an index into (I, J, K): 0, 1 or 2.

    Parameters
    ----------
    orientation :
        "Axial", "Sagittal" or "Coronal": the axis whose slices are nearest to that anatomical
        plane, also where the scan is oblique. "I", "J" or "K": that axis. A slice view node: the
        axis whose slices the view shows.

    Raises
    ------
    ValueError
        Unknown orientation; two axes fit an anatomical plane equally well; the slice view is
        oblique to the lattice.
    """
    if hasattr(orientation, "GetSliceToRAS"):
        return _of_view(orientation, lattice)
    name = str(orientation).strip().capitalize()
    if name in AXES and len(name) == 1:
        return AXES.index(name)
    if name not in ANATOMICAL:
        raise ValueError(
            _(
                "The orientation must be Axial, Sagittal, Coronal, I, J, K or a slice view "
                "node, not {orientation!r}."
            ).format(orientation=orientation)
        )
    fits = _fits(np.array(ANATOMICAL[name], float), lattice)
    best, second = np.argsort(fits)[::-1][:2]
    if fits[second] > AMBIGUOUS * fits[best]:
        raise ValueError(
            _(
                "Two axes of the volume are equally near to the {name} plane: say which one "
                "to slide along with orientation='{best}' or '{second}'."
            ).format(name=name, best=AXES[best], second=AXES[second])
        )
    return int(best)


def _of_view(slice_node: Any, lattice: Lattice) -> int:
    # Columns of SliceToRAS: view x, view y, normal, origin.
    normal = to_array(slice_node.GetSliceToRAS())[:3, 2]
    fits = _fits(normal, lattice)
    if fits.max() < PARALLEL:
        raise ValueError(
            _(
                "The slice view {name} is oblique to the volume: call its "
                "RotateToVolumePlane(volumeNode), or press 'Rotate to volume plane' in the "
                "view."
            ).format(name=slice_node.GetName())
        )
    return int(np.argmax(fits))


def _fits(normal: np.ndarray, lattice: Lattice) -> np.ndarray:
    """|cosine| between a plane normal and the slice planes of the three axes: (3,)."""
    return np.abs(lattice.plane_normals() @ normal) / np.linalg.norm(normal)
