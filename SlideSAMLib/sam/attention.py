"""SAM's attention without a token-by-token matrix.

SAM's image encoder adds to the score of query q and key k a bias that depends on the row and the
column distance of the two tokens: q . Rh[row q, row k] + q . Rw[column q, column k]. Such a bias is
itself a dot product: beside the channels of the query stand its bias towards every row and every
column, beside the channels of the key stand one-hot codes of its row and its column. With these
extra channels `scaled_dot_product_attention` gives exactly the same result and never stores the
scores. On the CPU the same is computed in tiles, see `tiled_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linears import linear
from .relative_positions import Grid, position_codes
from .tiled_attention import attend_in_tiles

BAND = 2048  # tokens that a CPU projects at a time: what is made of them stays in its cache


class FusedAttention(nn.Module):
    """Stands for `segment_anything`'s image attention; takes over its layers and their names.

    The tokens that SAM pads its windows with are ordinary tokens here as they are there: they
    carry the bias of the projection and take part in the softmax. Only nothing is computed to
    find out what is known: that their queries, keys and values are the bias alone.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.num_heads: int = original.num_heads
        self.scale: float = original.scale
        self.qkv = original.qkv
        self.proj = original.proj
        self.use_rel_pos: bool = original.use_rel_pos
        if self.use_rel_pos:
            self.rel_pos_h = original.rel_pos_h
            self.rel_pos_w = original.rel_pos_w

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Attention among the tokens of a grid: (B, H, W, C) -> (B, H, W, C).

        window : tokens see only those of their own window of so many tokens a side; 0: all.
        """
        batch, height, width, _ = x.shape
        sides = (window, window) if window else (height, width)
        down, across = -(-height // sides[0]), -(-width // sides[1])
        projected = self._project(x, sides, down, across)
        # (B, down, across, heads, rows, columns, channels) -> (N, tokens, channels)
        q, k, v = (part.flatten(0, 3).flatten(1, 2) for part in projected)
        del projected
        out = self._attend(q, k, v, *sides)
        # (B, down, across, heads, rows, columns, channels) -> (B, H, W, heads, channels)
        out = out.view(batch, down, across, self.num_heads, *sides, -1)
        out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            batch, down * sides[0], across * sides[1], -1
        )
        return linear(out[:, :height, :width], self.proj)

    def _project(self, x: Tensor, sides: tuple[int, int], down: int, across: int) -> list[Tensor]:
        """Queries, keys and values by window and head.

        Each is (B, down, across, heads, rows, columns, channels).
        """
        batch, height, width, _ = x.shape
        rows, columns = sides
        heads = self.num_heads
        channels = self.qkv.out_features // (3 * heads)
        if sides == (height, width):
            # (B, H, W, part, heads, channels) -> part, (B, heads, H, W, channels); no copy
            parts = linear(x, self.qkv).unflatten(-1, (3, heads, channels)).movedim((3, 4), (0, 2))
            return list(parts[:, :, None, None])
        shape = (batch, down, across, heads, rows, columns, channels)
        if torch.is_grad_enabled():
            out = [x.new_empty(shape) for _ in range(3)]
        else:
            # One piece of memory: so large a one makes the C library keep it for the next block.
            out = list(x.new_empty(3, *shape))
        # The same memory, seen as (B, down, rows, across, columns, heads, channels)
        grids = [part.permute(0, 1, 4, 2, 5, 3, 6) for part in out]
        if down * rows > height or across * columns > width:
            for grid, padding in zip(grids, self._padding(heads, x), strict=True):
                grid[:, -1] = padding
                grid[:, :, :, -1] = padding
        full = width // columns * columns
        for top in range(0, height, rows):
            for row, count in _bands(min(rows, height - top), width, x):
                y = linear(x[:, top + row : top + row + count], self.qkv)
                y = y.unflatten(-1, (3, heads, channels))
                for grid, part in zip(grids, y.unbind(-3), strict=True):
                    band = grid[:, top // rows, row : row + count]
                    band[:, :, : full // columns] = part[:, :, :full].unflatten(2, (-1, columns))
                    if full < width:
                        band[:, :, -1, : width - full] = part[:, :, full:]
        return out

    def _padding(self, heads: int, x: Tensor) -> Tensor:
        """Query, key and value of a token of zeros: (3, heads, channels)."""
        if self.qkv.bias is None:
            return x.new_zeros(3, heads, 1)
        return self.qkv.bias.view(3, heads, -1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
        """Attention among the tokens of each head: (N, H * W, channels), all four."""
        if not self.use_rel_pos:
            return F.scaled_dot_product_attention(q[None], k[None], v[None], scale=self.scale)[0]
        grid = Grid(height, width, self.rel_pos_h, self.rel_pos_w)
        if q.device.type == "cpu" and not torch.is_grad_enabled():
            return attend_in_tiles(q, k, v, grid, self.scale)
        rows, columns = grid.biases(q)
        channels = v.shape[-1]
        codes = position_codes(height, width, channels, q)
        padding = q.new_zeros(*q.shape[:2], codes.shape[-1] - height - width)
        q = torch.cat([q * self.scale, rows, columns, padding], dim=-1)
        k = torch.cat([k, codes.expand(len(k), -1, -1)], dim=-1)
        # The fused kernels want one width for query, key and value.
        v = F.pad(v, (0, q.shape[-1] - channels))
        out = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
        return out[..., :channels]


class TokenAttention(nn.Module):
    """Stands for the attention of SAM's decoder; takes over its layers and their names."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.num_heads: int = original.num_heads
        self.q_proj = original.q_proj
        self.k_proj = original.k_proj
        self.v_proj = original.v_proj
        self.out_proj = original.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        # (B, N, C) -> (B, heads, N, C / heads)
        q, k, v = (
            linear(x, layer).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, layer in zip((q, k, v), layers, strict=True)
        )
        attend = F.scaled_dot_product_attention if q.device.type == "cpu" else plain_attention
        out = attend(q, k, v)
        return linear(out.transpose(1, 2).flatten(2), self.out_proj)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention (B, heads, N, d) by two products and a softmax, for GPUs.

    In SAM's decoder a few tokens face a whole image. The fused kernels share out the queries among
    the processors, and leave nearly all of them idle where these are few.
    """
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


def _bands(height: int, width: int, like: Tensor) -> list[tuple[int, int]]:
    """Rows to project at a time: (first, count); all at once on GPUs."""
    count = height if like.device.type != "cpu" else max(1, BAND // (len(like) * width))
    return [(row, min(count, height - row)) for row in range(0, height, count)]
