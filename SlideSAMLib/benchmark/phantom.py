"""A volume of any size with one object of known extent, and a model that is led along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..patches import extent_of
from ..prompts import SlicePrompt
from ..protocol import (
    SliceModel,
    Window,
    WindowPrediction,
    WindowPrompt,
    encodes_in_background,
    predict_many,
    prompts_at_once,
    remembers,
    windows_at_once,
)

LOGIT = 6.0
_RADIUS = 0.25  # of the slice's sides


@dataclass(frozen=True, eq=False)
class Phantom:
    """An int16 volume (K, J, I) with a bright column on the slices `first` to `last`."""

    volume: np.ndarray
    first: int
    last: int

    @property
    def middle(self) -> int:
        return (self.first + self.last) // 2

    def outline(self) -> np.ndarray:
        """The column's cross-section: bool (J, I)."""
        return _ellipse(*self.volume.shape[1:])

    def prompt(self, index: int | None = None) -> SlicePrompt:
        """A box around the column on a slice, the middle one by default."""
        height, width = self.volume.shape[1:]
        reach = _RADIUS + 0.01
        box = [(0.5 - reach) * width, (0.5 - reach) * height]
        box += [(0.5 + reach) * width, (0.5 + reach) * height]
        return SlicePrompt(index=self.middle if index is None else index, box=tuple(box))

    def points(self, index: int, extra: bool = False) -> SlicePrompt:
        """The box and a point inside the column: a refinement of `prompt`."""
        height, width = self.volume.shape[1:]
        inside = [(0.5 * width, 0.5 * height)] + [(0.6 * width, 0.5 * height)] * extra
        box = self.prompt(index).box
        return SlicePrompt(index=index, box=box, points=inside, labels=[1] * len(inside))


def column(shape: tuple[int, int, int], slices: int) -> Phantom:
    """A column of so many slices in the middle of a noisy volume, made slice by slice."""
    depth, height, width = shape
    first = (depth - slices) // 2
    random = np.random.default_rng(0)
    inside = _ellipse(height, width)
    volume = np.empty(shape, np.int16)
    for k in range(depth):
        bright = inside & (first <= k < first + slices)
        noise = 60 * random.standard_normal((height, width), dtype=np.float32)
        volume[k] = np.where(bright, 700, 300) + noise
    return Phantom(volume, first, first + slices - 1)


def _ellipse(height: int, width: int) -> np.ndarray:
    y = (np.arange(height)[:, None] + 0.5 - height / 2) / (_RADIUS * height)
    x = (np.arange(width)[None] + 0.5 - width / 2) / (_RADIUS * width)
    return x**2 + y**2 < 1


@dataclass(frozen=True, eq=False)
class _Located:
    """An embedding and the slice it belongs to."""

    inner: Any
    centre: int

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes


class LedModel:
    """A model whose answers are computed in full, and then replaced by the phantom's column.

    Random weights find nothing, so a slide would end at once. Led like this it costs what it
    costs with trained weights, and ends where the column ends.
    """

    def __init__(self, model: SliceModel, phantom: Phantom) -> None:
        self._model = model
        self._phantom = phantom
        self._inside = np.where(phantom.outline(), LOGIT, -LOGIT).astype(np.float32)
        self._made: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self.traits, self.device, self.precision = model.traits, model.device, model.precision

    @property
    def encodes_in_background(self) -> bool:
        return encodes_in_background(self._model)

    @property
    def remembers(self) -> bool:
        return remembers(self._model)

    def windows_at_once(self) -> int:
        """See `protocol.windows_at_once`."""
        return windows_at_once(self._model)

    def encode(self, windows: Sequence[Window]) -> list[_Located]:
        """Encode windows; see `protocol.SliceModel`."""
        encoded = self._model.encode(windows)
        return [_Located(e, w.key[-1]) for e, w in zip(encoded, windows, strict=True)]

    def prompts_at_once(self) -> int:
        """See `protocol.prompts_at_once`."""
        return prompts_at_once(self._model)

    def predict(self, embedding: _Located, prompt: WindowPrompt) -> WindowPrediction:
        """Ask the model, and answer with the column."""
        return self.predict_many([embedding], [prompt])[0]

    def predict_many(
        self, embeddings: Sequence[_Located], prompts: Sequence[WindowPrompt]
    ) -> list[WindowPrediction]:
        """`predict` for several windows, in one call of the model."""
        answers = predict_many(self._model, [each.inner for each in embeddings], prompts)
        return [self._led(e, found) for e, found in zip(embeddings, answers, strict=True)]

    def _led(self, embedding: _Located, found: WindowPrediction) -> WindowPrediction:
        slices = range(embedding.centre - 1, embedding.centre + 2)
        there = tuple(self._phantom.first <= index <= self._phantom.last for index in slices)
        logits, extents = self._columns(there, found.corner, found.logits.shape)
        quality = np.full_like(found.quality, 0.9)
        return WindowPrediction(logits, found.corner, quality, found.shape, None, extents)

    def _columns(
        self, there: tuple[bool, ...], corner: tuple[int, int], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the column on the slices where it is, and their extents; made once."""
        key = (there, corner, shape)
        if key not in self._made:
            (top, left), (height, width) = corner, shape[-2:]
            logits = np.full(shape, -LOGIT, np.float32)
            logits[:, list(there)] = self._inside[top : top + height, left : left + width]
            extents = np.array([[extent_of(values) for values in three] for three in logits])
            logits.flags.writeable = False
            self._made[key] = logits, extents
        return self._made[key]

    def remember(self, embedding: _Located, mask: np.ndarray) -> Any:
        """See `protocol.SliceModel`."""
        return self._model.remember(embedding.inner, mask)
