"""The timer that takes in the worker's results on the main thread."""

from __future__ import annotations

from typing import Any

import qt
from SlideSAMBridge.effect.interaction import Interaction

INTERVAL = 10  # ms between two looks
# Seconds that a look may last. The worker gets Python's lock in this time only, because Slicer's
# event loop keeps it while idle; a look ends at once when there is news.
PATIENCE = 0.03


class Pump:
    """Polls an Interaction while it has a job. owner : the QObject that the timer goes with."""

    def __init__(self, interaction: Interaction, owner: Any) -> None:
        self._interaction = interaction
        # With an owner, or the worker would delete it where it happens to collect the garbage.
        self._timer = qt.QTimer(owner)
        self._timer.setInterval(INTERVAL)
        self._timer.connect("timeout()", self._tick)

    @property
    def running(self) -> bool:
        return self._timer.isActive()

    def update(self) -> None:
        """Run while there is a job."""
        wanted = self._interaction.jobs.job is not None
        if wanted and not self._timer.isActive():
            self._timer.start()
        elif not wanted and self._timer.isActive():
            self._timer.stop()

    def stop(self) -> None:
        """Stop looking."""
        self._timer.stop()

    def close(self) -> None:
        """Let go of the timer's connection, which holds on to this object."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._tick)

    def _tick(self) -> None:
        self._interaction.poll(PATIENCE)
        self.update()
