"""Exact attention by PyTorch's fused CPU kernel, for CPUs on which it is the quickest way.

On those with AMX it takes three quarters (bfloat16) or five sixths (float32) of the time of two
products with a softmax between them, and rounds less. In float32 it gets the bias of the relative
positions as a mask, for some queries at a time. In bfloat16, where products cost less than sums,
the bias enters as extra channels, see `attention`. For SAM's 64 x 64 tokens these would be twice as
many as the channels themselves; the keys of one quarter of the grid lie in half of its rows and
half of its columns, and need half as many. What the quarters answer is put together by the sums of
their weights, which the kernel gives as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .relative_positions import Grid, position_codes

WIDENED = 2**22  # bytes of queries with their biases that exist at a time
MASK = 2**24  # bytes of biases that exist at a time


def attend_with_mask(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for each of N heads; no gradients.

    q, k, v : (N, height * width, channels). Returns the same.
    """
    heads, tokens, _ = q.shape
    out = v.new_empty(v.shape)
    step = min(tokens, max(1, MASK // (tokens * q.element_size())))
    buffer = q.new_empty(step, tokens)
    for head in range(heads):
        one = slice(head, head + 1)
        rows, columns = grid.biases(q[one])
        for start in range(0, tokens, step):
            part = slice(start, start + step)
            some = q[None, one, part] * scale
            mask = buffer[: some.shape[2]]
            places = mask.view(1, -1, grid.height, grid.width)
            torch.add(rows[:, part, :, None], columns[:, part, None, :], out=places)
            out[one, part] = _kernel(some, k[None, one], v[None, one], mask[None, None])[0][0]
    return out


def attend_by_quarters(q: Tensor, k: Tensor, v: Tensor, grid: Grid, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v for each of N heads; no gradients.

    q, k, v : (N, height * width, channels) in half precision. Returns the same.
    """
    heads, tokens, channels = q.shape
    width = channels + _halves(grid.height)[0].stop + _halves(grid.width)[0].stop
    width += -width % 16  # the kernel multiplies in tiles of that
    step = min(heads, max(1, WIDENED // (tokens * width * q.element_size())))
    queries = q.new_zeros(step, tokens, width)
    quarters = [
        _quarter(queries, channels, grid, rows, columns)
        for rows in _halves(grid.height)
        for columns in _halves(grid.width)
    ]
    out = v.new_empty(v.shape)
    for start in range(0, heads, step):
        part = slice(start, start + step)
        some = queries[: len(q[part])]
        torch.mul(q[part], scale, out=some[..., :channels])
        biases = grid.biases(q[part])
        answers = [quarter.answer(some, biases, k[part], v[part], grid) for quarter in quarters]
        out[part] = _joined(answers)
    return out


def _halves(size: int) -> list[slice]:
    """The first half of some rows or columns, which is not smaller, and the second, if any."""
    middle = -(-size // 2)
    return [slice(0, middle)] + [slice(middle, size)] * (middle < size)


@dataclass(frozen=True, eq=False)
class _Quarter:
    """The keys of some rows and columns of the grid.

    first : the channels where the biases towards these rows and columns start.
    keys : (step, tokens, width), with the codes of the places beside room for the channels.
    values : the same, all 0 beside that room.
    """

    rows: slice
    columns: slice
    first: tuple[int, int]
    keys: Tensor
    values: Tensor

    def answer(
        self, queries: Tensor, biases: tuple[Tensor, Tensor], k: Tensor, v: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        """What the queries get from these keys (n, tokens, channels), and `_kernel`'s sums.

        Writes the biases into the queries (n, tokens, width).
        """
        count, channels = len(k), k.shape[-1]
        for first, bias, side in zip(self.first, biases, (self.rows, self.columns), strict=True):
            queries[..., first : first + side.stop - side.start] = bias[..., side]
        keys, values = self.keys[:count], self.values[:count]
        for wide, narrow in ((keys, k), (values, v)):
            # (n, tokens, channels) -> (n, rows, columns, channels)
            own = narrow.unflatten(1, (grid.height, grid.width))[:, self.rows, self.columns]
            wide[..., :channels].unflatten(1, own.shape[1:3]).copy_(own)
        answer, sums = _kernel(queries[None], keys[None], values[None])
        return answer[0, ..., :channels], sums[0]


def _quarter(queries: Tensor, channels: int, grid: Grid, rows: slice, columns: slice) -> _Quarter:
    """A quarter with the codes of its places, where `queries` (step, tokens, width) ask for it."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    first = (channels, channels + _halves(grid.height)[0].stop)
    keys = queries.new_zeros(len(queries), height * width, queries.shape[-1])
    codes = position_codes(height, width, channels, queries)
    keys[..., first[0] : first[0] + height] = codes[:, :height]
    keys[..., first[1] : first[1] + width] = codes[:, height : height + width]
    return _Quarter(rows, columns, first, keys, torch.zeros_like(keys))


def _joined(answers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One answer (n, tokens, channels) from those of parts of the keys, by their sums."""
    shares = torch.stack([sums for _, sums in answers]).softmax(0).unsqueeze(-1)  # float32
    whole = answers[0][0] * shares[0]
    for (answer, _), share in zip(answers[1:], shares[1:], strict=True):
        whole += answer * share
    return whole


@cache
def kernel_takes(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has a kernel that takes the type and a mask, and tells the sums."""
    query, keys = torch.zeros(1, 2, 3, 1, dtype=dtype), torch.ones(1, 2, 4, 1, dtype=dtype)
    try:
        _, sums = _kernel(query, keys, keys, torch.zeros(1, 1, 3, 4, dtype=dtype))
    except (AttributeError, RuntimeError, TypeError, ValueError):  # none, or another one
        return False
    alike = torch.full((1, 2, 3), math.log(4), dtype=torch.float32)  # four keys of equal weight
    return sums.shape == alike.shape and torch.allclose(sums.float(), alike, atol=1e-3)


def _kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q k^T + mask) v (B, N, n, c), and the logarithm of the sums of weights (B, N, n)."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(q, k, v, attn_mask=mask, scale=1.0)
