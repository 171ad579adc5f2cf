"""The file of the built-in model: safetensors in half precision, its shape in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..errors import ModelError
from ..safetensors_files import read_safetensors, write_safetensors
from .network import BuiltinNetwork

FORMAT = "slidesam-builtin"
VERSION = "1"


def write_weights(
    values: dict[str, torch.Tensor], config: dict, path: Path, note: dict[str, str] | None = None
) -> None:
    """Write weights in float16, atomically. `note` goes into the file's metadata."""
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(config), **(note or {})}
    write_safetensors(values, path, metadata)


def read_network(path: Path) -> BuiltinNetwork:
    """Build the network that a file holds, in float32.

    Raises ModelError where the file is missing, broken, of another format, or does not fit.
    """
    return read_model(path)[0]


def read_model(path: Path) -> tuple[BuiltinNetwork, dict[str, str]]:
    """The network that a file holds, in float32, and the notes in the file; see `read_network`.

    A fine-tuned model's notes have its `name` and `licence`.
    """
    try:
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") != FORMAT:
            raise ModelError(f"{path} does not hold the built-in model.")
        if metadata.get("version") != VERSION:
            raise ModelError(
                f"{path} is of version {metadata.get('version')} of the built-in model, but "
                f"this SlideSAM reads version {VERSION}: install them together."
            )
        config = json.loads(metadata["config"])
        values = {name: tensor.float() for name, tensor in tensors.items()}
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"The model file {path} cannot be read: {error}.") from None
    network = BuiltinNetwork(**config)
    expected = network.state_dict()
    wrong = [
        key
        for key in sorted(set(expected) | set(values))
        if key not in values or key not in expected or values[key].shape != expected[key].shape
    ]
    if wrong:
        raise ModelError(f"The model file {path} does not fit: {', '.join(wrong[:3])} differ.")
    network.load_state_dict(values)
    return network.eval(), metadata
