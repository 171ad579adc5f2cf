"""The file of the built-in model: safetensors in half precision, its shape in the metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, ModelError
from ..files.safetensors_files import read_safetensors, write_safetensors
from ..files.tensor_files import check_finite
from .network import BuiltinNetwork

FORMAT = "slidesam-builtin"
VERSION = "2"  # 1: networks that did not look at the remembered slice
# What a damaged or foreign file can raise, up to a network of impossible sizes.
UNREADABLE = (OSError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)
UNREADABLE += (AttributeError, AssertionError)  # RecursionError is a RuntimeError


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
        if metadata.get("version") not in ("1", VERSION):
            raise ModelError(
                f"{path} is of version {metadata.get('version')} of the built-in model, but "
                f"this SlideSAM reads versions 1 and {VERSION}: install them together."
            )
        config = {"reference": False, **json.loads(metadata["config"])}
        if _numbers_of(config) > sum(tensor.numel() for tensor in tensors.values()):
            raise ValueError("its sizes are not those of its tensors")
        # The user's own random numbers stay as they were, and a default device changes nothing.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            network = BuiltinNetwork(**config)
        values = {name: tensor.float() for name, tensor in tensors.items()}
    except ModelError:
        raise
    except UNREADABLE as error:
        raise ModelError(f"The model file {path} cannot be read: {error}.") from None
    expected = network.state_dict()
    wrong = [
        key
        for key in sorted(set(expected) | set(values))
        if key not in values or key not in expected or values[key].shape != expected[key].shape
    ]
    if wrong:
        raise ModelError(f"The model file {path} does not fit: {', '.join(wrong[:3])} differ.")
    check_finite(tensors, path)
    network.load_state_dict(values)
    return network.eval(), metadata


def _numbers_of(config: dict[str, Any]) -> int:
    """How many numbers a network of these sizes has at the least.

    So no size is believed that a file does not carry itself: a note of one line could ask for
    layers without end. What is wrong otherwise is found when the network is made.
    """
    widths = [max(width, 1) for width in config.get("widths", (1,))]

    def residuals(depths: Sequence[int], widths: Sequence[int]) -> int:
        return sum(18 * max(n, 0) * width**2 for n, width in zip(depths, widths, strict=False))

    return (
        10 * max(config.get("blocks", 0), 0) * widths[-1] ** 2
        + residuals(config.get("depths", ()), widths)
        + residuals(config.get("decoder", ()), widths[-2:0:-1])
        + sum(width**2 for width in widths)
    )


def with_reference(network: BuiltinNetwork) -> BuiltinNetwork:
    """A network that can learn to look at the remembered slice, and gives the same answers still.

    The network itself where it does already.
    """
    if network.config["reference"]:
        return network
    wider = BuiltinNetwork(**{**network.config, "reference": True})
    values = network.state_dict()
    stem = torch.zeros_like(wider.stem.weight)
    stem[:, : network.channels] = values["stem.weight"]
    wider.load_state_dict({**values, "stem.weight": stem})
    return wider


def deepened(network: BuiltinNetwork, **config: Any) -> BuiltinNetwork:
    """A network with more residuals and transformer blocks that gives the same answers still.

    config : `depths` and `decoder`, at least the network's own at each place, and `blocks`; what is
        not named stays. The network itself where nothing is added.

    Raises InputError where the new network could not start from the old one.
    """
    wanted = {**network.config, **config}
    if wanted == network.config:
        return network
    deeper = BuiltinNetwork(**wanted)
    own, values = deeper.state_dict(), network.state_dict()
    if any(name not in own or own[name].shape != value.shape for name, value in values.items()):
        raise InputError(
            f"A network of {wanted} cannot start from one of {network.config}: only `depths`, "
            "`blocks` and `decoder` may be greater."
        )
    for name in _lasts(network, deeper):  # what a residual adds is nothing at first
        last = deeper.get_submodule(name)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    deeper.load_state_dict({**deeper.state_dict(), **values})
    return deeper


def deepened_like(network: BuiltinNetwork, deepest: BuiltinNetwork) -> BuiltinNetwork:
    """A network of the shape of `deepest` that gives the same answers as `network` still.

    What is added has the weights of `deepest`, but for the last layers, which add nothing: so the
    two can be averaged where `deepest` was trained from `network`. The network itself where the
    shapes are the same. Raises InputError where one cannot have started from the other.
    """
    deeper = deepened(network, **deepest.config)
    if deeper is network:
        return network
    known = set(network.state_dict())
    lasts = tuple(f"{name}." for name in _lasts(network, deeper))
    added = {
        name: value
        for name, value in deepest.state_dict().items()
        if name not in known and not name.startswith(lasts)
    }
    deeper.load_state_dict({**deeper.state_dict(), **added})
    return deeper


def _lasts(network: BuiltinNetwork, deeper: BuiltinNetwork) -> list[str]:
    """The last layers, by name, of the residuals and blocks that only the deeper network has."""
    added = range(len(network.blocks), len(deeper.blocks))
    names = [f"blocks.{n}.{last}" for n in added for last in ("proj", "mlp.2")]
    for part in ("stages", "decoder"):
        pairs = zip(getattr(deeper, part), getattr(network, part), strict=True)
        for place, (stage, known) in enumerate(pairs):
            names += [f"{part}.{place}.{n}.conv2" for n in range(len(known), len(stage))]
    return names
