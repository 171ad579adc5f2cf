"""Telling label maps of large slices from images costs no copy of many slices."""

import tracemalloc

import numpy as np
import pytest

from SlideSAMLib.images import labelmaps


def drawn(dtype: type, shape: tuple[int, int, int] = (30, 256, 320)) -> np.ndarray:
    """Two blocks of labels, one of them small and away from every eighth row and column."""
    array = np.zeros(shape, dtype)
    array[3:20, 40:120, 60:200] = 2
    array[:, 201:206, 9:15] = 7
    return array


def image(dtype: type, most: float) -> np.ndarray:
    made = np.random.default_rng(0).uniform(0, most, (30, 256, 320)).astype(dtype)
    made[:, :40] = 0
    return made


SMALL = drawn(np.int16)
SMALL[:, 201:206, 9:15] = -7
MANY = np.zeros((30, 256, 320), np.int32)
MANY[:, 1] = np.arange(1, 321)
MANY[:, 3] = np.arange(321, 641)  # more values than label maps have, in two rows only


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        *((drawn(dtype), True) for dtype in (np.uint8, np.int8, np.uint16, np.int32, np.float32)),
        (drawn(np.int16).astype(">i2"), True),
        (drawn(np.uint8) == 2, True),
        (image(np.uint8, 255), False),
        (image(np.int16, 400), False),
        (image(np.uint16, 4000), False),
        (image(np.float32, 1), False),
        (SMALL, False),
        (MANY, False),
        (np.where(drawn(np.float32) == 7, np.nan, drawn(np.float32)), False),
    ],
)
def test_large_slices(array: np.ndarray, expected: bool) -> None:
    labelmaps.looks_like_labels(array[:1, :2, :2])  # numpy keeps some memory of its first calls
    tracemalloc.start()
    try:
        assert labelmaps.looks_like_labels(array) is expected
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * array[0].nbytes
