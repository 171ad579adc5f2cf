"""Encoded windows: a cache bounded in bytes, and the one place where windows are encoded.

No torch here: embeddings are opaque, all that is asked of them is `nbytes`.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .compute.memory import cache_bytes, out_of_memory
from .errors import InputError
from .protocol import (
    SliceModel,
    WindowPrediction,
    WindowPrompt,
    encodes_early,
    encodes_in_background,
    predict_many,
    remembers,
    windows_at_once,
)
from .stack import Stack

_tokens: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_token = itertools.count()
_token_lock = threading.Lock()
# Model -> the most windows that it predicts in one call: only where more did not fit
_most_prompts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class EmbeddingCache:
    """Least recently used embeddings go first; never holds more than `max_bytes`. Thread-safe.

    An embedding that is larger than the whole cache is not kept.

    max_bytes : None takes a share of the memory, see `compute.memory.cache_bytes` and `fit`.
    Raises InputError where `max_bytes` is negative, and where it is None and the environment
    variable that sets the share is no whole number of 0 or more.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._chosen = max_bytes is not None
        if max_bytes is None:
            max_bytes = cache_bytes()
        if max_bytes < 0:
            raise InputError(f"The size of the embedding cache must be 0 or more, not {max_bytes}.")
        self.max_bytes = int(max_bytes)
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: Hashable) -> Any | None:
        """The embedding, which becomes the most recently used one; None where there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, embedding: Any) -> None:
        """Keep an embedding (with `nbytes`) and drop the least recently used ones as needed."""
        size = int(embedding.nbytes)
        with self._lock:
            if key in self._entries:
                self._nbytes -= self._entries.pop(key)[1]
            if size > self.max_bytes:
                return
            self._entries[key] = (embedding, size)
            self._nbytes += size
            self._trim()

    def fit(self, device: str) -> None:
        """A model on this device comes: the size, where nobody chose it, is one for its memory."""
        if not self._chosen:
            with self._lock:
                self.max_bytes = cache_bytes(device)
                self._trim()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def _trim(self) -> None:
        while self._nbytes > self.max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._nbytes -= dropped


def model_key(model: SliceModel) -> tuple:
    """What distinguishes the embeddings of one loaded model from those of any other."""
    with _token_lock:
        if model not in _tokens:
            _tokens[model] = next(_next_token)
        return (model.traits.name, model.device, model.precision, _tokens[model])


class WindowPredictor:
    """Encodes windows of one stack with one model, and predicts them from prompts.

    Parameters
    ----------
    cache : keeps embeddings beyond this object; None makes a private one.
    batch : how many windows are encoded at once, the needed one included. 0: as many as the model
        likes, but never more ahead than have been of use, so that little is wasted when a slide
        stops.

    Attributes
    ----------
    seconds : {"encode": ..., "predict": ...} spent so far
    """

    def __init__(
        self,
        stack: Stack,
        model: SliceModel,
        cache: EmbeddingCache | None = None,
        batch: int = 0,
    ) -> None:
        self.stack = stack
        self.model = model
        self.cache = EmbeddingCache() if cache is None else cache
        self.cache.fit(model.device)
        self.batch = batch
        self.seconds = {"encode": 0.0, "predict": 0.0}
        self._model_key = model_key(model)
        self._asked = 0
        # Encoded ahead of need. Kept here, since a small cache may drop them before their turn.
        self._ahead: dict[int, Any] = {}

    def embedding(
        self,
        centre: int,
        ahead: Iterable[int] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """The embedding of the window at `centre`, from the cache or encoded now.

        ahead : centres that will be asked for next, most urgent first; as many of them as the
            batch has room for are encoded in the same call. A model that encodes in the background
            gets the next batch as soon as the last window of the newest one is asked for.
        cancelled : once it is true, an encoding that takes long may end without a result: None.
        """
        found = self._ahead.pop(centre, None)
        if found is None:
            found = self.cache.get(self._key(centre))
        coming = [c for c in dict.fromkeys(ahead) if 0 <= c < self.stack.slices and c != centre]
        if found is None:
            centres = [centre, *self._missing(coming, self._room() - 1)]
            if cancelled is not None and len(centres) == 1 and encodes_early(self.model):
                found = self._encode_unless(centre, cancelled)
            else:
                found = self._encode(centres, coming)
        elif encodes_in_background(self.model) and self._ahead.keys().isdisjoint(coming):
            following = self._missing(coming, self._room())
            if following:
                self._ahead[following[0]] = self._encode(following, coming)
        self._asked += 1
        return found

    def prepare(self, centre: int, cancelled: Callable[[], bool]) -> None:
        """Encode a window for the cache while nobody waits for it, where that is worth it.

        cancelled : the sooner it is true, the sooner this ends, with or without the window.
        """
        if encodes_early(self.model) and self._key(centre) not in self.cache:
            self._encode_unless(centre, cancelled)

    def _encode_unless(self, centre: int, cancelled: Callable[[], bool]) -> Any:
        """Encode one window; None where `cancelled` ends that."""
        (window,) = self.stack.windows([centre])
        start = time.perf_counter()
        encoded = self._with_room(lambda: self.model.encode_early(window, cancelled))
        self.seconds["encode"] += time.perf_counter() - start
        if encoded is not None:
            self.cache.put(self._key(centre), encoded)
        return encoded

    def _encode(self, centres: list[int], coming: list[int]) -> Any:
        """Encode some windows in one batch; the first is returned, the others lie in `_ahead`."""
        # What no front comes to any more stays in the cache only.
        self._ahead = {c: known for c, known in self._ahead.items() if c in coming}
        start = time.perf_counter()
        encoded = self._with_room(lambda: self.model.encode(self.stack.windows(centres)))
        self.seconds["encode"] += time.perf_counter() - start
        for index, embedding in zip(centres, encoded, strict=True):
            self.cache.put(self._key(index), embedding)
        self._ahead.update(zip(centres[1:], encoded[1:], strict=True))
        return encoded[0]

    def _room(self) -> int:
        if self.batch:
            return self.batch
        room = max(1, min(windows_at_once(self.model), self._asked + 1))
        return 1 << (room.bit_length() - 1)  # few sizes of batches: a GPU learns each by heart

    def predict(
        self, centre: int, prompt: WindowPrompt, ahead: Iterable[int] = ()
    ) -> WindowPrediction:
        """Predict the window at `centre`; see `embedding` for `ahead`."""
        return self.predict_many([self.embedding(centre, ahead)], [prompt])[0]

    def predict_many(
        self, embeddings: Sequence[Any], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """Predict several windows, which `embedding` gave: in one call of the model that fits.

        Where the memory of its GPU does not suffice for all of them, each call has half as many
        from then on, whoever asks. Raises what the model raises where it does not for one.
        """
        start = time.perf_counter()
        done: list[WindowPrediction] = []
        while len(done) < len(prompts):
            left = len(prompts) - len(done)
            count = min(left, _most_prompts.get(self.model, left))
            part = slice(len(done), len(done) + count)
            ask = partial(predict_many, self.model, embeddings[part], prompts[part])
            try:
                # Kept embeddings are worth more than a few windows in one call.
                done += self._with_room(ask) if count == 1 else ask()
            except RuntimeError as error:
                if count == 1 or not out_of_memory(error):
                    raise
                _most_prompts[self.model] = count // 2
        self.seconds["predict"] += time.perf_counter() - start
        return done

    def _with_room(self, ask: Callable[[], Any]) -> Any:
        """What the model answers; embeddings that are kept give way where its GPU is full."""
        try:
            return ask()
        except RuntimeError as error:
            if not out_of_memory(error) or not len(self.cache):
                raise
        self.cache.clear()
        return ask()

    def remember(self, centre: int, mask: np.ndarray) -> Any:
        """What the model carries from the slice `centre` with its trusted mask, bool (H, W)."""
        if not remembers(self.model):
            return None
        embedding = self.embedding(centre)
        start = time.perf_counter()
        memory = self.model.remember(embedding, mask)
        self.seconds["predict"] += time.perf_counter() - start
        return memory

    def _missing(self, coming: list[int], most: int) -> list[int]:
        """The first of the coming centres that are not encoded, in the same order."""
        unknown = (c for c in coming if c not in self._ahead and self._key(c) not in self.cache)
        return list(itertools.islice(unknown, max(0, most)))

    def _key(self, centre: int) -> tuple:
        return (self._model_key, self.stack.key, centre)
