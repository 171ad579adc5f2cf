"""What the built-in network sees: image, appearance statistics of the object, prompts.

The appearance statistics are the lever of this model: two intensity histograms, inside and around
the object, give each voxel a log-likelihood ratio. They come from the prompt on the first slice,
from the masks of the slices already done afterwards, and are held to the user's slice by a share
of its own histograms (the memory), so that the object's look cannot drift away. The user's slice
itself and its mask are shown as well, on the same region, with how near they are.

All tensors are batched; images lie on the GRID x GRID raster of a region, with intensities scaled
to 0..1 by one window for all slices, so that histograms of different slices can be averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..compute.devices import on_device
from .filters import greatest_within, halved, mean_of_three
from .regions import GRID

BINS = 64
CHANNELS = 24
REFERENCE = 3  # the last of them: image and mask of the remembered slice, and how near it is
MAX_POINTS = 16
MEMORY_SHARE = 0.2  # less leaves room for a look that changes, more keeps from drifting away
NEAR = 8.0  # slices over which the nearness of the remembered slice falls to 1 / e
_CELL = GRID // 2  # histograms are counted on 2 x 2 means: quicker, and less noise


@dataclass
class Batch:
    """Inputs of B windows on their regions.

    image : (B, 3, GRID, GRID) in 0..1.
    masks : (B, 3, GRID, GRID) probabilities; known : (B, 3) 0 or 1.
    box : (B, 4) x0 y0 x1 y1 on the grid; has_box : (B,) 0 or 1.
    points : (B, MAX_POINTS, 2) x, y on the grid; signs : (B, MAX_POINTS) 1, 0 or -1 (unused).
    memory : (B, 2, BINS) histograms of the user's slice; has_memory : (B,) 0 or 1.
    reference : (B, 2, GRID, GRID) image in 0..1 and mask of the user's slice; nearness : (B,) from
        1 for the slice itself towards 0, see `nearness`; 0 for none.
    """

    image: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor
    box: torch.Tensor
    has_box: torch.Tensor
    points: torch.Tensor
    signs: torch.Tensor
    memory: torch.Tensor
    has_memory: torch.Tensor
    reference: torch.Tensor
    nearness: torch.Tensor

    @staticmethod
    def empty(count: int, device: torch.device | str = "cpu") -> Batch:
        """A batch without prompts, to be filled in.

        Images and histograms lie on the device; the few numbers stay on the host, see `to`.
        """

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(count, *shape, dtype=torch.float32, device=device)

        def numbers(*shape: int) -> torch.Tensor:
            return torch.zeros(count, *shape, dtype=torch.float32)

        return Batch(
            zeros(3, GRID, GRID), zeros(3, GRID, GRID), numbers(3), numbers(4), numbers(),
            numbers(MAX_POINTS, 2), numbers(MAX_POINTS) - 1, zeros(2, BINS), numbers(),
            zeros(2, GRID, GRID), numbers(),
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        """All of it on a device: the few numbers of the host in one copy, not waited for."""
        tensors = self.tensors()
        places = [n for n, each in enumerate(tensors) if each.device.type != device.type]
        if places:
            numbers = [tensors[n].numpy() for n in places]
            flat = on_device(np.concatenate([each.ravel() for each in numbers]), device)
            parts = flat.split([each.size for each in numbers])
            for n, part in zip(places, parts, strict=True):
                tensors[n] = part.view(tensors[n].shape)
        return Batch(*tensors)

    def tensors(self) -> list[torch.Tensor]:
        """All of them, in their order."""
        return [getattr(self, field.name) for field in fields(self)]


def nearness(distance: int) -> float:
    """How near a slice is that lies `distance` slices away: 1 .. 0."""
    return math.exp(-distance / NEAR)


def assemble(batch: Batch, memory_share: float = MEMORY_SHARE) -> torch.Tensor:
    """The network's input, float32 (B, CHANNELS, GRID, GRID)."""
    inside, outside = prompt_histograms(batch)
    share = memory_share * batch.has_memory[:, None]
    inside = (1 - share) * inside + share * batch.memory[:, 0]
    outside = (1 - share) * outside + share * batch.memory[:, 1]
    known = batch.known[:, :, None, None]
    levels = _levels(batch.image)
    return torch.cat(
        [
            _normalised(batch.image, levels),
            *_appearance(batch.image, inside, outside),
            (2 * batch.masks - 1) * known,
            known.expand(-1, -1, GRID, GRID),
            _box_fill(batch)[:, None],
            _gaussians(batch, 1, 0.02)[:, None],
            _gaussians(batch, 0, 0.02)[:, None],
            *_remembered(batch, levels),
        ],
        dim=1,
    )


def _remembered(batch: Batch, levels: torch.Tensor) -> list[torch.Tensor]:
    """The user's slice in the greys of this window, its mask as -1 and 1, and its nearness."""
    near = batch.nearness[:, None, None, None]
    there = (near > 0).float()
    image, mask = batch.reference[:, :1], batch.reference[:, 1:]
    plane = near.expand(-1, 1, GRID, GRID)
    return [_normalised(image, levels) * there, (2 * mask - 1) * there, plane]


def _levels(image: torch.Tensor) -> torch.Tensor:
    """Percentiles 2 and 98 of the central half of the centre slice: (2, B)."""
    quarter = GRID // 4
    centre = image[:, 1, quarter:-quarter:2, quarter:-quarter:2].flatten(1)
    return torch.quantile(centre, _constant((0.02, 0.98), image.device), dim=1)


