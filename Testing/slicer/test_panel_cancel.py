"""Cancelling in the models section of the panel: a file that is read, a download that waits."""

import threading

import pytest
import slicer

from Testing.host.pythonqt_rules import qt
from Testing.slicer.panel_tools import find, wait

pytestmark = pytest.mark.slicer


@pytest.fixture
def reading(panel, monkeypatch, tmp_path):
    """A file is being read by the worker until `go` is set."""
    from SlideSAMLib import models
    from SlideSAMLib.sam import checkpoints

    go, begun = threading.Event(), threading.Event()
    path = tmp_path / "mine.pth"
    path.write_bytes(bytes(1000))

    def slow(*arguments):
        begun.set()
        assert go.wait(20)
        raise ValueError("This file is broken.")

    monkeypatch.setattr(models, "verify", slow)
    monkeypatch.setattr(checkpoints, "load_checkpoint", slow)
    monkeypatch.setattr(
        qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_: str(path)), raising=False
    )
    find(panel, "SlideSAMChooseFile").click()
    wait(begun.is_set)
    yield go
    go.set()


def message(panel):
    return find(panel, "SlideSAMModelMessage").text


def idle(panel):
    """Wait until the worker has done all that it was given."""
    wait(lambda: panel.models.ticker.job is None)
    last = panel.models._worker.submit("last", lambda job: None)
    wait(lambda: last.finished)
    for _ in range(5):
        slicer.app.processEvents()


def test_cancel_while_a_file_is_read(panel, reading, monkeypatch):
    from SlideSAMBridge.setup import preferences

    from SlideSAMLib import models

    find(panel, "SlideSAMCancelDownload").click()
    assert panel.models.ticker.job is None  # at once
    assert message(panel) == "Cancelled." and find(panel, "SlideSAMChooseFile").enabled
    reading.set()
    idle(panel)
    assert message(panel) == "Cancelled." and preferences.read().model == "builtin"
    monkeypatch.setattr(models, "verify", lambda path: None)
    find(panel, "SlideSAMChooseFile").click()  # and it can be read after all
    wait(lambda: panel.models.ticker.job is None)
    assert message(panel) == "Done." and preferences.read().model.endswith("mine.pth")


def test_a_broken_file_says_so(panel, reading):
    reading.set()
    wait(lambda: panel.models.ticker.job is None)
    assert message(panel) == "This file is broken."


def test_a_download_cancelled_before_it_begins(panel):
    gate = threading.Event()
    panel.models._worker.submit("other", lambda job: gate.wait(20))
    tree = find(panel, "SlideSAMModelList")
    (row,) = (
        n for n in range(tree.topLevelItemCount) if tree.topLevelItem(n).text(0) == "sam-vit-b"
    )
    tree.setCurrentItem(tree.topLevelItem(row))
    find(panel, "SlideSAMDownload").click()
    find(panel, "SlideSAMCancelDownload").click()
    gate.set()
    wait(lambda: panel.models.ticker.job is None)
    assert message(panel).startswith("Cancelled; the download goes on")


@pytest.mark.parametrize("when", ["hash", "copy"])
def test_a_copy_that_is_cancelled_is_not_installed(panel, monkeypatch, tmp_path, when):
    import types

    from SlideSAMLib import models
    from SlideSAMLib.errors import Cancelled
    from SlideSAMLib.sam import checkpoints

    asked = []
    monkeypatch.setattr(
        checkpoints, "load_checkpoint", lambda *_: types.SimpleNamespace(description="")
    )
    source = tmp_path / "mine.pth"
    source.write_bytes(bytes(1000))
    last = 1 if when == "hash" else 2
    with pytest.raises(Cancelled):
        models.install("slidesam-b", source, lambda: bool(asked.append(0)) or len(asked) >= last)
    assert not list((tmp_path / "models").glob("*.p*"))
