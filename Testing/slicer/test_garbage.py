"""Python's garbage is collected on the main thread only, also while the worker works."""

import gc
import threading

import pytest
from SlideSAMBridge.tasks.worker import Worker

pytestmark = pytest.mark.slicer


def litter(count: int) -> None:
    """Make objects that hold themselves: the collector runs many times."""
    for _ in range(count):
        cycle = []
        cycle.append(cycle)


@pytest.fixture
def collected():
    """The threads on which something was collected."""
    threads = []

    def note(phase, info):
        if phase == "start":
            threads.append(threading.get_ident())

    gc.collect()
    gc.callbacks.append(note)
    yield threads
    gc.callbacks.remove(note)


def test_the_worker_collects_nothing(collected):
    worker, seen = Worker(), []

    def work(job):
        seen.append(threading.get_ident())
        for _ in range(20):
            litter(5000)
            job.emit(None)

    job = worker.submit("test", work)
    while not job.finished:
        job.wait(0.01)
        job.take()
    litter(5000)  # the main thread goes on as usual
    assert gc.isenabled()
    worker.close()
    assert threading.get_ident() in collected and seen[0] not in collected


def test_nobody_has_to_wait_for_the_job(collected):
    worker, ended = Worker(), threading.Event()
    worker.submit("first", lambda job: litter(20_000))
    worker.submit("second", lambda job: ended.set())
    assert ended.wait(20)
    worker.close()
    litter(5000)
    assert gc.isenabled() and set(collected) == {threading.get_ident()}


def test_an_application_that_does_not_collect_is_left_so(collected):
    gc.disable()
    try:
        worker = Worker()
        job = worker.submit("test", lambda job: litter(20_000))
        while not job.finished:
            job.wait(0.01)
        worker.close()
        litter(5000)
        assert not gc.isenabled() and not collected
    finally:
        gc.enable()
