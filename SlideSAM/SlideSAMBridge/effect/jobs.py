"""The job of one effect instance: starting it, taking in what it emits, and its end. No Qt.

Everything here runs on the main thread. A job that was abandoned may still be at its last window
on the worker; what it emits then is never looked at.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..tasks.retreat import Notice
from ..tasks.shelf import ModelShelf, shared_shelf
from ..tasks.shortage import shortage
from ..tasks.work import Outcome, Previewed, Work
from ..tasks.worker import Job, Worker, shared_worker
from ..text import tr as _
from .options import refined_text, slices_text
from .waiting import standing

SLIDES = ("run", "correct")
# Voxels of masks that one poll takes in: some tens of milliseconds. The rest waits for the next,
# so that buttons and views go on living while a fast model slides.
POLL_VOXELS = 2**26
# By the names that SlideSAMLib has for them, which knows of no translation.
DIRECTIONS = {"backward": _("backward"), "forward": _("forward")}
STOPS = {
    "nothing left": _("nothing left"),
    "too small": _("too small"),
    "low quality": _("low quality"),
    "disagreement": _("disagreement"),
    "sudden growth": _("sudden growth"),
    "limit reached": _("limit reached"),
    "end of volume": _("end of volume"),
    "met the next prompt": _("met the next prompt"),
    "cancelled": _("cancelled"),
}


@dataclass(frozen=True)
class Progress:
    """How far a slide has come: slices done, at most how many, and seconds left at most."""

    done: int
    possible: int | None
    seconds_left: float | None


@dataclass
class News:
    """What has come of some events: the slices to show anew, or all of them, and what to say."""

    changed: set[int] = field(default_factory=set)
    everything: bool = False
    texts: list[str] = field(default_factory=list)


class Jobs:
    """At most one job at a time, for one Interaction."""

    def __init__(self, owner: Any, worker: Worker | None, shelf: ModelShelf | None) -> None:
        self.worker = worker or shared_worker()
        self.shelf = shelf or shared_shelf
        self.job: Job | None = None
        self.work: Work | None = None
        self.progress: Progress | None = None
        self._owner = owner
        self._before: Work | None = None  # what to go back to where a slide comes to nothing
        self._began = 0.0
        self._possible: int | None = None
        self._polling = False
        self._waiting: deque[Any] = deque()  # events of the job that were not taken in yet

    @property
    def sliding(self) -> bool:
        return self.job is not None and self.job.kind in SLIDES

    @property
    def loading(self) -> bool:
        return self.job is not None and self.job.kind == "load"

    def start(
        self,
        kind: str,
        work: Work | None,
        task: Callable[[Job], None],
        possible: int | None = None,
        needs: Job | None = None,
    ) -> None:
        """Start a job; one that is under way is abandoned. Loading a model is no segment's work.

        needs : the job that is under way, where it goes on since this one uses its result.
        """
        if needs is None:
            self.abandon()
        else:
            self._end()
        self.work = work
        self._began, self._possible = time.perf_counter(), possible
        if kind in SLIDES:
            self._before = work.renewed(work.slices)
            wanted = self._owner.wanted(work)  # marks that are made from now on are not seen by it
            work.marks = Counter((index, m.key) for index, marks in wanted.items() for m in marks)
            self.progress = Progress(0, possible, None)
        if kind == "run":
            work.slices, work.stops, work.unfinished = {}, {}, True
        self.job = self.worker.submit(kind, task, early=kind == "aim", needs=needs)
        beginning = _beginning(kind)
        if beginning is None:
            self._owner.on_change()
        else:
            self._owner.say(beginning)

    def make_room(self) -> None:
        """Abandon it, unless it may be what the next one needs."""
        if self.job is not None and self.job.kind != "aim":
            self.abandon()

    def cancel(self) -> None:
        """End it soon; what is finished still comes."""
        if self.job is not None:
            self.job.cancel()

    def abandon(self, keep: bool = False) -> int:
        """End it, and look at nothing it emits any more.

        keep : leave the slices that a run has finished in its work, as `cancel` does. Without them
        all is as if the slide had not been started. Returns how many there are.
        """
        if keep and self.sliding:
            self._waiting.extend(self.job.take())
            while self._waiting:  # before it is cancelled, or a whole result would be half of one
                self._take(self._waiting.popleft(), News())
        if self.job is not None:
            self.job.cancel()
        kept = 0
        if self.work is not None and self.sliding:
            # Another work, since the session of this one is half way through something.
            fresh = self._before
            if keep and self.job.kind == "run" and self.work.slices:
                fresh, kept = self.work.renewed(self.work.slices), len(self.work.slices)
            self._owner.replace(self.work, fresh)
        self._end()
        return kept

    def poll(self, seconds: float) -> bool:
        """Take in what was emitted, see POLL_VOXELS; True while the job goes on.

        Waits up to `seconds` for news. That lets the worker run: see `worker`.
        """
        if self.job is None or self._polling:
            return self.job is not None
        self._polling = True
        try:
            job = self.job
            if seconds and not self._waiting:
                job.wait(seconds)
            finished = job.finished  # asked before taking, so that nothing is left behind
            self._waiting.extend(job.take())
            self._tell(self._take_some())
            if self.job is job and finished and not self._waiting:
                self._finish(job)
        finally:
            self._polling = False
        return self.job is not None

    def _take_some(self) -> News:
        news, voxels = News(), 0
        while self._waiting and voxels < POLL_VOXELS:
            event = self._waiting.popleft()
            self._take(event, news)
            voxels += _voxels(event)
        return news

    def _tell(self, news: News) -> None:
        """Show what is new, once for all events; whoever is told may end the job."""
        job = self.job
        if news.everything or news.changed:
            self._owner.refresh(None if news.everything else sorted(news.changed))
            self._owner.on_change()
        for text in news.texts:
            # Or it would hide what was said about the end, or about a click that was refused.
            if self.job is job and self._owner.message.kind == "info":
                self._owner.say(text)

    def _take(self, event: Any, news: News) -> None:
        work = self.work
        if isinstance(event, Notice):
            text = notice_text(event)
            if event.kind == "loaded":
                text += " " + standing(self._owner.work, bool(self._owner.book.prompts))
            news.texts.append(text)
        elif isinstance(event, Previewed):
            index = event.preview.index
            work.previews[index], work.previewed[index] = event.preview, event.marks
            work.chosen.pop(index, None)
            if event.chosen:
                work.chosen[index] = event.preview.candidate
            news.everything = True
            if index == work.latest:
                news.texts.append(_about(event, work))
        elif isinstance(event, Outcome):
            work.slices, work.stops = event.slices, event.stops
            work.dirty = bool(event.slices)
            if self.job.kind == "run":
                work.unfinished = self.job.cancelled()
            news.everything = True
        else:  # a finished slice
            work.slices[event.index] = (event.mask, event.confidence)
            work.dirty = True
            self._count(event)
            news.changed.add(event.index)
            news.everything |= len(work.slices) == 1  # in place of the previewed windows

    def _count(self, event: Any) -> None:
        seconds = time.perf_counter() - self._began
        left = None
        if self._possible is not None and event.done:
            left = seconds / event.done * max(0, self._possible - event.done)
        self.progress = Progress(event.done, self._possible, left)

    def _finish(self, job: Job) -> None:
        work, owner = self.work, self._owner
        cancelled = job.cancelled()
        if job.kind in SLIDES and (job.error is not None or (cancelled and not work.slices)):
            work = work.renewed(work.slices) if work.slices else self._before
            owner.replace(self.work, work)
        self._end()
        owner.refresh()
        if job.error is not None:
            owner.say(sentence(job.error), "error")
        elif job.kind in SLIDES and cancelled:
            owner.say(
                _(
                    "Cancelled, with {slices} in the preview: apply or discard the result, or "
                    "segment again."
                ).format(slices=slices_text(len(work.slices)))
            )
        elif job.kind in SLIDES:
            owner.say(_summary(work, owner.options.auto_apply))
            if owner.options.auto_apply:
                owner.apply(correction=job.kind == "correct")
        owner.on_change()

    def _end(self) -> None:
        self.job = self.work = self.progress = self._before = None
        self._waiting.clear()


def _voxels(event: Any) -> int:
    """How many voxels there are to write for an event: those of a finished slice."""
    mask = getattr(event, "mask", None)
    return 0 if mask is None else int(mask.size)


def _beginning(kind: str) -> str | None:
    """What to say of a job; None of one that nobody asked for and nobody waits for."""
    return {
        "aim": None,
        "load": _("Loading the model; you can mark the object meanwhile."),
        "preview": _("Predicting ..."),
        "run": _("Segmenting ..."),
        "correct": _("Correcting ..."),
    }[kind]


def notice_text(notice: Notice) -> str:
    if notice.kind == "cpu":
        return _("The GPU's memory is too small for this model: going on with the CPU.")
    if notice.kind == "smaller":
        return _("The GPU's memory is too small: trying again with less of it.")
    return _("Ready: {model}.").format(model=notice.detail)


def _about(event: Previewed, work: Work) -> str:
    index = event.preview.index + int(work.source.part.first[work.axis])
    text, after = _("Slice {index}: confidence {confidence:.0%}, {model}."), refined_text()
    if not event.preview.masks[event.preview.index].any():
        text = _("Slice {index}: nothing was found, {model}.")
        after = _("Add points, or drag a box around the object.")
    text = text.format(index=index, confidence=event.preview.confidence, model=event.model)
    if event.candidates > 1:
        text += " " + _("C shows another mask.")
    return f"{text} {after}"


def _summary(work: Work, applied: bool) -> str:
    if not any(mask.any() for mask, _ in work.slices.values()):
        return _("Nothing was found: mark the object with a box, or with more points.")
    stops = stops_text(work.stops)
    text = _("Found {slices} ({stops}).").format(slices=slices_text(len(work.slices)), stops=stops)
    return text if applied else text + " " + _("Press Apply to write them into the segment.")


def stops_text(stops: dict[str, str]) -> str:
    """Why a slide ended, direction by direction; "" where nobody knows."""
    return ", ".join(
        f"{text}: {STOPS.get(stops[name], stops[name])}"
        for name, text in DIRECTIONS.items()
        if name in stops
    )


def sentence(error: BaseException) -> str:
    """What to show of an error; those that are not ours get their type, for reports."""
    text = shortage(error)
    if text is not None:
        return text
    if isinstance(error, (ValueError, RuntimeError)) and str(error):
        return str(error)
    return _("The work failed ({kind}: {error}); the Python console has the details.").format(
        kind=type(error).__name__, error=error
    )
