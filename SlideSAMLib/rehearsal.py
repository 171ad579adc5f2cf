"""What a model does once before it is needed, so that the first click need not wait. No torch.

The first call of a network is slower than the next: kernels are loaded or compiled, work spaces are
found, threads are started. A model to which that matters has a method `rehearsals()`, which gives
pieces of work to be done in order, each short enough to be waited for when a user clicks meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .protocol import SliceModel, Window, WindowPrompt, predict_many

SIDE = 256  # pixels of the invented slices
RADIUS = 60  # of the disc on them
INTENSITY = (0.0, 1.0)

Rehearsal = Callable[[], object]


def rehearse(model: SliceModel, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Let a model do once what the first prompts will ask of it.

    cancelled : asked before each piece of work. Raises what the model raises, as the first prompt
        would.
    """
    offered = getattr(model, "rehearsals", None)
    for piece in () if offered is None else offered():
        if cancelled():
            return
        piece()


def with_prompts(model: SliceModel, runs: int = 1, fronts: int = 1) -> Sequence[Rehearsal]:
    """A window and what a box and a point on it ask for, as pieces of work for `rehearse`.

    runs : how often each is done. fronts : windows that a slide has predicted in one call; where
        there are several, they are rehearsed, too.
    """

    def asked(prompt: WindowPrompt, count: int = 1) -> Rehearsal:
        return lambda: predict_many(model, model.encode([window()] * count), [prompt] * count)

    middle, edges = SIDE // 2, (SIDE // 2 - RADIUS, SIDE // 2 + RADIUS)
    box = WindowPrompt(box=(edges[0], edges[0], edges[1], edges[1]))
    pieces = [asked(box), asked(WindowPrompt(points=((middle, middle),), labels=(1,)))]
    if fronts > 1:
        pieces.append(asked(box, fronts))
    return pieces * runs


def window() -> Window:
    """A bright disc on three slices; no cache knows it."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    middle = SIDE // 2
    inside = (rows - middle) ** 2 + (columns - middle) ** 2 < RADIUS**2
    plane = inside.astype(np.float32)
    return Window((plane, plane, plane), (1.0, 1.0, 1.0), INTENSITY, ("rehearsal",))
