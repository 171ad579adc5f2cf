"""Exact attention on the CPU in tiles that stay in its cache.

PyTorch's fused CPU kernel wants one width for queries, keys and values, and multiplies small
blocks at a fraction of the speed of a plain matrix product. Here the scores of one tile are made by
one product, biased, turned into weights in place and multiplied with the values. The scores of all
tokens never exist together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .relative_positions import position_codes

TILE = 2**20  # scores that exist at a time: 2 to 4 MB, a share of any L3 cache
WHOLE = 2**18  # up to so many scores, several heads or windows go into one tile


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for each of N heads; no gradients.

    q, k, v : (N, H * W, C), contiguous.
    rows, columns : (N, H * W, H) and (N, H * W, W), the bias of each query towards each row and
        each column of keys.
    Returns (N, H * W, C).
    """
    tokens = q.shape[1]
    attend = _grouped if tokens * tokens <= WHOLE else _tiled
    return attend(q, k, v, rows, columns, scale)


def _tiled(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """Some queries of one head at a time."""
    heads, tokens, _ = q.shape
    height, width = rows.shape[-1], columns.shape[-1]
    out = torch.empty_like(v)
    step = max(1, TILE // tokens)
    buffer = q.new_empty(1, min(step, tokens), tokens)
    for head in range(heads):
        keys, values = k[head : head + 1].mT, v[head : head + 1]
        for start in range(0, tokens, step):
            part = (slice(head, head + 1), slice(start, start + step))
            scores = buffer[:, : min(step, tokens - start)]
            grid = scores.unflatten(2, (height, width))
            torch.add(rows[part].unsqueeze(3), columns[part].unsqueeze(2), out=grid)
            scores.baddbmm_(q[part], keys, alpha=scale)
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, values, out=out[part])
    return out


def _grouped(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    """Several heads or windows at a time; the bias enters as extra channels, see `attention`."""
    heads, tokens, channels = q.shape
    height, width = rows.shape[-1], columns.shape[-1]
    codes = position_codes(height, width, channels, q)
    out = torch.empty_like(v)
    step = min(heads, max(1, TILE // (tokens * tokens)))
    queries = q.new_zeros(step, tokens, channels + codes.shape[-1])
    keys = torch.empty_like(queries)
    keys[..., channels:] = codes
    buffer = q.new_empty(step, tokens, tokens)
    for start in range(0, heads, step):
        part = slice(start, start + step)
        size = min(step, heads - start)
        torch.mul(q[part], scale, out=queries[:size, :, :channels])
        queries[:size, :, channels : channels + height] = rows[part]
        queries[:size, :, channels + height : channels + height + width] = columns[part]
        keys[:size, :, :channels] = k[part]
        scores = buffer[:size]
        torch.bmm(queries[:size], keys[:size].mT, out=scores)
        torch.softmax(scores, -1, out=scores)
        torch.bmm(scores, v[part], out=out[part])
    return out
