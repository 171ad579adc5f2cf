"""The worker's end, when the application ends."""

import threading
import time

import pytest
from SlideSAMBridge.worker import Worker

pytestmark = pytest.mark.slicer


def test_the_worker_ends_in_the_middle_of_a_window(capfd):
    """A thread that is still in PyTorch when Python goes aborts the application."""
    worker, begun, given_up = Worker(), threading.Event(), threading.Event()

    def encode(job):  # by many products, and nobody asks whether the job was cancelled meanwhile
        begun.set()
        while not given_up.is_set():
            time.sleep(0.002)

    job = worker.submit("test", encode)
    assert begun.wait(20)
    try:
        worker.close()
        assert not worker._thread.is_alive()
        assert job.finished and capfd.readouterr().err == ""
    finally:
        given_up.set()


def test_a_job_that_asks_ends_by_itself():
    worker, begun = Worker(), threading.Event()

    def slide(job):
        begun.set()
        while not job.cancelled():
            time.sleep(0.002)

    job = worker.submit("test", slide)
    assert begun.wait(20)
    worker.close()
    assert not worker._thread.is_alive() and job.error is None
