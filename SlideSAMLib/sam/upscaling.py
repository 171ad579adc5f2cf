"""The decoder's upscaling branches as plain products.

A transposed convolution whose kernel is as large as its stride never overlaps itself: each token
becomes a square of 2 x 2 by one product. The tokens of SAM's transformer lie one beside the other
already, so no image is made of them, and the channels stay together: the normalisation over them,
and the product with the kernels of the mask tokens, need no other layout either. Only the finished
logits, a few numbers a pixel, are put in the order of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linears import affine


def upscaled_logits(
    tokens: Tensor, branches: Sequence[nn.Sequential], kernels: Tensor, grid: int
) -> Tensor:
    """Logits of every mask token on every slice.

    tokens : (B, grid * grid, C), row by row. branches : one of SAM's `output_upscaling` for each of
    the S slices: (transposed convolution, norm, GELU, transposed convolution, GELU). kernels : (B,
    T, C / 8) of T mask tokens. Returns (B, T, S, 4 grid, 4 grid).
    """
    slices = [_upscaled(tokens, branch) for branch in branches]
    # (B, T, S, grid * grid * 4 * 4)
    logits = torch.stack([kernels @ channels.mT for channels in slices], dim=2)
    # B, T, S, then row and column of the token, of the first 2 x 2, and of the second 2 x 2
    logits = logits.unflatten(-1, (grid, grid, 2, 2, 2, 2)).permute(0, 1, 2, 3, 5, 7, 4, 6, 8)
    return logits.reshape(*logits.shape[:3], 4 * grid, 4 * grid)


def _upscaled(tokens: Tensor, branch: nn.Sequential) -> Tensor:
    """One branch: (B, N, C) -> (B, N * 4 * 4, C / 8)."""
    grow, norm, _, grow_again, _ = branch
    tokens = affine(tokens, *_as_product(grow)).unflatten(-1, (4, -1)).flatten(1, 2)
    tokens = F.gelu(F.layer_norm(tokens, norm.weight.shape, norm.weight, norm.bias, norm.eps))
    tokens = affine(tokens, *_as_product(grow_again), gelu=True)
    return tokens.unflatten(-1, (4, -1)).flatten(1, 2)


def _as_product(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (4 * out, in) and bias of the product that does the layer's work."""
    # (in, out, row, column) -> (row, column, out, in)
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)
