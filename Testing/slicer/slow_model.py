"""A model for tests of the effect: bright parts, as fast, slow or broken as a test wants."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from Testing.slicer import scenes


class SlowModel:
    """Wraps `scenes.model`; delay : seconds per window. error : raised by the next prediction."""

    def __init__(self) -> None:
        self._model = scenes.model()
        self.traits = self._model.traits
        self.device = self._model.device
        self.precision = self._model.precision
        self.delay = 0.0
        self.error: Exception | None = None
        self.predictions = 0

    @property
    def encoded(self) -> list[list[int]]:
        return self._model.encoded

    def encode(self, windows: Sequence[Any]) -> list[Any]:
        return self._model.encode(windows)

    def predict(self, embedding: Any, prompt: Any) -> Any:
        self.predictions += 1
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return self._model.predict(embedding, prompt)

    def remember(self, embedding: Any, mask: Any) -> Any:
        return self._model.remember(embedding, mask)
