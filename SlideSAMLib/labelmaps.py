"""Telling a label map from an image, so that nobody segments a segmentation. numpy only."""

from __future__ import annotations

import numpy as np

MAX_PLANES = 24
MAX_VALUES = 512
MAX_FIRST_LABEL = 50
# Neighbours inside labelled regions are equal: 0.77 and more in label maps of hand and of
# programs, 0.22 and less in CT and MR images (8-bit ones and smooth templates, too).
FLAT = 0.5


def looks_like_labels(array: np.ndarray) -> bool:
    """Whether a (K, J, I) array holds label numbers and not intensities.

    Label maps are whole numbers from 0 with few different values, the first label is a small
    number (or the only one, 255), and neighbouring voxels inside the labels are mostly equal.
    A constant array is not called a label map: it is refused for being constant.
    """
    planes = np.unique(np.linspace(0, len(array) - 1, MAX_PLANES).astype(int))
    sample = array[planes]
    values = np.unique(sample)
    if len(values) < 2 or len(values) > MAX_VALUES or values[0] != 0:
        return False
    if not np.array_equal(values, np.round(values)):
        return False
    if values[1] > MAX_FIRST_LABEL and tuple(values) != (0, 255):
        return False
    return len(values) == 2 or _flatness(sample) > FLAT


def _flatness(planes: np.ndarray) -> float:
    """Share of equal in-plane neighbours among the pairs that touch a non-zero voxel."""
    pairs = equal = 0
    for a, b in ((planes[:, :, 1:], planes[:, :, :-1]), (planes[:, 1:], planes[:, :-1])):
        touched = (a != 0) | (b != 0)
        pairs += int(np.count_nonzero(touched))
        equal += int(np.count_nonzero(touched & (a == b)))
    return equal / pairs if pairs else 0.0
