"""Python's garbage is collected on the main thread only, also while the worker works. No Qt.

The collector runs on whichever thread happens to make objects, and deletes what it finds there.
Objects of Qt and VTK must not be deleted on the worker while the main thread handles events: that
can crash the application. So nothing is collected by itself while a job runs; whoever waits for the
job calls `collect`, and Python goes on as usual when the job is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator
from typing import Any

_lock = threading.RLock()
_jobs = 0  # that run now, on any worker
_was_enabled = False


@contextlib.contextmanager
def left_to_the_main_thread() -> Iterator[None]:
    """While this lasts, Python does not collect by itself. For the worker."""
    global _jobs, _was_enabled
    with _lock:
        if _jobs == 0:
            _was_enabled = _was_enabled or gc.isenabled()
            gc.disable()
        _jobs += 1
    try:
        yield
    finally:
        with _lock:
            _jobs -= 1
        # Not here: the next object that this thread makes would set the collector off.
        if ctypes.pythonapi.Py_AddPendingCall(_go_on, None) != 0:  # the interpreter's list is full
            _go_on(None)


def collect() -> None:
    """Collect young objects where Python would have done so by now. On the main thread."""
    if _jobs == 0 or not _was_enabled:
        return
    counts, most = gc.get_count(), gc.get_threshold()
    if counts[1] > most[1]:
        gc.collect(1)
    elif counts[0] > most[0]:
        gc.collect(0)


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def _go_on(_: Any) -> int:
    """Let Python collect by itself again; the interpreter calls it on the main thread."""
    global _was_enabled
    with _lock:
        if _jobs == 0 and _was_enabled:
            _was_enabled = False
            gc.enable()
    return 0
