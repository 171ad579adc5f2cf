"""The work on one segment, and the jobs that the worker does for it. No Qt, no MRML.

Functions whose name ends in `_task` make what the worker performs; they and all they call run on
the worker. A `Work` has one half for either side: `session`, `used` and `corrected` belong to the
worker, the rest to the main thread, which learns of progress from what the jobs emit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..scene.prompt_set import Mark, in_slice, slice_prompt
from ..scene.source import Source
from ..setup.library import missing_package
from .corrected import Corrected, keys_of
from .retreat import Notice, on_any_device
from .shelf import ModelChoice, ModelShelf
from .worker import Job

Wanted = dict[int, list[Mark]]


@dataclass(frozen=True, eq=False)
class Previewed:
    """What one window says, emitted by `preview_task`.

    marks : as `Work.previewed` has them. chosen : whether it is the candidate that was asked for.
    candidates : how many there are.
    """

    preview: Any
    marks: frozenset
    chosen: bool
    candidates: int
    model: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a slide ended: the whole result, and why it stopped; emitted last."""

    slices: dict[int, tuple[Any, float]]
    stops: dict[str, str]
    model: str


@dataclass(eq=False)
class Work:
    """What is known of one segment on one source.

    previews : slice index -> SlideSAMLib.session.Preview, before anything slides.
    previewed : slice index -> the Mark.key of all marks that its preview was made from.
    chosen : slice index -> number of the candidate that the user chose there, if he did.
    slices : slice index -> (mask, bool (H, W); confidence, 0..1), the result of the slide.
    initial : a result from before, for the session to go on from.
    marks : the marks of the last slide, as (slice index, Mark.key) with how often they are there.
    written : what was applied last, see `applying`.
    dirty : whether `slices` has something that was not applied.
    unfinished : whether the run was stopped: `slices` says nothing about other slices then.
    limits : first and last slice and direction of the last run; corrections keep to them.
    latest : the slice that was prompted last.
    packed : whether the masks of `slices` are bits, see `waiting.rest`.
    corrected : slice index -> what a correction there has made of its marks.
    Slice indices count from the start of `source.part` along `axis` (an index into (I, J, K)).
    """

    segment_id: str
    axis: int
    source: Source
    choice: ModelChoice
    previews: dict[int, Any] = field(default_factory=dict)
    previewed: dict[int, frozenset] = field(default_factory=dict)
    chosen: dict[int, int] = field(default_factory=dict)
    slices: dict[int, tuple[Any, float]] = field(default_factory=dict)
    initial: dict[int, tuple[Any, float]] = field(default_factory=dict)
    marks: Counter = field(default_factory=Counter)
    stops: dict[str, str] = field(default_factory=dict)
    written: Any = None
    dirty: bool = False
    unfinished: bool = False
    limits: tuple[int | None, int | None, str] = (None, None, "both")
    latest: int = 0
    packed: bool = False
    session: Any = None
    used: dict[int, set[tuple]] = field(default_factory=dict)
    corrected: dict[int, Corrected] = field(default_factory=dict)

    @property
    def has_result(self) -> bool:
        return bool(self.slices)

    @property
    def weakest(self) -> int | None:
        """The least sure slice, of those without marks if there are any; None without a result."""
        marked = {index for index, _key in self.marks}
        pool = set(self.slices) - marked or set(self.slices)
        return min(pool, key=lambda index: (self.slices[index][1], index), default=None)

    def renewed(self, slices: dict[int, tuple[Any, float]]) -> Work:
        """A new piece of work that goes on from a result; no older job knows of it."""
        return Work(
            self.segment_id,
            self.axis,
            self.source,
            self.choice,
            previews=dict(self.previews),
            previewed=dict(self.previewed),
            chosen=dict(self.chosen),
            slices=dict(slices),
            initial=dict(slices),
            marks=self.marks,
            stops=dict(self.stops) if slices else {},
            written=self.written,
            dirty=self.dirty and bool(slices),
            unfinished=self.unfinished and bool(slices),
            limits=self.limits,
            latest=self.latest,
            corrected=dict(self.corrected) if slices else {},
        )

    def forgotten(self) -> Work:
        """A new piece of work as before the first slide: the result was undone."""
        fresh = self.renewed({})
        fresh.written = None
        return fresh

    def continued(self, axis: int, choice: ModelChoice) -> Work:
        """A new one along another axis, or with another model, which corrects the same result."""
        if axis != self.axis:
            return Work(self.segment_id, axis, self.source, choice, written=self.written)
        nothing = {"previews": {}, "previewed": {}, "chosen": {}, "latest": 0}
        return replace(self.renewed(self.slices), choice=choice, **nothing)

    def unpreviewed(self, wanted: Wanted) -> list[int]:
        """The slices on which the object is marked, and that have no preview of these marks."""
        return [
            index
            for index, marks in wanted.items()
            if any(mark.label for mark in marks) and self.previewed.get(index) != keys_of(marks)
        ]

    def marked(self, wanted: Wanted) -> list[int]:
        """The slices that a slide goes by: on them the object is marked, or was corrected."""
        return [
            index
            for index, marks in wanted.items()
            if any(mark.label for mark in marks) or self.correction(index, marks) is not None
        ]

    def correction(self, index: int, marks: Iterable[Mark]) -> Corrected | None:
        """What was made of these marks of a slice, where they have corrected it."""
        found = self.corrected.get(index)
        return found if found is not None and found.keys == keys_of(marks) else None

    def choices(self, wanted: Wanted) -> dict[int, int]:
        """What was chosen among the candidates for these marks, for a session that has to know."""
        return {
            index: number
            for index, number in self.chosen.items()
            if self.previewed[index] == keys_of(wanted.get(index, ()))
        }

    def follow(self, wanted: Wanted, marks: Iterable[Mark]) -> None:
        """Drop the previews of slices on which the object is not marked any more.

        marks : all of them, as they were given; the last one tells which slice is the latest.
        """
        slices = {mark: i for i, found in wanted.items() for mark in found if mark.label}
        for index in set(self.previews) - set(slices.values()):
            del self.previews[index], self.previewed[index]
            self.chosen.pop(index, None)
        if self.latest not in slices.values():
            given = [slices[mark] for mark in marks if mark in slices]
            self.latest = given[-1] if given else self.latest

    def go_on_from(self, state: Any) -> None:
        """Give up the session; the next one goes on from a SlideSAMLib.session.Snapshot."""
        self.initial = {index: (m, state.confidence[index]) for index, m in state.masks.items()}
        self.session = None

    def shown(self) -> dict[int, tuple[Any, float]]:
        """What the preview is to show: the result; before there is one, the previewed windows."""
        if self.slices:
            return dict(self.slices)
        out: dict[int, tuple[Any, float]] = {}
        for preview in self.previews.values():
            for index, mask in preview.masks.items():
                if index not in self.previews:
                    out[index] = (mask, preview.confidence)
        for index, preview in self.previews.items():
            out[index] = (preview.masks[index], preview.confidence)
        return out


