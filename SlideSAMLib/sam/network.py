"""The three-slice SAM: SAM's encoder and prompts, a decoder with one branch per slice.

A window of three slices enters as the three channels of one image. Prompts lie on the middle
slice. The decoder answers for all three slices: it shares the mask tokens and their
hypernetworks, and upscales the image embedding once for each slice. Tensor names are those of the
published Slide-SAM checkpoints.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import BAND, FusedAttention, TokenAttention
from .linears import linear
from .modeling import load_modeling
from .upscaling import upscaled_logits

_sam = load_modeling()

SLICES = 3
MASK_TOKENS = 4  # token 0 answers alone, tokens 1 to 3 are the candidates for ambiguous prompts


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a network. The image and its grid of image_size / patch_size tokens are square."""

    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    patch_size: int = 16
    window_size: int = 14
    mlp_ratio: float = 4.0
    out_channels: int = 256
    mask_channels: int = 16
    decoder_depth: int = 2
    decoder_mlp: int = 2048
    decoder_heads: int = 8
    quality_depth: int = 3
    quality_hidden: int = 256

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def raster(self) -> int:
        """Side of the masks that the network takes and gives, in pixels."""
        return 4 * self.grid


VIT_B = NetworkConfig(embed_dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11))
VIT_L = NetworkConfig(embed_dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))
VIT_H = NetworkConfig(embed_dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31))
CONFIGS = {"vit_b": VIT_B, "vit_l": VIT_L, "vit_h": VIT_H}


class ImageBlock(nn.Module):
    """Stands for a block of SAM's image encoder; takes over its layers and their names."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.window_size: int = original.window_size
        self.norm1 = original.norm1
        self.attn = FusedAttention(original.attn)
        self.norm2 = original.norm2
        self.mlp = original.mlp

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C). The norms and the sums keep the type of `tokens`."""
        dtype = self.mlp.lin1.weight.dtype
        tokens = tokens + self.attn(self.norm1(tokens).to(dtype), self.window_size)
        flat = tokens.flatten(0, 2)
        if tokens.device.type != "cpu" or torch.is_grad_enabled():
            return (flat + self._perceive(flat)).view(tokens.shape)
        # In parts and in place: what is made of them stays in the CPU's cache.
        for part in flat.split(BAND):
            part += self._perceive(part)
        return tokens

    def _perceive(self, flat: Tensor) -> Tensor:
        """The hidden layer's answer to tokens (N, C), in the type of its weights."""
        hidden = linear(self.norm2(flat).to(self.mlp.lin1.weight.dtype), self.mlp.lin1, gelu=True)
        return linear(hidden, self.mlp.lin2)


def encoder_sizes(config: NetworkConfig) -> dict[str, Any]:
    """The arguments of SAM's image encoder for these sizes."""
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio,
        "out_chans": config.out_channels,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "use_rel_pos": True,
        "window_size": config.window_size,
        "global_attn_indexes": config.global_blocks,
    }


class ImageEncoder(_sam.ImageEncoderViT):
    """SAM's image encoder with the fused attention.

    Its linear layers and tables of positions may be in half precision: nearly all of the work.
    The tokens between the blocks are float32 then: sums in half precision would lose twice as
    much as all products.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(**encoder_sizes(config))
        self.blocks = nn.ModuleList(ImageBlock(block) for block in self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, out_channels, grid, grid), in the type of the neck."""
        patches = self.patch_embed(images.to(self.patch_embed.proj.weight.dtype))
        tokens = patches.contiguous().to(self.pos_embed.dtype) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        # (B, H, W, C) -> (B, C, H, W)
        return self.neck(tokens.permute(0, 3, 1, 2).to(self.neck[0].weight.dtype))


class PromptEncoder(_sam.PromptEncoder):
    """SAM's prompt encoder with a three-channel mask prompt, one channel per slice."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(
            embed_dim=config.out_channels,
            image_embedding_size=(config.grid, config.grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_channels,
        )
        self.mask_downscaling[0] = nn.Conv2d(
            SLICES, config.mask_channels // 4, kernel_size=2, stride=2
        )
        self._dense: tuple[tuple, Tensor] | None = None

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """SAM's; its sparse part begins with nothing of the process's default number type."""
        sparse, dense = super().forward(points, boxes, masks)
        return sparse.to(self.no_mask_embed.weight.dtype), dense

    def _embed_points(self, points: Tensor, labels: Tensor, pad: bool) -> Tensor:
        """Points (B, N, 2) and labels (B, N): 1, 0, or -1 for none -> (B, N or N + 1, C).

        SAM's values, to the bit. SAM picks the rows of each label by a mask: how many there are is
        a question that the host waits for, and that a CUDA graph cannot ask.
        """
        points = points + 0.5  # SAM's pixel centres
        if pad:
            points = F.pad(points, (0, 0, 0, 1))
            labels = F.pad(labels, (0, 1), value=-1)
        embedded = self.pe_layer.forward_with_coords(points, self.input_image_size)
        label = labels[..., None]
        embedded = torch.where(label == -1, self.not_a_point_embed.weight, embedded)
        for value in (0, 1):
            weight = self.point_embeddings[value].weight
            embedded = embedded + torch.where(label == value, weight, 0.0)
        return embedded

    def get_dense_pe(self) -> Tensor:
        """Positional encoding of the grid, (1, C, grid, grid) in the order of tokens; kept."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        version = 0 if matrix.is_inference() else matrix._version
        state = (matrix.device, matrix.data_ptr(), version)
        if self._dense is None or self._dense[0] != state:
            with torch.inference_mode(False), torch.no_grad():  # usable by autograd as well
                dense = super().get_dense_pe().contiguous(memory_format=torch.channels_last)
            self._dense = (state, dense)
        return self._dense[1]


