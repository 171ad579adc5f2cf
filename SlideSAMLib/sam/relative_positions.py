"""SAM's decomposed relative position bias: per query a term for each row and each column.

The score of query q and key k gets q . Rh[row q, row k] + q . Rw[column q, column k].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of H x W tokens and its tables of relative positions.

    row_table : (2 H - 1, C); column_table : (2 W - 1, C); tables of other lengths were made for
    another grid and are interpolated.
    """

    height: int
    width: int
    row_table: Tensor
    column_table: Tensor

    def biases(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Bias of each query towards each row and each column of the grid.

        q : (N, H * W, C), not scaled. Returns (N, H * W, H) and (N, H * W, W).
        """
        grid = q.reshape(len(q), self.height, self.width, -1)
        towards_row = _towards(self.height, self.row_table).to(q.dtype)
        towards_column = _towards(self.width, self.column_table).to(q.dtype)
        # n image and head, h row and w column of the query, k row or column of the key, c channel
        rows = torch.einsum("nhwc,hkc->nhwk", grid, towards_row)
        columns = torch.einsum("nhwc,wkc->nhwk", grid, towards_column)
        return rows.flatten(1, 2), columns.flatten(1, 2)


def position_codes(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """One-hot row and column of each token, (H * W, H + W + padding), in the type of `like`.

    The padding makes channels + codes a multiple of 8, as half precision kernels want it.
    """
    return _codes(height, width, channels, like.dtype, like.device)


def _towards(size: int, table: Tensor) -> Tensor:
    """The entries for each pair of query and key along one side: (size, size, C)."""
    if len(table) != 2 * size - 1:
        # (L, C) -> (1, C, L) and back
        stretched = F.interpolate(table.float().T[None], size=2 * size - 1, mode="linear")
        table = stretched[0].T.to(table.dtype)
    return table[_distances(size, table.device)]


# Kept on the device, so that no forward pass has to wait for a copy; few sizes ever occur.
@lru_cache(maxsize=16)
def _distances(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # usable by autograd as well
        token = torch.arange(size, device=device)
        return token[:, None] - token[None] + size - 1


@lru_cache(maxsize=16)
def _codes(
    height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):
        token = torch.arange(height * width, device=device)
        extra = height + width
        padding = -(channels + extra) % 8
        codes = torch.zeros(height * width, extra + padding, dtype=dtype, device=device)
        codes[token, token // width] = 1
        codes[token, height + token % width] = 1
        return codes
