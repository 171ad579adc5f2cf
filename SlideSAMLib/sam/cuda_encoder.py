"""SAM's image encoder as CUDA GPUs like it: the same products, a third of the memory traffic.

The linear layers take half of the time there; what moves data between them takes the other half.
So the tokens of a window of attention are gathered once, before the projection; the biases of the
relative positions come out of that projection, too; and queries, keys and values stay where it
wrote them, as far as the fused kernels allow.

The bias of a query q towards row r of its grid is q . table[row(q) - r + rows - 1], see
`relative_positions`. Now q is a product of the token: q = W x + b, so the biases towards all
relative positions are (table W) x + table b, a few more rows of the same projection. Where the
table is turned round, the biases of a query towards the rows 0, 1, ... lie side by side in what
comes out, beginning one further back for every row that the query lies further down. That is a
matter of strides: nothing is gathered.

The biases enter the scores as extra channels, see `attention`. Two passes over the tokens that
PyTorch would make in several have kernels of their own, see `cuda_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compute.own_settings import own_settings
from .cuda_kernels import Operations, operations
from .network import ImageBlock, ImageEncoder, SlideSam

ALIGNED = 8  # channels: what half precision kernels want


def quickest_encoder(network: SlideSam) -> Callable[[Tensor], Tensor]:
    """`network.encode` without gradients, by the quickest way for the device of the network.

    The network must not change afterwards.
    """
    encoder = network.image_encoder
    weight = encoder.patch_embed.proj.weight
    plain = all(type(block.attn.qkv) is nn.Linear for block in encoder.blocks)  # no adapters
    positions = all(block.attn.use_rel_pos for block in encoder.blocks)
    if weight.device.type != "cuda" or not plain or not positions:
        return network.encode
    with own_settings():
        return CudaEncoder(encoder)


class CudaEncoder:
    """See the top of the file: images (B, 3, S, S) -> embeddings (B, out_channels, grid, grid)."""

    def __init__(self, encoder: ImageEncoder) -> None:
        projection = encoder.patch_embed.proj
        self._patch = projection.kernel_size[0]
        self._patch_weight, self._patch_bias = projection.weight.flatten(1), projection.bias
        self._dtype = self._patch_weight.dtype
        self._positions, self._neck = encoder.pos_embed, encoder.neck
        self._grid = encoder.pos_embed.shape[1]
        device = self._patch_weight.device
        sides = {block.window_size for block in encoder.blocks}
        self._places = {side: _Places(self._grid, side, device) for side in sides}
        heads = encoder.blocks[0].attn.num_heads
        width = len(self._patch_weight)
        self._do = operations(width, heads, self._dtype, device)
        self._blocks = [
            _Block(block, block.window_size or self._grid, self._do) for block in encoder.blocks
        ]

    def __call__(self, images: Tensor) -> Tensor:
        tokens = self._embedded(images)  # (B * grid * grid, C) float32
        batch, (count, width) = len(images), tokens.shape
        # With one token more, of zeros, which the padding of the windows is made of.
        normed = torch.zeros(count + 1, width, dtype=self._dtype, device=tokens.device)
        x = normed[:count]
        widened: dict[int, tuple[Tensor, Tensor]] = {}
        delta = None  # what is still to be added to the tokens
        for block in self._blocks:
            places = self._places[block.window]
            if block.window not in widened:
                widened[block.window] = block.empty(batch * places.windows, tokens)
            self._do.add_and_norm(tokens, delta, block.norm1.weight, block.norm1.bias, x)
            cut = normed.index_select(0, places.into(batch)) if block.window else x
            out = block.attend(cut.view(-1, block.side**2, width), *widened[block.window])
            out = out.view(-1, width)
            if block.window:
                out = out.index_select(0, places.back(batch))
            delta = F.linear(out, block.attn.proj.weight, block.attn.proj.bias)
            self._do.add_and_norm(tokens, delta, block.norm2.weight, block.norm2.bias, x)
            delta = block.hidden(x)
        tokens.add_(delta)
        maps = tokens.view(batch, self._grid, self._grid, width).permute(0, 3, 1, 2)
        return self._neck(maps.to(self._neck[0].weight.dtype))  # (B, H, W, C) -> (B, C, H, W)

    def _embedded(self, images: Tensor) -> Tensor:
        """The patches as tokens: a product is quicker than a convolution with such a stride."""
        batch, channels = images.shape[:2]
        grid, patch = self._grid, self._patch
        # (B, C, rows, down, columns, across) -> (B, rows * columns, C * down * across)
        cut = images.view(batch, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
        flat = torch.empty(cut.shape, dtype=self._dtype, device=images.device)
        flat.copy_(cut)
        patches = F.linear(flat.view(batch, grid**2, -1), self._patch_weight, self._patch_bias)
        return (patches + self._positions.flatten(1, 2)).flatten(0, 1)


class _Places:
    """Which token goes to which place of which window.

    window : 0 for attention among all tokens: nothing moves.
    """

    def __init__(self, grid: int, window: int, device: torch.device) -> None:
        self.windows, self._count = 1, grid**2
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        if not window:
            return
        across = -(-grid // window)
        self.windows = across**2
        padded = torch.full((across * window, across * window), self._count)
        padded[:grid, :grid] = torch.arange(self._count).view(grid, grid)
        # (down, rows, across, columns) -> (down, across, rows, columns)
        cut = padded.view(across, window, across, window).permute(0, 2, 1, 3).flatten()
        back = torch.empty(self._count + 1, dtype=torch.long)
        back[cut] = torch.arange(len(cut))
        self._into, self._back = cut.to(device), back[:-1].to(device)

    def into(self, batch: int) -> Tensor:
        """For every place of the windows its token among those of the batch; last, the zeros."""
        return self._of(batch)[0]

    def back(self, batch: int) -> Tensor:
        """For every token of the batch its place among those of the windows."""
        return self._of(batch)[1]

    def _of(self, batch: int) -> tuple[Tensor, Tensor]:
        if batch not in self._kept:
            image = torch.arange(batch, device=self._into.device)[:, None]
            into = self._into + image * self._count
            into = into.masked_fill(self._into == self._count, batch * self._count)
            back = self._back + image * len(self._into)
            self._kept[batch] = into.flatten(), back.flatten()
        return self._kept[batch]


class _Block:
    """A block of the encoder with the projection of its attention widened, see the top."""

    def __init__(self, block: ImageBlock, side: int, do: Operations) -> None:
        self.side, self.window, self._do = side, block.window_size, do
        self.norm1, self.norm2, self.mlp, self.attn = (
            block.norm1,
            block.norm2,
            block.mlp,
            block.attn,
        )
        attention = block.attn
        self.heads = attention.num_heads
        self.channels = attention.qkv.out_features // (3 * self.heads)
        self.weight, self.bias = _widened(attention, side)

    def empty(self, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (N, tokens, heads, channels) with room for biases and positions.

        The positions are in the keys already; unused channels are 0.
        """
        side, dtype = self.side, self.weight.dtype
        extra = 2 * side + -(self.channels + 2 * side) % ALIGNED
        shape = (count, side * side, self.heads, self.channels + extra)
        queries, keys = (torch.zeros(shape, dtype=dtype, device=like.device) for _ in range(2))
        place = torch.arange(side * side, device=like.device)
        line = torch.arange(side, device=like.device)
        row, column = self.channels, self.channels + side
        codes = (place[:, None] // side == line, place[:, None] % side == line)
        keys[..., row : row + side] = codes[0][:, None]
        keys[..., column : column + side] = codes[1][:, None]
        return queries, keys

    def attend(self, x: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention among the tokens of each window: (N, tokens, C) -> (N, tokens, C)."""
        y = F.linear(x, self.weight, self.bias)
        count, tokens, _ = y.shape
        channels = self.channels
        width = self.heads * channels
        self._do.spread(y, queries, keys, self.side)
        values = y[..., 2 * width : 3 * width].view(count, tokens, self.heads, channels)
        # (N, tokens, heads, channels) -> (N, heads, tokens, channels)
        q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))
        if not _takes_thin_values(q, k, v):
            v = F.pad(v, (0, q.shape[-1] - channels))
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
        return out.transpose(1, 2).reshape(count, tokens, width)

    def hidden(self, x: Tensor) -> Tensor:
        """The two layers behind the attention: (tokens, C) -> (tokens, C)."""
        one, two = self.mlp.lin1, self.mlp.lin2
        if x.dtype == torch.bfloat16 and x.device.type == "cuda":
            # GELU in the product itself, by tanh: that is nearer to it than bfloat16 can tell.
            inner = torch._addmm_activation(one.bias, x, one.weight.T, use_gelu=True)
        else:
            inner = F.gelu(F.linear(x, one.weight, one.bias))
        return F.linear(inner, two.weight, two.bias)


def _widened(attention: nn.Module, side: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a projection to queries, keys, values, and biases towards positions.

    The queries are scaled. The biases are (heads, 2 side - 1) of rows, then those of columns.
    """
    weight, bias = attention.qkv.weight.float(), attention.qkv.bias.float()
    heads, width = attention.num_heads, weight.shape[1]
    query = weight[:width].view(heads, -1, width)
    query_bias = bias[:width].view(heads, -1)
    weights = [attention.scale * weight[:width], weight[width:]]
    biases = [attention.scale * bias[:width], bias[width:]]
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        turned = _of_side(table.float(), side).flip(0)
        weights.append(torch.einsum("ec,hcw->hew", turned, query).flatten(0, 1))
        biases.append(torch.einsum("ec,hc->he", turned, query_bias).flatten())
    dtype = attention.qkv.weight.dtype
    return torch.cat(weights).to(dtype), torch.cat(biases).to(dtype)


def _of_side(table: Tensor, side: int) -> Tensor:
    """A table of relative positions for a grid of this side: (2 side - 1, C)."""
    if len(table) == 2 * side - 1:
        return table
    return F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T  # (L, C), as SAM


def _takes_thin_values(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether a fused kernel takes values with fewer channels than queries, and is the best one.

    cuDNN's does on Hopper and later, where PyTorch prefers it; float32 has one kernel only, which
    takes any. The others want equal numbers.
    """
    if q.dtype == torch.float32 or q.device.type != "cuda":
        return True
    cuda = torch.backends.cuda
    ask = getattr(cuda, "can_use_cudnn_attention", None)
    if ask is None or torch.cuda.get_device_capability(q.device)[0] < 9:
        return False
    try:
        return bool(ask(cuda.SDPAParams(q, k, v, None, 0.0, False, False)))
    except TypeError:  # other versions of PyTorch ask for fewer or more
        return False
