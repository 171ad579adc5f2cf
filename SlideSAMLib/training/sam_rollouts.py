"""Rollouts of SAM networks: slabs of whole slices are slid over with the network's own masks.

As `rollouts` does it for the built-in network: each step predicts one window of each slab; then
the slab moves on to its next window, prompted by what the network has just said, or stays and gets
a corrective point, or is replaced by a fresh one with a user's prompt. The truth supervises every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..boxes import mask_box
from .fields import UNLABELLED
from .generators import generator_state, restored_generator
from .rollouts import CORRECTED, LEFT, MOST_CORRECTIONS
from .sam_windows import DEPTH, Frame, SamSlab, WindowSample, user_prompt, window
from .simulated_user import grown, largest_error

FIRST_BONUS = 0.1  # of the single-mask token, as in `SlideSettings.first_bonus`
LOST = 0.3  # share of the object that is found; below it a slide mostly ends
BOX_ONLY = 0.15  # share of the windows on the way that get no masks
LOGITS = 8.0  # the network's own logits are cut to +- this where they become a prompt
ON_THE_WAY = ("centre", "points", "box", "masks", "corrections")


@dataclass
class _Place:
    """A slab, the slice it has got to, and the prompt of the window there (see WindowSample)."""

    slab: SamSlab
    centre: int
    points: tuple[Tensor, Tensor] | None
    box: Tensor | None
    masks: Tensor | None
    corrections: int = 0

    def state(self) -> dict:
        """The way so far, and the recipe of the slab instead of its voxels."""
        return {"recipe": self.slab.recipe, **{name: getattr(self, name) for name in ON_THE_WAY}}


class SamSlides:
    """`size` slabs on their way. draw : gives a fresh slab."""

    def __init__(
        self, size: int, draw: Callable[[], SamSlab], frame: Frame, rng: np.random.Generator
    ) -> None:
        self._draw, self._frame, self._rng = draw, frame, rng
        self._places = [self._fresh() for _ in range(size)]

    @classmethod
    def restored(
        cls,
        state: dict,
        draw: Callable[[], SamSlab],
        again: Callable[[Sequence[int]], SamSlab],
        frame: Frame,
    ) -> SamSlides:
        """The slides of a `state`; `again` gives the slab of a recipe."""
        slides = cls(0, draw, frame, restored_generator(state["rng"]))
        for place in state["places"]:
            way = {name: place[name] for name in ON_THE_WAY}
            slides._places.append(_Place(again(place["recipe"]), **way))
        return slides

    def state(self) -> dict:
        """Where every slab has got to, between two training steps."""
        places = [place.state() for place in self._places]
        return {"rng": generator_state(self._rng), "places": places}

    def step(self) -> list[WindowSample]:
        """The present windows."""
        return [
            WindowSample(*window(p.slab, p.centre, self._frame), p.points, p.box, p.masks)
            for p in self._places
        ]

    def advance(self, samples: Sequence[WindowSample], logits: Tensor, quality: Tensor) -> None:
        """Move every slab on.

        logits (B, 4, 3, g, g) and quality (B, 4) are the network's answer to `samples`, on the CPU;
        as a slide would, the token with the best predicted quality is taken.
        """
        rated = quality.float() + FIRST_BONUS * (torch.arange(quality.shape[1]) == 0)
        best = rated.argmax(1)
        for n, (place, sample) in enumerate(zip(self._places, samples, strict=True)):
            answer = logits[n, best[n]].float().clamp(-LOGITS, LOGITS)  # (3, g, g)
            target = sample.target.numpy()
            truth = target > 0.5
            if self._rng.random() < CORRECTED and self._correct(place, answer, target):
                continue
            if self._rng.random() < LEFT or not self._move(place, answer, truth):
                self._places[n] = self._fresh()

    def _fresh(self) -> _Place:
        slab = self._draw()
        return _Place(slab, 1, *user_prompt(slab.mask[1], self._frame, self._rng))

    def _correct(self, place: _Place, answer: Tensor, target: np.ndarray) -> bool:
        """A point on the largest error of the centre slice, whose mask is known then.

        False where there is nothing to correct, or nothing to correct from.
        """
        mask, known = (answer[1] > 0).numpy(), target[1] != UNLABELLED
        truth = target[1] > 0.5
        found = largest_error(mask & known, truth, self._rng)
        if place.corrections >= MOST_CORRECTIONS or found is None or mask.sum() < 3:
            return False
        x, y, sign = found
        scale = self._frame.size / self._frame.raster
        point = torch.tensor([[(x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5]])
        signs = torch.tensor([float(sign)])
        if place.corrections and place.points is not None:
            point = torch.cat([place.points[0], point])
            signs = torch.cat([place.points[1], signs])
        place.points = (point, signs)
        place.box = self._box(mask)
        place.masks = torch.stack(
            [torch.zeros_like(answer[1]), answer[1], torch.zeros_like(answer[1])]
        )
        place.corrections += 1
        return True

    def _move(self, place: _Place, answer: Tensor, truth: np.ndarray) -> bool:
        """Go to the next window; False where the slide is over."""
        slab, rng = place.slab, self._rng
        following = place.centre + 1
        if following + 1 >= DEPTH or following >= slab.slices or not slab.labelled[following]:
            return False
        masks = (answer > 0).numpy()
        if masks[2].sum() < 3 or not truth[1].any():
            return False
        found = (masks[1] & truth[1]).sum() / truth[1].sum()
        if found < LOST and rng.random() < 0.7:
            return False
        if not truth[2].any() and rng.random() < 0.4:
            return False
        place.centre = following
        place.corrections, place.points = 0, None
        place.box = self._box(masks[2])
        place.masks = torch.stack([answer[1], answer[2], torch.zeros_like(answer[2])])
        if rng.random() < BOX_ONLY:
            place.masks = None
        return True

    def _box(self, mask: np.ndarray) -> Tensor:
        """The box of a mask (g, g), a little larger, in the frame."""
        frame = self._frame
        scale = frame.size / frame.raster
        x0, y0, x1, y1 = grown(mask_box(mask), mask.shape, self._rng.uniform(0, 0.06))
        return torch.tensor([x0 * scale, y0 * scale, (x1 + 1) * scale - 1, (y1 + 1) * scale - 1])
