"""SAM's image attention, computed by one fused kernel without a token-by-token matrix.

SAM adds to the score of query q and key k a bias that depends on the row and the column distance
of the two tokens: q . Rh[row q, row k] + q . Rw[column q, column k]. Such a bias is itself a dot
product: beside the channels of the query stand its bias towards every row and every column, beside
the channels of the key stand one-hot codes of its row and its column. With these extra channels
`scaled_dot_product_attention` gives exactly the same result and never stores the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sam_modeling import load_modeling

_get_rel_pos = load_modeling().image_encoder.get_rel_pos


class FusedAttention(nn.Module):
    """Drop-in for `segment_anything`'s image attention; takes over its layers and their names.

    The tokens that SAM pads its windows with are ordinary tokens here as they are there: they
    carry the bias of the projection and take part in the softmax.
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

    def forward(self, x: Tensor) -> Tensor:
        """Attention among the tokens of a grid: (B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, _ = x.shape
        # (B, tokens, 3, heads, channels) -> (3, B, heads, tokens, channels)
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        channels = v.shape[-1]
        if self.use_rel_pos:
            rows, columns = self._biases(q, height, width)
            codes = _position_codes(height, width, channels, q)
            padding = q.new_zeros(*q.shape[:3], codes.shape[-1] - height - width)
            q = torch.cat([q * self.scale, rows, columns, padding], dim=-1)
            k = torch.cat([k, codes.expand(*k.shape[:2], -1, -1)], dim=-1)
            # The fused CPU kernel wants one width for query, key and value.
            v = F.pad(v, (0, q.shape[-1] - channels))
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
        else:
            out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        # (B, heads, tokens, channels) -> (B, tokens, heads, channels)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))

    def _biases(self, q: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Bias of each query towards each row and each column: (B, heads, tokens, H) and W."""
        grid = q.reshape(*q.shape[:2], height, width, -1)
        towards_row = _get_rel_pos(height, height, self.rel_pos_h).to(q.dtype)
        towards_column = _get_rel_pos(width, width, self.rel_pos_w).to(q.dtype)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, towards_row)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, towards_column)
        return rows.flatten(2, 3), columns.flatten(2, 3)


def _position_codes(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """One-hot row and column of each token, (H * W, H + W + padding), in the type of `like`.

    The padding makes channels + codes a multiple of 8, as half precision kernels want it.
    """
    token = torch.arange(height * width, device=like.device)
    extra = height + width
    codes = like.new_zeros(height * width, extra + -(channels + extra) % 8)
    codes[token, token // width] = 1
    codes[token, height + token % width] = 1
    return codes
