"""Observers that are all removed together. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watch:
    """A set of VTK observers; VTK holds on to the functions until `clear`."""

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, observed: Any, event: int | str, function: Callable[[Any, str], None]) -> None:
        """Call `function(caller, event)` whenever `observed` sends the event."""
        self._tags.append((observed, observed.AddObserver(event, function)))

    def clear(self) -> None:
        """Remove all of them."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags.clear()
