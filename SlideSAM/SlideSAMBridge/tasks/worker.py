"""The one thread that loads models and predicts, and its jobs. No Qt, no MRML, no torch.

Libraries keep caches per thread (cuDNN, for one), so all work goes to the same thread for as long
as the application runs. Nothing of the scene is touched here: jobs get numpy arrays and emit
results, which the main thread takes with `Job.take` when it likes.

Slicer's idle event loop does not release Python's global lock, so a thread in the background would
starve. Whoever polls a job has to call `Job.wait` for some milliseconds: it releases the lock.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from ..text import tr as _
from . import garbage

_numbers = itertools.count(1)
PATIENCE = 0.5  # seconds that a job has to end by itself when the application does
LOADING = 30.0  # seconds more, for a package such as PyTorch to be loaded


class Job:
    """One piece of work on the worker.

    number : counts up, so that results of an older job can be told from those of a newer one.
    kind : what it does, for the one who started it.
    error : the exception that ended it, once it is finished; None where it went well.
    needs : the job whose result it uses, which ends with it.
    """

    def __init__(self, kind: str, function: Callable[[Job], Any], needs: Job | None = None) -> None:
        self.number = next(_numbers)
        self.kind = kind
        self.needs = needs
        self.error: BaseException | None = None
        self._function = function
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._news = threading.Event()

    # For the worker

    def cancelled(self) -> bool:
        """Whether somebody wants it to end soon."""
        return self._cancelled.is_set()

    def emit(self, event: Any) -> None:
        """Hand something over to the main thread."""
        self._events.put(event)
        self._news.set()

    def perform(self) -> None:
        """Run the function; whatever happens, the job is finished afterwards."""
        try:
            if not self.cancelled():
                self._function(self)
        except BaseException as error:
            self.error = error
            if not self.cancelled() and not _is_about_the_input(error):
                traceback.print_exc()  # the log gets the whole of it, the user one sentence
        finally:
            del self._function  # lets go of volumes and models
            self._finished.set()
            self._news.set()

    # For the main thread

    def cancel(self) -> None:
        """Ask it to end after the window it is at. Returns at once."""
        self._cancelled.set()
        if self.needs is not None:
            self.needs.cancel()

    def take(self) -> list[Any]:
        """What was emitted since the last call, in order."""
        self._news.clear()
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def wait(self, seconds: float) -> bool:
        """Wait for news, letting other threads run; whether there is any."""
        garbage.collect()
        return self._news.wait(seconds)

    @property
    def finished(self) -> bool:
        """True when it will emit nothing more; what it emitted last may still have to be taken."""
        return self._finished.is_set()


def _is_about_the_input(error: BaseException) -> bool:
    """Whether the sentence for the user is all there is to say: the volume cannot be used."""
    library = sys.modules.get("SlideSAMLib.errors")  # not imported: the error is not one of its
    return library is not None and isinstance(error, library.InputError)


class Worker:
    """A thread that does jobs one after another; it starts with the first one."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._current: Job | None = None
        self._early: list[Job] = []  # those that were submitted early, for the main thread
        self._closed = False

    def submit(
        self,
        kind: str,
        function: Callable[[Job], Any],
        early: bool = False,
        needs: Job | None = None,
    ) -> Job:
        """Do `function(job)` after all earlier jobs.

        early : nobody waits for it. It is asked to end once somebody waits for another one, who
            may know nothing of it: all editor widgets share the worker.
        needs : an early job that this one would have to do again, so that it goes on.
        """
        if self._closed:
            raise RuntimeError(_("The application is closing, so nothing new can be started."))
        job = Job(kind, function, needs)
        self._early = [each for each in self._early if not each.finished]
        if early:
            self._early.append(job)
        else:
            for each in self._early:
                if each is not needs:
                    each.cancel()
        if self._thread is None:
            # A daemon: an encoder that takes seconds must not hold up the end of the application.
            self._thread = threading.Thread(target=self._work, name="SlideSAM", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return job

    def close(self, seconds: float = 2.0) -> None:
        """Cancel what is running, and wait a little for the thread to end.

        A window of a large network takes longer. Were the thread in PyTorch when Python goes, it
        would abort the application. So it is made to end as soon as it is back in Python: after the
        next product, say. But not in the middle of PyTorch's own loading, which would crash.
        """
        self._closed = True
        current = self._current
        if current is not None:
            current.cancel()
        self._jobs.put(None)
        if self._thread is None:
            return
        self._thread.join(min(seconds, PATIENCE))
        end = time.monotonic() + LOADING
        while self._thread.is_alive() and _loads_a_package() and time.monotonic() < end:
            self._thread.join(0.02)
        if self._thread.is_alive():
            thread = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
            self._thread.join(seconds)

    def _work(self) -> None:
        while not self._closed:
            job = self._jobs.get()
            if job is None:
                return
            self._current = job
            with garbage.left_to_the_main_thread():
                job.perform()
            self._current = None
            del job  # or it would be kept until the next one comes


def _loads_a_package() -> bool:
    """Whether any thread is in the middle of an import.

    No module's own code is asked: one that loads itself when it is needed would do so now.
    """
    specs = (_own(module, "__spec__") for module in list(sys.modules.values()))
    return any(_own(spec, "_initializing") is True for spec in specs)


def _own(thing: Any, name: str) -> Any:
    """What an object itself has under a name, or None."""
    try:
        return object.__getattribute__(thing, "__dict__").get(name)
    except AttributeError:  # such as None, in the place of a module that must not be imported
        return None


_shared: Worker | None = None


def shared_worker() -> Worker:
    """The worker of this application."""
    global _shared
    if _shared is None:
        _shared = Worker()
        atexit.register(_shared.close)
    return _shared