def _normalised(image: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The levels to -1..1, clipped at +-3."""
    low, high = levels[:, :, None, None, None]
    return (2 * (image - low) / (high - low).clamp(min=0.02) - 1).clamp(-3, 3)


def _appearance(
    image: torch.Tensor, inside: torch.Tensor, outside: torch.Tensor
) -> list[torch.Tensor]:
    """Distance to the object's mean in its own deviations, likelihood ratio, and likelihood."""
    index = _bin(mean_of_three(image)).flatten(1)

    def look_up(table: torch.Tensor) -> torch.Tensor:
        return table.gather(1, index).view_as(image)

    values = (torch.arange(BINS, dtype=torch.float32, device=image.device) + 0.5) / BINS
    mean = (inside * values).sum(1)
    deviation = ((inside * (values - mean[:, None]) ** 2).sum(1)).clamp(min=1e-4).sqrt()
    score = (image - mean[:, None, None, None]) / (2 * deviation[:, None, None, None])
    ratio = torch.log((inside + 0.004) / (outside + 0.004)).clamp(-3, 3) / 2
    likely = inside / inside.amax(1, keepdim=True).clamp(min=1e-6)
    return [score.clamp(-3, 3), look_up(ratio), look_up(likely)]


def _bin(image: torch.Tensor) -> torch.Tensor:
    return (image * BINS).long().clamp(0, BINS - 1)


def prompt_histograms(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised, smoothed histograms (B, BINS) inside and around what the prompts mark."""
    inside, outside = _weights(batch)
    index = _bin(halved(batch.image)).flatten(1)
    return _histogram(index, inside), _histogram(index, outside)


def mask_histograms(image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Histograms (B, 2, BINS) inside and around masks; image and masks (B, C, GRID, GRID)."""
    index = _bin(halved(image)).flatten(1)
    inside, outside = _mask_weights(halved(masks))
    return torch.stack([_histogram(index, inside), _histogram(index, outside)], 1)


def _histogram(index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(len(index), BINS, dtype=torch.float32, device=index.device)
    counts.scatter_add_(1, index, weights.flatten(1))
    kernel = _constant((1.0, 4.0, 6.0, 4.0, 1.0), index.device).view(1, 1, 5) / 16
    smooth = F.conv1d(F.pad(counts[:, None], (2, 2), mode="replicate"), kernel)[:, 0]
    return smooth / smooth.sum(1, keepdim=True).clamp(min=1e-6)


@lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Kept on the device: nothing has to be copied there for each batch."""
    with torch.inference_mode(False):  # usable in training as well
        return torch.tensor(values, dtype=torch.float32, device=device)


def _mask_weights(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inside the mask, and in a ring of a tenth of the region around it."""
    reach = _CELL // 10
    return masks, (greatest_within(masks, reach) - greatest_within(masks, 1)).clamp(min=0)


def _weights(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (B, 3, _CELL, _CELL) of the histograms: from known masks, else box, else points."""
    masks = halved(batch.masks) * batch.known[:, :, None, None]
    mask_in, mask_out = _mask_weights(masks)
    box_in, box_out = _box_weights(batch)
    point_in = _gaussians(batch, 1, 0.03, _CELL)
    far = (1 - _gaussians(batch, 1, 0.10, _CELL)).clamp(min=0)
    negative = _gaussians(batch, 0, 0.03, _CELL)
    usable = (mask_in.flatten(1).sum(1) > 4).float()[:, None, None]
    box = batch.has_box[:, None, None]
    centre_in = box * box_in + (1 - box) * point_in
    centre_out = box * box_out + (1 - box) * 0.15 * far
    inside, outside = mask_in * usable[:, None], mask_out * usable[:, None]
    inside[:, 1] += (1 - usable) * centre_in
    outside[:, 1] += (1 - usable) * centre_out + 3 * negative
    return inside, outside


def _axes(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Grid coordinates of cell centres: x (1, 1, size) and y (1, size, 1)."""
    step = GRID / size
    line = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * step - 0.5
    return line[None, None, :], line[None, :, None]


def _box_radius(batch: Batch, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance from the box's centre, 1 at its sides: (elliptic, rectangular)."""
    x, y = _axes(size, batch.box.device)
    x0, y0, x1, y1 = (batch.box[:, n, None, None] for n in range(4))
    u = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2).clamp(min=0.5)
    v = (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2).clamp(min=0.5)
    return (u**2 + v**2).sqrt(), torch.maximum(u.abs(), v.abs())


def _box_weights(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    elliptic, rectangular = _box_radius(batch, _CELL)
    inside = torch.exp(-1.5 * elliptic**2) * (rectangular <= 1)
    return inside, ((rectangular > 1.05) & (rectangular < 1.7)).float()


def _box_fill(batch: Batch) -> torch.Tensor:
    _, rectangular = _box_radius(batch, GRID)
    return (rectangular <= 1).float() * batch.has_box[:, None, None]


def _gaussians(batch: Batch, sign: int, sigma: float, size: int = GRID) -> torch.Tensor:
    """Maximum of Gaussians about the points of one sign: (B, size, size); sigma in sides."""
    used = MAX_POINTS  # a GPU computes those that are not there sooner than it could be asked
    if batch.signs.device.type == "cpu":
        used = int((batch.signs >= 0).sum(1).max()) if len(batch.signs) else 0
    if not used:
        return batch.points.new_zeros(len(batch.signs), size, size)
    x, y = (axis[:, None] for axis in _axes(size, batch.points.device))
    px, py = batch.points[:, :used, :, None, None].unbind(2)
    scale = -1 / (2 * (sigma * GRID) ** 2)
    wanted = (batch.signs[:, :used] == sign).float()[:, :, None, None]
    return (torch.exp(scale * (x - px) ** 2) * torch.exp(scale * (y - py) ** 2) * wanted).amax(1)
