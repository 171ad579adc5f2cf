"""What a session tells: previews, and states of its result to come back to. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .prompts import SlicePrompt
from .sliding.candidates import Choice
from .sliding.front import kept_mask, told_confidence
from .sliding.fusion import SliceRecord
from .sliding.slide_types import SlideSettings
from .sliding.stops import Stop
from .stack import Stack


@dataclass(frozen=True, eq=False)
class Preview:
    """What one window says before anything slides.

    index : the prompted slice.
    masks : slice index -> bool (H, W), for the slice and its neighbours inside the volume.
    confidence : 0..1 of the prompted slice, from this window alone.
    candidate : the model's number of this candidate.
    """

    index: int
    masks: dict[int, np.ndarray]
    confidence: float
    candidate: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a session's result, for `Session.restore`; masks are shared, not copied."""

    masks: dict[int, np.ndarray]
    confidence: dict[int, float]
    stops: dict[str, Stop]


def preview_of(
    stack: Stack, prompt: SlicePrompt, choice: Choice, settings: SlideSettings
) -> Preview:
    """The preview of a prompted slice, where this candidate of its window is chosen."""
    shape, index = (stack.height, stack.width), prompt.index
    kept = kept_mask(prompt, settings)
    patches = [choice.patches[0], kept or choice.patches[1], choice.patches[2]]
    presence = None if choice.presence is None else choice.presence[1]
    record = SliceRecord(settings, quality=choice.quality, presence=presence)
    record.add(patches[1], settings.centre_weight, central=True)
    masks = {
        index + place - 1: patches[place].mask(shape)
        for place in range(3)
        if 0 <= index + place - 1 < stack.slices
    }
    confidence = told_confidence(record.confidence(), prompt.points_alone, settings)
    return Preview(index, masks, confidence, choice.number)
