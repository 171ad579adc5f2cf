"""The panel of the module on the host: status, installing, models, Segment all, life cycle."""

import hashlib
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import slicer

from Testing.file_server import FileServer, serving
from Testing.host.pythonqt_rules import qt
from Testing.slicer.panel_tools import find, names_the_button, wait

pytestmark = pytest.mark.slicer
CONTENT = np.random.default_rng(0).bytes(3_000_000)


class SlowServer(FileServer):
    """Waits between the pieces of its file for `slow` seconds."""

    slow = 0.0

    def send(self, write, start):
        for n in range(start, len(self.content), 200_000):
            write(self.content[n : n + 200_000])
            time.sleep(self.slow)


@pytest.fixture
def server(monkeypatch, panel):
    """A server with ranges that serves CONTENT as the file of sam-vit-b."""
    from SlideSAMLib.catalogue import CATALOGUE

    with serving(SlowServer(CONTENT)) as running:
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        served = {"url": running.url, "sha256": sha256, "size": len(CONTENT)}
        monkeypatch.setitem(CATALOGUE, "sam-vit-b", replace(CATALOGUE["sam-vit-b"], **served))
        yield running


def choose(panel, name):
    tree = find(panel, "SlideSAMModelList")
    for n in range(tree.topLevelItemCount):
        if tree.topLevelItem(n).text(0) == name:
            tree.setCurrentItem(tree.topLevelItem(n))
            return tree.topLevelItem(n)
    raise AssertionError(name)


def test_it_says_what_is_there_and_needs_no_torch(session, slidesam, panel):
    text = find(panel, "SlideSAMStatus").text
    assert text.startswith("Ready: PyTorch ") and text.endswith("Model: builtin.")
    assert "logic.segmentAll(" in find(panel, "SlideSAMUsage").plainText
    names = [find(panel, "SlideSAMModelList").topLevelItem(n).text(0) for n in range(3)]
    assert names[0] == "builtin"


def test_missing_torch_is_said_with_what_to_do(panel, monkeypatch):
    from SlideSAMBridge.setup import library

    monkeypatch.setattr(library, "torch_version", lambda: None)
    panel.enter()
    assert "PyTorch is not installed in this Slicer: press Install" in panel.status.label.text
    names_the_button(panel)


@pytest.fixture
def bare(panel, monkeypatch):
    """A Slicer without torch that is not testing; calls are noted."""
    from SlideSAMBridge.setup import installing

    calls = []
    monkeypatch.setattr(installing, "torch_works", lambda: bool(calls))
    monkeypatch.setattr(installing, "has_package", lambda name: True)
    slicer.app.testing = False
    panel.enter()
    return calls


def press_install(panel):
    button = find(panel, "SlideSAMInstall")
    assert not button.isHidden()
    button.click()


def test_install_uses_the_pytorch_extension(panel, bare, monkeypatch):
    class PyTorchUtilsLogic:
        def installTorch(
            self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None
        ):
            bare.append(askConfirmation)
            return types.ModuleType("torch")

    fake = types.ModuleType("PyTorchUtils")
    fake.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", fake)
    press_install(panel)
    assert bare == [True]
    assert panel.status.label.text.startswith("Installed: torch.")
    assert panel.status.install.isHidden()


def slicer_packaging(monkeypatch, install):
    """The `slicer.packaging` of Slicer 5.12: it says with a RuntimeError that the user said no."""

    def pip_ensure(requirements, constraints=None, prompt_install=True, requester=None):
        assert requester == "SlideSAM"
        if prompt_install and not slicer.util.confirmOkCancelDisplay("Packages. Continue?"):
            raise RuntimeError("User declined package installation")
        install(requirements)

    fake = types.ModuleType("slicer.packaging")
    fake.pip_ensure = pip_ensure
    monkeypatch.setitem(sys.modules, "slicer.packaging", fake)
    monkeypatch.setattr(slicer, "packaging", fake, raising=False)


@pytest.mark.parametrize("yes", [True, False])
def test_install_uses_slicer_packaging(panel, bare, monkeypatch, yes):
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text: bool(asked.append(text)) or yes
    )
    slicer_packaging(monkeypatch, bare.extend)
    press_install(panel)
    assert len(asked) == 1 and bare == (["torch"] if yes else [])
    assert panel.status.label.text.startswith("Installed" if yes else "Nothing was installed.")


def test_an_installation_that_cannot_start_is_no_refusal(panel, bare, monkeypatch):
    def install(requirements):
        raise RuntimeError("PythonSlicer executable not found")

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    slicer_packaging(monkeypatch, install)
    press_install(panel)
    assert panel.status.label.text.startswith("The installation failed (RuntimeError;")