def load_task(shelf: ModelShelf, choice: ModelChoice) -> Callable[[Job], None]:
    """Load a model and let it rehearse; emits a Notice as soon as it can be used."""

    def perform(job: Job) -> None:
        model = _model(shelf, choice)
        from SlideSAMLib.rehearsal import rehearse

        job.emit(Notice("loaded", _describe(model)))
        rehearse(model, job.cancelled)

    return on_any_device(shelf, choice, perform)


def aim_task(
    shelf: ModelShelf, choice: ModelChoice, source: Source, axis: int, index: int
) -> Callable[[Job], None]:
    """Encode the window of a slice on which nothing is marked yet, where that is worth it."""

    def perform(job: Job) -> None:
        model = _model(shelf, choice)
        from SlideSAMLib.protocol import encodes_early
        from SlideSAMLib.window import WindowPredictor

        if encodes_early(model):  # else not even the stack is worth its time
            predictor = WindowPredictor(_stack(source, axis), model, shelf.cache())
            predictor.prepare(index, job.cancelled)

    return on_any_device(shelf, choice, perform)


def preview_task(
    shelf: ModelShelf, work: Work, wanted: Wanted, indices: Iterable[int], step: int | None = None
) -> Callable[[Job], None]:
    """Predict the windows of prompted slices; of the slice `step` the next best candidate."""
    choices = work.choices(wanted)

    def perform(job: Job) -> None:
        session = _session(shelf, work)
        _sync(session, work, wanted, choices)
        for index in indices:
            if job.cancelled():
                return
            if index not in session.prompts:
                continue
            ask = session.next_candidate if index == step else session.preview
            preview = ask(index)
            count = session.model.traits.candidates
            model = _describe(session.model)
            keys = keys_of(wanted[index])
            job.emit(Previewed(preview, keys, index == step, count, model))

    return on_any_device(shelf, work.choice, perform, work)


def run_task(shelf: ModelShelf, work: Work, wanted: Wanted) -> Callable[[Job], None]:
    """Slide from all prompts within the limits of the work.

    Emits SlideSAMLib.FinishedSlice and, last, the Outcome.
    """
    limits, choices = work.limits, work.choices(wanted)

    def perform(job: Job) -> None:
        session = _session(shelf, work)
        _sync(session, work, wanted, choices)
        for finished in session.run(*limits, job.cancelled):
            job.emit(finished)
        job.emit(_outcome(session))

    return on_any_device(shelf, work.choice, perform, work)


