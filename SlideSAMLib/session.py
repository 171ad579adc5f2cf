"""An interactive user without a GUI: prompts per slice, preview, run, correct. No Qt, no torch.

session = Session(Stack(volume), model)
session.set_prompt(SlicePrompt(index=57, points=[(120, 88)]))
session.preview(57)                      # three masks from one window
for finished in session.run(): ...       # the whole object
for finished in session.correct(session.correction(60, [(90, 70)], [0])): ...
session.mask                             # bool, shape of the volume
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import numpy as np

from .boxes import Box
from .errors import InputError
from .prompt_json import prompts_from_json, prompts_to_json
from .prompts import SlicePrompt, checked_points
from .protocol import SliceModel
from .session_types import Preview, Snapshot, preview_of
from .sliding import stretches
from .sliding.additions import adds_slice, reference_for, staying, whole_stretches
from .sliding.candidates import Choice
from .sliding.corrections import box_beside, is_elsewhere
from .sliding.front import anchor_choices
from .sliding.next_prompt import merge_prompts
from .sliding.seen import seen_stack
from .sliding.slide import Slider
from .sliding.slide_types import FinishedSlice, Reference, SlideSettings
from .sliding.state import check_prompts, checked_limits
from .sliding.stops import Stop
from .stack import Stack
from .window import EmbeddingCache, WindowPredictor

__all__ = ["Preview", "Session", "Snapshot"]


class Session:
    """The prompts and the result of one object on one stack.

    Parameters
    ----------
    stack, model : what to segment and with what; for models see `protocol.SliceModel`.
    cache : embeddings; share one among sessions on the same volume. None makes a private one.
    settings : see SlideSettings.

    Attributes
    ----------
    prompts : slice index -> SlicePrompt
    confidence : slice index -> 0..1, of the slices in the result
    stops : why the last runs ended, see `sliding.slide.slide`

    Preview, run and correction raise whatever the model raises, too.
    """

    def __init__(
        self,
        stack: Stack,
        model: SliceModel,
        cache: EmbeddingCache | None = None,
        settings: SlideSettings | None = None,
    ) -> None:
        self.stack = stack
        self.model = model
        self.cache = EmbeddingCache() if cache is None else cache
        self.settings = settings or SlideSettings()
        self.prompts: dict[int, SlicePrompt] = {}
        self.confidence: dict[int, float] = {}
        self.stops: dict[str, Stop] = {}
        self._masks: dict[int, np.ndarray] = {}
        # Of the slice that was asked for last, in its intensity window: they are twelve images.
        self._choices: tuple[tuple[int, tuple[float, float]], list[Choice]] | None = None
        self._chosen: dict[int, int] = {}
        self._references: dict[int, Reference] = {}  # prompted slice -> what the object looks like
        self._changed: set[int] = set()  # prompted slices whose prompt or candidate was not run yet
        self._limits: tuple[int | None, int | None] = (None, None)
        self._sides = stretches.SIDES["both"]

    # Prompts

    def set_prompt(self, prompt: SlicePrompt) -> None:
        """Make this the prompt of its slice, in place of an earlier one.

        Where there is a result, but none on this slice, the slice's window is shown what the object
        looks like on another one (`additions.reference_for`), for previews and all slides from
        it. That lasts as long as the prompt does; a model without memory makes nothing of it.
        Raises InputError where it lies outside the volume, or is no SlicePrompt.
        """
        check_prompts([prompt], self.stack, 0, self.stack.slices - 1)
        self._forget(prompt.index)
        self.prompts[prompt.index] = prompt
        spacing = self.stack.spacing[1:]
        if adds_slice(prompt, self._masks, spacing):
            found = reference_for(prompt, self._masks, self.prompts, self._changed, spacing)
            if found is not None:
                self._references[prompt.index] = found

    def remove_prompt(self, index: int) -> None:
        """Remove the prompt of a slice; nothing happens where there is none."""
        self._forget(index)
        self.prompts.pop(index, None)

    def clear(self) -> None:
        """Remove all prompts, the result and the limits."""
        self._replace({})
        self.keep_to()
        self.restore(Snapshot({}, {}, {}))

    def to_json(self) -> str:
        """The prompts as JSON, see `prompt_json`, in the order in which their slices were marked.

        The candidates that were chosen do not go with them, nor what added slices were shown
        (`set_prompt`): a run from what `load_json` reads may differ after these.
        """
        return prompts_to_json(self.prompts.values())

    def load_json(self, text: str) -> None:
        """Replace the prompts by those of `to_json`. Raises InputError and changes nothing then."""
        if isinstance(text, str) and text.strip() == "[]":  # a session without prompts
            return self._replace({})
        prompts = merge_prompts(prompts_from_json(text))
        check_prompts(prompts.values(), self.stack, 0, self.stack.slices - 1)
        self._replace(prompts)

    # Preview

    def preview(self, index: int) -> Preview:
        """The prompted slice and its neighbours from one window.

        Encodes no other window, but that of the slice that shows what the object looks like.
        Raises InputError where the slice has no prompt.
        """
        return self._preview(index, self._current(index))

    def candidates(self, index: int) -> list[Preview]:
        """All that the model offers for a prompted slice, the best one first.

        Raises InputError where the slice has no prompt.
        """
        return [self._preview(index, choice) for choice in self._ranked(index)]

    def choose(self, index: int, candidate: int) -> Preview:
        """Take the candidate with this number on a prompted slice, for preview and run.

        Raises InputError where the slice has no prompt, or the model offers no such candidate.
        """
        numbers = [choice.number for choice in self._ranked(index)]
        if candidate not in numbers:
            raise InputError(
                f"Slice {index} has no candidate {candidate}: the model offers {sorted(numbers)}."
            )
        if candidate != self._current(index).number:
            self._changed.add(index)
        self._chosen[index] = candidate
        return self.preview(index)

    def next_candidate(self, index: int) -> Preview:
        """Take the next best candidate of a prompted slice; after the last comes the first.

        Raises InputError where the slice has no prompt.
        """
        numbers = [choice.number for choice in self._ranked(index)]
        place = numbers.index(self._current(index).number)
        return self.choose(index, numbers[(place + 1) % len(numbers)])

    def keep_choices(self, choices: Mapping[int, int]) -> None:
        """Take candidates, by slice, that `choose` took in another session from these prompts.

        Predicts nothing; where the model offers no such candidate its best one counts.
        """
        self._chosen.update({i: number for i, number in choices.items() if i in self.prompts})

    # Run

    def run(
        self,
        first: int | None = None,
        last: int | None = None,
        direction: str = "both",
        cancelled: Callable[[], bool] | None = None,
    ) -> Generator[FinishedSlice, None, None]:
        """Slide from all prompts; each slice is in the result when it is yielded.

        The result of earlier runs is removed first, on the far side of the prompts only where
        `direction` leads there. Stopping the iteration, or `cancelled`, keeps what was yielded.

        first, last : limits, inclusive; None stands for the end of the volume.
        direction : "both", "backward" or "forward", beyond the outermost prompts.
        `correct` keeps to the limits and to the direction.

        Raises InputError, and changes nothing, where there is no prompt, a prompt lies outside the
        limits, the limits cannot be used, or the direction is unknown.
        """
        sides = stretches.sides_of(direction)
        slider = self._slider(self.prompts.values(), first, last, sides, cancelled)
        self.keep_to(first, last, direction)
        stretch = stretches.run_stretch(self.prompts, slider.sides)
        self._drop(index for index in list(self._masks) if index in stretch)
        self.stops = {side: stop for side, stop in self.stops.items() if side in stretches.SIDES}
        try:
            for finished in slider.run():
                self._keep(finished)
                yield finished
        finally:
            self.stops.update(slider.stops)

    def keep_to(
        self, first: int | None = None, last: int | None = None, direction: str = "both"
    ) -> None:
        """What `correct` keeps to from now on, as after a `run` with these limits.

        Raises InputError for limits that cannot be used and unknown directions.
        """
        sides = stretches.sides_of(direction)
        checked_limits(self.stack, first, last)
        self._limits, self._sides = (first, last), sides

    def correct(
        self, prompt: SlicePrompt, cancelled: Callable[[], bool] | None = None
    ) -> Generator[FinishedSlice, None, None]:
        """Set a prompt and slide again, only where it matters.

        On either side that is up to the next prompted slice, or until the slide stops. What lies
        beyond the next prompt stays, and that slice itself unless its prompt or candidate changed
        since it was predicted. So do the slices that were not reached, where the slide was
        cancelled, or ended in doubt that says nothing against them: see `stretches.takes_back`.

        Where nothing was found on the slice, or something else (`additions.adds_slice`), the prompt
        adds it to the result: the slide fills the slices without a mask and leaves the others as
        they are, see `additions.staying`. A slice that has the object's mask is corrected as above.

        Raises InputError, and changes nothing, where the prompt or one of those beside it lies
        outside the volume or the limits of the last run.
        """
        low, high = checked_limits(self.stack, *self._limits)
        check_prompts([prompt], self.stack, low, high)
        below = max((i for i in self.prompts if i < prompt.index), default=None)
        above = min((i for i in self.prompts if i > prompt.index), default=None)
        outermost = (("backward", below), ("forward", above))
        sides = [side for side, end in outermost if end is None and side in self._sides]
        ends = [end for end in (below, above) if end is not None]
        check_prompts([self.prompts[end] for end in ends], self.stack, low, high)
        spacing = self.stack.spacing[1:]
        adds = adds_slice(prompt, self._masks, spacing)
        self.set_prompt(prompt)
        reached, earlier = set(), dict(self._masks)
        kept = {end for end in ends if end in earlier and end not in self._changed}
        if adds:
            kept |= staying(earlier, prompt, (below, above), self._changed, spacing)
        whole = whole_stretches(prompt.index, ends, kept) if adds else {}
        used = [prompt, *(self.prompts[end] for end in ends if end not in whole.values())]
        slider = self._slider(used, *self._limits, sides, cancelled)
        try:
            for finished in slider.run():
                if finished.index in kept:
                    continue  # predicted once more to slide from, but already in the result
                reached.add(finished.index)
                self._keep(finished)
                yield finished
        finally:
            names = {*stretches.gap_names(self.prompts), *stretches.SIDES}
            merged = {**self.stops, **dict.fromkeys(whole, Stop.MET_NEXT_PROMPT), **slider.stops}
            self.stops = {name: stop for name, stop in merged.items() if name in names}
            for side, end in ((-1, below), (1, above)):
                way = (prompt.index, end, side)
                stop = slider.stops.get(stretches.stretch_name(*way))
                if stretches.takes_back(stop, *way, reached, earlier, self._masks):
                    beyond = stretches.between(self._masks, *way)
                    self._drop(beyond - reached - kept)

    def correction(
        self,
        index: int,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Box | None = None,
    ) -> SlicePrompt:
        """A prompt that corrects a slice: its own prompt and its present mask, plus what is new.

        So a single negative point is enough where the slice has a mask. A slice without one gets
        a box of the nearest mask's size about its points: they alone do not say how large the
        object is, the result beside them does. So does a slice whose mask lies elsewhere: a
        positive point farther away than the mask is wide says that it is not the object.
        Raises InputError where the slice has neither mask nor prompt and nothing positive is new,
        and where what is new is refused by `SlicePrompt`.
        """
        earlier, mask = self.prompts.get(index), self._masks.get(index)
        points, signs = checked_points(points, labels)
        inside = [point for point, sign in zip(points, signs, strict=True) if sign]
        if earlier is not None:
            points, signs = earlier.points + points, earlier.labels + signs
            box = earlier.box if box is None else box
        if mask is not None and not mask.any():
            mask = None
        if earlier is None or earlier.mask is not None:  # what is there was never marked as such
            if mask is not None and is_elsewhere(mask, inside, self.stack.spacing[1:]):
                mask = None
            if mask is None and box is None:
                box = box_beside(self._masks, index, inside)
        return SlicePrompt(index, box, points, signs, mask)

    # Result

    @property
    def mask(self) -> np.ndarray:
        """The result: bool, in the shape and axis order of the volume."""
        out = np.zeros(self.stack.volume_shape, bool)
        stacked = self.stack.from_volume(out)  # a view
        for index, mask in self._masks.items():
            stacked[index] = mask
        return out

    def slice_mask(self, index: int) -> np.ndarray | None:
        """The result on one slice, bool (H, W), not to be written to; None where there is none."""
        return self._masks.get(index)

    def weakest(self) -> int | None:
        """The slice that the model is least sure of, or None without a result.

        Slices that the user prompted come only where there are no others.
        """
        free = {i: value for i, value in self.confidence.items() if i not in self.prompts}
        pool = free or self.confidence
        return min(pool, key=lambda index: (pool[index], index)) if pool else None

    def snapshot(self) -> Snapshot:
        """The result as it is now; cheap."""
        return Snapshot(dict(self._masks), dict(self.confidence), dict(self.stops))

    def restore(self, snapshot: Snapshot) -> None:
        """Bring back the result of a snapshot; the prompts stay, and count as those it is of."""
        self._masks = dict(snapshot.masks)
        self._changed.difference_update(snapshot.masks)
        self.confidence = dict(snapshot.confidence)
        self.stops = dict(snapshot.stops)

    # Inner workings

    def _slider(
        self,
        prompts: Iterable[SlicePrompt],
        first: int | None,
        last: int | None,
        sides: Iterable[str],
        cancelled: Callable[[], bool] | None,
    ) -> Slider:
        how = self.settings, self.cache, cancelled, sides, self._chosen, self._references
        stack = seen_stack(self.stack, self.prompts.values(), self.model)  # as in any other slide
        return Slider(stack, prompts, self.model, first, last, *how)

    def _ranked(self, index: int) -> list[Choice]:
        if index not in self.prompts:
            raise InputError(f"Slice {index} has no prompt: mark the object on it first.")
        stack = seen_stack(self.stack, self.prompts.values(), self.model)
        if self._choices is not None and self._choices[0] == (index, stack.intensity):
            return self._choices[1]
        self._choices = None
        predictor = WindowPredictor(stack, self.model, self.cache)
        seen = self.prompts[index], self.settings, predictor.embedding(index)
        choices = anchor_choices(predictor, *seen, self._references.get(index))
        self._choices = (index, stack.intensity), choices
        return choices

    def _current(self, index: int) -> Choice:
        ranked = self._ranked(index)
        wanted = self._chosen.get(index)
        return next((choice for choice in ranked if choice.number == wanted), ranked[0])

    def _preview(self, index: int, choice: Choice) -> Preview:
        return preview_of(self.stack, self.prompts[index], choice, self.settings)

    def _keep(self, finished: FinishedSlice) -> None:
        finished.mask.setflags(write=False)  # whoever is given it shares it with the result
        self._changed.discard(finished.index)
        self._masks[finished.index] = finished.mask
        self.confidence[finished.index] = finished.confidence

    def _drop(self, indices: Iterable[int]) -> None:
        for index in indices:
            self._masks.pop(index, None)
            self.confidence.pop(index, None)

    def _replace(self, prompts: Mapping[int, SlicePrompt]) -> None:
        self.prompts.clear()
        self._choices = None
        self._chosen.clear()
        self._references.clear()
        self._changed = set(prompts)
        self.prompts.update(prompts)

    def _forget(self, index: int) -> None:
        self._changed.add(index)
        if self._choices is not None and self._choices[0][0] == index:
            self._choices = None
        self._chosen.pop(index, None)
        self._references.pop(index, None)
