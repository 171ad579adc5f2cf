"""The published network's reference values (Testing/Data/reference/README.md), for the tests."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from SlideSAMLib.protocol import Window
from SlideSAMLib.sam.network import NetworkConfig

FOLDER = Path(__file__).parent / "Data" / "reference"

MINI = NetworkConfig(
    embed_dim=64,
    depth=4,
    heads=4,
    global_blocks=(1, 3),
    image_size=128,
    window_size=5,
    out_channels=64,
    decoder_mlp=128,
    decoder_heads=4,
    quality_hidden=64,
)


def tensor_shapes(layout: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes, in order, of one layout of state_dict_keys.json or of 'mini_lora'."""
    if layout == "mini_lora":
        pairs = json.loads((FOLDER / "mini_lora_keys.json").read_text())
    else:
        pairs = json.loads((FOLDER / "state_dict_keys.json").read_text())[layout]
    return {name: tuple(shape) for name, shape in pairs}


def named_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The reference weights: every tensor is drawn from its own name."""
    weights = {}
    for name, shape in shapes.items():
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        values = generator.standard_normal(shape).astype(np.float32) * np.float32(0.05)
        if len(shape) == 1 and name.endswith("weight"):
            values += 1
        weights[name] = torch.from_numpy(values)
    return weights


def values(name: str) -> dict[str, np.ndarray]:
    """The arrays of one .npz file of reference inputs and outputs, in float32."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key].astype(np.float32) for key in file}


def relative_error(result: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference."""
    difference = np.asarray(result, np.float32) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


PROMPTS = {
    "box": {"boxes": [30, 40, 80, 100]},
    "point": {"points": [[56, 70]], "labels": [1]},
    "points": {"points": [[56, 70], [90, 60], [20, 20]], "labels": [1, 0, 0]},
    "box_points": {"boxes": [30, 40, 80, 100], "points": [[56, 70], [90, 60]], "labels": [1, 0]},
    "mask_box": {"boxes": [30, 40, 80, 100], "mask": True},
}


def decode_arguments(prompt: dict, mask_input: np.ndarray | None = None) -> dict:
    """The reference prompt as arguments of SlideSam.decode."""
    arguments: dict = {}
    if "boxes" in prompt:
        arguments["boxes"] = torch.tensor([prompt["boxes"]], dtype=torch.float32)
    if "points" in prompt:
        arguments["points"] = (
            torch.tensor([prompt["points"]], dtype=torch.float32),
            torch.tensor([prompt["labels"]], dtype=torch.float32),
        )
    if prompt.get("mask"):
        arguments["masks"] = torch.from_numpy(mask_input)[None]
    return arguments


def sam_window(slices: np.ndarray, key: int = 0) -> Window:
    """Three slices (3, H, W) of the reference as a window for SAM networks."""
    clipped = np.clip(slices, -200, 400).astype(np.float32)
    return Window(clipped, (1.0, 1.0, 1.0), (-200.0, 400.0), ("test", key))
