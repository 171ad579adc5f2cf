"""A window's prompt in terms of square regions, and what the network answers on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..boxes import Box, around, mask_box
from ..compute.devices import on_host
from ..compute.memory import out_of_memory
from ..compute.own_settings import own_settings
from ..errors import InputError
from ..patches import Patch
from ..protocol import WindowPrompt
from . import features
from .features import MAX_POINTS, Batch
from .regions import GRID, Region, paste_region, region_around, region_at, sample_region

FACTOR = 1.6  # side of the region over the longer side of the box
LEAST_FACTOR = 1.15
POINT_SIDES = (0.1, 0.18, 0.32, 0.56, 1.0)  # sides tried for points, as shares of the slice's side
SIZE_WEIGHT = 0.03  # of the logarithm of an answer's size, in the choice among the sizes
SECOND_WEIGHT = 0.25  # of its Dice with the most alike answer of another size there
LIMIT = 12.0  # logits are clipped to +- this


@dataclass(frozen=True)
class BuiltinSettings:
    """What can be changed about the model without training it anew.

    factor : side of the region over the longer side of the box, at least 1; inf: as wide as the
        slice.
    memory_share : share of the user's slice in the look of the object, 0..1.
    reference : whether networks that can look at the user's slice itself may do so.

    Raises InputError where a value is out of its range.
    """

    factor: float = FACTOR
    memory_share: float = features.MEMORY_SHARE
    reference: bool = True

    def __post_init__(self) -> None:
        if not self.factor >= 1.0:
            raise InputError(f"The model's factor must be 1 or greater, not {self.factor!r}.")
        if not 0.0 <= self.memory_share <= 1.0:
            raise InputError(
                f"The model's memory_share must be between 0 and 1, not {self.memory_share!r}."
            )


@dataclass(frozen=True, eq=False)
class BuiltinEmbedding:
    """Three slices scaled to 0..1, float16 (H, W) each, and their spacing (row, column) in mm.

    slices : before, centre, after; windows next to each other share them.
    first_boxes : point (x, y) -> box in voxels of the answer to this point alone, or None.
    """

    slices: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    spacing: tuple[float, float]
    settings: BuiltinSettings = BuiltinSettings()
    first_boxes: dict[tuple[float, float], Box | None] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.slices)


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered of a slice with a trusted mask.

    histograms : (2, BINS) inside and around the object; slice : float16 (2, H, W), its image in
        0..1 and its mask.
    """

    histograms: torch.Tensor
    slice: torch.Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network said about each region: logits (N, 4, 3, g, g) and ratings.

    agreement : (N,), Dice of candidate 0 with the answer that its region was made from, or 0.
    seconded : (N,), its Dice with the most alike one of the answers on regions of other sizes, or
        0.
    """

    regions: list[Region]
    logits: torch.Tensor
    quality: torch.Tensor
    presence: torch.Tensor
    agreement: torch.Tensor
    seconded: torch.Tensor

    def ratings(self) -> torch.Tensor:
        """How good candidate 0 is on the centre slice, (N,).

        Predicted quality, plus the agreement: an answer that changes once it is seen on a region
        of its own size was none. What is found on regions of several sizes counts more than what
        one of them shows alone: all of the slice, mostly, the body instead of a lesion in it. Of
        answers that are equally good by that the larger one, on its region, is mostly meant.
        """
        device = self.logits.device
        sizes = [one.rows * one.columns for one in self.regions]
        voxels = torch.tensor(sizes, dtype=torch.float32, device=device)
        area = voxels * (self.logits[:, 0, 1] > 0).float().mean((1, 2))
        alike = self.agreement + SECOND_WEIGHT * self.seconded
        return self.quality[:, 0] + alike + SIZE_WEIGHT * area.clamp(min=1).log()


class Request:
    """A window's prompt in terms of regions; `turned` reverses the order of the slices."""

    def __init__(
        self,
        embedding: BuiltinEmbedding,
        prompt: WindowPrompt,
        turned: bool,
        box: Box | None = None,
    ) -> None:
        self.embedding, self.prompt, self.turned = embedding, prompt, turned
        self.box = prompt.box if box is None else box
        self.shape = tuple(embedding.slices[1].shape)
        self.masks = None if prompt.masks is None else np.asarray(prompt.masks)

    @property
    def is_placed(self) -> bool:
        """Whether a box or a mask says where to look."""
        return self.prompt.box is not None or any(self.prompt.known)

    def on_slice(
        self, answer: Answer, pick: int
    ) -> tuple[tuple[int, int], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Corner, logits of candidate 0, quality and presence for the slice, out of one place of
        an answer."""
        corner, logits = self._pasted(answer.logits[pick, 0], answer.regions[pick])
        presence = self._in_order(answer.presence[pick])
        return corner, logits, answer.quality[pick].float(), presence.float()

    @own_settings()
    def candidate(self, answer: Answer, pick: int, number: int) -> np.ndarray:
        """Logits of one candidate on the slice, float32 (3, h, w), on the host.

        Where a GPU has no room for it, the host makes it: the rest of the answer is there already.
        """
        logits = answer.logits[pick, number]
        try:
            return on_host(self._pasted(logits, answer.regions[pick])[1])[0]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        return on_host(self._pasted(logits.cpu(), answer.regions[pick])[1])[0]

    def _pasted(self, logits: torch.Tensor, region: Region) -> tuple[tuple[int, int], torch.Tensor]:
        pasted, corner = paste_region(
            self._in_order(logits.clamp(-LIMIT, LIMIT)), region, self.shape
        )
        return corner, pasted.float()

    def with_box(self, box: Box) -> Request:
        """The same request with a box."""
        return Request(self.embedding, self.prompt, self.turned, box)

    def alone(self) -> Request:
        """The same request with its first positive point only."""
        point = self._positive()[0]
        prompt = replace(self.prompt, points=(point,), labels=(1,))
        return Request(self.embedding, prompt, self.turned)

    def best_box(self, answer: Answer) -> Box | None:
        """The box of the best answer; None where that is empty."""
        best = int(answer.ratings().argmax())
        values, corner = paste_region(answer.logits[best, 0, 1], answer.regions[best], self.shape)
        return self.box_of(Patch(corner, on_host(values)[0]))

    def remember_box(self, answer: Answer) -> None:
        """Keep the box of the best answer to this one point.

        Not with a memory of another slice: without it, or with another one, the answer differs.
        """
        if self.prompt.memory is None:
            self.embedding.first_boxes[self.prompt.points[0]] = self.best_box(answer)

    def around_points(self, box: Box) -> Box:
        """The smallest box around a box and the positive points."""
        return around([box, *((x, y, x, y) for x, y in self._positive())])

    def region(self) -> Region:
        """The region around the box, or around the known mask of the centre."""
        box = self.box
        if box is None:
            inside = self.masks[1] > 0.5 if self.prompt.known[1] else self.masks.max(0) > 0.5
            box = mask_box(inside) if inside.any() else (0, 0, self.shape[1] - 1, self.shape[0] - 1)
        box = self.around_points(box)  # points outside their box still count
        return region_around(box, self.embedding.spacing, self._factor(box))

    def _factor(self, box: Box) -> float:
        """The factor, or less where the box nearly fills the slice: there is nothing beyond it."""
        row, column = self.embedding.spacing
        side = max((box[2] - box[0] + 1) * column, (box[3] - box[1] + 1) * row)
        whole = max(self.shape[0] * row, self.shape[1] * column)
        return min(self.embedding.settings.factor, max(LEAST_FACTOR, 1.1 * whole / side))

    def point_regions(self) -> list[Region]:
        """Regions of several sizes about the positive points.

        The smallest shows every voxel. On large slices, as those of microscopes, the sizes lie
        farther apart for that: POINT_SIDES would leave a cell a few places of the grid.
        """
        row, column = self.embedding.spacing
        points = np.array(self._positive())
        x, y = (points.min(0) + points.max(0)) / 2
        spread = float((np.ptp(points, axis=0) * [column, row]).max())
        whole = max(self.shape[0] * row, self.shape[1] * column)
        least = max(1.5 * spread, 16 * min(row, column))
        shares = POINT_SIDES
        every = GRID * min(row, column) / whole  # one voxel for each place of the grid
        if every < shares[0]:
            shares = np.geomspace(every, 1, len(shares)).tolist()
        sides = sorted({max(share * whole, least) for share in shares})
        return [region_at(x, y, side, (row, column)) for side in sides]

    def patches(self, answer: Answer) -> list[Patch]:
        """Candidate 0 of every region on the centre slice; the device is waited for once."""
        pairs = zip(answer.logits[:, 0, 1], answer.regions, strict=True)
        pasted = [paste_region(logits, region, self.shape) for logits, region in pairs]
        found = on_host(*(values for values, _ in pasted))
        return [Patch(corner, own) for (_, corner), own in zip(pasted, found, strict=True)]

    @staticmethod
    def box_of(patch: Patch) -> Box | None:
        """The bounding box in voxels of the mask on a patch; None where it is empty."""
        if patch.voxels < 3:
            return None
        row, column = patch.start
        x0, y0, x1, y1 = mask_box(patch.filled)
        return (x0 + column, y0 + row, x1 + column, y1 + row)

    def fill(self, batch: Batch, n: int, region: Region) -> None:
        """Write this request, seen through a region, into place n of a batch."""
        device = batch.image.device
        batch.image[n] = self._in_order(sample_region(self.embedding.slices, region))
        if self.masks is not None and any(self.prompt.known):
            batch.masks[n] = self._in_order(self._known_masks(region, device))
            batch.known[n] = self._in_order(torch.tensor(self.prompt.known, dtype=torch.float32))
        if self.box is not None:
            batch.box[n] = torch.tensor(region.box_to_grid(self.box))
            batch.has_box[n] = 1
        for m, ((x, y), label) in enumerate(self._seen_points()):
            batch.points[n, m] = torch.tensor(region.to_grid(x, y))
            batch.signs[n, m] = label
        if self.prompt.memory is not None:
            memory = self.prompt.memory
            batch.memory[n], batch.has_memory[n] = memory.histograms, 1
            if self.embedding.settings.reference:
                batch.reference[n] = sample_region(memory.slice, region)
                batch.nearness[n] = features.nearness(self.prompt.distance)

    def _known_masks(self, region: Region, device: torch.device) -> torch.Tensor:
        """The known masks inside a region, float32 (3, GRID, GRID), 0 where nothing is known."""
        places = [place for place in range(3) if self.prompt.known[place]]
        masks = [torch.from_numpy(np.ascontiguousarray(self.masks[place])) for place in places]
        out = torch.zeros((3, GRID, GRID), dtype=torch.float32, device=device)
        for place, sampled in zip(places, sample_region(masks, region, device=device), strict=True):
            out[place] = sampled
        return out

    def _seen_points(self) -> list[tuple[tuple[float, float], int]]:
        """The points that the network has room for, the positive ones first.

        Of too many the newest of each sign: what is wrong now, not what has been mended.
        """
        pairs = list(zip(self.prompt.points, self.prompt.labels, strict=True))
        inside, outside = ([p for p in pairs if p[1] == label] for label in (1, 0))
        room = max(MAX_POINTS // 2, MAX_POINTS - len(inside))  # for negative ones
        outside = outside[-room:]
        return inside[-(MAX_POINTS - len(outside)) :] + outside

    def _in_order(self, three: torch.Tensor) -> torch.Tensor:
        """What there is of the three slices, in the order in which the network sees them, and
        back."""
        return three.flip(0) if self.turned else three

    def _positive(self) -> list[tuple[float, float]]:
        pairs = zip(self.prompt.points, self.prompt.labels, strict=True)
        return [point for point, label in pairs if label == 1]
