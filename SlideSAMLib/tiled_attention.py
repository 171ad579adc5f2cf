"""Exact attention on the CPU in tiles that stay in its cache.

PyTorch's fused CPU kernel wants one width for queries, keys and values, and multiplies small
blocks at a fraction of the speed of a plain matrix product. Here the scores of one tile are made by
one product, biased, turned into weights in place and multiplied with the values. The scores of all
tokens never exist together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .relative_positions import Grid, position_codes

TILE = 2**20  # scores that exist at a time: 2 to 4 MB, a share of any L3 cache
WHOLE = 2**18  # up to so many scores, several heads or windows go into one tile


def attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for each of N heads; no gradients.

    q, k, v : (N, height * width, channels), contiguous. Returns the same.
    """
    tokens = q.shape[1]
    way = _grouped if tokens * tokens <= WHOLE else _tiled
    return way(q, k, v, grid, scale)


def _tiled(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """Some queries of one head at a time."""
    heads, tokens, _ = q.shape
    out = torch.empty_like(v)
    step = max(1, TILE // tokens)
    buffer = q.new_empty(1, min(step, tokens), tokens)
    for head in range(heads):
        own = slice(head, head + 1)
        keys, values = k[own].mT, v[own]
        rows, columns = grid.biases(q[own])
        for start in range(0, tokens, step):
            part = slice(start, start + step)
            scores = buffer[:, : min(step, tokens - start)]
            by_key = scores.unflatten(2, (grid.height, grid.width))
            torch.add(rows[:, part].unsqueeze(3), columns[:, part].unsqueeze(2), out=by_key)
            scores.baddbmm_(q[own, part], keys, alpha=scale)
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, values, out=out[own, part])
    return out


def _grouped(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """Several heads or windows at a time; the bias enters as extra channels, see `attention`."""
    heads, tokens, channels = q.shape
    codes = position_codes(grid.height, grid.width, channels, q)
    row, column = channels, channels + grid.height  # where the biases start
    out = torch.empty_like(v)
    step = min(heads, max(1, TILE // (tokens * tokens)))
    queries = q.new_zeros(step, tokens, channels + codes.shape[-1])
    keys = torch.empty_like(queries)
    keys[..., channels:] = codes
    buffer = q.new_empty(step, tokens, tokens)
    for start in range(0, heads, step):
        part = slice(start, start + step)
        size = min(step, heads - start)
        rows, columns = grid.biases(q[part])
        torch.mul(q[part], scale, out=queries[:size, :, :channels])
        queries[:size, :, row:column] = rows
        queries[:size, :, column : column + grid.width] = columns
        keys[:size, :, :channels] = k[part]
        scores = buffer[:size]
        torch.bmm(queries[:size], keys[:size].mT, out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.bmm(scores, v[part], out=out[part])
    return out
