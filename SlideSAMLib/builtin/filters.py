"""Means and maxima of neighbouring voxels; on CPUs several times quicker than pooling layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def mean_of_three(image: torch.Tensor) -> torch.Tensor:
    """The mean over 3 x 3 voxels, images (B, C, H, W); beyond the image its edge repeats."""
    wide = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]) / 9


def halved(image: torch.Tensor) -> torch.Tensor:
    """The means of 2 x 2 voxels: (..., H, W) -> (..., H / 2, W / 2); H and W are even."""
    rows = image[..., ::2] + image[..., 1::2]
    return (rows[..., ::2, :] + rows[..., 1::2, :]) / 4


def greatest_within(image: torch.Tensor, reach: int) -> torch.Tensor:
    """The greatest value within `reach` voxels up and down, left and right; (B, C, H, W)."""
    across = _greatest_in_rows(image, reach)
    return _greatest_in_rows(across.mT, reach).mT  # the other axis goes last, and back


def _greatest_in_rows(image: torch.Tensor, reach: int) -> torch.Tensor:
    """The greatest of 2 reach + 1 values, by maxima over 2, 4, 8 and so on values."""
    count, done = 2 * reach + 1, 1
    image = F.pad(image, (reach, reach), value=float("-inf"))
    while done < count:
        step = min(done, count - done)
        image = torch.maximum(image[..., :-step], image[..., step:])
        done += step
    return image
