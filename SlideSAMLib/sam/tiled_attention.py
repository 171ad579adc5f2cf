"""Exact attention on the CPU in tiles that stay in its cache.

PyTorch's fused CPU kernel wants one width for queries, keys and values, and multiplies small
blocks at a fraction of the speed of a plain matrix product, but for CPUs with AMX, see
`kernel_attention`. Here the scores of one tile are made by one product, biased, turned into
weights in place and multiplied with the values. The scores of all tokens never exist together.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .kernel_attention import attend_by_quarters, attend_with_mask, kernel_takes
from .linears import affine, onednn_takes
from .relative_positions import Grid, position_codes

TILE = 2**22  # bytes of scores that exist at a time: a share of any L3 cache
WHOLE = 2**18  # up to so many scores, several heads or windows go into one tile


def attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for each of N heads; no gradients.

    q, k, v : (N, height * width, channels). Returns the same, contiguous.
    """
    if q.shape[1] ** 2 <= WHOLE:
        way = _extended
    elif multiplies_in_tiles() and kernel_takes(q.dtype):
        way = attend_by_quarters if q.dtype == torch.bfloat16 else attend_with_mask
    else:
        way = _tiled
    return way(q, k, v, grid, scale)


@cache
def multiplies_in_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles (AMX)."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # older PyTorch: no


def _tiled(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """Some queries of one head at a time."""
    heads, tokens, _ = q.shape
    out = v.new_empty(v.shape)
    step = max(1, TILE // (tokens * q.element_size()))
    way = _multiplied if q.dtype == torch.float32 and onednn_takes(q) else _summed
    buffer = q.new_empty(0 if way is _multiplied else min(step, tokens) * tokens)
    for head in range(heads):
        rows, columns = grid.biases(q[head : head + 1])
        rows, columns = rows[0].unsqueeze(2), columns[0].unsqueeze(1)
        own = [part[head].contiguous() for part in (q, k, v)]
        for start in range(0, tokens, step):
            part = slice(start, start + step)
            biases = (rows[part], columns[part])
            way(own[0][part], *own[1:], biases, scale, buffer, out[head, part])
    return out


Biases = tuple[Tensor, Tensor]  # (n, height, 1) and (n, 1, width)


def _summed(
    q: Tensor, k: Tensor, v: Tensor, biases: Biases, scale: float, buffer: Tensor, out: Tensor
) -> None:
    """One tile by products that are added to the bias: n queries (n, channels) of one head."""
    scores = buffer[: len(q) * len(k)].view(len(q), len(k))
    torch.add(*biases, out=scores.view(len(q), biases[0].shape[1], -1))
    scores.addmm_(q, k.mT, alpha=scale)
    torch.softmax(scores, -1, out=scores)
    torch.mm(scores, v, out=out)


def _multiplied(
    q: Tensor, k: Tensor, v: Tensor, biases: Biases, scale: float, buffer: Tensor, out: Tensor
) -> None:
    """The same by oneDNN, which in float32 is twice as quick on AMD's processors.

    It makes a matrix of its own, so there is no use for the buffer.
    """
    scores = affine(q * scale, k)
    scores.view(len(q), biases[0].shape[1], -1).add_(biases[0]).add_(biases[1])
    torch.softmax(scores, -1, out=scores)
    out.copy_(affine(scores, v.mT))


def _extended(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """Several heads or windows at a time. The bias enters as extra channels, see `attention`."""
    heads, tokens, channels = q.shape
    codes = position_codes(grid.height, grid.width, channels, q)
    row, column = channels, channels + grid.height  # where the biases start
    out = v.new_empty(v.shape)
    step = min(heads, max(1, TILE // (q.element_size() * tokens * tokens)))
    queries = q.new_zeros(step, tokens, channels + codes.shape[-1])
    keys = torch.empty_like(queries)
    keys[..., channels:] = codes
    buffer = q.new_empty(step, tokens, tokens)
    for start in range(0, heads, step):
        part = slice(start, start + step)
        size = min(step, heads - start)
        down, across = grid.biases(q[part])
        torch.mul(q[part], scale, out=queries[:size, :, :channels])
        queries[:size, :, row:column] = down
        queries[:size, :, column : column + grid.width] = across
        keys[:size, :, :channels] = k[part]
        scores = buffer[:size]
        torch.bmm(queries[:size], keys[:size].mT, out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.bmm(scores, v[part], out=out[part])
    return out
