"""What one effect is set to, and what it tells its user. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..tasks.shelf import ModelChoice
from ..text import tr as _


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


def slices_text(count: int) -> str:
    """So many slices."""
    return _("1 slice") if count == 1 else _("{count} slices").format(count=count)


def applied_text(count: int, seconds: float, stops: str) -> str:
    """What was done, why the slide had ended ("" where nobody knows), and what comes next."""
    slices = slices_text(count)
    done = _("Applied {slices} in {seconds:.1f} s").format(slices=slices, seconds=seconds)
    why = f" ({stops})" if stops else ""
    return f"{done}{why}. {corrected_text()}"


def left_text(count: int) -> str:
    """Why a slide has ended that so many slices are kept of."""
    text = _("The slide was stopped: another segment is chosen.")
    if count:
        text += " " + _(
            "What is finished ({slices}) is there again when you go back to the other one."
        ).format(slices=slices_text(count))
    return text


def corrected_text() -> str:
    """What to do once the segment has the result."""
    return _("Click to correct a slice, or press Clear to start another object.")


def refined_text() -> str:
    """What to do once there is a preview."""
    return _("Add points to refine; Enter segments all slices.")


def marked_text() -> str:
    """What to do where there are prompts, and nothing that was made of them."""
    return _(
        "This segment has prompts: press Segment to use them, click to add more, or press Clear "
        "to start another object."
    )


def waiting_text(count: int) -> str:
    """What to do with a result of so many slices that is not in the segment."""
    return _(
        "Not applied yet: {slices} in the preview. Apply or discard the result, or segment again."
    ).format(slices=slices_text(count))


def slid_text(dirty: bool) -> str:
    """Why there are no other masks; dirty : whether the result was not applied."""
    if dirty:
        return _("Other masks are chosen before the slide: discard the result first.")
    return _("Other masks are chosen before the slide: undo it, and mark the object again.")
