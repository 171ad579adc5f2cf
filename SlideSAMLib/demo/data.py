"""The demo's own volume: the ICBM 2009 T1 brain that the nilearn package carries."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images.volumes import ImageVolume, read_image
from ..prompts import SlicePrompt

FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
AXIS = "k"
# A box drawn by hand around the brain on one axial slice, and a click into the white matter.
PROMPT = SlicePrompt(80, box=(24.0, 25.0, 172.0, 209.0), points=[(62.0, 96.0)], labels=[1])
CLOSING = 4  # voxels of 1 mm: closes the sulci and the fissure


@dataclass(frozen=True, eq=False)
class Brain:
    """The T1 volume and its brain mask, bool (K, J, I)."""

    image: ImageVolume
    mask: np.ndarray


def load_brain() -> Brain:
    """Read the template and make its brain mask from the tissue maps; needs no network.

    Raises InputError where nilearn is not installed or carries other files.
    """
    spec = importlib.util.find_spec("nilearn")  # only its files are used: no import needed
    if spec is None or spec.origin is None:
        raise InputError(
            "The demo's MR brain comes with nilearn, which is not installed: pip install nilearn, "
            "or give your own --image FILE."
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    paths = {tissue: folder / FILE.format(tissue) for tissue in ("t1", "gm", "wm")}
    for path in paths.values():
        if not path.is_file():
            raise InputError(
                f"This nilearn does not carry {path.name}: install nilearn==0.14.1, or give your "
                "own --image FILE."
            )
    grey, white = (read_image(paths[tissue]).array for tissue in ("gm", "wm"))
    return Brain(read_image(paths["t1"]), brain_mask(grey, white))


def brain_mask(grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """The brain of two tissue maps (K, J, I) of 0..255: bool (K, J, I).

    Voxels that are grey or white matter by one half at least, their largest connected part,
    closed by 4 voxels, with the ventricles filled.
    """
    from scipy import ndimage

    tissue = grey.astype(np.uint16) + white >= 128
    parts, _ = ndimage.label(tissue)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = np.pad(parts == sizes.argmax(), CLOSING)  # room for the closing at the borders
    closed = ndimage.binary_closing(largest, iterations=CLOSING)
    inner = (slice(CLOSING, -CLOSING),) * 3
    return ndimage.binary_fill_holes(closed[inner])
