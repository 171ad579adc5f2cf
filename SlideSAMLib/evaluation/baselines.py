"""Baselines without a network. A model that does not beat them is not a model.

All of them are told the structure's first and last slice, which helps them: their Dice over the
whole volume and over the structure's own slices is the same number. The first two are even given
the truth of the prompted slice (its mask, its exact box). Stacks are (S, H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..prompts import SlicePrompt
from .metrics import extent
from .prompting import true_box

# stack of the image, bool stack of the truth, prompt -> bool stack
Baseline = Callable[[np.ndarray, np.ndarray, SlicePrompt], np.ndarray]

SEED_SHARE = 0.7  # of the box: the ellipse whose voxels say what the structure looks like
SPREAD = 2.0  # robust standard deviations around the median that still belong to the structure
POINT_RADIUS = 2  # voxels around a positive point that say what the structure looks like


def copied_mask(image: np.ndarray, truth: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """The true mask of the prompted slice on every slice of the structure's extent."""
    return _through_extent(truth[prompt.index], truth)


def copied_ellipse(image: np.ndarray, truth: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """The ellipse inscribed in the true box of the prompted slice, on every slice of the extent.

    It touches the outer edges of the voxels at the box's sides.
    """
    box = true_box(truth[prompt.index])
    return _through_extent(_ellipse(truth.shape[1:], box), truth)


def region_growing(image: np.ndarray, truth: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    """3D intensity region growing from the prompt, inside the box carried through the extent.

    The voxels of the ellipse with 70 % of the box's sides on the prompted slice (for points: of
    the squares of 5 x 5 voxels around them) give a range of intensities: median +- 2 robust
    standard deviations. Those of them within the range are the seeds of SimpleITK's
    ConnectedThreshold. The region cannot leave the structure's slices nor, with a box prompt, the
    box as it was given to the model; holes of a slice are filled. These settings were the best of
    fourteen tried on the development cases, so that the baseline is a strong one.
    """
    import SimpleITK
    from scipy import ndimage

    first, last = extent(truth)
    x0, y0, x1, y1 = _bounds(prompt, truth.shape[1:])
    column = np.ascontiguousarray(image[first : last + 1, y0 : y1 + 1, x0 : x1 + 1], np.float32)
    sample = _sample(prompt, truth.shape[1:])[y0 : y1 + 1, x0 : x1 + 1]
    centre = column[prompt.index - first]
    sample &= np.isfinite(centre)
    grown = np.zeros(truth.shape, bool)
    if not sample.any():
        return grown
    middle = float(np.median(centre[sample]))
    spread = SPREAD * 1.4826 * float(np.median(np.abs(centre[sample] - middle)))
    rows, columns = np.nonzero(sample & (np.abs(centre - middle) <= spread))
    # SimpleITK seeds are (i, j, k); the column is (K, J, I)
    seeds = [(int(x), int(y), prompt.index - first) for y, x in zip(rows, columns, strict=True)]
    region = SimpleITK.ConnectedThreshold(
        SimpleITK.GetImageFromArray(column), seeds, lower=middle - spread, upper=middle + spread
    )
    filled = [ndimage.binary_fill_holes(part) for part in SimpleITK.GetArrayFromImage(region)]
    grown[first : last + 1, y0 : y1 + 1, x0 : x1 + 1] = filled
    return grown


BASELINES: dict[str, Baseline] = {
    "copied mask": copied_mask,
    "copied ellipse": copied_ellipse,
    "region growing": region_growing,
}


def _through_extent(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    first, last = extent(truth)
    copied = np.zeros(truth.shape, bool)
    copied[first : last + 1] = mask
    return copied


def _ellipse(
    shape: tuple[int, int], box: tuple[float, float, float, float], share: float = 1.0
) -> np.ndarray:
    """The ellipse in a box with inclusive corners, its half axes scaled by `share`."""
    x0, y0, x1, y1 = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    across, down = (x1 - x0 + 1) / 2 * share, (y1 - y0 + 1) / 2 * share
    x, y = (columns - (x0 + x1) / 2) / across, (rows - (y0 + y1) / 2) / down
    return x**2 + y**2 <= 1


def _sample(prompt: SlicePrompt, shape: tuple[int, int]) -> np.ndarray:
    """The voxels of the prompted slice whose intensities stand for the structure."""
    if prompt.box is not None:
        return _ellipse(shape, prompt.box, SEED_SHARE)
    sample = np.zeros(shape, bool)
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        if label:
            row, column = round(y), round(x)
            top, left = max(row - POINT_RADIUS, 0), max(column - POINT_RADIUS, 0)
            sample[top : row + POINT_RADIUS + 1, left : column + POINT_RADIUS + 1] = True
    return sample


def _bounds(prompt: SlicePrompt, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole-voxel bounds (inclusive) of the box: the voxels whose centres are inside it."""
    height, width = shape
    if prompt.box is None:
        return 0, 0, width - 1, height - 1
    x0, y0, x1, y1 = prompt.clamped_box(height, width)
    return int(np.ceil(x0)), int(np.ceil(y0)), int(np.floor(x1)), int(np.floor(y1))
