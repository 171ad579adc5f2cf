"""What the tests of the sliding share."""

import numpy as np

from SlideSAMLib.sliding import slide
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel, block_volume

BOX = (10, 8, 24, 19)  # the block of block_volume
WINDOW = (0, 100)


def slide_all(volume, prompts, model=None, spacing=(1, 1, 1), **options):
    """All finished slices in order, the newest masks as a volume, and the stops."""
    stack = Stack(volume, spacing=spacing, window=WINDOW)
    slides = slide(stack, prompts, model or ThresholdModel(), **options)
    finished, mask = [], np.zeros(stack.shape, bool)
    while True:
        try:
            finished.append(next(slides))
        except StopIteration as end:
            return finished, mask, end.value
        mask[finished[-1].index] = finished[-1].mask


def through_block(shape):
    """A block through all slices."""
    return block_volume(shape, slices=(0, shape[0] - 1))
