"""What a person does with one Segment Editor: prompts, preview, slide, correct, apply. No Qt.

The effect turns events and buttons into calls of an `Interaction` and shows its state; all of the
work in between is here. Whatever a call meets is told in `message`; nothing is raised for wrong
use, since there is nobody to catch it in a Qt slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..drawing.preview import Preview
from ..scene.prompt_set import Mark, PromptSet
from ..scene.source import SourceReader
from ..tasks.work import Work, correct_task, preview_task, run_task
from ..tasks.worker import Worker
from ..text import tr as _
from . import applying, limits
from .jobs import Jobs, Progress, sentence, stops_text
from .options import Message, Options, applied_text, left_text, slid_text, start_text
from .prompt_book import ObliqueView, PromptBook
from .readiness import Readiness
from .waiting import DROPPED, UNFIT, Waiting, awake, rest, standing, unapplied


class Interaction:
    """The state of one effect instance.

    effect : the `scriptedEffect` of the Segment Editor. on_change : called when something that is
        shown may have changed. worker, shelf : who predicts; None takes the application's.
    """

    def __init__(
        self,
        effect: Any,
        on_change: Callable[[], None],
        worker: Worker | None = None,
        shelf: Any = None,
    ) -> None:
        self.effect = effect
        self.options = Options()
        self.message = Message(start_text())
        self.preview = Preview()
        self.reader = SourceReader(effect)
        self.book = PromptBook(effect, self.reader, lambda text: self.say(text, "error"))
        self.jobs = Jobs(self, worker, shelf)
        self.waiting = Waiting(self.book)
        self.readiness = Readiness(self)
        self.on_change = on_change
        self._works: dict[str, Work] = {}

    # What there is

    @property
    def work(self) -> Work | None:
        """The work on the selected segment, if there is any."""
        return awake(self._works.get(self.book.segment_id or ""))

    @property
    def progress(self) -> Progress | None:
        """How far the slide has come, None while nothing slides."""
        return self.jobs.progress

    @property
    def sliding(self) -> bool:
        return self.jobs.sliding

    def say(self, text: str, kind: str = "info") -> None:
        """Tell the user something."""
        self.message = Message(text, kind)
        self.on_change()

    # Prompts

    def add_point(self, slice_node: Any, ras: Sequence[float], label: int) -> bool:
        """Mark a world position on the slice that a view shows; whether it was taken."""
        return self._guarded(lambda: self._add(self.book.mark(slice_node, [ras], label)))

    def add_box(self, slice_node: Any, ras: Sequence[Sequence[float]]) -> bool:
        """Mark a box by two opposite corners on the slice that a view shows."""
        return self._guarded(lambda: self._add(self.book.mark(slice_node, ras, 1)))

    def add_existing(self, slice_node: Any) -> bool:
        """Take what the segment has on the slice that a view shows as a prompt."""
        return self._guarded(lambda: self._add(self.book.existing(slice_node)))

    def remove_mark(self, number: int | None) -> bool:
        """Remove a mark; the windows of the slices it counted for are predicted again."""
        if number is None or self.sliding or not 0 <= number < len(self.book.prompts):
            return False
        self.book.save(self.book.prompts.without(number))
        work, left = self.work, len(self.book.prompts)
        if not left and (work is None or not work.dirty):
            self.clear()  # the next mark is that of another object
            return True
        if not self._guarded(self._follow):
            return True
        self.refresh()
        text = _("Removed; prompts left: {left}.").format(left=left)
        self.say(
            text if left else _("Removed. Apply or discard the result before the next object.")
        )
        return True

    def clear(self) -> None:
        """Remove all prompts of the segment, and the preview; the segment stays as it is."""
        self.jobs.abandon()
        self.preview.clear()
        segment_id = self.book.segment_id
        if segment_id is not None:
            self._works.pop(segment_id, None)
            self.book.save(PromptSet())
        self.say(start_text())

    # Jobs

    def segment(self) -> bool:
        """Slide from all prompts; whether that has begun."""
        return not self.sliding and self._guarded(self._run)

    def next_candidate(self) -> bool:
        """Show the next best candidate on the slice that was prompted last; whether it comes."""

        def step() -> None:
            work = self.work
            if work is None or not work.previews:
                after = standing(None, bool(self.book.prompts))
                raise ValueError(_("There is no preview yet.") + " " + after)
            if work.has_result:
                raise ValueError(slid_text(work.dirty))
            self._preview(work, work.latest, step=True)

        return not self.sliding and self._guarded(step)

    def cancel(self) -> None:
        """Stop sliding; the slices that are finished stay in the preview."""
        if self.sliding:
            self.jobs.cancel()
            self.say(_("Stopping after this slice ..."))

    def apply(self, correction: bool = False) -> bool:
        """Write the result, of a `correction` what is new, into the segment: one undo step."""
        return self._guarded(lambda: self._apply(correction))

    def discard(self) -> None:
        """Drop the result, keep the prompts."""
        self.jobs.abandon()
        work = self.work
        if work is not None:
            self.replace(work, work.renewed({}))
            self._guarded(self._follow)
        self.refresh()
        self.say(
            _("Discarded; the prompts are still there.") if self.book.prompts else start_text()
        )

    def poll(self, seconds: float = 0.0) -> bool:
        """Take in what the worker has done; True while it goes on. See `jobs.Jobs.poll`."""
        return self.jobs.poll(seconds)

    # What the scene does

    def selection_changed(self) -> None:
        """Another segment, or the same one with other contents."""
        if self.jobs.work is not None and self.jobs.work is not self.work:
            sliding, kept = self.sliding, self.jobs.abandon(keep=True)
            if sliding:
                self.say(left_text(kept))
        rest(self._works, self.work)
        self._guarded(self._follow)  # a preview that was under way when it was left, too
        self.refresh()
        self.on_change()

    def marks_changed(self) -> None:
        """Somebody else may have changed the marks, as undo of another edit does."""
        if self.book.saving:
            return
        if self.book.changed():
            self._guarded(self._follow)
        if self.message.kind == "info" and self._undone():
            self.say(standing(None, bool(self.book.prompts)))  # or it is still told as applied
        self.refresh()
        self.on_change()

    def check_sources(self) -> None:
        """The volume may be another, or lie elsewhere, for any of the segments."""
        sources = {work.source for work in self._works.values()}
        if not all(self.reader.unchanged(source) for source in sources):
            self.source_changed()

    def source_changed(self) -> None:
        """The volume or its voxels are others: nothing that was predicted holds any more."""
        running, loading = self.jobs.work is not None, self.jobs.loading
        known, lost = bool(self._works), any(unapplied(work) for work in self._works.values())
        self.reset()
        if loading:
            self.readiness.load()  # the same model will do
        if running:
            self.say(_("The source volume changed, so the work was stopped."))
        elif lost:
            self.say(DROPPED)
        elif known and not loading:
            self.orient()
        self.on_change()

    def orient(self) -> None:
        """Tell how far the selected segment is: what was told before is of something else."""
        work = None if self._undone() else self.work
        self.say(standing(work, bool(self.book.prompts)))

    def segment_removed(self) -> None:
        """Forget the work on segments that are gone."""
        node = self.book.segmentation_node
        contents = None if node is None else node.GetSegmentation()
        for segment_id in list(self._works):
            if contents is None or contents.GetSegment(segment_id) is None:
                if self.jobs.work is self._works[segment_id]:
                    self.jobs.abandon()
                del self._works[segment_id]
        self.refresh()
        self.on_change()

    def leave(self) -> None:
        """Stop everything, show nothing; results that were not applied wait for `come_back`."""
        self.jobs.abandon(keep=True)
        self.waiting.keep(self._works.values())
        self._forget()

    def come_back(self) -> None:
        """Take up what waits, as far as it still fits, and tell of it."""
        text = self.waiting.take_up(self._works)
        self.refresh()
        if text:
            self.say(text)

    def reset(self) -> None:
        """Stop everything, forget all results, show nothing. The prompts are in their tags."""
        self.jobs.abandon()
        self.waiting.clear()
        self._forget()

    def _forget(self) -> None:
        self._works.clear()
        self.readiness.forget()
        self.reader.forget()
        self.preview.clear()

    def refresh(self, only: Sequence[int] | None = None) -> None:
        """Bring the preview up to date."""
        work = self.work
        there = work is None or (work.has_result and not work.dirty)  # in the segment
        shown = {} if there else work.shown()
        if not shown or self.book.segmentation_node is None:
            self.preview.clear()
            return
        segment = self.book.segmentation_node.GetSegmentation().GetSegment(work.segment_id)
        weak = self.options.weak_below
        place = (self.book.segmentation_node, work.source.part, work.axis)
        self.preview.show(*place, shown, segment.GetColor(), weak, only)

    def wanted(self, work: Work) -> dict[int, list[Mark]]:
        """The prompts that count for a piece of work, by slice of its source."""
        return self.book.prompts.on_slices(work.source.part, work.axis)

    # Inner workings

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Do it, or tell the user in one sentence why not."""
        try:
            action()
        except (ValueError, RuntimeError, MemoryError) as error:
            self.say(sentence(error), "oblique" if isinstance(error, ObliqueView) else "error")
            return False
        self.on_change()
        return True

    def _undone(self) -> bool:
        work = self.work
        return work is not None and not self.sliding and applying.undone(self.effect, work)

    def _add(self, mark: Mark) -> None:
        if self.work is not None and unapplied(self.work):
            self.check_sources()
            if self.work is None:
                return  # or the click would drop the result without a word
        part, earlier = self.reader.read().part, self.book.prompts
        if not len(earlier) and not self.sliding:
            if self.work is not None and unapplied(self.work):
                raise ValueError(_("Apply or discard the result first."))
            self._works.pop(self.book.segment_id, None)  # what was there is of another object
        if self._undone():  # or a click would bring the whole result back
            self.replace(self.work, self.work.forgotten())
        prompts = earlier.with_mark(mark, part)
        work = self._current(prompts)
        if work.has_result and mark.kind != "point" and mark.axis != work.axis:
            raise ValueError(
                _(
                    "The result slides along another direction: draw in a view of those slices, "
                    "or press Clear."
                )
            )
        index = mark.slice_index(part, work.axis) - int(part.first[work.axis])
        if work.has_result and not self.sliding:
            wanted = prompts.on_slices(work.source.part, work.axis)
            limits.check_correction(work, wanted, index)
        self.book.save(prompts)
        alone = not any(each.label for each in self.wanted(work).get(index, ()))
        if self.sliding and not alone:
            self.say(_("Kept for the next run: the slide that is under way does not see it."))
            return
        if work.has_result and not self.sliding:
            task = correct_task(self.jobs.shelf, work, wanted, index)
            self.jobs.start("correct", work, task, needs=self.readiness.under_way(work, index))
            return
        if alone:
            self.say(_("Mark the object on this slice, too: a negative point alone finds nothing."))
            return
        self._preview(work, index)

    def _current(self, prompts: PromptSet) -> Work:
        """The work on the selected segment; a new one where axis, source or model changed.

        What was slid along one axis is corrected along it, whatever view a point was made in.
        """
        source, work, choice = self.reader.read(), self.work, self.options.choice
        stays = work is not None and (work.has_result or self.sliding)
        axis = work.axis if stays else prompts.slide_axis()
        fits = work is not None and work.source is source and work.choice == choice
        if fits and work.axis == axis:
            return work
        self.jobs.make_room()
        if work is not None and work.source is source:
            fresh = work.continued(axis, choice)
        else:
            fresh = Work(self.book.segment_id, axis, source, choice)
        self._works[self.book.segment_id] = fresh
        return fresh

    def replace(self, work: Work, fresh: Work) -> None:
        """Let another piece of work take the place of one, if that is still there."""
        if self._works.get(work.segment_id) is work:
            self._works[work.segment_id] = fresh

    def _follow(self) -> None:
        """Make the previews those of the marks, before there is a result."""
        work, prompts = self.work, self.book.prompts
        if work is None or work.has_result or self.sliding:
            return
        if not len(prompts):
            self.jobs.abandon()
            del self._works[work.segment_id]
            return self.say(start_text())
        work = self._current(prompts)  # along another axis, where the box that chose it is gone
        work.follow(self.wanted(work), prompts.marks)
        if work.unpreviewed(self.wanted(work)):
            self._preview(work)

    def _preview(self, work: Work, index: int | None = None, step: bool = False) -> None:
        """Predict the windows of all slices that have no preview of their marks.

        index : the slice that comes first. step : whether it gets its next candidate.
        """
        if index is not None:
            work.latest = index
        wanted = self.wanted(work)
        asked = work.unpreviewed(wanted)
        if step and index not in asked:
            asked.append(index)
        asked.sort(key=lambda each: each != index)  # the others can wait
        if not asked:
            self.jobs.abandon()
            return
        task = preview_task(self.jobs.shelf, work, wanted, asked, index if step else None)
        self.jobs.start("preview", work, task, needs=self.readiness.under_way(work, asked[0]))

    def _run(self) -> None:
        self.book.check()
        if not len(self.book.prompts):
            raise ValueError(
                _("Nothing is marked yet: click on the object or drag a box around it.")
            )
        work = self._current(self.book.prompts)
        wanted, direction = self.wanted(work), self.options.direction
        first, last = limits.limits_of(self.options, work)
        limits.check_run(work, wanted, first, last)
        work.limits = (first, last, direction)
        task = run_task(self.jobs.shelf, work, wanted)
        most = limits.possible(direction, work, wanted, first, last)
        self.jobs.start("run", work, task, most)

    def _apply(self, correction: bool) -> None:
        work = self.work
        if self.sliding or work is None or not work.has_result:
            raise ValueError(_("There is no result to apply yet: press Segment first."))
        if not self.reader.unchanged(work.source):
            raise RuntimeError(UNFIT)
        began = time.perf_counter()
        applying.apply(self.effect, work, self.options.mode, correction)
        self.refresh()
        seconds = time.perf_counter() - began
        self.say(applied_text(len(work.slices), seconds, stops_text(work.stops)))
