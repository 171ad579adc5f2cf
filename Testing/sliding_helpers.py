"""What the tests of the sliding share."""

import numpy as np

from SlideSAMLib.sliding.slide import slide
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel, block_volume

BOX = (10, 8, 24, 19)  # the block of block_volume
WINDOW = (0, 100)


class Together(ThresholdModel):
    """Takes so many prompts at once.

    A window that goes forward grows by a column; one that goes backward denies a row of the slice
    that it comes from, and is refused on some slices. So fronts differ, have a say in the slice
    that both start from, and end in the middle of a stretch.

    calls : the centres of every call of `predict_many`.
    """

    def __init__(self, most, refused=()):
        super().__init__()
        self.most, self.refused = most, refused
        self.calls = []

    def prompts_at_once(self):
        return self.most

    def predict_many(self, embeddings, prompts):
        self.calls.append([embedding.window.key[-1] for embedding in embeddings])
        return [self.predict(*each) for each in zip(embeddings, prompts, strict=True)]

    def predict(self, embedding, prompt):
        found = super().predict(embedding, prompt)
        if prompt.known == (True, True, False):
            found.logits[:, :, 8:20, 25] = 2.0
        if prompt.known == (False, True, True):
            found.logits[:, 2, 8] = -8.0
            if embedding.window.key[-1] in self.refused:
                found.quality[:] = 0.1
        return found


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
