"""The one model that is loaded, and the embeddings that all segments share. No Qt, no MRML."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .library import load_model

if TYPE_CHECKING:
    from .work import Work


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use, as SlideSAMLib.load_model takes it."""

    name: str = "builtin"
    device: str = "auto"
    precision: str = "auto"


class ModelShelf:
    """The loaded model, and the embeddings that all segments share. For the worker only."""

    def __init__(self) -> None:
        self._choice: ModelChoice | None = None
        self._model: Any = None
        self._cache: Any = None
        self._retreats: dict[str, str] = {}  # models that ran out of memory: "smaller" or "cpu"
        self._cache_bytes: int | None = None
        self._works: weakref.WeakSet[Work] = weakref.WeakSet()  # whose sessions hold the model

    def model(self, choice: ModelChoice) -> Any:
        """Raises ValueError or RuntimeError with a sentence, see `library.load_model`."""
        retreat = self._retreats.get(choice.name) if choice.device != "cpu" else None
        if retreat is not None:
            # "auto" is half precision on every GPU that multiplies in it.
            device = "cpu" if retreat == "cpu" else choice.device
            choice = ModelChoice(choice.name, device, "auto")
        if choice != self._choice:
            self._let_go()  # one at a time: models are large
            self._model = load_model(choice.name, choice.device, choice.precision)
            self._choice = choice
        return self._model

    def cache(self) -> Any:
        from SlideSAMLib import EmbeddingCache

        if self._cache is None:
            self._cache = EmbeddingCache(self._cache_bytes)
        return self._cache

    def lend(self, work: Work) -> None:
        """This work has a session with the model: it has to give it up when another one comes."""
        self._works.add(work)

    def resize_cache(self, size: int | None) -> None:
        """The size in bytes of the cache of sessions made from now on; None chooses it."""
        if size != self._cache_bytes:
            self._cache_bytes, self._cache = size, None

    def next_step(self, choice: ModelChoice) -> str | None:
        """What to try where the memory is too small: "smaller" or "cpu", None where nothing is."""
        if choice.device == "cpu" or self._retreats.get(choice.name) == "cpu":
            return None
        return "cpu" if choice.name in self._retreats else "smaller"

    def retreat(self, choice: ModelChoice, step: str) -> None:
        """Let go of all GPU memory, and use less of it from now on, or none, for this model."""
        self._retreats[choice.name] = step
        self._let_go()
        _empty_gpu_cache()

    def _let_go(self) -> None:
        """Forget the model, its embeddings, and the sessions that work with it."""
        for work in list(self._works):
            if work.session is not None:
                work.go_on_from(work.session.snapshot())
        self._works.clear()
        if self._model is not None:
            self._choice = self._model = None
            if self._cache is not None:
                self._cache.clear()


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


shared_shelf = ModelShelf()
