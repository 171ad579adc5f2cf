"""Choosing one of the masks that a model offers for a window. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..patches import Patch, dice, stability
from ..protocol import WindowPrediction
from .slide_types import SlideSettings


@dataclass(frozen=True, eq=False)
class Choice:
    """One candidate of a window.

    number : its place among the model's candidates.
    patches : its three slices: before, centre, after.
    quality : predicted IoU, 0..1.
    presence : probability that the object is on each of the three slices, or None.
    agreement : mean IoU with what is known of the shared slices, or None where nothing is.
    score : what it was chosen by.
    """

    number: int
    patches: tuple[Patch, Patch, Patch]
    quality: float
    presence: tuple[float, float, float] | None
    agreement: float | None
    score: float

    def detached(self) -> Choice:
        """The same with logits of its own, so that the other candidates can be forgotten."""
        return replace(self, patches=tuple(_own(patch) for patch in self.patches))


def _own(patch: Patch) -> Patch:
    """The patch, with a copy of its logits where they are a piece of something larger."""
    if patch.logits.base is None:
        return patch
    rows, columns = patch.part  # known by now, and not looked for again
    extent = (rows.start, columns.start, rows.stop, columns.stop)
    return Patch(patch.corner, patch.logits.copy(), extent)


def rank(
    prediction: WindowPrediction, known: Mapping[int, Patch], settings: SlideSettings
) -> list[Choice]:
    """All candidates of a window, the best one first.

    known : place in the window (0 before, 1 centre, 2 after) -> what earlier windows said there.

    The score is the weighted sum of predicted IoU, Dice with `known`, stability of the centre
    slice, and a bonus for candidate 0; see `SlideSettings`. Ties go to the lower number.
    """
    choices = [
        _assess(prediction, number, known, settings) for number in range(len(prediction.quality))
    ]
    return sorted(choices, key=lambda choice: (-choice.score, choice.number))


def best(
    prediction: WindowPrediction, known: Mapping[int, Patch], settings: SlideSettings
) -> Choice:
    """The first one of `rank`; candidates that cannot win are not looked at.

    In a slide that is nearly all but candidate 0, and looking costs as much as the masks are large.
    """
    found = _assess(prediction, 0, known, settings)
    for number in range(1, len(prediction.quality)):
        most = settings.quality_weight * _quality(prediction, number) + settings.stability_weight
        if known:
            most += settings.agreement_weight
        if most <= found.score:
            continue
        other = _assess(prediction, number, known, settings)
        if other.score > found.score:
            found = other
    return found


def _quality(prediction: WindowPrediction, number: int) -> float:
    return float(np.clip(prediction.quality[number], 0.0, 1.0))


def _assess(
    prediction: WindowPrediction, number: int, known: Mapping[int, Patch], settings: SlideSettings
) -> Choice:
    extents = prediction.extents
    patches = tuple(
        Patch(
            prediction.corner,
            np.asarray(prediction.logits[number, place], np.float32),
            None if extents is None else tuple(extents[number, place].tolist()),
        )
        for place in range(3)
    )
    quality = _quality(prediction, number)
    score = settings.quality_weight * quality
    score += settings.stability_weight * stability(patches[1])
    agreement = None
    if known:
        similar = [dice(patches[place], known[place]) for place in known]
        agreement = float(np.mean([value / (2.0 - value) for value in similar]))  # Dice to IoU
        score += settings.agreement_weight * float(np.mean(similar))
    if number == 0:
        score += settings.first_bonus
    presence = prediction.presence
    return Choice(
        number=number,
        patches=patches,
        quality=quality,
        presence=None if presence is None else tuple(float(value) for value in presence),
        agreement=agreement,
        score=score,
    )
