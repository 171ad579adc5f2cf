"""The sliding scheme as it was published with Slide-SAM, for comparison. No torch here.

What is known of it and kept here, odd as some of it is:

- every box and every point is an object of its own; labels are taken for positive;
- a window moves by one slice; the first and the last slice are never its centre;
- only a box goes from window to window: the bounding box of the neighbour's mask, shifted up and
  left by 5 % of its sides (it was meant to be enlarged: the setting `shift_box` off does that);
- the candidate with the highest predicted IoU wins (Slide-SAM models offer the three masks of
  the multi-mask answer and nothing else);
- a direction ends where the neighbour's mask has 50 voxels or fewer, the predicted IoU is 0.5 or
  less, or the stability is below 0.6;
- each slice of each window goes through a morphological opening, and the result is the union
  over all windows.

Not known, and decided here: a later window that fails by predicted IoU or stability adds nothing
to the result; boxes are cut to the slice; a prompt on the first or last slice is an error.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from ..boxes import Box, grown, mask_box
from ..prompts import SlicePrompt
from ..protocol import WindowPrompt
from .slide_types import FinishedSlice
from .state import SlideState
from .stops import Stop

SHIFT = 0.05  # of the box's sides
LEAST_VOXELS = 50  # a neighbour's mask must be larger
LEAST_QUALITY = 0.5  # the predicted IoU must be higher
LEAST_STABILITY = 0.6
STABILITY_OFFSET = 1.0  # in logits, both ways
LARGEST_KERNEL = 8  # voxels
VOXELS_PER_KERNEL = 20  # a mask of fewer voxels is not opened at all


@dataclass(frozen=True)
class Target:
    """One object: its slice and the prompt of its first window."""

    index: int
    prompt: WindowPrompt


def slide_reference(slide: SlideState) -> Generator[FinishedSlice, None, None]:
    """Slide as published; fills `slide.stops`."""
    found = [target for prompt in slide.prompts for target in targets(prompt)]
    union = Union(slide)
    reach: dict[str, int] = {}
    for target in found:
        if slide.cancelled():
            return
        start = _window(slide, target.index, target.prompt)
        yield from union.add(target.index, start, 0)
        for side, direction in (("forward", 1), ("backward", -1)):
            if side not in slide.sides:
                continue
            way = _Way(slide, union, target.index, direction, start)
            yield from way.run()
            if way.stop is Stop.CANCELLED:
                slide.stops[side] = way.stop
                return
            # Of several objects the one that came furthest says why the direction ended.
            if side not in reach or way.centre * direction > reach[side]:
                reach[side] = way.centre * direction
                slide.stops[side] = way.stop


def targets(prompt: SlicePrompt) -> list[Target]:
    """The objects of a prompt: its box (a mask stands for its box), and each of its points."""
    box = prompt.box
    if box is None and prompt.mask is not None:
        box = mask_box(prompt.mask)
    prompts = [] if box is None else [WindowPrompt(box=box)]
    prompts += [WindowPrompt(points=(point,), labels=(1,)) for point in prompt.points]
    return [Target(prompt.index, each) for each in prompts]


def shifted_box(box: Box, shape: tuple[int, int]) -> Box | None:
    """The published "enlarged" box, cut to the slice (H, W); None where nothing is left of it."""
    x0, y0, x1, y1 = box
    across, down = SHIFT * (x1 - x0), SHIFT * (y1 - y0)
    height, width = shape
    # As published: both near sides by the share of the width, both far ones by that of the height.
    moved = (
        max(x0 - across, 0.0),
        max(y0 - across, 0.0),
        min(x1 - down, width - 1.0),
        min(y1 - down, height - 1.0),
    )
    return moved if moved[2] > moved[0] and moved[3] > moved[1] else None


def enlarged_box(box: Box, shape: tuple[int, int]) -> Box:
    """What the published box is called: the box grown by its margins, cut to the slice (H, W)."""
    x0, y0, x1, y1 = box
    return grown(box, SHIFT * (x1 - x0), SHIFT * (y1 - y0), shape)


def logit_stability(logits: np.ndarray) -> float:
    """Voxels above +1 over voxels above -1 (logits), 0..1; 0 where there is none."""
    loose = np.count_nonzero(logits > -STABILITY_OFFSET)
    return float(np.count_nonzero(logits > STABILITY_OFFSET) / loose) if loose else 0.0


def opened(mask: np.ndarray) -> np.ndarray:
    """Opening of a slice's mask with a square of voxels / 20 voxels a side, at most 8."""
    from scipy import ndimage  # only when it is needed: importing it takes a while

    side = min(int(np.count_nonzero(mask)) // VOXELS_PER_KERNEL, LARGEST_KERNEL)
    if side < 2:
        return mask
    return ndimage.binary_opening(mask, np.ones((side, side), bool))


@dataclass(frozen=True, eq=False)
class _Result:
    """The winning candidate of a window: logits (3, H, W) and predicted IoU."""

    logits: np.ndarray
    quality: float


class Union:
    """The masks of all windows so far, united slice by slice."""

    def __init__(self, slide: SlideState) -> None:
        self._slide = slide
        self._masks: dict[int, np.ndarray] = {}
        self._qualities: dict[int, list[float]] = {}

    def add(
        self, centre: int, result: _Result, direction: int
    ) -> Generator[FinishedSlice, None, None]:
        """Unite a window's masks with what is there, and yield its slices.

        The confidence of a slice is the mean predicted IoU of the windows that saw it.
        """
        for place, index in enumerate(range(centre - 1, centre + 2)):
            if not self._slide.first <= index <= self._slide.last:
                continue
            mask = opened(result.logits[place] > 0)
            if index in self._masks:
                mask |= self._masks[index]
            self._masks[index] = mask
            self._qualities.setdefault(index, []).append(result.quality)
            confidence = float(np.clip(np.mean(self._qualities[index]), 0.0, 1.0))
            shown = 0 if index in self._slide.merged else direction
            yield self._slide.finished(index, mask.copy(), confidence, shown)


class _Way:
    """One object on its way in one direction."""

    def __init__(
        self, slide: SlideState, union: Union, centre: int, direction: int, start: _Result
    ) -> None:
        self.slide = slide
        self.union = union
        self.centre = centre
        self.direction = direction
        self.newest = start
        self.stop = Stop.CANCELLED

    def run(self) -> Generator[FinishedSlice, None, None]:
        low, high = max(self.slide.first, 1), min(self.slide.last, self.slide.stack.slices - 2)
        shape = (self.slide.stack.height, self.slide.stack.width)
        while True:
            neighbour = self.newest.logits[1 + self.direction] > 0
            stop = _verdict(self.newest, int(np.count_nonzero(neighbour)))
            following = self.centre + self.direction
            if stop is None and not low <= following <= high:
                stop = self._end(following)
            moved = shifted_box if self.slide.settings.shift_box else enlarged_box
            box = None if stop else moved(mask_box(neighbour), shape)
            if box is None:
                self.stop = stop or Stop.TOO_SMALL
                return
            if self.slide.cancelled():
                return
            ahead = range(
                following + self.direction,
                high + 1 if self.direction > 0 else low - 1,
                self.direction,
            )
            self.newest = _window(self.slide, following, WindowPrompt(box=box), ahead)
            if _doubtful(self.newest):
                self.stop = Stop.LOW_QUALITY
                return
            self.centre = following
            yield from self.union.add(following, self.newest, self.direction)

    def _end(self, following: int) -> Stop:
        outside = not 1 <= following <= self.slide.stack.slices - 2
        return Stop.END_OF_VOLUME if outside else Stop.LIMIT_REACHED


def _window(
    slide: SlideState, centre: int, prompt: WindowPrompt, ahead: Iterable[int] = ()
) -> _Result:
    prediction = slide.predictor.predict(centre, prompt, ahead)
    number = int(np.argmax(prediction.quality))
    return _Result(prediction.full(number), float(prediction.quality[number]))


def _doubtful(result: _Result) -> bool:
    return result.quality <= LEAST_QUALITY or logit_stability(result.logits) < LEAST_STABILITY


def _verdict(result: _Result, neighbour_voxels: int) -> Stop | None:
    if neighbour_voxels == 0:
        return Stop.NOTHING_LEFT
    if neighbour_voxels <= LEAST_VOXELS:
        return Stop.TOO_SMALL
    return Stop.LOW_QUALITY if _doubtful(result) else None