def correct_task(
    shelf: ModelShelf, work: Work, wanted: Wanted, index: int
) -> Callable[[Job], None]:
    """Refine one slice with what is new on it, and slide again where it matters."""
    limits, choices = work.limits, work.choices(wanted)

    def perform(job: Job) -> None:
        session = _session(shelf, work)
        session.keep_to(*limits)  # it may be a new one, which has not seen the run
        marks = wanted.get(index, [])
        used = work.used.get(index, set())
        others = {i: m for i, m in wanted.items() if i != index}
        _sync(session, work, others, choices, keep=index)
        prompt = _correction(session, work, index, marks, used)
        session.set_prompt(prompt)
        for each in wanted:  # a new session has it last: see `PromptSet.on_slices`
            if each in session.prompts:
                session.prompts[each] = session.prompts.pop(each)
        for finished in session.correct(prompt, job.cancelled):
            job.emit(finished)
        work.used[index] = {mark.key for mark in marks}
        work.corrected[index] = Corrected.of(prompt, keys_of(marks))
        job.emit(_outcome(session))

    return on_any_device(shelf, work.choice, perform, work)


def _model(shelf: ModelShelf, choice: ModelChoice) -> Any:
    try:
        return shelf.model(choice)
    except ImportError as error:
        raise missing_package(error) from error


def _session(shelf: ModelShelf, work: Work) -> Any:
    model = _model(shelf, work.choice)
    from SlideSAMLib import Session
    from SlideSAMLib.session import Snapshot

    if work.session is not None and work.session.model is model:
        return work.session
    work.session = Session(_stack(work.source, work.axis), model, cache=shelf.cache())
    shelf.lend(work)
    work.used.clear()
    masks = {index: mask for index, (mask, _) in work.initial.items()}
    confidence = {index: value for index, (_, value) in work.initial.items()}
    work.session.restore(Snapshot(masks, confidence, {}))
    return work.session


def _stack(source: Source, axis: int) -> Any:
    """The source along an axis; kept for all segments, as making it looks at every voxel."""
    from SlideSAMLib import Stack

    spacing = source.part.spacing
    if (axis, spacing) not in source.stacks:
        source.stacks[axis, spacing] = Stack(
            source.voxels,
            axis=2 - axis,  # (I, J, K) to the array axes (K, J, I)
            spacing=spacing,
            key=source.signature,
        )
    return source.stacks[axis, spacing]


def _sync(
    session: Any, work: Work, wanted: Wanted, choices: dict[int, int], keep: int | None = None
) -> None:
    """Give the session the prompts that changed; a correction's prompt stays while its marks do.

    choices : as `Work.choices` gives them; a new session has not seen them being made.
    """
    from SlideSAMLib import InputError

    new = not work.used
    for index in list(session.prompts):
        if index not in wanted and index != keep:
            session.remove_prompt(index)
            work.used.pop(index, None)
    for index, marks in wanted.items():
        keys = {mark.key for mark in marks}
        if keys == work.used.get(index):
            continue
        known = work.correction(index, marks)
        try:
            session.set_prompt(
                slice_prompt(index, marks, work.source.part, work.axis)
                if known is None
                else known.prompt(index)
            )
        except InputError:
            if any(mark.label for mark in marks):
                raise
            session.remove_prompt(index)  # negative points alone: nothing to segment here yet
            work.used.pop(index, None)
            continue
        work.used[index] = keys
    if new:
        session.restore(session.snapshot())  # what it goes on from came from these prompts
        session.keep_choices(choices)


def _correction(session: Any, work: Work, index: int, marks: list[Mark], used: set[tuple]) -> Any:
    keys = {mark.key for mark in marks}
    fresh = [mark for mark in marks if mark.key not in used]
    part, axis = work.source.part, work.axis
    if not used <= keys or any(mark.kind == "mask" for mark in fresh):
        return slice_prompt(index, marks, part, axis)
    points = [mark for mark in fresh if mark.kind == "point"]
    boxes = [mark for mark in fresh if mark.kind == "box"]
    box = slice_prompt(index, boxes, part, axis).box if boxes else None
    return session.correction(
        index,
        [in_slice(part, axis, mark.positions[0]) for mark in points],
        [mark.label for mark in points],
        box,
    )


def _outcome(session: Any) -> Outcome:
    state = session.snapshot()
    slices = {index: (mask, state.confidence[index]) for index, mask in state.masks.items()}
    stops = {name: str(stop) for name, stop in state.stops.items()}
    return Outcome(slices, stops, _describe(session.model))


def _describe(model: Any) -> str:
    return f"{model.traits.name} ({model.device}, {model.precision})"
