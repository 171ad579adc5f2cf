"""What one effect is set to, and what it tells its user. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field

from .shelf import ModelChoice
from .text import tr as _


@dataclass(frozen=True)
class Options:
    """The effect's parameters; `first` and `last` are slice indices of the segmentation."""

    choice: ModelChoice = field(default_factory=ModelChoice)
    direction: str = "both"
    first: int | None = None
    last: int | None = None
    mode: str = "add"
    auto_apply: bool = True
    weak_below: float = 0.5


@dataclass(frozen=True)
class Message:
    """A sentence for the user; kind is "info", "error" or "oblique"."""

    text: str
    kind: str = "info"


def start_text() -> str:
    """What to do first."""
    return _("Click on the object, or drag a box around it. Ctrl+click marks what is outside.")