@pytest.mark.parametrize("yes", [True, False])
def test_install_asks_before_pip(panel, bare, monkeypatch, yes):
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text: bool(asked.append(text)) or yes
    )
    monkeypatch.setattr(slicer.util, "pip_install", lambda names: bare.extend(names))
    press_install(panel)
    assert len(asked) == 1 and "torch" in asked[0]
    assert bare == (["torch"] if yes else [])
    assert panel.status.label.text.startswith("Installed" if yes else "Nothing was installed.")


def test_what_was_installed_before_a_no_is_said(panel, bare, monkeypatch):
    from SlideSAMBridge.setup import installing

    fake = types.ModuleType("PyTorchUtils")
    fake.PyTorchUtilsLogic = lambda: types.SimpleNamespace(
        installTorch=lambda askConfirmation: bare.append("torch") or types.ModuleType("torch")
    )
    monkeypatch.setitem(sys.modules, "PyTorchUtils", fake)
    there = ["torch", "segment-anything"]
    monkeypatch.setattr(installing, "missing", lambda: [n for n in there if n not in bare])
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: False)
    press_install(panel)
    assert panel.status.label.text.startswith("Installed: torch.\n")
    assert not panel.status.install.isHidden()  # the other one is still missing


def test_a_failing_installation_says_what_to_do(panel, bare, monkeypatch):
    def fails(names):
        raise OSError("no route")

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    monkeypatch.setattr(slicer.util, "pip_install", fails)
    press_install(panel)
    assert panel.status.label.text.startswith("The installation failed (OSError;")
    assert panel.status.install.enabled


def test_nothing_is_installed_in_testing_mode(panel, bare):
    slicer.app.testing = True
    press_install(panel)
    assert "testing mode" in panel.status.label.text


def test_download_cancel_resume_remove(panel, server, monkeypatch, tmp_path):
    choose(panel, "sam-vit-b")
    server.slow = 0.05
    find(panel, "SlideSAMDownload").click()
    message = find(panel, "SlideSAMModelMessage")
    wait(lambda: "MiB of" in message.text and not message.text.startswith("0"))
    assert not find(panel, "SlideSAMDownload").enabled
    find(panel, "SlideSAMCancelDownload").click()
    wait(lambda: panel.models.ticker.job is None)
    assert message.text.startswith("Cancelled")
    server.slow = 0
    find(panel, "SlideSAMDownload").click()
    wait(lambda: panel.models.ticker.job is None)
    assert message.text == "Done."
    whole, rest = server.ranges
    assert whole is None and int(rest.removeprefix("bytes=")[:-1]) > 0
    item = choose(panel, "sam-vit-b")
    path = item.text(3)
    assert Path(path).read_bytes() == CONTENT and str(tmp_path) in path
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: path in text)
    find(panel, "SlideSAMRemove").click()
    assert message.text.startswith("Removed sam-vit-b: 3 MiB")
    assert choose(panel, "sam-vit-b").text(3) == "no"


def test_what_an_unfinished_download_or_copy_left_can_be_removed(panel, monkeypatch, tmp_path):
    """A copy leaves something only where the application ended in the middle of it."""
    folder = tmp_path / "models"
    folder.mkdir()
    for file in ("sam_vit_h_4b8939.pth.part", ".slidesam_b.pth.123.part"):
        (folder / file).write_bytes(bytes(2**20))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: ".part" in text)
    for name in ("sam-vit-h", "slidesam-b"):
        choose(panel, name)
        find(panel, "SlideSAMRemove").click()
        assert panel.models.message.text == f"Removed {name}: 1 MiB are free again."
        assert not find(panel, "SlideSAMRemove").enabled
    assert not list(folder.glob("*part"))
    choose(panel, "builtin")
    assert not find(panel, "SlideSAMRemove").enabled


def test_a_wrong_file_is_not_kept(panel, server, tmp_path):
    server.content = server.content[::-1]
    choose(panel, "sam-vit-b")
    find(panel, "SlideSAMDownload").click()
    wait(lambda: panel.models.ticker.job is None)
    assert "SHA-256 differs" in find(panel, "SlideSAMModelMessage").text
    assert not list((tmp_path / "models").glob("*.p*"))


def choose_file(panel, monkeypatch, path):
    monkeypatch.setattr(
        qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_: path), raising=False
    )
    find(panel, "SlideSAMChooseFile").click()


