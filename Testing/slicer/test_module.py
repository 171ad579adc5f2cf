"""The module file on the host: what Slicer reads of it, its panel, and its self-test."""

import inspect
import logging

import pytest
import slicer

pytestmark = pytest.mark.slicer


def test_self_test_runs(session, slidesam):
    slidesam.SlideSAMTest().runTest()


def test_self_test_is_registered_and_can_fail(session, slidesam, monkeypatch):
    """Slicer's runner calls slicer.selfTests; a wrong voxel must make it fail."""
    from SlideSAMBridge.scene import editing

    original = editing.label_image

    def shifted(mask, lattice):
        extent = [e + (1 if n < 2 else 0) for n, e in enumerate(lattice.extent)]
        return original(mask, lattice.cropped(extent))

    monkeypatch.setattr(editing, "label_image", shifted)
    with pytest.raises(AssertionError):
        slicer.selfTests["SlideSAM"]()


def test_builtin_model_is_skipped_with_a_reason(session, slidesam, monkeypatch, caplog):
    from SlideSAMBridge.setup import library

    monkeypatch.setattr(library, "missing_for_builtin", lambda: "There are no weights.")
    with caplog.at_level(logging.INFO):
        slidesam.SlideSAMTest().test_builtin_model()
    assert "skipped. There are no weights." in caplog.text


def test_what_slicer_shows(slidesam):
    from Testing.host import module_host

    path = module_host.Path(slidesam.__file__)
    parent = slidesam.SlideSAM(module_host.ModuleObject(str(path))).parent
    assert parent.title == "SlideSAM"
    assert parent.categories == ["Segmentation"]
    assert parent.dependencies == ["Segmentations"]
    assert parent.icon.endswith("SlideSAM.svg")
    assert len(parent.helpText) > 40 and "PerkLab" not in parent.contributors[0]


def test_the_help_says_where_to_read_on(slidesam):
    """The panel's Help & Acknowledgement shows both texts as HTML, and its links open."""
    from Testing.host import module_host
    from Testing.test_repository import PAPER, cmake_value

    parent = slidesam.SlideSAM(module_host.ModuleObject(slidesam.__file__)).parent
    assert f'<a href="{cmake_value("EXTENSION_HOMEPAGE")}">' in parent.helpText
    assert "not for clinical use" in parent.helpText
    assert f'<a href="{PAPER}">' in parent.acknowledgementText


def test_signature_is_the_promised_one(slidesam):
    names = list(inspect.signature(slidesam.SlideSAMLogic.segment).parameters)
    assert names[:9] == [
        "self",
        "volumeNode",
        "segmentationNode",
        "segmentId",
        "points",
        "labels",
        "box",
        "orientation",
        "model",
    ]


def test_models_by_name_are_loaded_once(session, slidesam, threshold_model):
    from SlideSAMLib import models
    from Testing.slicer.scenes import Scene, model

    loads = []
    models.register_model("threshold", lambda *where: loads.append(where) or model())
    scene = Scene()
    logic = slidesam.SlideSAMLogic()
    for _ in range(2):
        logic.segment(
            scene.volume, scene.segmentation, points=[scene.ras()], model="threshold", device="cpu"
        )
    assert loads == [("cpu", "auto")]
    assert logic.lastResult.model == "threshold"


def set_up_in_vain(slidesam, words):
    """A panel whose set-up has failed with these words."""
    from Testing.host.pythonqt_rules import qt

    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    widget = slidesam.SlideSAMWidget(parent)
    with pytest.raises(RuntimeError, match=words):
        widget.setup()
    return widget


def test_a_set_up_that_fails_is_all_that_is_told(session, slidesam, monkeypatch):
    """Slicer enters and cleans up all the same; that must not bring up errors of its own."""
    from SlideSAMBridge.setup import library

    def fails():
        raise RuntimeError("The folder is missing.")

    monkeypatch.setattr(library, "make_importable", fails)
    widget = set_up_in_vain(slidesam, "folder is missing")
    widget.enter()
    widget.cleanup()


def test_what_was_made_before_a_failure_is_closed(session, slidesam, monkeypatch):
    """The section that could not be made and all that come after it are left out."""
    from SlideSAMPanel import models_section

    def fails(*arguments):
        raise RuntimeError("No models.")

    monkeypatch.setattr(models_section, "ModelsSection", fails)
    widget = set_up_in_vain(slidesam, "No models")
    closed = []
    monkeypatch.setattr(widget.batch, "close", lambda: closed.append(True))
    widget.enter()
    widget.cleanup()
    assert closed == [True]


def test_a_panel_without_a_parent_is_set_up_at_once(session, slidesam):
    """As for a script that makes one: Slicer's base class calls setup() while it is made."""
    widget = slidesam.SlideSAMWidget()
    assert widget.status is not None and widget.models is not None
    widget.cleanup()
    widget.parent.deleteLater()


def test_a_panel_may_be_cleaned_up_twice(session, slidesam):
    """Slicer tells every panel at its end, also one that the self-test has closed long before."""
    slidesam.SlideSAMTest().test_panel()
    slicer.mrmlScene.Clear(False)
    slicer.app.moduleManager().unload("SlideSAM")


def test_a_panel_that_is_gone_hears_nothing_of_the_scene(panel, monkeypatch):
    heard = []
    monkeypatch.setattr(panel.batch, "abandon", lambda: heard.append("closed"))
    slicer.mrmlScene.Clear(False)
    assert heard == ["closed"]
    panel.cleanup()
    heard.clear()
    slicer.mrmlScene.Clear(False)
    assert heard == []
