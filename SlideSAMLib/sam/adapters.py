"""Adapters: what fine-tuning changed in a larger model, in a small file of its own.

An adapter file has the tensors that were trained, under their names in the network, in place of
the base model's. Low-rank adapters (LoRA, Hu et al. 2022) of a layer stand beside them as
`LAYER.lora_A.weight` (rank, in) and `LAYER.lora_B.weight` (out, rank), as PEFT names them; what is
added to the layer's weight is their product times `lora_scale`. The metadata names the base model
and its SHA-256, because an adapter fits the file it was trained on and no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import CATALOGUE, models_folder
from ..errors import ModelError
from ..files.tensor_files import TensorFile
from ..files.whole_files import file_sha256

BASE = "adapter_of"  # metadata: a name of the catalogue, or the name of a file
BASE_HASH = "base_sha256"
BASE_PLACE = "base_place"  # where the base was, seen from the adapter, when it was trained
SCALE = "lora_scale"

_LOW_RANK = re.compile(r"^(?P<layer>.*)\.lora_(?P<part>[AB])\.weight$")


def is_adapter(file: TensorFile) -> bool:
    """Whether a file holds an adapter."""
    return BASE in file.metadata


def base_places(adapter: Path, note: Mapping[str, str]) -> list[Path]:
    """Where the base model's file may be: by its name in the catalogue, or where it was at the
    training, beside the adapter, or in the models' folder.

    note : the metadata of the adapter's file.
    """
    name, folder = note[BASE], adapter.parent
    if name in CATALOGUE:
        return [CATALOGUE[name].path]
    return [folder / note.get(BASE_PLACE, name), folder / name, models_folder() / name]


def base_path(file: TensorFile) -> Path:
    """The base model's file, the first of `base_places` that is the one that was trained on.

    Runs call their files alike (best.safetensors), so that another one may lie beside the adapter.
    Raises ModelError where it is not on this computer.
    """
    name = file.metadata[BASE]
    # Not Path.is_file, which raises where a folder cannot be looked into.
    there = [place for place in base_places(file.path, file.metadata) if os.path.isfile(place)]
    there = [place for place in there if not os.path.samefile(place, file.path)]
    if not there:
        way = "put its file beside this one"
        if name in CATALOGUE:
            way = (
                f"get it in the SlideSAM module of Slicer, or by 'slidesam models download {name}'"
            )
        raise ModelError(f"it changes the model '{name}', which is not here: {way}.")
    wanted = file.metadata.get(BASE_HASH)
    for path in there:
        if wanted in (None, file_sha256(path)):
            return path
    raise ModelError(f"it was trained on another file than '{there[0]}': their SHA-256 differ.")


def merge_adapter(
    base: Mapping[str, Tensor], file: TensorFile
) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """The base model's plain tensors with the adapter in them, and the ranks that were met.

    The given tensors are not changed. Raises ModelError where something does not fit.
    """
    plain = dict(base)
    low_rank: dict[str, dict[str, Tensor]] = {}
    for name, tensor in file.tensors.items():
        found = _LOW_RANK.match(name)
        if found:
            low_rank.setdefault(found["layer"], {})[found["part"]] = tensor
        elif name in plain:
            plain[name] = tensor
        else:
            raise ModelError(f"its tensor '{name}' has no place in the model that it changes.")
    scale = _scale(file.metadata)
    for layer, parts in low_rank.items():
        name = f"{layer}.weight"
        if set(parts) != {"A", "B"} or name not in plain:
            raise ModelError(f"its adapter of '{layer}' is incomplete or has no such layer.")
        weight, down, up = plain[name].float(), parts["A"].float(), parts["B"].float()
        flat = weight.ndim == down.ndim == up.ndim == 2
        if not flat or (weight.shape, up.shape[1]) != ((len(up), down.shape[1]), len(down)):
            raise ModelError(f"its adapter of '{layer}' does not fit {tuple(weight.shape)}.")
        plain[name] = torch.addmm(weight, up, down, alpha=scale)
    ranks = sorted({parts["A"].shape[0] for parts in low_rank.values()})
    return plain, tuple(ranks)


def _scale(note: Mapping[str, str]) -> float:
    try:
        return float(note.get(SCALE, "1"))
    except ValueError:
        raise ModelError(f"its {SCALE} is no number: {note[SCALE]!r}.") from None
