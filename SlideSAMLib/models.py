"""Named models: list, download, install, verify, remove and load them.

This module imports no torch: only `load_model` and `verify` do, when they are called.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .catalogue import (
    CATALOGUE,
    ModelInfo,
    check_unchanged,
    model_info,
    models_folder,
    record_hash,
    recorded_hash,
)
from .errors import Cancelled, InputError, ModelError, TorchError
from .files.downloads import Cancelling, Progress, fetch, partial_path
from .files.whole_files import file_sha256, replacing

if TYPE_CHECKING:
    from .protocol import SliceModel

__all__ = [
    "ModelInfo",
    "Verification",
    "download",
    "files_of",
    "install",
    "list_models",
    "load_model",
    "model_info",
    "models_folder",
    "register_model",
    "remove",
    "verify",
]

Loader = Callable[[str, str], "SliceModel"]

_LOADERS: dict[str, Loader] = {}


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    expected : the published SHA-256, or the one recorded on first use; None where neither exists.
    matches : whether the file has it; None where none is known.
    description : what the tensors are, for people.
    """

    path: Path
    sha256: str
    expected: str | None
    matches: bool | None
    description: str


def list_models() -> list[ModelInfo]:
    """Every model known by name; see ModelInfo for `installed` and `path`."""
    return list(CATALOGUE.values())


def register_model(name: str, loader: Loader) -> None:
    """Make `load_model(name, device, precision)` return `loader(device, precision)`."""
    _LOADERS[name] = loader


