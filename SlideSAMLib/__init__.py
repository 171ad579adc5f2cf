"""SlideSAM: segment an object of a volume from a few clicks, one sliding window at a time.

Nothing heavy is imported until it is used: `import SlideSAMLib` loads neither torch nor scipy.

From the ground up:
- `errors`, `boxes`, `patches`, `prompts`, `prompt_json`, `intensity`: the words that all else uses
- `compute` (devices, memory), `files` (downloads, locks, tensors), `images` (volumes on disk)
- `protocol`: what the slide asks of a model; `stack`, `window`: the volume seen along its slide
  axis, and its encoded windows
- `sliding`: the slide itself; `builtin` and `sam`: the two kinds of networks behind the protocol
- `catalogue`, `models`: models by name; `rehearsal`: what they do once, before the first click
- `api`: one call; `session`, `session_types`: what an interactive user does, and what that tells
- `cli`, `demo`, `benchmark`, `evaluation`, `training`: the commands, on top of all this;
  `__main__`: the same for `python -m SlideSAMLib`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compute.waiting import wait_briefly

__version__ = "0.1.0"

_HOMES = {
    "load_model": "models",
    "SlicePrompt": "prompts",
    "segment": "api",
    "SlideResult": "api",
    "slide": "sliding.slide",
    "SlideSettings": "sliding.slide_types",
    "FinishedSlice": "sliding.slide_types",
    "Stop": "sliding.stops",
    "Stack": "stack",
    "EmbeddingCache": "window",
    "Session": "session",
    "InputError": "errors",
    "ModelError": "errors",
    "SlideSAMError": "errors",
}

__all__ = [
    "EmbeddingCache",
    "FinishedSlice",
    "InputError",
    "ModelError",
    "Session",
    "SlicePrompt",
    "SlideResult",
    "SlideSAMError",
    "SlideSettings",
    "Stack",
    "Stop",
    "__version__",
    "load_model",
    "segment",
    "slide",
]

wait_briefly()  # before anything here loads torch

if TYPE_CHECKING:
    from .api import SlideResult, segment
    from .errors import InputError, ModelError, SlideSAMError
    from .models import load_model
    from .prompts import SlicePrompt
    from .session import Session
    from .sliding.slide import slide
    from .sliding.slide_types import FinishedSlice, SlideSettings
    from .sliding.stops import Stop
    from .stack import Stack
    from .window import EmbeddingCache


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
