"""What is done before the user marks anything, so that the first click need not wait. No Qt."""

from __future__ import annotations

from typing import Any

from . import slice_views
from .shelf import ModelChoice
from .work import aim_task, load_task


class Readiness:
    """Loads the model, and encodes the window that the mouse is over, for one Interaction."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._aimed: tuple | None = None  # (model choice, axis, index) of the window last encoded
        self._job: Any = None  # that encodes it, or has done so unless it was cancelled

    def load(self) -> None:
        """Load the model before it is needed: importing PyTorch alone takes seconds."""
        jobs = self._owner.jobs
        if jobs.job is None:
            jobs.start("load", None, load_task(jobs.shelf, self._owner.options.choice))

    def aim_at(self, slice_node: Any) -> None:
        """The mouse moves over a view: its slice is what will be marked next.

        Only while nothing else is done, and no error is shown that waits for the user. Whatever the
        user starts meanwhile ends it, done or not.
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
        self._aimed, self._job = (choice, axis, index), owner.jobs.job

    def forget(self) -> None:
        """The source may be another one."""
        self._aimed = None
