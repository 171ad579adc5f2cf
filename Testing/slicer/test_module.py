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
    from SlideSAMBridge import editing

    original = editing.label_image

    def shifted(mask, lattice):
        extent = [e + (1 if n < 2 else 0) for n, e in enumerate(lattice.extent)]
        return original(mask, lattice.cropped(extent))

    monkeypatch.setattr(editing, "label_image", shifted)
    with pytest.raises(AssertionError):
        slicer.selfTests["SlideSAM"]()


def test_builtin_model_is_skipped_with_a_reason(session, slidesam, monkeypatch, caplog):
    from SlideSAMBridge import library

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
