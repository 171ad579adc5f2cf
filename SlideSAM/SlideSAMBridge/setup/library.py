"""Where SlideSAMLib is, and what is missing when it cannot work. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from ..text import tr as _
from . import preferences

# In an installed extension SlideSAMLib lies beside SlideSAM.py, whose folder Slicer has put on the
# path; in the source tree it lies one folder further up.
_MODULE_FOLDER = Path(__file__).resolve().parents[2]
_PLACES = (_MODULE_FOLDER, _MODULE_FOLDER.parent)

TORCH_MISSING = _(
    "PyTorch is not installed in this Slicer: press Install Python packages in the SlideSAM "
    "module. For a graphics card, get the PyTorch extension from the Extensions Manager first and "
    "restart Slicer."
)
SAM_PACKAGE_MISSING = _(
    "The model {name} needs the Python package segment-anything: press Install Python packages in "
    "the SlideSAM module."
)
PACKAGE_MISSING = _(
    "The Python package {name} is missing: run slicer.util.pip_install('{name}') in the Python "
    "console."
)
_unloadable = ""  # why torch, which is installed, could not be loaded when it was tried last


def make_importable() -> None:
    """Put the folder that holds SlideSAMLib on `sys.path`, unless it can be imported already.

    Raises RuntimeError where SlideSAMLib is nowhere.
    """
    if importlib.util.find_spec("SlideSAMLib") is not None:
        return
    for place in _PLACES:
        if (place / "SlideSAMLib" / "__init__.py").is_file():
            # At the end: nothing else in that folder may hide a module of Slicer.
            sys.path.append(str(place))
            return
    raise RuntimeError(
        _(
            "The folder SlideSAMLib is missing beside the SlideSAM module: install the "
            "extension again."
        )
    )


def torch_version() -> str | None:
    """The version of the torch that is installed, without importing it; None where there is none.

    Reading the version off the package does not need the seconds that `import torch` takes.
    """
    from importlib import metadata

    if not has_package("torch"):
        return None
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "of unknown version"


def has_package(name: str) -> bool:
    """Whether a package is installed; a folder of that name alone, as uninstalling leaves, is not.

    Imports nothing.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def torch_works() -> bool:
    """Whether torch is installed and nothing has failed to load it so far."""
    return torch_version() is not None and not _unloadable


def torch_in_part() -> bool:
    """Whether something of torch is installed that cannot be used, and has to go first."""
    from importlib import metadata

    if has_package("torch"):
        return bool(_unloadable)
    return next(iter(metadata.distributions(name="torch")), None) is not None


def forget_torch() -> None:
    """Torch was installed again: what kept the old one from loading counts no more."""
    global _unloadable
    _unloadable = ""


def missing_for_builtin() -> str:
    """What keeps the built-in model from running, as one sentence; "" where nothing does."""
    if torch_version() is None:
        return TORCH_MISSING
    if _unloadable:
        return _unloadable
    from SlideSAMLib.catalogue import model_info

    if not model_info("builtin").installed:
        return _("The weights of the built-in model are missing: install the extension again.")
    return ""


def status() -> str:
    """What is installed and what will be used, for a panel; the first sentence to mend if not."""
    try:
        make_importable()
        missing = missing_for_builtin()
    except RuntimeError as error:
        return str(error)
    if missing:
        return missing
    chosen = preferences.read()
    if _needs_sam(chosen.model) and not has_package("segment_anything"):
        return SAM_PACKAGE_MISSING.format(name=chosen.model)
    return _("Ready: PyTorch {torch}, {device}. Model: {model}.").format(
        torch=torch_version(), device=_device(chosen.device), model=_weights(chosen.model)
    )


def _device(wanted: str) -> str:
    """Where models run; torch is asked only if something has imported it already.

    While the worker still imports it, the main thread would wait for that.
    """
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if spec is None or getattr(spec, "_initializing", False):
        return _("device {wanted}").format(wanted=wanted)
    from SlideSAMLib.compute.devices import choose_device

    try:
        return _("device {device}").format(device=choose_device(wanted))
    except ValueError as error:
        return str(error)


def has_device(name: str) -> bool:
    """Whether models can run there. Imports torch for all but "auto" and "cpu"."""
    if name in ("auto", "cpu"):
        return True
    if torch_version() is None:
        return False
    try:
        from SlideSAMLib.compute.devices import choose_device

        choose_device(name)
    except (ImportError, OSError, ValueError):  # OSError: libraries of torch that cannot be loaded
        return False
    return True


def _weights(model: str) -> str:
    """The chosen model, and whether its weights are there."""
    from SlideSAMLib.catalogue import CATALOGUE

    info = CATALOGUE.get(model)
    there = os.path.isfile(os.path.expanduser(model)) if info is None else info.installed
    name = Path(model).name if info is None else model
    if there:
        return name
    return _("{name} (its file is missing: download or choose it below)").format(name=name)


def _needs_sam(model: str) -> bool:
    """Whether a model is known to be a Segment Anything network; a file has to be read for that."""
    from SlideSAMLib.catalogue import CATALOGUE

    return model in CATALOGUE and CATALOGUE[model].source != "builtin"


def load_model(model: str | Path, device: str = "auto", precision: str = "auto") -> Any:
    """A model of SlideSAMLib by name or file.

    Raises
    ------
    RuntimeError
        PyTorch or another Python package is missing or cannot be loaded, or the model's file
        cannot be used.
    ValueError
        There is no model of this name, or no such device or precision.
    """
    global _unloadable
    import SlideSAMLib
    from SlideSAMLib.errors import TorchError

    try:
        return SlideSAMLib.load_model(model, device=device, precision=precision)
    except TorchError as error:
        _unloadable = "" if torch_version() is None else str(error)
        raise
    except ImportError as error:
        raise missing_package(error) from error


def missing_package(error: ImportError) -> RuntimeError:
    """What to tell a user whose Slicer lacks a package."""
    package = (error.name or str(error)).split(".")[0]
    if package == "torch":
        return RuntimeError(TORCH_MISSING)
    return RuntimeError(PACKAGE_MISSING.format(name=package))
