"""Work again with less memory, where a GPU has too little of it. No Qt, no MRML, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .shelf import Borrower, ModelChoice, ModelShelf
from .worker import Job


@dataclass(frozen=True)
class Notice:
    """Something to tell the user while a job goes on; the worker does not word it.

    kind : "loaded" with the model as `detail`; "smaller" or "cpu" where the GPU's memory does not
        suffice and the job starts once more, with less of it or without it.
    """

    kind: str
    detail: str = ""


def on_any_device(
    shelf: ModelShelf,
    choice: ModelChoice,
    perform: Callable[[Job], None],
    work: Borrower | None = None,
) -> Callable[[Job], None]:
    """The same, again with less memory and then on the CPU where the GPU's memory is too small.

    Models have tried smaller batches by then. Every try starts from the result before the first.
    """

    def careful(job: Job) -> None:
        before = work.session.snapshot() if work is not None and work.session is not None else None
        while (failure := _shortage(perform, job)) is not None:
            step = None if job.cancelled() else shelf.next_step(choice)
            if step is None:
                raise failure
            if before is not None:
                work.go_on_from(before)
            elif work is not None:
                work.session = None  # it holds the model that did not fit
            shelf.retreat(choice, step)
            job.emit(Notice(step))

    return careful


def _shortage(perform: Callable[[Job], None], job: Job) -> BaseException | None:
    """Do it; returns the exception where memory was too small.

    What its traceback held is let go, or the tensors of the failed try would still fill the GPU.
    """
    from SlideSAMLib.compute.memory import out_of_memory

    try:
        perform(job)
    except Exception as error:
        if not out_of_memory(error):
            raise
        each: BaseException | None = error
        while each is not None:
            each.__traceback__ = None
            each = each.__cause__ or each.__context__
        return error
    return None
