"""One run of the model on one structure, under any protocol."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..protocol import SliceModel
from ..sliding.slide_types import SlideSettings
from ..stack import Stack
from ..window import EmbeddingCache
from . import protocols
from .results import Click
from .subject import Subject


@dataclass(frozen=True, eq=False)
class Run:
    """What came out: mask, a bool stack (S, H, W), and how it came about.

    confidence : slice index -> 0..1. stops : why each direction ended. clicks : see `clicks`.
    """

    mask: np.ndarray
    confidence: dict[int, float]
    stops: dict[str, str]
    seconds: float
    clicks: list[Click] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Means:
    """What runs need besides the structure."""

    stack: Stack
    model: SliceModel
    settings: SlideSettings | None
    cache: EmbeddingCache
    cancelled: Callable[[], bool] | None


def run(subject: Subject, protocol: str, means: Means) -> Run:
    """Prompt the structure and slide, as the protocol says."""
    start = time.perf_counter()
    if protocol == protocols.CLICKS:
        mask, confidence, stops, clicks = _click(subject, means)
    else:
        mask, confidence, stops, clicks = _slide(subject, protocol, means)
    seconds = time.perf_counter() - start
    return Run(mask, confidence, {way: str(why) for way, why in stops.items()}, seconds, clicks)


def _slide(subject: Subject, protocol: str, means: Means) -> tuple:
    """Not `api.segment`, which would encode every window anew."""
    from ..sliding.slide import Slider

    first, last = protocols.limits(protocol, subject.truth)
    slider = Slider(
        means.stack,
        [subject.prompt],
        means.model,
        first,
        last,
        means.settings,
        means.cache,
        means.cancelled,
    )
    mask = np.zeros(means.stack.shape, bool)
    confidence: dict[int, float] = {}
    for finished in slider.run():  # a slice may come again: the newest one counts
        mask[finished.index] = finished.mask
        confidence[finished.index] = finished.confidence
    return mask, confidence, slider.stops, []


def _click(subject: Subject, means: Means) -> tuple:
    from .clicks import click_through

    session, clicks = click_through(
        subject, means.stack, means.model, means.settings, means.cache, means.cancelled
    )
    mask = means.stack.from_volume(session.mask)
    return mask, dict(session.confidence), session.stops, clicks
