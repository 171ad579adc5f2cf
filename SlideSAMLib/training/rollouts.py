"""Rollouts: slabs are slid over with the network's own masks, so that it meets its own mistakes.

A pool holds one slab per place in the batch. Each training step predicts one window of each slab;
then every slab moves on to its next window, prompted by the masks just predicted, or stays and gets
a corrective point on the largest error, or is replaced by a fresh one with a new user prompt. Every
step is supervised by the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch

from ..boxes import mask_box
from ..builtin import features
from ..builtin.features import Batch
from ..builtin.regions import GRID, Region, paste_region, region_around, sample_region
from ..builtin.requests import FACTOR
from .fields import UNLABELLED, only_labelled
from .generators import StateMismatch, generator_state, restored_generator
from .simulated_user import grown, jittered, largest_error, rough, user_points
from .slabs import DEPTH, Slab

SQUARE = (1.0, 1.0)  # slabs have square pixels
ASKED_AGAIN = 0.5  # share of the answers to points alone that are asked again, as the model does
CORRECTED = 0.24  # share of the windows after which a user corrects what is wrong
MOST_CORRECTIONS = 3  # on one slice
# What a place has besides its slab and its region: numbers, tuples of numbers and tensors.
ON_THE_WAY = (
    "centre",
    "box",
    "points",
    "signs",
    "known",
    "known_flags",
    "memory",
    "remembered",
    "remembered_mask",
    "corrections",
)
REFERRED = 0.9  # share of the slides that see the slice they remember, not its histograms alone
RENEWED = 0.03  # share of the good steps after which the slide remembers its newest slice instead
DRAWN = 0.7  # share of the objects with a habit that the user draws instead of marking them
BEYOND = 0.5  # chance to go on behind the end of the object, where the network still finds it
LEFT = 0.04  # share of the steps after which a slide is given up, so that new prompts stay frequent


@dataclass
class _Place:
    slab: Slab
    image: torch.Tensor  # (S, H, W)
    mask: torch.Tensor
    centre: int
    region: Region | None = None
    box: tuple | None = None
    points: tuple = ()
    signs: tuple = ()
    known: torch.Tensor | None = None  # (3, H, W) probabilities
    known_flags: tuple = (0, 0, 0)
    memory: torch.Tensor | None = None  # histograms of the remembered slice
    remembered: int = 0  # its number; 0 where it is not shown
    remembered_mask: torch.Tensor | None = None  # (H, W), the network's own, 0 or 1
    corrections: int = 0

    @classmethod
    def at_start(cls, slab: Slab) -> _Place:
        """On the marked slice, without a prompt yet."""
        return cls(slab, slab.image, slab.mask.float(), 1)

    def know_centre(self, mask: torch.Tensor) -> None:
        """This mask (H, W) of the centre slice is known, and none beside it."""
        self.known = torch.zeros_like(self.mask[:3])
        self.known[1] = mask
        self.known_flags = (0, 1, 0)

    def state(self) -> dict:
        """The way so far, and the recipe of the slab instead of its voxels."""
        return {
            "recipe": self.slab.recipe,
            "region": None if self.region is None else asdict(self.region),
            **{name: getattr(self, name) for name in ON_THE_WAY},
        }

    @classmethod
    def restored(cls, state: dict, slab: Slab) -> _Place:
        """The place of a `state`, on its slab. Raises StateMismatch for an earlier version's."""
        if any(name not in state for name in ON_THE_WAY):
            raise StateMismatch("they were saved by an earlier SlideSAM")
        place = cls.at_start(slab)
        place.region = None if state["region"] is None else Region(**state["region"])
        for name in ON_THE_WAY:
            value = state[name]
            moved = value.to(slab.image.device) if isinstance(value, torch.Tensor) else value
            setattr(place, name, moved)
        return place


@dataclass
class Step:
    """One supervised batch: what is seen, and soft targets (B, 3, GRID, GRID), valid slices, kinds.

    Targets are UNLABELLED where nobody has labelled.
    The network's input is made of the batch where the network is: `features.assemble`.
    """

    batch: Batch
    target: torch.Tensor
    valid: torch.Tensor
    first: torch.Tensor
    ambiguous: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it by name, see `of`."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "batch"}
        return {**own, **{f.name: getattr(self.batch, f.name) for f in fields(Batch)}}

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> Step:
        """The step with these `tensors`."""
        batch = Batch(**{f.name: tensors[f.name] for f in fields(Batch)})
        return cls(batch, **{f.name: tensors[f.name] for f in fields(cls) if f.name != "batch"})

    def to(self, device: torch.device) -> Step:
        """The same on a device."""
        return Step.of({name: tensor.to(device) for name, tensor in self.tensors().items()})


