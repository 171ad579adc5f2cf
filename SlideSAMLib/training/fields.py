"""Noise, blur and neighbourhoods on whichever device the windows are made on.

Where numbers are drawn on the device, its generator is seeded from `rng`: the same seed gives the
same numbers again on the same kind of device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Device = torch.device | str
UNLABELLED = -1.0  # in the soft masks of targets: pixels that nobody has labelled


def noise(shape: Sequence[int], rng: np.random.Generator, device: Device = "cpu") -> Tensor:
    """White noise of unit deviation, float32."""
    generator = torch.Generator(device=device).manual_seed(int(rng.integers(1 << 62)))
    return torch.randn(tuple(shape), generator=generator, device=device)


def smooth_noise(
    shape: Sequence[int], cells: float, rng: np.random.Generator, device: Device = "cpu"
) -> Tensor:
    """Noise of unit deviation that varies over about shape / cells voxels; float32, 2D or 3D."""
    coarse = [max(2, round(cells * n / max(shape)) + 1) for n in shape]
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    field = noise(coarse, rng, device)[None, None]
    field = F.interpolate(field, tuple(shape), mode=mode, align_corners=True)[0, 0]
    return field / field.std().clamp(min=1e-6)


def blur(image: Tensor, sigmas: Sequence[float]) -> Tensor:
    """A stack (S, H, W) blurred by Gaussians of these deviations in voxels; its edge repeats."""
    for axis, sigma in enumerate(sigmas):
        if sigma <= 0:
            continue
        matrix = _blurring_matrix(image.shape[axis], float(sigma)).to(image.device)
        if axis == 2:
            image = image @ matrix.T
        else:  # the axis to be blurred becomes that of the rows
            image = (matrix @ image.movedim(axis, 1)).movedim(1, axis)
    return image


@lru_cache(8)  # rows and columns of one stack mostly have the same
def _blurring_matrix(size: int, sigma: float) -> Tensor:
    """Row n has the weights of the voxels around voxel n, those beyond the edge on the edge's own.

    On CPUs its product with all lines takes a tenth of the time of a convolution of one channel.
    """
    reach = max(1, int(4 * sigma + 0.5))
    line = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    places = (torch.arange(size)[:, None] + line).clamp(0, size - 1)
    weights = (kernel / kernel.sum()).expand(size, -1)
    return torch.zeros(size, size).scatter_add_(1, places, weights)


def grown(mask: Tensor, steps: int, slices: int = 0) -> Tensor:
    """A bool mask (S, H, W) grown by so many voxels in the slice, and by so many slices."""
    wide = mask
    for axis, reach in enumerate((slices, steps, steps)):  # one axis after the other is quicker
        size = mask.shape[axis]
        narrow, wide = wide, wide.clone()
        for step in range(1, min(reach, size - 1) + 1):
            low, high = (0, size - step), (step, size - step)
            wide.narrow(axis, *high).logical_or_(narrow.narrow(axis, *low))
            wide.narrow(axis, *low).logical_or_(narrow.narrow(axis, *high))
    return wide


def shrunk(mask: Tensor, steps: int) -> Tensor:
    """A bool mask (S, H, W) shrunk by so many voxels in the slice."""
    return ~grown(~mask, steps)


def interpolated(image: Tensor, knots: Sequence[float], values: Sequence[float]) -> Tensor:
    """The curve through (knots, values), knots rising, at each grey; its ends go on level."""
    x = torch.as_tensor(np.asarray(knots), dtype=torch.float32, device=image.device)
    y = torch.as_tensor(np.asarray(values), dtype=torch.float32, device=image.device)
    right = torch.searchsorted(x, image.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = ((image - x[left]) / (x[right] - x[left]).clamp(min=1e-6)).clamp(0, 1)
    return y[left] + share * (y[right] - y[left])


def only_labelled(mask: Tensor, share: Tensor) -> Tensor:
    """Targets of soft masks 0..1: UNLABELLED where less than half of a pixel has a label.

    mask : share of each pixel that is object; share : that is labelled, at least as much.
    """
    target = (mask / share.clamp(min=0.5)).clamp(max=1)
    return target.masked_fill(share < 0.5, UNLABELLED)
