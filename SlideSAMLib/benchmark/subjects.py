"""The networks that are measured: our own with random weights, and the originals beside them.

Random weights cost what trained ones cost, and need no download.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..sam.model import SamModel, fill_network
from ..sam.modeling import load_modeling
from ..sam.network import CONFIGS, NetworkConfig, SlideSam, build_network, encoder_sizes

SIZES = {name.replace("_", "-"): config for name, config in CONFIGS.items()}  # vit-b, ...
SEED = 7
_DEVIATION = 0.02  # of the tables of positions, which start as zeros: they are to matter, too


def random_network(config: NetworkConfig) -> SlideSam:
    """A network with the same random weights in every run, in float32 on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build_network(config).eval().requires_grad_(False)
        for name, tensor in network.named_parameters():
            if re.search(r"rel_pos_[hw]$|pos_embed$", name):
                nn.init.normal_(tensor, std=_DEVIATION)
    return network


def as_model(network: SlideSam, name: str, device: torch.device, dtype: torch.dtype) -> SamModel:
    """A copy of a network as the sliding sees it, used as SAM is: with points and masks, too."""
    copy = fill_network(network.config, network.state_dict(), device, dtype)
    return SamModel(copy, "sam", name, "none", device, dtype)


def original_encoder(network: SlideSam, device: torch.device) -> nn.Module:
    """segment_anything's own image encoder, float32, with the network's weights."""
    encoder = load_modeling().ImageEncoderViT(**encoder_sizes(network.config))
    encoder.load_state_dict(network.image_encoder.state_dict())
    return encoder.eval().requires_grad_(False).to(device)


def transformers_encoder(
    network: SlideSam, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """The image encoder of `transformers`' SamModel with the same weights, float32.

    None where the package is not installed, or cannot be used, which is said.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    try:
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder
    except ImportError as error:  # of one of the packages that it needs
        print(f"transformers is left out, it cannot be imported: {error}", file=sys.stderr)
        return None

    config = network.config
    theirs = SamVisionConfig(
        hidden_size=config.embed_dim,
        output_channels=config.out_channels,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        window_size=config.window_size,
        global_attn_indexes=list(config.global_blocks),
        mlp_dim=int(config.embed_dim * config.mlp_ratio),
    )
    encoder = SamVisionEncoder(theirs)
    encoder.load_state_dict(
        {_their_name(name): t for name, t in network.image_encoder.state_dict().items()}
    )
    encoder = encoder.eval().requires_grad_(False).to(device)
    return lambda images: encoder(images)[0]


def _their_name(name: str) -> str:
    for ours, theirs in _THEIR_NAMES.items():
        name = name.replace(ours, theirs)
    return name


_THEIR_NAMES = {
    "patch_embed.proj": "patch_embed.projection",
    "blocks.": "layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    "neck.0.": "neck.conv1.",
    "neck.1.": "neck.layer_norm1.",
    "neck.2.": "neck.conv2.",
    "neck.3.": "neck.layer_norm2.",
}


def encoder_flop(config: NetworkConfig) -> float:
    """Floating point operations of the encoder's products for one window.

    The tokens that pad SAM's attention windows count as tokens of the attention there.
    """
    tokens, width = config.grid**2, config.embed_dim
    windows = (-(-config.grid // config.window_size)) ** 2
    whole = 4 * tokens**2 * width
    local = 4 * windows * config.window_size**4 * width
    layers = 2 * tokens * width**2 * (4 + 2 * config.mlp_ratio)
    patches = 2 * tokens * 3 * config.patch_size**2 * width
    neck = 2 * tokens * config.out_channels * (width + 9 * config.out_channels)
    wide = len(config.global_blocks)
    return config.depth * layers + wide * whole + (config.depth - wide) * local + patches + neck