class MaskDecoder(nn.Module):
    """SAM's mask decoder with three upscaling branches, one per slice of the window."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.out_channels
        self.transformer = _sam.TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=dim,
            num_heads=config.decoder_heads,
            mlp_dim=config.decoder_mlp,
        )
        for layer in self.transformer.layers:
            layer.self_attn = TokenAttention(layer.self_attn)
            layer.cross_attn_token_to_image = TokenAttention(layer.cross_attn_token_to_image)
            layer.cross_attn_image_to_token = TokenAttention(layer.cross_attn_image_to_token)
        last = TokenAttention(self.transformer.final_attn_token_to_image)
        self.transformer.final_attn_token_to_image = last
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.output_upscaling = _upscaling(dim)
        self.output_upscaling2 = _upscaling(dim)
        self.output_upscaling3 = _upscaling(dim)
        mlp = _sam.mask_decoder.MLP
        self.output_hypernetworks_mlps = nn.ModuleList(
            mlp(dim, dim, dim // 8, 3) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = mlp(
            dim, config.quality_hidden, MASK_TOKENS, config.quality_depth
        )

    def forward(
        self, embedding: Tensor, position: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Answer every prompt for every slice.

        embedding : (B or 1, C, grid, grid), the window of each prompt, or one for all of them.
        position : (1, C, grid, grid), the positional encoding of the grid.
        sparse : (B, prompts, C); dense : (B, C, grid, grid), the embedded prompts.
        Returns logits (B, 4, 3, 4 grid, 4 grid), axes (prompt, token, slice, row, column), and
        quality (B, 4).
        """
        batch = sparse.shape[0]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, -1, -1), sparse], dim=1)
        # Channels last: the transformer reads an image as tokens, and needs no copy of this one.
        image = (embedding + dense).contiguous(memory_format=torch.channels_last)
        answers, image_tokens = self.transformer(image, position.expand(batch, -1, -1, -1), tokens)
        branches = (self.output_upscaling, self.output_upscaling2, self.output_upscaling3)
        kernels = torch.stack(
            [mlp(answers[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = upscaled_logits(image_tokens, branches, kernels, image.shape[-1])
        return logits, self.iou_prediction_head(answers[:, 0])


class SlideSam(nn.Module):
    """The whole network: `encode` a window once, `decode` prompts as often as wanted.

    encoder_place : where the encoder's weights are made, "meta" for nowhere; None as usual.
    """

    def __init__(self, config: NetworkConfig, encoder_place: str | None = None) -> None:
        super().__init__()
        self.config = config
        with nullcontext() if encoder_place is None else torch.device(encoder_place):
            self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def encode(self, images: Tensor) -> Tensor:
        """Normalised windows (B, 3, S, S), slices (before, centre, after) -> embeddings."""
        return self.image_encoder(images)

    def decode(
        self,
        embedding: Tensor,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answer B prompts, each on its own embedded window, or all on one.

        embedding : (B or 1, C, grid, grid).
        points : coordinates (B, N, 2) as (x, y) pixels of the S x S frame, labels (B, N).
        boxes : (B, 4) as (x0, y0, x1, y1), the first and last pixels inside.
        masks : logits (B, 3, 4 grid, 4 grid), one channel per slice.
        Returns logits (B, 4, 3, 4 grid, 4 grid), token 0 first, and quality (B, 4).
        """
        sparse, dense = self.prompt_encoder(points=points, boxes=boxes, masks=masks)
        position = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder(embedding, position, sparse, dense)


def build_network(config: NetworkConfig) -> SlideSam:
    """A network with random weights, for training and tests."""
    return SlideSam(config)


def empty_network(config: NetworkConfig) -> SlideSam:
    """A network in evaluation mode to be filled from a checkpoint, its encoder without memory.

    Fill it with `load_state_dict(tensors, assign=True)`. The rest is small and made on the CPU: on
    the meta device its random numbers would import PyTorch's compiler, which takes seconds.
    """
    # The user's own random numbers stay as they were, and a default device changes nothing.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return SlideSam(config, encoder_place="meta").eval().requires_grad_(False)


def _upscaling(dim: int) -> nn.Sequential:
    """One branch of the decoder: (B, C, grid, grid) -> (B, C / 8, 4 grid, 4 grid)."""
    return nn.Sequential(
        nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
        _sam.common.LayerNorm2d(dim // 4),
        nn.GELU(),
        nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
        nn.GELU(),
    )
