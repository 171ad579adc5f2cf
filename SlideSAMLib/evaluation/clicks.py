"""A simulated user who corrects: how many clicks until a structure is right?

The user gives the first prompt, lets it slide, looks for the worst slice, clicks into the middle of
its largest error, lets the session slide again, and so on. The corrections go through
`session.Session`, exactly as those of the interactive effect do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..protocol import SliceModel
from ..session import Session
from ..sliding.slide_types import SlideSettings
from ..stack import Stack
from ..window import EmbeddingCache
from .click_report import MOST, TARGET
from .metrics import dice
from .results import Click
from .subject import Subject


@dataclass(frozen=True)
class Point:
    """Where to click: slice, x and y in voxels, and 1 (belongs to it) or 0 (does not)."""

    index: int
    x: int
    y: int
    label: int


class SimulatedUser:
    """Clicks on the largest error of the worst slice, never twice on the same voxel.

    truth : bool stack (S, H, W); spacing : (gap, row, column) in mm.
    """

    def __init__(self, truth: np.ndarray, spacing: tuple[float, float, float]) -> None:
        self._truth, self._spacing = truth, spacing
        self._used: set[tuple[int, int, int]] = set()

    def next(self, mask: np.ndarray) -> Point | None:
        """The next click on a bool stack (S, H, W); None where there is nothing to click at.

        The worst slice is the one with the most wrong voxels (the first of equals). Its largest
        error is the largest piece of voxels that are all missing or all too many; the click goes
        to the voxel of it that is deepest inside, in mm.
        """
        wrong = mask ^ self._truth
        counts = wrong.sum(axis=(1, 2))
        for index in np.argsort(-counts, kind="stable"):
            if not counts[index]:
                return None
            point = self._on_slice(int(index), mask[index])
            if point is not None:
                self._used.add((point.index, point.x, point.y))
                return point
        return None

    def _on_slice(self, index: int, mask: np.ndarray) -> Point | None:
        from scipy import ndimage

        truth = self._truth[index]
        depth = np.zeros(mask.shape)
        largest = 0
        for error in (truth & ~mask, mask & ~truth):
            pieces, count = ndimage.label(error)
            for number, place in enumerate(ndimage.find_objects(pieces, count), 1):
                piece = np.pad(pieces[place] == number, 1)
                if (size := int(piece.sum())) <= largest:
                    continue
                deep = ndimage.distance_transform_edt(piece, sampling=self._spacing[1:])
                found = np.zeros(mask.shape)
                found[place] = deep[1:-1, 1:-1]
                for used, x, y in self._used:
                    if used == index:
                        found[y, x] = 0
                if found.any():
                    depth, largest = found, size
        if not largest:
            return None
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        return Point(index, int(x), int(y), int(truth[y, x]))


def click_through(
    subject: Subject,
    stack: Stack,
    model: SliceModel,
    settings: SlideSettings | None = None,
    cache: EmbeddingCache | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Session, list[Click]]:
    """Click until the Dice over the whole volume reaches TARGET, or MOST clicks are spent.

    The first prompt, be it a box or points, counts as one click. stack : that of the subject.
    Returns the session as the user leaves it, and one Click for each click.
    """
    session = Session(stack, model, cache, settings)
    user = SimulatedUser(subject.truth, subject.spacing)
    clicks: list[Click] = []
    for index, point, run in _actions(session, subject, user, cancelled):
        start = time.perf_counter()
        windows = sum(1 for _ in run())
        seconds = time.perf_counter() - start
        now = dice(subject.judged(stack.from_volume(session.mask)), subject.truth)
        clicks.append(
            Click(
                index=index,
                x=None if point is None else float(point.x),
                y=None if point is None else float(point.y),
                label=1 if point is None else point.label,
                dice=now,
                slices=windows,
                seconds=seconds,
            )
        )
        if now >= TARGET or len(clicks) >= MOST:
            break
    return session, clicks


def _actions(
    session: Session,
    subject: Subject,
    user: SimulatedUser,
    cancelled: Callable[[], bool] | None,
) -> Iterator[tuple[int, Point | None, Callable]]:
    """What the user does, one after the other: slice, where, and the call that does it."""
    session.set_prompt(subject.prompt)
    yield subject.prompt.index, None, lambda: session.run(cancelled=cancelled)
    while True:
        point = user.next(subject.judged(session.stack.from_volume(session.mask)))
        if point is None:
            return
        prompt = session.correction(point.index, [(point.x, point.y)], [point.label])
        yield point.index, point, lambda prompt=prompt: session.correct(prompt, cancelled)
