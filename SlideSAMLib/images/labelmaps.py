"""Telling a label map from an image, so that nobody segments a segmentation. numpy only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MAX_PLANES = 24
MAX_VALUES = 512
MAX_FIRST_LABEL = 50
# Neighbours inside labelled regions are equal: 0.77 and more in label maps of hand and of
# programs, 0.22 and less in CT and MR images (8-bit ones and smooth templates, too).
FLAT = 0.5
COARSE = 8  # every so many rows and columns tell most images from label maps


def looks_like_labels(array: np.ndarray) -> bool:
    """Whether a (K, J, I) array holds label numbers and not intensities.

    Label maps are whole numbers from 0 with few different values, the first label is a small
    number (or the only one, 255), and neighbouring voxels inside the labels are mostly equal.
    A constant array is not called a label map: it is refused for being constant.
    """
    planes = np.unique(np.linspace(0, len(array) - 1, MAX_PLANES).astype(int))
    values = np.unique(array[planes, ::COARSE, ::COARSE])
    for plane in planes:  # one by one: large slices would make copies of many 100 MB
        if not _can_be_labels(values):
            return False
        values = np.union1d(values, _values(array[plane]))
    if not _can_be_labels(values) or len(values) < 2 or values[0] != 0:
        return False
    if values[1] > MAX_FIRST_LABEL and tuple(values) != (0, 255):
        return False
    return len(values) == 2 or _flatness(array[plane] for plane in planes) > FLAT


def _can_be_labels(values: np.ndarray) -> bool:
    """Whether sorted values can be some of a label map's: few whole numbers from 0."""
    whole = np.array_equal(values, np.round(values))
    return len(values) <= MAX_VALUES and whole and bool((values[:1] >= 0).all())


def _values(plane: np.ndarray) -> np.ndarray:
    """The different values of a slice, sorted."""
    if plane.dtype.kind not in "iu" or plane.dtype.itemsize > 2:
        return np.unique(plane)
    lowest = np.iinfo(plane.dtype).min  # ticking off short numbers is quicker than sorting them
    seen = np.zeros(2 ** (8 * plane.dtype.itemsize), bool)
    for row in plane:
        seen[row.astype(np.intp) - lowest] = True
    return (np.flatnonzero(seen) + lowest).astype(plane.dtype)


def _flatness(planes: Iterable[np.ndarray]) -> float:
    """Share of equal in-plane neighbours among the pairs that touch a non-zero voxel."""
    pairs = equal = 0
    for plane in planes:
        for a, b in ((plane[:, 1:], plane[:, :-1]), (plane[1:], plane[:-1])):
            touched = (a != 0) | (b != 0)
            pairs += int(np.count_nonzero(touched))
            equal += int(np.count_nonzero(touched & (a == b)))
    return equal / pairs if pairs else 0.0
