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


def applied_text(count: int, seconds: float, stops: str) -> str:
    """What was done, why the slide had ended ("" where nobody knows), and what comes next."""
    done = _("Applied {count} slices in {seconds:.1f} s").format(count=count, seconds=seconds)
    why = f" ({stops})" if stops else ""
    after = _("Click to correct a slice, or press Clear to start another object.")
    return f"{done}{why}. {after}"


def slid_text(dirty: bool) -> str:
    """Why there are no other masks; dirty : whether the result was not applied."""
    if dirty:
        return _("Other masks are chosen before the slide: discard the result first.")
    return _("Other masks are chosen before the slide: undo it, and mark the object again.")
