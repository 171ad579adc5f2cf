"""The network classes of the segment-anything package, without its top-level module.

`import segment_anything` also imports its predictor and with it torchvision, which is missing or
broken in many Slicer installations. The network classes need torch alone. They are therefore
loaded here under a private name: nothing else of the package runs, and a `segment_anything` that
the user has imported is neither needed nor changed.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

from ..errors import ModelError

_NAME = f"{__package__}._segment_anything_modeling"
_LOCK = threading.Lock()


def load_modeling() -> ModuleType:
    """The `modeling` sub-package of segment-anything (ImageEncoderViT, Sam, ...).

    Raises
    ------
    ModelError
        The package segment-anything is not installed, or its network classes cannot be loaded.
    """
    with _LOCK:
        loaded = sys.modules.get(_NAME)
        return loaded if loaded is not None else _load(_package_folder() / "modeling")


def _package_folder() -> Path:
    try:
        # For a top-level name this looks the package up without running it.
        spec = importlib.util.find_spec("segment_anything")
    except (ImportError, ValueError):
        spec = None
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(folder) / "modeling" / "__init__.py").is_file():
            return Path(folder)
    raise ModelError(
        "The package segment-anything is not installed: press Install Python packages in the "
        "SlideSAM module of Slicer, or run 'pip install segment-anything==1.0'."
    )


def _load(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module  # its files import each other relative to this name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        for name in [n for n in sys.modules if n == _NAME or n.startswith(_NAME + ".")]:
            del sys.modules[name]
        raise ModelError(
            f"The network classes of segment-anything cannot be loaded ({error}): reinstall it "
            "with 'pip install --force-reinstall segment-anything==1.0'."
        ) from error
    return module
