"""A timer that looks at a job of a worker while there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

INTERVAL = 20  # ms between two looks
PATIENCE = 0.02  # seconds that a look waits; the worker gets Python's lock meanwhile


class Ticker:
    """Hands what a job emits to `on_event`, and the job to `on_end` once it is finished.

    owner : the QObject that the timer goes with.
    """

    def __init__(self, owner: Any) -> None:
        self.job: Any = None
        self._on_event: Callable[[Any], None] | None = None
        self._on_end: Callable[[Any], None] | None = None
        self._busy = False
        # With an owner, or a worker would delete it where it happens to collect the garbage.
        self._timer = qt.QTimer(owner)
        self._timer.setInterval(INTERVAL)
        self._timer.connect("timeout()", self.look)

    def follow(
        self, job: Any, on_event: Callable[[Any], None], on_end: Callable[[Any], None]
    ) -> None:
        """Look at this job until it is finished."""
        self.job, self._on_event, self._on_end = job, on_event, on_end
        self._timer.start()

    def look(self) -> None:
        """Take in what has come. Handlers may run the event loop: no second look meanwhile."""
        if self.job is None or self._busy:
            return
        self._busy = True
        try:
            job = self.job
            job.wait(PATIENCE)
            finished = job.finished  # asked before taking, so that nothing is left behind
            for event in job.take():
                self._on_event(event)
            if finished and self.job is job:
                on_end = self._on_end
                self._release()
                on_end(job)
        finally:
            self._busy = False

    def cancel(self) -> None:
        """End the job soon; what it has done still comes."""
        if self.job is not None:
            self.job.cancel()

    def abandon(self) -> None:
        """End the job, and look at nothing it emits any more."""
        self.cancel()
        self._release()

    def close(self) -> None:
        """Let go of the timer's connection, which holds on to this object."""
        self.abandon()
        self._timer.disconnect("timeout()", self.look)

    def _release(self) -> None:
        self._timer.stop()
        self.job = self._on_event = self._on_end = None
