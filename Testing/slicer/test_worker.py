"""The worker's end, when the application ends."""

import importlib
import importlib.util
import sys
import threading
import time

import pytest
from SlideSAMBridge.tasks.worker import Worker, _loads_a_package

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


def test_a_package_is_not_interrupted_while_it_is_loaded(monkeypatch, tmp_path):
    """PyTorch crashes then, and the application with it, which may be quit or reload its code."""
    text = "import time\nfor _ in range(80):\n    time.sleep(0.01)\nloaded = True\n"
    (tmp_path / "slow_package.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    worker = Worker()
    job = worker.submit("test", lambda job: importlib.import_module("slow_package"))
    while "slow_package" not in sys.modules:
        time.sleep(0.002)
    try:
        worker.close()
        assert not worker._thread.is_alive() and job.error is None
        assert sys.modules["slow_package"].loaded
    finally:
        sys.modules.pop("slow_package", None)


def test_quitting_loads_no_module_that_others_load_when_it_is_needed(monkeypatch, tmp_path):
    """Such a module loads itself as soon as it is asked for any attribute; others answer all."""
    (tmp_path / "lazy_module.py").write_text("raise RuntimeError('loaded while quitting')\n")
    spec = importlib.util.spec_from_file_location("lazy_module", tmp_path / "lazy_module.py")
    loader = spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    loader.exec_module(lazy)

    class Asked:
        def __getattr__(self, name):
            raise RuntimeError(f"asked for {name} while quitting")

    monkeypatch.setitem(sys.modules, "no_module", Asked())
    monkeypatch.setitem(sys.modules, "kept_out", None)
    assert _loads_a_package() is False
    with pytest.raises(RuntimeError, match="loaded while quitting"):
        lazy.anything  # noqa: B018
