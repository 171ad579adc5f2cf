"""The square region around a prompt that the built-in network sees, and resampling to and from it.

A region is square in millimetres and is sampled on a GRID x GRID raster. Resampling is separable:
one small matrix per axis, with a triangle kernel as wide as the coarser of the two rasters, so
that shrinking does not alias and enlarging is linear. Outside the slice the edge is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..boxes import Box
from ..compute.devices import on_device

GRID = 128  # raster of the network's input
KEPT = 16  # weights, a quarter of a megabyte each where slices are large
SMALLEST_SIDE = 24.0  # in voxels of the finer in-plane spacing: context around tiny objects


@dataclass(frozen=True)
class Region:
    """Upper left edge (row, column) and side lengths, all in voxels of the slice.

    Edges are not centres: the slice's first voxel spans -0.5 to 0.5.
    """

    row: float
    column: float
    rows: float
    columns: float

    def to_grid(self, x: float, y: float) -> tuple[float, float]:
        """Voxel (x, y) -> grid (x, y); grid points are centres at 0 .. GRID - 1."""
        return (
            (x - self.column) * GRID / self.columns - 0.5,
            (y - self.row) * GRID / self.rows - 0.5,
        )

    def box_to_grid(self, box: Box) -> Box:
        """A box with inclusive corners -> grid, so that it spans the same area."""
        x0, y0 = self.to_grid(box[0] - 0.5, box[1] - 0.5)
        x1, y1 = self.to_grid(box[2] + 0.5, box[3] + 0.5)
        return (x0 + 0.5, y0 + 0.5, x1 - 0.5, y1 - 0.5)


def region_around(box: Box, spacing: tuple[float, float], factor: float) -> Region:
    """The region whose side is `factor` times the longer side of a box, about its centre.

    box : (x0, y0, x1, y1) in voxels, inclusive; spacing : (row, column) in mm.
    """
    row_mm, column_mm = spacing
    width = (box[2] - box[0] + 1) * column_mm
    height = (box[3] - box[1] + 1) * row_mm
    side = max(factor * max(width, height), SMALLEST_SIDE * min(row_mm, column_mm))
    return region_at((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side, spacing)


def region_at(x: float, y: float, side_mm: float, spacing: tuple[float, float]) -> Region:
    """The region of a side in mm about a point in voxels."""
    rows, columns = side_mm / spacing[0], side_mm / spacing[1]
    return Region(y - rows / 2, x - columns / 2, rows, columns)


@lru_cache(KEPT)
@torch.inference_mode(False)  # one that is kept may be asked for again in training
def resampling_matrix(
    count: int, start: float, step: float, out: int, device: torch.device | None = None
) -> torch.Tensor:
    """Weights (out, count) that sample `count` values at centres start + (g + 0.5) * step.

    Made by NumPy: of such small arrays PyTorch's functions would take a third longer.
    `start` is an edge in the coordinates of the input's centres; beyond the input its first or
    last value is repeated. Nobody may write to the weights: the newest ones are kept, since what
    lies on a region is sampled piece by piece.
    """
    centres = start + (np.arange(out) + 0.5) * step
    reach = max(step, 1.0)
    taps = np.arange(-int(reach) - 1, int(reach) + 3)
    positions = np.floor(centres)[:, None] + taps
    weights = np.maximum(1 - np.abs(positions - centres[:, None]) / reach, 0)
    # PyTorch's sum: NumPy's adds in another order, and the last bit of a weight could change.
    weights /= torch.from_numpy(weights).sum(1, keepdim=True).numpy()
    places = positions.clip(0, count - 1).astype(np.intp) + count * np.arange(out)[:, None]
    matrix = np.bincount(places.ravel(), weights.ravel(), out * count).astype(np.float32)
    matrix = matrix.reshape(out, count)
    return torch.from_numpy(matrix) if device is None else on_device(matrix, device)


def sample_region(
    images: torch.Tensor | Sequence[torch.Tensor],
    region: Region,
    grid: int = GRID,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Images (C, H, W), or C images (H, W), -> float32 (C, grid, grid) inside the region.

    device : where to sample; only what is needed of the images goes there. None: where they are.
    """
    height, width = images[0].shape
    device = images[0].device if device is None else device
    used_rows, rows = _used(height, region.row, region.rows / grid, grid, device)
    used_columns, columns = _used(width, region.column, region.columns / grid, grid, device)
    part = torch.stack([image[used_rows, used_columns] for image in images])
    part = part.to(torch.float32)
    if part.device.type != device.type:
        part = on_device(part.numpy(), device)
    return resampled(part, rows, columns)


def _used(
    count: int, start: float, step: float, out: int, device: torch.device
) -> tuple[slice, torch.Tensor]:
    """The part of `count` values that samples are made of, and the `resampling_matrix` of it."""
    reach = max(step, 1.0) + 1
    first = min(max(int((start + step / 2 - reach) // 1), 0), count - 1)
    last = min(max(int(-(-(start + (out - 0.5) * step + reach) // 1)), first), count - 1)
    used = slice(first, last + 1)
    return used, resampling_matrix(last + 1 - first, start - first, step, out, device)


def resampled(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """rows image columns^T for each image: (..., H, W), (h, H), (w, W) -> (..., h, w).

    By plain products: the sizes are new at nearly every call, and oneDNN would prepare for each.
    """
    return rows @ (images @ columns.mT)


def enlarged(values: torch.Tensor, grid: int = GRID) -> torch.Tensor:
    """Values (..., g, g) interpolated linearly to (..., grid, grid); g is at most `grid`."""
    count = values.shape[-1]
    matrix = resampling_matrix(count, -0.5, count / grid, grid, values.device)
    return resampled(values, matrix, matrix)


def paste_region(
    values: torch.Tensor, region: Region, shape: tuple[int, int]
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Values (..., g, g) on the region -> (..., h, w) on the slice's voxels, and their corner.

    Only the part of the region that lies inside the slice (H, W) is made. A region that misses
    the slice altogether gives one voxel at its nearest corner.
    """
    grid = values.shape[-1]
    first_row, row_count = _inside(region.row, region.rows, shape[0])
    first_column, column_count = _inside(region.column, region.columns, shape[1])
    device = values.device
    rows = _back(grid, region.row, region.rows, first_row, row_count, device)
    columns = _back(grid, region.column, region.columns, first_column, column_count, device)
    out = resampled(values.float(), rows, columns)
    return out, (first_row, first_column)


def _inside(start: float, length: float, size: int) -> tuple[int, int]:
    """First voxel and number of voxels whose centres the region covers."""
    first = min(max(int(-(-start // 1)), 0), size - 1)
    last = min(max(int((start + length) // 1), first), size - 1)
    return first, last - first + 1


def _back(
    grid: int, start: float, length: float, first: int, count: int, device: torch.device
) -> torch.Tensor:
    step = grid / length  # grid cells per voxel
    return resampling_matrix(grid, (first - 0.5 - start) * step - 0.5, step, count, device)
