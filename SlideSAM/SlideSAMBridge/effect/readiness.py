"""What is done before the user marks anything, so that the first click need not wait. No Qt."""

from __future__ import annotations

from typing import Any

from ..drawing import slice_views
from ..scene.source import Source
from ..tasks.shelf import ModelChoice
from ..tasks.work import Work, aim_task, load_task
from ..tasks.worker import Job


class Readiness:
    """Loads the model, and encodes the window that the mouse is over, for one Interaction."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._aimed: tuple | None = None  # (model choice, axis, index) of the window last encoded
        self._source: Source | None = None  # of that window
        self._job: Job | None = None  # that encodes it, or has done so unless it was cancelled

    def load(self) -> None:
        """Load the model before it is needed: importing PyTorch alone takes seconds."""
        jobs = self._owner.jobs
        if jobs.job is None:
            jobs.start("load", None, load_task(jobs.shelf, self._owner.options.choice))

    def aim_at(self, slice_node: Any) -> None:
        """The mouse moves over a view: its slice is what will be marked next.

        Only while nothing else is done, and no error is shown that waits for the user. Whatever the
        user starts meanwhile ends it, done or not, unless that needs the same window.
        """
        owner = self._owner
        if owner.jobs.job is not None or owner.message.kind == "error":
            return
        choice, part = owner.options.choice, owner.reader.part()
        shown = None if part is None else slice_views.shown_slice(slice_node, part)
        if choice.name == ModelChoice.name or shown is None:
            return
        if (choice, *shown) == self._aimed and not self._job.cancelled():
            return
        work = owner.work
        if work is not None and work.has_result and work.axis != shown[0]:
            return  # a point on it counts for slices of the other direction
        try:
            axis, index, part = owner.book.place(slice_node)
            source = owner.reader.read()
        except (ValueError, RuntimeError):  # what is wrong is said to those who click
            return
        task = aim_task(owner.jobs.shelf, choice, source, axis, index - int(part.first[axis]))
        owner.jobs.start("aim", None, task)
        self._aimed, self._source = (choice, axis, index), source
        self._job = owner.jobs.job

    def under_way(self, work: Work, index: int) -> Job | None:
        """The job that encodes a window of a piece of work now: it need not be done twice."""
        window = (work.choice, work.axis, index + int(work.source.part.first[work.axis]))
        same = window == self._aimed and work.source is self._source
        return self._job if same and self._owner.jobs.job is self._job else None

    def forget(self) -> None:
        """The source may be another one."""
        self._aimed = self._source = self._job = None
