"""Signals that end the command in the same way as Ctrl-C does, so that nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")  # the latter, a closed terminal, is not known everywhere


class Terminated(KeyboardInterrupt):
    """The process was asked to end. exit_code : what shells expect of it then."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise Terminated where a signal would end the process at once; nohup's stay ignored."""
    earlier = {}
    if threading.current_thread() is threading.main_thread():  # no other thread may
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        for number in numbers:
            if signal.getsignal(number) == signal.SIG_DFL:
                earlier[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
