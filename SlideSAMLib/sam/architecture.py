"""Reading the sizes of a network off the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ..errors import ModelError
from .network import CONFIGS, NetworkConfig

MOST_LAYERS = 16  # of the decoder's parts; SAM has 2 and 3
_TITLES = {"vit_b": "ViT-B", "vit_l": "ViT-L", "vit_h": "ViT-H"}


def infer_config(tensors: Mapping[str, Tensor], decoder_heads: int | None = None) -> NetworkConfig:
    """The sizes of the network that plain Slide-SAM tensors were made for.

    The number of attention heads of the decoder is the one size that no shape shows: unless it is
    given, it is 8 as in every public SAM, or 4 where the decoder is narrower than 128 channels.

    Raises
    ------
    ModelError
        A tensor that shows a size is missing or has an impossible shape. The parts beside the image
        encoder are made before they are compared with the file (`network.empty_network`), so no
        size is believed that the file does not carry itself.
    """
    shapes = _Shapes(tensors)
    embed_dim, _, patch, _ = shapes.of("image_encoder.patch_embed.proj.weight", 4)
    grid = shapes.of("image_encoder.pos_embed", 4)[1]
    depth = shapes.count(r"image_encoder\.blocks\.(\d{1,9})\.")
    spans = [shapes.of(f"image_encoder.blocks.{i}.attn.rel_pos_h", 2) for i in range(depth)]
    windows = sorted({(length + 1) // 2 for length, _ in spans} - {grid})
    head_width = spans[0][1] if spans else 0
    if depth == 0 or len(windows) > 1 or not head_width or embed_dim % head_width:
        raise ModelError(
            "The image encoder of the checkpoint has an unknown structure: "
            f"{depth} blocks of {embed_dim} channels, attention windows {windows}."
        )
    out_channels = shapes.of("image_encoder.neck.0.weight", 4)[0]
    head = "mask_decoder.iou_prediction_head.layers"
    mask_channels = shapes.of("prompt_encoder.mask_downscaling.3.weight", 4)
    decoder_mlp = shapes.of("mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)
    quality_hidden = shapes.of(f"{head}.0.weight", 2)
    wrong = mask_channels[0] != 4 * mask_channels[1]
    if wrong or {decoder_mlp[1], quality_hidden[1]} != {out_channels}:
        raise ModelError(
            "The decoder of the checkpoint has an unknown structure: its tensors have the shapes "
            f"{mask_channels}, {decoder_mlp} and {quality_hidden} for {out_channels} channels."
        )
    return NetworkConfig(
        embed_dim=embed_dim,
        depth=depth,
        heads=embed_dim // head_width,
        global_blocks=tuple(i for i, span in enumerate(spans) if span[0] == 2 * grid - 1),
        image_size=grid * patch,
        patch_size=patch,
        window_size=windows[0] if windows else 0,
        mlp_ratio=shapes.of("image_encoder.blocks.0.mlp.lin1.weight", 2)[0] / embed_dim,
        out_channels=out_channels,
        mask_channels=mask_channels[0],
        decoder_depth=shapes.count(r"mask_decoder\.transformer\.layers\.(\d{1,9})\.", MOST_LAYERS),
        decoder_mlp=decoder_mlp[0],
        decoder_heads=decoder_heads or (8 if out_channels >= 128 else 4),
        quality_depth=shapes.count(rf"{re.escape(head)}\.(\d{{1,9}})\.", MOST_LAYERS),
        quality_hidden=quality_hidden[0],
    )


def config_title(config: NetworkConfig) -> str:
    """'ViT-B', 'ViT-L', 'ViT-H', or the sizes of another network."""
    for name, known in CONFIGS.items():
        if config == known:
            return _TITLES[name]
    return f"ViT of {config.depth} blocks x {config.embed_dim} channels at {config.image_size}"


class _Shapes:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self._tensors:
            raise ModelError(f"The checkpoint lacks the tensor '{name}'.")
        shape = tuple(self._tensors[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise ModelError(f"The tensor '{name}' of the checkpoint has the shape {shape}.")
        return shape

    def count(self, pattern: str, most: int | None = None) -> int:
        """How many numbered layers match, counted by the highest number; more than most: error."""
        found = [match for name in self._tensors if (match := re.match(pattern, name))]
        highest = max(found, key=lambda match: int(match[1]), default=None)
        count = 0 if highest is None else int(highest[1]) + 1
        if most is not None and count > most:
            raise ModelError(
                f"The checkpoint has a tensor '{highest.string}', but no more than {most} layers "
                "are known there."
            )
        return count
