"""One front of a slide: it moves from a prompted slice, window by window. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..patches import Patch, dice, patch_of_mask, stability
from ..prompts import SlicePrompt
from ..protocol import WindowPrediction, WindowPrompt
from ..window import WindowPredictor
from .candidates import Choice, best, rank
from .corrections import corrected, rejected
from .fusion import SliceRecord
from .next_prompt import first_prompt, following_prompt
from .outline import MOVING, held, moved_on, reach_mm
from .slide_types import Reference, SlideSettings
from .stops import Findings, Stop, judge


@dataclass(eq=False)
class Anchor:
    """A slice that the user prompted, predicted by its own window.

    outer : what this window said about the slices beside it, by slice index.
    voxels : size of the slice's mask.
    memory : what the model remembers of the slice, or None.
    rejected : the mask that a correction has emptied, or None.
    points_alone : whether its prompt was nothing but points.
    """

    index: int
    record: SliceRecord
    outer: dict[int, SliceRecord]
    voxels: int
    memory: Any
    rejected: Patch | None = None
    points_alone: bool = False


def anchor_choices(
    predictor: WindowPredictor,
    prompt: SlicePrompt,
    settings: SlideSettings,
    embedding: Any,
    reference: Reference | None = None,
) -> list[Choice]:
    """The candidates of a prompted slice's window, the best one first.

    embedding : of this window.
    reference : another slice with the object, which the model may remember; or None.
    """
    shape = (predictor.stack.height, predictor.stack.width)
    knows_masks = "mask" in predictor.model.traits.prompts
    memory, distance = None, 0
    if reference is not None and settings.use_memory:
        memory = predictor.remember(reference.index, reference.mask)
        distance = abs(prompt.index - reference.index)
    window_prompt = first_prompt(prompt, shape, settings, knows_masks, memory, distance)
    (prediction,) = predictor.predict_many([embedding], [window_prompt])
    kept = kept_mask(prompt, settings)
    choices = rank(prediction, {} if kept is None else {1: kept}, settings)
    if prompt.mask is None or not prompt.points:
        return choices
    image, spacing = predictor.stack.slice(prompt.index), predictor.stack.spacing[1:]
    return [
        replace(choice, patches=corrected(choice.patches, prompt, image, spacing))
        for choice in choices
    ]


def kept_mask(prompt: SlicePrompt, settings: SlideSettings) -> Patch | None:
    """The mask of a prompt that is a mask alone, where the settings say that it stays; or None."""
    if not settings.keep_mask_prompts or prompt.mask is None or prompt.points:
        return None
    return patch_of_mask(prompt.mask, settings.logit_limit)


def predict_anchor(
    predictor: WindowPredictor,
    prompt: SlicePrompt,
    settings: SlideSettings,
    embedding: Any,
    candidate: int | None = None,
    reference: Reference | None = None,
) -> Anchor:
    """Predict the window of a prompted slice.

    candidate : the number of the candidate that the user chose; None lets the scores decide.
    embedding, reference : as in `anchor_choices`.
    """
    stack = predictor.stack
    choices = anchor_choices(predictor, prompt, settings, embedding, reference)
    choice = next((c for c in choices if c.number == candidate), choices[0]).detached()
    patch = kept_mask(prompt, settings) or choice.patches[1]
    record = SliceRecord(settings, quality=choice.quality, presence=_at(choice, 1))
    record.add(patch, settings.centre_weight, central=True)
    outer = {}
    for place in (0, 2):
        neighbour = prompt.index + place - 1
        if 0 <= neighbour < stack.slices:
            outer[neighbour] = SliceRecord(settings, presence=_at(choice, place))
            outer[neighbour].add(choice.patches[place], settings.outer_weight)
    memory = None
    if settings.use_memory and patch.voxels:
        memory = predictor.remember(prompt.index, patch.mask((stack.height, stack.width)))
    return Anchor(
        prompt.index,
        record,
        outer,
        patch.voxels,
        memory,
        rejected(prompt, patch),
        prompt.points_alone,
    )


def told_confidence(confidence: float, points_alone: bool, settings: SlideSettings) -> float:
    """The confidence that a user is told of a slice, 0..1; stops go by the one without caution.

    Points alone may have meant something else than was found, however sure the outline of that is.
    The power is that which fitted an earlier built-in model on its training volumes, 1.37, rounded;
    there it took the calibration error from 0.074 to 0.020 (`Testing/Benchmarks/calibration.py`).
    """
    return confidence**settings.point_caution if points_alone else confidence


@dataclass(frozen=True, eq=False)
class Question:
    """The next window of a front.

    known : place in the window (0 before, 1 centre, 2 after) -> what is known of that slice.
    """

    centre: int
    prompt: WindowPrompt
    known: dict[int, Patch]


@dataclass(eq=False)
class Front:
    """Slides from an anchor in one direction, up to and including the slice `bound`.

    direction : +1 or -1.
    bound_stop : the reason to give when the bound is reached.
    nearest : slice index -> the anchor nearest to it (for memory and growth).
    open_end : nobody has said how far the object goes in this direction.
    avoided : the mask rejected at the far end of a stretch, or None. The object ends before it: at
        the latest where a mask is more like it than like the anchor's.

    position : the last slice whose own window was accepted.
    stop : why the front ended, or None while it can go on.
    records : what is known of the slices around `position`.
    """

    predictor: WindowPredictor
    settings: SlideSettings
    anchor: Anchor
    direction: int
    bound: int
    bound_stop: Stop
    nearest: Callable[[int], Anchor]
    open_end: bool = False
    avoided: Patch | None = None
    position: int = field(init=False)
    stop: Stop | None = field(init=False, default=None)
    records: dict[int, SliceRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.position = self.anchor.index
        self._start = self.anchor.record.fused()
        self._prompting = prompt_settings(self.settings, self.predictor.model.traits.box_margin)
        self.records = {self.anchor.index: self.anchor.record}
        following = self.position + self.direction
        if following in self.anchor.outer:
            # A record of its own: two fronts may come to the same slice from the two sides.
            known = self.anchor.outer[following]
            self.records[following] = SliceRecord(
                self.settings, list(known.views), presence=known.presence
            )
        self.stop = self._look_ahead()

    @property
    def _may_end(self) -> bool:
        """Whether the object may end before the bound: by its user, it goes on up to a limit."""
        return self.open_end or self.avoided is not None

    def coming(self) -> list[int]:
        """The centres that this front will ask for, in order, if nothing stops it."""
        if self.stop is not None:
            return []
        beyond = self.bound + self.direction
        return list(range(self.position + self.direction, beyond, self.direction))

    def ask(self) -> Question:
        """What to predict next. Nothing changes before the answer is taken."""
        centre = self.position + self.direction
        known = {
            1: self.records[centre].fused(),
            1 - self.direction: self.records[self.position].fused(),
        }
        stack, anchor = self.predictor.stack, self.nearest(centre)
        prompt = following_prompt(
            known,
            (stack.height, stack.width),
            self._prompting,
            "mask" in self.predictor.model.traits.prompts,
            anchor.memory,
            abs(centre - anchor.index),
        )
        return Question(centre, prompt, known)

    def take(self, question: Question, prediction: WindowPrediction) -> list[int]:
        """Move by one slice, or stop, with the prediction of the window that was asked for.

        Returns the slices that changed; none where the window was refused.
        """
        centre, known = question.centre, question.known
        behind_place = 1 - self.direction
        choice = best(prediction, known, self.settings)
        choice = self._held(choice, known[behind_place]).detached()
        weight, presence = self.settings.centre_weight, _at(choice, 1)
        record = self.records[centre].joined(choice.patches[1], weight, choice.quality, presence)
        self.stop = self._judge(choice, record, known[behind_place], self.nearest(centre))
        if self.stop is not None:
            return []
        self._accept(centre, choice, record)
        self.stop = self._look_ahead()
        return [centre, centre - self.direction]

    def _held(self, choice: Choice, behind: Patch) -> Choice:
        """The choice with its outlines held to those of the slices before them, see `outline`."""
        spacing = self.predictor.stack.spacing
        reach = reach_mm(spacing, self.settings.outline_slope, self.settings.outline_voxels)
        patches = list(choice.patches)
        past = [behind, *self._behind(MOVING - 1)]  # the newest first
        for place in (1, 1 + self.direction):
            expected = moved_on(past, spacing[1:], reach)
            patches[place] = held(patches[place], expected, spacing[1:], reach)
            past.insert(0, patches[place])
        return replace(choice, patches=tuple(patches))

    def _behind(self, count: int) -> list[Patch]:
        """Up to so many slices behind the position, the newest first."""
        indices = [self.position - n * self.direction for n in range(1, count + 1)]
        return [self.records[index].fused() for index in indices if index in self.records]

    def _judge(
        self, choice: Choice, record: SliceRecord, behind: Patch, nearest: Anchor
    ) -> Stop | None:
        """Why the choice is refused, or None; `record` is what the slice would be with it."""
        patch = choice.patches[1]
        if self.avoided is not None and dice(patch, self.avoided) > dice(patch, self._start):
            return Stop.NOTHING_LEFT
        found = Findings(
            voxels=patch.voxels,
            voxels_prompted=nearest.voxels,
            voxels_start=self.anchor.voxels,
            presence=_at(choice, 1) if self._may_end else None,
            quality=choice.quality,
            stability=stability(patch),
            agreement=choice.agreement,
            voxels_before=behind.voxels,
            confidence=record.lasting() if self.open_end else None,
        )
        return judge(found, self.predictor.stack.voxel_area, self.settings)

    def _accept(self, centre: int, choice: Choice, record: SliceRecord) -> None:
        settings = self.settings
        behind_place, ahead_place = 1 - self.direction, 1 + self.direction
        self.records[centre] = record
        prompted = self.position == self.anchor.index
        weight = settings.prompted_outer_weight if prompted else settings.outer_weight
        self.records[self.position].add(choice.patches[behind_place], weight)
        following = centre + self.direction
        stack = self.predictor.stack
        if 0 <= following < stack.slices:
            width_mm = math.sqrt(max(choice.patches[1].voxels, 1) * stack.voxel_area)
            trust, hold = record.inherited(stack.spacing[0] / width_mm)
            new = SliceRecord(settings, presence=_at(choice, ahead_place), trust=trust, hold=hold)
            new.add(choice.patches[ahead_place], settings.outer_weight)
            self.records[following] = new
        self.position = centre
        # What lies further behind is final; only outlines that move and other fronts look back.
        kept = range(-1, max(settings.meet_overlap + 2, MOVING))
        self.records = {
            index: known
            for index, known in self.records.items()
            if (centre - index) * self.direction in kept
        }

    def _look_ahead(self) -> Stop | None:
        """Why the front cannot go on from where it is, or None."""
        if self.position == self.bound:
            return self.bound_stop
        if not self.records[self.position].fused().voxels:
            return Stop.NOTHING_LEFT
        record = self.records[self.position + self.direction]
        found = Findings(
            voxels=record.fused().voxels,
            voxels_prompted=self.nearest(self.position).voxels,
            presence=record.presence if self._may_end else None,
        )
        return judge(found, self.predictor.stack.voxel_area, self.settings)


def prompt_settings(settings: SlideSettings, margin: float) -> SlideSettings:
    """The settings with only as much enlargement of boxes as the model needs, 0..1."""
    return replace(
        settings,
        enlarge_fraction=margin * settings.enlarge_fraction,
        enlarge_voxels=margin * settings.enlarge_voxels,
    )


def _at(choice: Choice, place: int) -> float | None:
    return None if choice.presence is None else choice.presence[place]


def nearest_anchor(anchors: dict[int, Anchor]) -> Callable[[int], Anchor]:
    """A function from slice index to the nearest anchor; of two equally near ones the lower.

    Anchors without a mask, slices that a user has emptied, count only where there is no other:
    they know neither the object's look nor its size.
    """
    filled = [index for index, anchor in anchors.items() if anchor.voxels]
    indices = np.array(sorted(filled or anchors))
    return lambda index: anchors[int(indices[np.argmin(np.abs(indices - index))])]