def test_a_file_is_chosen_by_its_content(panel, monkeypatch, tmp_path):
    from SlideSAMBridge.setup import preferences

    from SlideSAMLib.models import model_info

    wrong = tmp_path / "notes.pth"
    wrong.write_text("hello")
    paths = iter([str(wrong), str(model_info("builtin").path), ""])
    monkeypatch.setattr(
        qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_: next(paths)), raising=False
    )
    find(panel, "SlideSAMChooseFile").click()
    wait(lambda: panel.models.ticker.job is None)
    assert "notes.pth" in find(panel, "SlideSAMModelMessage").text
    assert preferences.read().model == "builtin"
    find(panel, "SlideSAMChooseFile").click()
    wait(lambda: panel.models.ticker.job is None)
    assert preferences.read().model == str(model_info("builtin").path)
    assert find(panel, "SlideSAMModel").currentText == "slidesam-builtin.safetensors"
    find(panel, "SlideSAMChooseFile").click()  # no file chosen
    assert panel.models.ticker.job is None


def test_a_file_that_cannot_be_read_says_why(panel, monkeypatch):
    from SlideSAMLib import models

    def fails(path):
        raise KeyError("layers")

    monkeypatch.setattr(models, "verify", fails)
    choose_file(panel, monkeypatch, "x.pth")
    wait(lambda: panel.models.ticker.job is None)
    message = find(panel, "SlideSAMModelMessage").text
    assert message.startswith("The work failed (KeyError: 'layers')")


def test_the_folder_is_made_and_shown(panel, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(qt, "QDesktopServices", types.SimpleNamespace(openUrl=shown.append))
    find(panel, "SlideSAMOpenFolder").click()
    assert [url.toLocalFile() for url in shown] == [str(tmp_path / "models")]
    assert (tmp_path / "models").is_dir()


def test_reload_runs_the_files_as_they_are_now(panel, slidesam, monkeypatch):
    """Modules are replaced for good, so the old ones are put back for the other tests."""
    from SlideSAMEffect import reloading

    for name in list(sys.modules):
        if name.split(".")[0] in (*reloading.PACKAGES, "SlideSAM"):
            monkeypatch.setitem(sys.modules, name, sys.modules[name])
    before = type(panel.models)
    panel.onReload()
    assert panel.reloaded.SlideSAMWidget is not type(panel)
    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    widget = panel.reloaded.SlideSAMWidget(parent)
    widget.setup()
    try:
        assert type(widget.models) is not before
        assert widget.status.label.text.startswith("Ready")
    finally:
        widget.cleanup()


def test_the_examples_can_be_copied(panel):
    find(panel, "SlideSAMCopy").click()
    assert "logic.segmentAll(segmentationNode)" in qt.QApplication.clipboard().text()


def test_choices_are_kept(panel, session, gl, quick_model):
    from SlideSAMBridge.setup import preferences
    from SlideSAMBridge.tasks import shelf

    find(panel, "SlideSAMDevice").setCurrentIndex(1)
    find(panel, "SlideSAMCache").value = 64
    assert preferences.read() == preferences.Preferences("builtin", "cpu", "auto", 64)
    assert shelf.shared_shelf.cache().max_bytes == 64 * 2**20
    slicer.app.userSettings().setValue("SlideSAM/cache_mib", "many")
    assert preferences.cache_bytes() is None


def test_the_sample_volume_is_registered_and_made_offline(session, slidesam, monkeypatch):
    class SampleDataLogic:
        sources: ClassVar[list] = []

        @staticmethod
        def registerCustomSampleDataSource(
            category="Custom",
            sampleName=None,
            uris=None,
            fileNames=None,
            nodeNames=None,
            customDownloader=None,
            thumbnailFileName=None,
            loadFileType=None,
            loadFiles=None,
            loadFileProperties={},  # noqa: B006  as Slicer has it
            checksums=None,
        ):
            # Slicer takes the length of all three, and fails at None.
            assert all(isinstance(text, str) and text for text in (uris, fileNames, nodeNames))
            SampleDataLogic.sources.append((category, sampleName, customDownloader))
            assert qt.QPixmap(thumbnailFileName).width() >= 200

    fake = types.ModuleType("SampleData")
    fake.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", fake)
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda background, fit: None)
    from Testing.host import module_host

    path = module_host.Path(slidesam.__file__)
    slidesam.SlideSAM(module_host.ModuleObject(str(path))).registerSampleData()
    ((category, name, make),) = SampleDataLogic.sources
    assert (category, name) == ("SlideSAM", "SlideSAMPhantom")
    (node,) = make(None)
    image = slicer.util.arrayFromVolume(node)
    assert image.shape == (60, 128, 128) and 80 < image[33, 54, 41] < 140


@pytest.mark.parametrize("name", ["SlideSAMStatus", "SlideSAMModelMessage", "SlideSAMBatchMessage"])
def test_names_that_look_like_html_are_shown_as_they_are(panel, name):
    """Qt takes a text with <b> in it for HTML, loses the line ends and fetches pictures."""
    assert find(panel, name).textFormat == qt.Qt.PlainText