def load_model(
    name: str | os.PathLike = "builtin", device: str = "auto", precision: str = "auto"
) -> SliceModel:
    """Load a model by name, or from a checkpoint file of any known layout.

    Parameters
    ----------
    name : a name of `list_models()` or of `register_model`, or the path of a file.
    device : "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:N" or "mps".
    precision : "auto" (half where the hardware multiplies in it, else float32), "float32",
        "bfloat16" or "float16".

    Raises
    ------
    InputError
        Unknown name, missing file, or no such device or precision.
    ModelError
        The model is not on this computer yet, its file is not the expected one or no usable
        checkpoint, it does not fit the device's memory, or PyTorch is missing (`TorchError`).
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"A model is loaded by its name or its file, not by {name!r}.")
    name = os.fspath(name)
    if name in _LOADERS:
        return _LOADERS[name](device, precision)
    _need_torch()
    if name not in CATALOGUE:
        return _load_file(_existing_file(name), device, precision)
    info = CATALOGUE[name]
    _need_file(info)
    if info.source != "builtin":
        check_unchanged(info)
    return _load_file(info.path, device, precision, info)


def download(
    name: str, progress: Progress | None = None, cancelled: Cancelling | None = None
) -> Path:
    """Download a named model into `models_folder()`; returns its file.

    Nothing is done where it is there already. An interrupted download goes on where it stopped.

    Raises
    ------
    InputError
        Unknown name, a model without a direct address, or an unwritable folder.
    ModelError
        The download failed, or the file is not the published one.
    Cancelled
        On request; what has arrived is kept.
    """
    info = model_info(name)
    if info.installed:
        return info.path
    if info.url is None:
        raise InputError(f"The model '{name}' has no direct address: {_how_to_get(info)}.")
    target = info.path
    record_hash(info, None)
    sha256 = fetch(info.url, target, info.sha256, progress, cancelled)
    record_hash(info, sha256)
    return target


def install(name: str, source: str | os.PathLike, cancelled: Cancelling | None = None) -> Path:
    """Copy a file that the user has fetched to where the named model is looked for.

    Raises
    ------
    InputError
        Unknown name, missing file, or an unwritable folder.
    ModelError
        The file is no checkpoint of the model's kind, or not the published file.
    Cancelled
        On request.
    """
    info = model_info(name)
    if info.source == "builtin":
        raise InputError("The built-in model comes with SlideSAM and is not replaced by a file.")
    source = _existing_file(os.fspath(source))
    _need_torch()
    from .sam.checkpoints import load_checkpoint

    found = load_checkpoint(source, info.kind).description
    sha256 = file_sha256(source, cancelled)
    if info.sha256 not in (None, sha256):
        raise ModelError(
            f"'{source.name}' ({found}) is not the published file of '{name}': its SHA-256 differs."
        )
    try:
        info.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(info.path) as part:
            shutil.copyfile(source, part)
            if cancelled is not None and cancelled():
                raise Cancelled(f"Copying '{source.name}' was cancelled.")
    except OSError as error:
        raise InputError(f"'{info.path}' cannot be written: {error.strerror or error}.") from error
    record_hash(info, sha256)
    return info.path


def verify(name_or_file: str | os.PathLike) -> Verification:
    """Hash a model's file, compare with what is known, and read it completely.

    Raises
    ------
    InputError
        Unknown name or missing file.
    ModelError
        The model is not on this computer, or its file is no usable checkpoint. A SHA-256 that
        differs does not raise: see `matches`.
    """
    name = os.fspath(name_or_file)
    info = CATALOGUE.get(name)
    if info is None:
        path, expected = _existing_file(name), None
    else:
        _need_file(info)
        path, expected = info.path, info.sha256 or recorded_hash(info)
    _need_torch()
    sha256 = file_sha256(path)
    matches = None if expected is None else sha256 == expected
    description = _describe(path, info)
    return Verification(path, sha256, expected, matches, description)


def files_of(info: ModelInfo) -> list[Path]:
    """What of a model is on this computer: its file, and unfinished downloads and copies of it."""
    copies = glob.glob(glob.escape(str(info.path.with_name(f".{info.file}."))) + "*.part")
    places = (info.path, partial_path(info.path), *map(Path, copies))
    return [place for place in places if os.path.isfile(place)]


def remove(name: str) -> int:
    """Delete all `files_of` a named model; returns the bytes freed.

    Raises
    ------
    InputError
        Unknown name, nothing to remove, the built-in model, or the file cannot be deleted.
    """
    info = model_info(name)
    if info.source == "builtin":
        raise InputError("The built-in model is a part of SlideSAM and cannot be removed.")
    files = files_of(info)
    if not files:
        raise InputError(f"The model '{name}' is not on this computer: there is nothing to remove.")
    freed = sum(p.stat().st_size for p in files)
    try:
        for path in files:
            path.unlink()
    except OSError as error:
        raise InputError(f"'{info.path}' cannot be deleted: {error.strerror}.") from error
    record_hash(info, None)
    return freed


def _load_file(
    path: Path, device: str, precision: str, info: ModelInfo | None = None
) -> SliceModel:
    from .files.tensor_files import is_builtin, read_tensor_file

    file = read_tensor_file(path)
    if is_builtin(file):
        from .builtin.model import load_builtin

        return load_builtin(path, device, precision)
    from .sam.model import load_sam

    if info is None:
        return load_sam(file, device, precision)
    return load_sam(file, device, precision, info.name, info.licence, info.kind)


def _describe(path: Path, info: ModelInfo | None) -> str:
    from .files.tensor_files import is_builtin, read_tensor_file

    file = read_tensor_file(path)
    if is_builtin(file):
        from .builtin.weights import read_model

        name = read_model(path)[1].get("name")
        return f"{name}, made from the built-in model" if name else "Built-in model of SlideSAM"
    from .sam.checkpoints import load_checkpoint

    return load_checkpoint(file, info.kind if info is not None else None).description


def _existing_file(name: str) -> Path:
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return path
    if os.path.exists(path):
        raise InputError(f"'{name}' is a folder: give the model file itself.")
    _refuse_unreadable(path)
    raise InputError(
        f"There is no model and no file named '{name}': known models are "
        f"{', '.join([*CATALOGUE, *_LOADERS])}."
    )


def _need_file(info: ModelInfo) -> None:
    if not info.installed:
        _refuse_unreadable(info.path)
        raise ModelError(f"The model '{info.name}' is not on this computer: {_how_to_get(info)}.")


def _refuse_unreadable(path: Path) -> None:
    """Raise InputError where nobody can tell whether the file is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: no path at all
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{path}' cannot be read: {reason}.") from error


def _how_to_get(info: ModelInfo) -> str:
    if info.source == "builtin":
        return f"its file '{info.file}' is missing from Resources/Models, so reinstall SlideSAM"
    if info.url is not None:
        return (
            "download it in the SlideSAM module of Slicer, or with 'slidesam models download "
            f"{info.name}'"
        )
    return (
        f"get its file from {info.page} and give that file, in Slicer by Choose file in the "
        f"SlideSAM module, or with 'slidesam models download {info.name} --from FILE'"
    )


def _need_torch() -> None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:  # no origin: a folder that uninstalling left
        raise TorchError(
            "PyTorch is not installed: install the PyTorch extension in Slicer, or run 'pip "
            "install torch'."
        )
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library of it, on Windows
        reason = " ".join(str(error).split()).rstrip(".")
        raise TorchError(
            f"PyTorch is installed but cannot be loaded ({reason}): reinstall it."
        ) from error
