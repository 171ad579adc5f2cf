"""Reading the tensors of a model file, safely: nothing in a file is ever executed.

The format is recognised from the first bytes: PyTorch archives (.pth, .pt; zipped or legacy) and
safetensors. Tensors are mapped from disk where the format allows it.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, ModelError
from .safetensors_files import read_safetensors

BUILTIN_FORMAT = "slidesam-builtin"  # `format` in the metadata of the built-in model's file

_DEEPEST = 6  # nesting of dictionaries that is searched for tensors


@dataclass(frozen=True, eq=False)
class TensorFile:
    """The tensors of one file under their full names ('model.module.x.weight'), in file order."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_tensor_file(path: str | os.PathLike) -> TensorFile:
    """Read every tensor of a .pth, .pt or .safetensors file, whatever its name says.

    Raises
    ------
    InputError
        There is no such file, or it cannot be opened.
    ModelError
        It is no model file, is damaged or incomplete, holds no tensors or such as are no plain
        numbers, or holds objects other than plain data (which could run code).
    """
    path = Path(path)
    head, size = _first_bytes(path)
    if head[:4] == b"PK\x03\x04":
        tensors, metadata = _flatten(_read_torch(path, mapped=True)), {}
    elif head[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
    elif head[:1] == b"\x80":
        tensors, metadata = _flatten(_read_torch(path, mapped=False)), {}
    else:
        reason = "it is empty" if size == 0 else "it is neither a PyTorch nor a safetensors file"
        raise ModelError(f"'{path.name}' is not a model file: {reason}.")
    if not tensors:
        raise ModelError(f"'{path.name}' is not a model file: it holds no tensors.")
    _check_plain(tensors, path)
    return TensorFile(path, tensors, metadata)


def is_builtin(file: TensorFile) -> bool:
    """Whether a file holds the built-in model of SlideSAM."""
    return file.metadata.get("format") == BUILTIN_FORMAT or any(
        name.startswith("builtin.") for name in file.tensors
    )


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError where a tensor has NaN or infinite values.

    By the extremes, which NaN goes through to: a twentieth of the time of torch.isfinite.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta or tensor.numel() == 0:
            continue
        if not all(value.isfinite() for value in tensor.aminmax()):
            raise ModelError(
                f"'{path.name}' cannot be used: its tensor '{name}' has values that are not "
                "finite; download or copy it again."
            )


def _first_bytes(path: Path) -> tuple[bytes, int]:
    if not path.exists():
        raise InputError(f"There is no model file '{path}'.")
    if not path.is_file():
        raise InputError(f"'{path}' is not a file: give the model file itself.")
    try:
        with path.open("rb") as file:
            return file.read(16), path.stat().st_size
    except OSError as error:
        raise InputError(f"The model file '{path}' cannot be read: {error.strerror}.") from error


def _read_torch(path: Path, mapped: bool) -> object:
    # By such a name newer PyTorch takes a file for another format. It maps none without a name.
    misnamed = path.name.endswith(".safetensors")
    mapped = mapped and not misnamed
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            # What PyTorch finds odd in a file that it then reads or refuses is not for the user.
            warnings.simplefilter("ignore")
            source = file if misnamed else str(path)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        # PyTorch's restricted reader refuses with this word whatever is not plain data.
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise ModelError(
                f"'{path.name}' was not loaded: it holds Python objects besides tensors, which "
                "could run code; ask its author for a file with the plain state dict."
            ) from error
        raise ModelError(
            f"'{path.name}' is damaged, incomplete or not a PyTorch model file: download or copy "
            "it again."
        ) from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_safetensors(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"'{path.name}' is damaged, incomplete or not a safetensors file: download or copy it "
            "again."
        ) from error


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError where a tensor does not hold all of its numbers, as a weight does.

    PyTorch's files may hold sparse ones, ones without values, and one number that stands for any
    count of them, so that a small file makes a network larger than the memory.
    """
    for name, tensor in tensors.items():
        whole = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested)
        eighth = tensor.is_floating_point() and tensor.element_size() == 1  # few operations know it
        if not whole or eighth or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ModelError(
                f"'{path.name}' cannot be used: its tensor '{name}' is not stored number by number "
                "in at least 16 bits; ask its author for a file with plain weights."
            )


def _flatten(content: object) -> dict[str, Tensor]:
    """All tensors in nested dictionaries, their keys joined by dots."""
    tensors: dict[str, Tensor] = {}

    def collect(part: Mapping, prefix: str, depth: int) -> None:
        for key, value in part.items():
            name = f"{prefix}{key}"
            if isinstance(value, Tensor):
                tensors[name] = value.detach()
            elif isinstance(value, Mapping) and depth < _DEEPEST:
                collect(value, f"{name}.", depth + 1)

    if isinstance(content, Mapping):
        collect(content, "", 1)
    return tensors
