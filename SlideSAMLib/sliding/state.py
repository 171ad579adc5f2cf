"""What a slide is asked for, checked before anything is predicted, and how far it has come.

Both schemes go by it, `slide` and `reference_scheme`. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..errors import InputError
from ..patches import Patch
from ..prompts import SlicePrompt, check_kind, is_whole
from ..protocol import SliceModel
from ..stack import Stack
from ..window import EmbeddingCache, WindowPredictor
from .next_prompt import merge_prompts
from .seen import seen_stack
from .slide_types import FinishedSlice, Reference, SlideSettings
from .stops import Stop
from .stretches import gap_names


class SlideState:
    """A slide, as it was asked for, and what has come of it so far.

    stack : as the model is to see it, see `seen.seen_stack`.
    first, last : limits of the slide, inclusive; given : whether the user has set them, by side.
    prompts : as they were given; merged : one for each prompted slice, by its index.
    sides : the outward directions to slide in.
    chosen : slice index -> number of the candidate that the user chose on a prompted slice.
    references : prompted slice -> another one, which shows its window what the object looks like.
    stops : filled by the slide; directions that were cut short are "cancelled".

    Raises InputError for no prompt, a prompt outside the volume or the limits, limits that cannot
    be used, and for what the reference scheme cannot begin.
    """

    def __init__(
        self,
        stack: Stack,
        prompts: Iterable[SlicePrompt],
        model: SliceModel,
        first: int | None = None,
        last: int | None = None,
        settings: SlideSettings | None = None,
        cache: EmbeddingCache | None = None,
        cancelled: Callable[[], bool] | None = None,
        sides: Iterable[str] = ("backward", "forward"),
        chosen: Mapping[int, int] | None = None,
        references: Mapping[int, Reference] | None = None,
    ) -> None:
        self.settings = settings or SlideSettings()
        self.first, self.last = checked_limits(stack, first, last)
        self.given = {"backward": first is not None, "forward": last is not None}
        self.total = None if first is None or last is None else self.last - self.first + 1
        self.prompts = list(prompts) if isinstance(prompts, Iterable) else prompts
        self.merged = merge_prompts(self.prompts)
        check_prompts(self.merged.values(), stack, self.first, self.last)
        if self.settings.scheme == "reference":
            _check_reference(self.merged, stack.slices)
        self.stack = seen_stack(stack, self.merged.values(), model)
        self.predictor = WindowPredictor(self.stack, model, cache, self.settings.encode_batch)
        self.cancelled = cancelled or (lambda: False)
        self.sides = tuple(sides)
        self.chosen, self.references = dict(chosen or {}), dict(references or {})
        between = () if self.settings.scheme == "reference" else gap_names(self.merged)
        self.stops: dict[str, Stop] = dict.fromkeys((*self.sides, *between), Stop.CANCELLED)
        self._done: set[int] = set()

    def finished(
        self,
        index: int,
        mask: np.ndarray,
        confidence: float,
        direction: int,
        patch: Patch | None = None,
    ) -> FinishedSlice:
        """Count a slice as done and wrap it up; `patch` where there are probabilities."""
        self._done.add(index)
        done = len(self._done)
        return FinishedSlice(index, mask, confidence, direction, done, self.total, patch)


def checked_limits(stack: Stack, first: int | None, last: int | None) -> tuple[int, int]:
    """The limits of a slide, inclusive; None stands for the end of the volume."""
    for name, value in (("first", first), ("last", last)):
        if value is None:
            continue
        if not is_whole(value):
            raise InputError(f"The {name} slice must be a whole number, not {value!r}.")
        if not 0 <= value < stack.slices:
            raise InputError(
                f"The {name} slice {value} is outside the volume: the slices along this axis are "
                f"0 to {stack.slices - 1}."
            )
    low = 0 if first is None else int(first)
    high = stack.slices - 1 if last is None else int(last)
    if low > high:
        raise InputError(f"The first slice ({low}) must not lie behind the last slice ({high}).")
    return low, high


def check_prompts(prompts: Iterable[SlicePrompt], stack: Stack, first: int, last: int) -> None:
    """Raise InputError unless every one is a prompt and inside the volume and the limits."""
    for prompt in prompts:
        check_kind(prompt)
        prompt.check_inside(stack.slices, stack.height, stack.width)
        box = prompt.clamped_box(stack.height, stack.width)
        if box is not None and (box[2] < box[0] or box[3] < box[1]):
            raise InputError(
                f"The box {prompt.box} on slice {prompt.index} touches only the rim of the slice: "
                "draw it over the object."
            )
        if not first <= prompt.index <= last:
            raise InputError(
                f"The prompt on slice {prompt.index} is outside the limits {first} to {last}: "
                "move the limits or the prompt."
            )


def _check_reference(prompted: Iterable[int], slices: int) -> None:
    """Raise InputError where the windows of the reference scheme cannot be centred."""
    if slices < 3:
        raise InputError(
            f"The reference scheme needs at least three slices, but there are {slices}: use the "
            "default scheme."
        )
    for index in prompted:
        if not 0 < index < slices - 1:
            raise InputError(
                f"The reference scheme cannot start on slice {index}, the first or last one of the "
                "volume: prompt another slice or use the default scheme."
            )
