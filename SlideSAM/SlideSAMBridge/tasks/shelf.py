"""The one model that is loaded, and the embeddings that all segments share. No Qt, no MRML."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..setup.library import load_model


class Borrower(Protocol):
    """Whoever works with the model in a session of its own, as `work.Work` does.

    session : a SlideSAMLib.Session, or None.
    """

    session: Any

    def go_on_from(self, state: Any) -> None:
        """Give up the session; the next one goes on from a SlideSAMLib.session.Snapshot."""


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use, as SlideSAMLib.load_model takes it."""

    name: str = "builtin"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, what it was loaded for, and how its files were then (size, time of change)."""

    choice: ModelChoice
    model: Any
    stamps: dict[Path, tuple[int, int] | None]

    def serves(self, choice: ModelChoice) -> bool:
        """Whether loading would give the same; a file that is gone does not make it another."""
        return choice == self.choice and all(
            stamp(path) in (None, then) for path, then in self.stamps.items()
        )


def load(choice: ModelChoice) -> LoadedModel:
    """Raises ValueError or RuntimeError with a sentence, see `library.load_model`."""
    # Before the files are read: one that is replaced meanwhile is then noticed.
    stamps = {path: stamp(path) for path in files_of(choice.name)}
    model = load_model(choice.name, choice.device, choice.precision)
    return LoadedModel(choice, model, stamps)


def files_of(name: str) -> list[Path]:
    """The files that a model is read from, and all places where a base of it may be.

    They need not exist: models that a script has registered have no file.
    """
    from SlideSAMLib.catalogue import CATALOGUE

    found, left = [], [_place(CATALOGUE[name].path if name in CATALOGUE else name)]
    while left:
        path = left.pop()
        if path not in found:
            found.append(path)
            left += _places_of_base(path)
    return found


def _places_of_base(path: Path) -> list[Path]:
    """For an adapter, where its base may be; nothing is hashed, as loading does."""
    if stamp(path) is None:
        return []
    try:
        from SlideSAMLib.files.safetensors_files import read_safetensors
        from SlideSAMLib.sam.adapters import BASE, base_places

        note = read_safetensors(path)[1]
    except (ImportError, OSError, ValueError):
        return []  # another format, or what the loading is going to refuse in its own words
    return [_place(place) for place in base_places(path, note)] if BASE in note else []


def _place(path: str | os.PathLike) -> Path:
    place = os.path.expanduser(path)
    try:
        return Path(os.path.abspath(place))
    except OSError:  # the current folder was deleted: nothing is in it
        return Path(place)


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None where it is not there or cannot be asked."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: no path at all
        return None
    return status.st_size, status.st_mtime_ns


class ModelShelf:
    """The loaded model, and the embeddings that all segments share. For the worker only."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._cache: Any = None
        self._retreats: dict[ModelChoice, str] = {}  # ran out of memory: "smaller" or "cpu"
        self._cache_bytes: int | None = None
        self._borrowers: weakref.WeakSet[Borrower] = weakref.WeakSet()

    def model(self, choice: ModelChoice) -> Any:
        """The model, loaded anew where its file was replaced; raises as `load`."""
        retreat = self._retreats.get(choice)
        if retreat is not None:
            # "auto" is half precision on every GPU that multiplies in it.
            device = "cpu" if retreat == "cpu" else choice.device
            choice = ModelChoice(choice.name, device, "auto")
        if self._loaded is None or not self._loaded.serves(choice):
            self._let_go()  # one at a time: models are large
            self._loaded = load(choice)
        return self._loaded.model

    def cache(self) -> Any:
        from SlideSAMLib import EmbeddingCache

        if self._cache is None:
            self._cache = EmbeddingCache(self._cache_bytes)
        return self._cache

    def lend(self, borrower: Borrower) -> None:
        """It has a session with the model, which it has to give up when another one comes."""
        self._borrowers.add(borrower)

    def resize_cache(self, size: int | None) -> None:
        """The size in bytes of the cache of sessions made from now on; None chooses it."""
        if size != self._cache_bytes:
            self._cache_bytes, self._cache = size, None

    def next_step(self, choice: ModelChoice) -> str | None:
        """What to try where the memory is too small: "smaller" or "cpu", None where nothing is."""
        if choice.device == "cpu" or self._retreats.get(choice) == "cpu":
            return None
        return "cpu" if choice in self._retreats else "smaller"

    def retreat(self, choice: ModelChoice, step: str) -> None:
        """Let go of all GPU memory, and use less of it from now on, or none, for this choice.

        Who then chooses another device or precision gets what he chose.
        """
        self._retreats[choice] = step
        self._let_go()
        _empty_gpu_cache()

    def _let_go(self) -> None:
        """Forget the model, its embeddings, and the sessions that work with it."""
        for borrower in list(self._borrowers):
            if borrower.session is not None:
                borrower.go_on_from(borrower.session.snapshot())
        self._borrowers.clear()
        if self._loaded is not None:
            self._loaded = None
            if self._cache is not None:
                self._cache.clear()


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


shared_shelf = ModelShelf()