class Pool:
    """B slabs on their way; `draw` gives a fresh Slab."""

    def __init__(self, size: int, draw: Callable[[], Slab], rng: np.random.Generator) -> None:
        self.draw, self.rng = draw, rng
        self.places = [self._fresh() for _ in range(size)]

    @classmethod
    def restored(
        cls, state: dict, draw: Callable[[], Slab], again: Callable[[Sequence[int]], Slab]
    ) -> Pool:
        """The pool of a `state`; `again` gives the slab of a recipe."""
        pool = cls(0, draw, restored_generator(state["rng"]))
        pool.places = [_Place.restored(p, again(p["recipe"])) for p in state["places"]]
        return pool

    def state(self) -> dict:
        """Where every slab has got to, between two training steps."""
        places = [place.state() for place in self.places]
        return {"rng": generator_state(self.rng), "places": places}

    def step(self) -> Step:
        """What is seen of the present windows, and their targets; some of it on the host."""
        device = self.places[0].image.device
        batch = Batch.empty(len(self.places), device)
        target = torch.zeros(len(self.places), 3, GRID, GRID, device=device)
        valid = torch.ones(len(self.places), 3)
        for n, place in enumerate(self.places):
            self._fill(batch, target, n, place)
            exists = place.slab.valid[place.centre - 1 : place.centre + 2]
            valid[n] = torch.from_numpy(exists.astype(np.float32))
            if place.slab.known is not None:
                valid[n] *= (target[n] != UNLABELLED).any(-1).any(-1).cpu()
        first = torch.tensor([p.centre == 1 for p in self.places])
        ambiguous = torch.tensor([p.box is None and p.known is None for p in self.places])
        return Step(batch, target, valid, first, ambiguous)

    def advance(self, probabilities: torch.Tensor) -> None:
        """Move every slab on; probabilities (B, 3, GRID, GRID) are the network's own answer.

        They lie on the device of the slabs.
        """
        for n, place in enumerate(self.places):
            found = self._on_slices(place, probabilities[n])
            if place.memory is None:
                self._remember(place, found[1])
            if self._ask_again(place, found):
                continue
            if self.rng.random() < CORRECTED and self._correct(place, found):
                continue
            if self.rng.random() < LEFT or not self._move(place, found):
                self.places[n] = self._fresh()

    @staticmethod
    def _fill(batch: Batch, target: torch.Tensor, n: int, place: _Place) -> None:
        window = slice(place.centre - 1, place.centre + 2)
        layers = [place.image[window], place.mask[window]]
        if place.slab.known is not None:
            layers.append(place.slab.known[window].float())
        if place.known is not None:
            layers.append(place.known)
            batch.known[n] = torch.tensor(place.known_flags, dtype=torch.float32)
        remembers = place.memory is not None and not place.corrections and place.centre > 1
        if remembers:
            batch.memory[n] = place.memory
            batch.has_memory[n] = 1
            if place.remembered:
                seen = torch.stack([place.image[place.remembered], place.remembered_mask])
                layers.append(seen)
                batch.nearness[n] = features.nearness(place.centre - place.remembered)
        # One resampling for all of them: its matrices cost as much as their products.
        image, truth, *rest = sample_region(torch.cat(layers), place.region).split(
            [len(layer) for layer in layers]
        )
        batch.image[n], target[n] = image, truth
        if place.slab.known is not None:
            target[n] = only_labelled(truth, rest.pop(0))
        if place.known is not None:
            batch.masks[n] = rest[0]
        if remembers and place.remembered:
            batch.reference[n] = rest[-1]
        if place.box is not None:
            batch.box[n] = torch.tensor(place.region.box_to_grid(place.box))
            batch.has_box[n] = 1
        for m, (x, y) in enumerate(place.points):
            batch.points[n, m] = torch.tensor(place.region.to_grid(x, y))
            batch.signs[n, m] = place.signs[m]

    def _fresh(self) -> _Place:
        slab = self.draw()
        place = _Place.at_start(slab)
        mask, rng = _on_host(slab.mask[1]), self.rng
        box = mask_box(mask)
        kind = rng.random()
        if slab.habit and rng.random() < DRAWN:
            place.know_centre(place.mask[1])
            place.region = region_around(box, SQUARE, rng.uniform(1.15, 2.3))
        elif kind < 0.62:
            place.box = jittered(box, mask.shape, rng)
            place.region = region_around(place.box, SQUARE, rng.uniform(1.15, 2.3))
            if rng.random() < 0.1:
                place.points, place.signs = user_points(mask, rng)
        elif kind < 0.92:
            place.points, place.signs = user_points(mask, rng)
            place.region = self._point_region(place, box)
        else:
            place.know_centre(torch.from_numpy(rough(mask, rng)))
            place.region = region_around(box, SQUARE, rng.uniform(1.15, 2.3))
            if rng.random() < 0.5:
                place.box = jittered(box, mask.shape, rng)
        return place

    def _point_region(self, place: _Place, box: tuple) -> Region:
        """Nobody knows the size yet: from a little to a lot larger than the object."""
        x, y = np.array(place.points[0]) + self.rng.normal(0, 0.03, 2)
        half = (max(box[2] - box[0], box[3] - box[1]) + 1) / 2
        factor = float(np.exp(self.rng.uniform(np.log(1.4), np.log(6))))
        around = tuple(float(side) for side in (x - half, y - half, x + half, y + half))
        return region_around(around, SQUARE, factor)

    def _ask_again(self, place: _Place, found: torch.Tensor) -> bool:
        """The same points with the box of the answer to them, on a region of its size.

        As the model asks where points alone left the size open, so that it learns how far to
        trust such a box. False where it was not asked again, or the answer is empty.
        """
        alone = place.box is None and place.known is None and place.centre == 1
        if not alone or self.rng.random() >= ASKED_AGAIN:
            return False
        mask = found[1] > 0.5
        if mask.sum() < 3:
            return False
        place.box, place.memory = mask_box(_on_host(mask)), None
        place.region = self._around_prompt(place, self.rng.uniform(1.3, 1.9))
        return True

    def _around_prompt(self, place: _Place, factor: float) -> Region:
        """A region about the box and the points."""
        columns = [place.box[0], place.box[2], *(p[0] for p in place.points)]
        rows = [place.box[1], place.box[3], *(p[1] for p in place.points)]
        around = (min(columns), min(rows), max(columns), max(rows))
        return region_around(around, SQUARE, factor)

    @staticmethod
    def _on_slices(place: _Place, probabilities: torch.Tensor) -> torch.Tensor:
        """The answer (3, GRID, GRID) about the region put on the window's slices, (3, H, W)."""
        values, (row, column) = paste_region(probabilities, place.region, place.mask.shape[1:])
        found = torch.zeros_like(place.mask[:3])
        height, width = values.shape[1:]
        found[:, row : row + height, column : column + width] = values.clamp(0, 1)
        return found

    def _correct(self, place: _Place, found: torch.Tensor) -> bool:
        """A point on the largest error of the centre slice, as in `Session.correction`.

        The mask just predicted is known, earlier points of the slice stay. False where there is
        nothing to correct, or nothing to correct from.
        """
        rng, centre = self.rng, place.centre
        truth = _on_host(place.mask[centre] > 0.5)
        mask = _on_host(found[1] > 0.5)
        known = place.slab.known
        seen = mask if known is None else mask & _on_host(known[centre])
        point = largest_error(seen, truth, rng)
        if place.corrections >= MOST_CORRECTIONS or mask.sum() < 3 or point is None:
            return False
        if place.corrections == 0 and place.known is not None and place.known_flags[0]:
            place.points, place.signs, place.box = (), (), None  # the slide came here, not a user
        x, y, sign = point
        place.corrections += 1
        place.points, place.signs = (*place.points, (x, y)), (*place.signs, sign)
        place.know_centre(torch.from_numpy(mask))
        if place.box is None or rng.random() < 0.5:
            place.box = grown(mask_box(mask), mask.shape, rng.uniform(0, 0.06))
        place.region = self._around_prompt(place, rng.uniform(1.2, 2.0))
        return True

    def _remember(self, place: _Place, found: torch.Tensor) -> None:
        """The present centre slice and its mask (H, W) are what the slide goes by from now on."""
        mask = _on_host(found > 0.5)
        region = place.region
        if mask.any():  # as the model remembers
            region = region_around(mask_box(mask), SQUARE, FACTOR)
        both = torch.stack([place.image[place.centre], found])
        image, seen = sample_region(both, region)
        place.memory = features.mask_histograms(image[None, None], seen[None, None])[0]
        shown = self.rng.random() < REFERRED
        place.remembered = place.centre if shown else 0
        place.remembered_mask = (found > 0.5).float() if shown else None

    def _move(self, place: _Place, known: torch.Tensor) -> bool:
        """Go to the next window; False where the rollout is over."""
        rng, centre = self.rng, place.centre
        truth = place.mask[centre - 1 : centre + 2]
        size = int(truth[1].sum())
        if centre + 3 > DEPTH or not place.slab.valid[centre + 1]:
            return False
        ahead = _on_host(known[2] > 0.5)
        if ahead.sum() < 3:
            return False
        overlap = float(((known[1] > 0.5) & (truth[1] > 0.5)).sum()) / max(size, 1)
        if not size and rng.random() >= BEYOND:
            return False
        if size and overlap < 0.3 and rng.random() < 0.7:
            return False
        if size and truth[2].sum() < 1 and rng.random() < 0.4:
            return False
        box = mask_box(ahead)
        renewed = overlap > 0.8 and rng.random() < RENEWED
        if size and (place.corrections or renewed):  # this slice is what is remembered from now on
            self._remember(place, known[1])
        place.corrections = 0
        place.centre = centre + 1
        place.known = torch.stack([known[1], known[2], torch.zeros_like(known[2])])
        place.known_flags = (1, 1, 0)
        place.points, place.signs = (), ()
        place.box = grown(box, ahead.shape, rng.uniform(0, 0.06))
        place.region = region_around(place.box, SQUARE, rng.uniform(1.2, 2.0))
        kind = rng.random()
        if kind < 0.15:
            place.box = None
        elif kind < 0.23:
            place.known, place.known_flags = None, (0, 0, 0)
        return True


def _on_host(mask: torch.Tensor) -> np.ndarray:
    return mask.cpu().numpy()
