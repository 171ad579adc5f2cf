"""The built-in network: a small convolutional encoder, a transformer, three branches.

The prompts enter as image channels, so that the whole network can attend to them. Learned tokens
travel with the coarsest features through the transformer; from them hypernetworks make the
weights of four candidate masks, shared by the three slices, as in SAM. The decoder splits into
three branches, one per slice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from .features import CHANNELS, REFERENCE
from .regions import GRID

CANDIDATES = 4
APPEARANCE = slice(0, 12)  # the input channels that show the image
OUTPUT_GRID = GRID // 2
PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # what autocast computes in half precision


class Residual(nn.Module):
    """Two pre-activated 3 x 3 convolutions with group normalisation and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # starts as the identity

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{width} channels cannot be divided among {heads} heads")
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, count, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, N, 3, heads, d) -> 3 x (B, heads, N, d)
        # 70 tokens: plain products train quicker on CPUs than the fused kernel's backward pass.
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        y = weights @ v
        x = x + self.proj(y.transpose(1, 2).reshape(batch, count, width))
        return x + self.mlp(self.norm2(x))


class Plain(nn.Module):
    """One 3 x 3 convolution without normalisation: the finest raster must stay cheap."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.relu(x))


class Up(nn.Module):
    """Twice the size by a transposed convolution, plus the encoder's features of that size."""

    def __init__(self, channels: int, out: int, skip: int, refine: nn.Module) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, out, 2, 2)
        self.skip = nn.Conv2d(skip, out, 1)
        self.refine = refine

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.refine(self.up(x) + self.skip(skip))


class Refinement(nn.Module):
    """Candidate 0 on the input's raster: thin parts are lost on the coarser one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3 + APPEARANCE.stop, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 3, 1)
        nn.init.zeros_(self.last.weight)  # starts as plain interpolation
        nn.init.zeros_(self.last.bias)

    def forward(self, coarse: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (B, 3, g, g) and the network's input -> logits (B, 3, GRID, GRID)."""
        fine = F.interpolate(coarse, size=inputs.shape[-2:], mode="bilinear")
        x = torch.cat([fine.clamp(-8, 8) / 4, inputs[:, APPEARANCE]], 1)
        x = F.relu(self.second(F.relu(self.first(x))))
        return fine + self.last(x).float()


class BuiltinNetwork(nn.Module):
    """Prompt channels in, four candidates for three slices out.

    decoder : residuals after each step up of the trunk, the coarsest first, beside the one that
        each step has; files from before it have none.
    reference : whether it looks at the slice that is remembered; files from before it do not.
    forward : (B, 24, 128, 128) -> logits (B, 4, 3, 64, 64), logits of candidate 0 in full
    resolution (B, 3, 128, 128), quality logits (B, 4), presence logits (B, 3).
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 224),
        depths: tuple[int, ...] = (0, 2, 3, 2),
        blocks: int = 3,
        heads: int = 7,
        decoder: tuple[int, ...] = (0, 0),
        reference: bool = True,
    ) -> None:
        super().__init__()
        self.config = {
            "widths": list(widths),
            "depths": list(depths),
            "blocks": blocks,
            "heads": heads,
            "decoder": list(decoder),
            "reference": reference,
        }
        self.channels = CHANNELS if reference else CHANNELS - REFERENCE
        self.stem = nn.Conv2d(self.channels, widths[0], 4, 2, 1)
        self.stages = _residuals(widths, depths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths))
        width = widths[-1]
        cells = GRID // 2 ** len(widths)
        self.position = nn.Parameter(torch.randn(1, cells * cells, width) * 0.02)
        self.tokens = nn.Parameter(torch.randn(1, CANDIDATES + 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.trunk = nn.ModuleList(
            Up(widths[n + 1], widths[n], widths[n], Residual(widths[n]))
            for n in range(len(widths) - 2, 0, -1)
        )
        self.decoder = _residuals(widths[-2:0:-1], decoder)
        self.branches = nn.ModuleList(
            Up(widths[1], widths[0], widths[0], Plain(widths[0])) for _ in range(3)
        )
        self.hyper = nn.ModuleList(_mlp(width, widths[0] + 1) for _ in range(CANDIDATES))
        self.refinement = Refinement()
        self.quality = _mlp(width, CANDIDATES)
        self.presence = _mlp(width, 3)
        self.float()  # whatever the default number type of the process is

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem(inputs[:, : self.channels])
        skips = []
        for n, stage in enumerate(self.stages):
            x = stage(x if n == 0 else self.downs[n - 1](x))
            skips.append(x)
        batch, width, rows, columns = x.shape
        cells = x.flatten(2).transpose(1, 2) + self.position  # (B, C, h, w) -> (B, h * w, C)
        y = torch.cat([self.tokens.expand(batch, -1, -1), cells], 1)
        for block in self.blocks:
            y = block(y)
        y = self.norm(y)
        count = CANDIDATES + 2
        tokens, cells = y[:, :count], y[:, count:]
        x = cells.transpose(1, 2).reshape(batch, width, rows, columns)
        for n, (up, finer) in enumerate(zip(self.trunk, self.decoder, strict=True)):
            x = finer(up(x, skips[-2 - n]))
        weights = torch.stack([mlp(tokens[:, n]) for n, mlp in enumerate(self.hyper)], 1)
        masks = []
        for branch in self.branches:
            features = F.relu(branch(x, skips[0])).flatten(2)  # (B, C, h * w)
            mask = weights[:, :, :-1] @ features
            masks.append(mask.view(batch, CANDIDATES, OUTPUT_GRID, OUTPUT_GRID))
        logits = torch.stack(masks, 2).float() + weights[:, :, -1, None, None, None].float()
        fine = self.refinement(logits[:, 0], inputs)
        quality, presence = self.quality(tokens[:, -2]), self.presence(tokens[:, -1])
        return logits, fine, quality.float(), presence.float()


def _residuals(widths: Sequence[int], depths: Sequence[int]) -> nn.ModuleList:
    """So many residuals, one after the other, for each of the widths."""
    return nn.ModuleList(
        nn.Sequential(*(Residual(width) for _ in range(depth)))
        for width, depth in zip(widths, depths, strict=True)
    )


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))


def with_products_in(network: BuiltinNetwork, dtype: torch.dtype) -> BuiltinNetwork:
    """The network with the weights of its `PRODUCTS` as `dtype`, a copy where they are not yet.

    Under autocast it answers the same, bit by bit; but autocast would convert all weights in each
    call anew, which takes a quarter of a call's time on CPUs.
    """
    if network.stem.weight.dtype == dtype:
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, PRODUCTS):
            module.to(dtype)
    return network
