"""The effect as Slicer finds it: registered at start-up, cloned per editor, light until used."""

import subprocess
import sys

import pytest
import slicer

from Testing.slicer.effect_stage import EFFECT

pytestmark = pytest.mark.slicer


@pytest.fixture
def factory(monkeypatch):
    from Testing.host.effect_factory import EffectFactory

    monkeypatch.setattr(EffectFactory, "_instance", EffectFactory())
    return EffectFactory.instance()


def test_the_module_registers_the_effect_once(session, slidesam, factory):
    from Testing.host import module_host

    module = slidesam.SlideSAM(module_host.ModuleObject(slidesam.__file__))
    assert "Slide-SAM" not in factory.prototypes  # the factory may not be there yet
    slicer.app.startup()
    assert list(factory.prototypes) == ["Slide-SAM"]
    module.registerEditorEffect()  # a second time, as by hand: refused by the factory
    assert list(factory.prototypes) == ["Slide-SAM"]


def test_clones_are_independent(stage_of, factory):
    stage = stage_of()
    clone = stage.editor.cloneEffect(stage.effect)
    assert clone is not stage.effect and clone.self() is not stage.python
    assert clone.self().interaction is not stage.interaction
    assert clone.name == "Slide-SAM" and clone.title == "Slide-SAM"
    assert not clone.self().icon().isNull()


def test_help_has_a_first_sentence(stage_of):
    text = stage_of().python.helpText()
    first, rest = text.split("<br>", 1)
    assert text.startswith("<html>") and 20 < len(first) < 120 and "Ctrl+click" in rest
    assert "not for clinical use" in rest


def test_every_control_explains_itself(stage_of, qt_application):
    """Tooltips, with the shortcut where there is one."""
    from PySide6 import QtWidgets
    from SlideSAMEffect.shortcuts import NEXT_CANDIDATE, WEAKEST

    stage = stage_of()
    kinds = (QtWidgets.QAbstractButton, QtWidgets.QComboBox, QtWidgets.QAbstractSpinBox)
    frame = stage.effect.optionsFrame()
    controls = [each for kind in kinds for each in frame.findChildren(kind)]
    assert len(controls) >= 14
    for each in controls:
        assert len(each.toolTip) > 15, each.objectName
    for key, button in (
        (NEXT_CANDIDATE, stage.panel.candidate),
        (WEAKEST, stage.panel.weakest),
        ("Enter", stage.panel.segment),
        ("Delete", stage.panel.clear),
    ):
        assert key in button.toolTip


def test_parameters_have_defaults_and_are_text(stage_of):
    """No bools: "True" could not be read as a number."""
    from SlideSAMEffect.parameters import DEFAULTS

    stage = stage_of(model="builtin")
    for name, value in DEFAULTS.items():
        assert type(value) is not bool
        assert stage.editor.node.GetAttribute(f"Slide-SAM.{name}") == str(value)


def test_model_device_and_precision_follow_the_preferences(stage_of):
    """Later choices count, too, until a script or the panel has chosen something for the scene."""
    from SlideSAMBridge.setup import preferences
    from SlideSAMBridge.tasks.shelf import ModelChoice

    stage = stage_of(model="")
    assert stage.interaction.options.choice == ModelChoice("builtin", "auto", "auto")
    stage.panel.direction.setCurrentIndex(1)  # writes what the panel shows
    stage.shut()
    preferences.change(model="threshold", device="cpu", precision="float32")
    stage.open()
    stage.wait()
    assert stage.interaction.options.choice == ModelChoice("threshold", "cpu", "float32")
    stage.effect.setParameter("Precision", "bfloat16")
    stage.panel.model.setCurrentIndex(stage.panel.model.findData("builtin"))
    stage.shut()
    preferences.change(device="auto", precision="auto")
    stage.open()
    assert stage.interaction.options.choice == ModelChoice("builtin", "auto", "bfloat16")


def test_the_model_of_the_module_can_be_chosen_again(stage_of):
    """A file of one's own is in no other list: once another model was tried, it would be gone."""
    from SlideSAMBridge.setup import preferences

    preferences.change(model="/models/my-liver-model.safetensors")
    stage = stage_of(model="builtin")
    place = stage.panel.model.findData("/models/my-liver-model.safetensors")
    assert stage.panel.model.itemText(place) == "my-liver-model.safetensors"
    stage.panel.model.setCurrentIndex(place)
    assert stage.effect.parameter("Model") == "/models/my-liver-model.safetensors"


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:9", "abacus"])
def test_a_scene_from_a_computer_with_another_device(stage_of, monkeypatch, device):
    """The effect has no widget for the device: what is not there must not stop it."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    stage = stage_of()
    stage.effect.setParameter("Device", device)
    stage.effect.setParameter("Precision", "float12")
    choice = stage.interaction.options.choice
    assert (choice.device, choice.precision) == ("auto", "auto")
    stage.effect.setParameter("Device", "cpu")
    assert stage.interaction.options.choice.device == "cpu"


@pytest.mark.parametrize("active", [True, False])
def test_a_scene_that_was_saved_without_the_effect(stage_of, active):
    """Loading it replaces all that the Segment Editor's node has; nobody asks for defaults then."""
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.effect.setParameter("Direction", "forward")
    stage.shut()
    for name in list(stage.editor.node.GetAttributeNames()):
        stage.editor.node.RemoveAttribute(name)
    if active:
        stage.open()
    else:
        stage.python.updateGUIFromMRML()
    options = stage.interaction.options
    assert (options.direction, options.mode, options.auto_apply) == ("both", "add", True)
    assert options.weak_below == 0.5 and stage.panel.autoApply.checked
    assert stage.effect.parameter("Mode") == "add"


def test_parameters_and_panel_agree_both_ways(stage_of):
    stage = stage_of()
    stage.effect.setParameter("Direction", "forward")
    stage.effect.setParameter("Mode", "remove")
    stage.effect.setParameter("AutoApply", 0)
    assert stage.panel.direction.currentIndex == 1 and stage.panel.mode.currentIndex == 2
    assert not stage.panel.autoApply.checked
    stage.panel.direction.setCurrentIndex(2)
    stage.panel.autoApply.checked = True
    stage.panel.limit.checked = True
    assert stage.effect.parameter("Direction") == "backward"
    assert stage.effect.integerParameter("AutoApply") == 1
    assert (stage.panel.first.value, stage.panel.last.value) == (0, 11)  # all there is
    stage.panel.first.value = 3
    options = stage.interaction.options
    assert (options.first, options.last, options.direction) == (3, 11, "backward")
    stage.effect.setParameter("Direction", "sideways")  # by a script: the default counts
    assert stage.interaction.options.direction == "both"


def test_nothing_heavy_before_it_is_used(tmp_path):
    """Loading and cloning import no torch and start no thread."""
    code = f"""
import sys, threading
sys.path[:0] = {[str(EFFECT.parents[1]), str(EFFECT.parents[2])]!r}
from SlideSAMBridge.pictures import offscreen
offscreen.use_software_window()
from Testing.host import effect_factory, headless, pythonqt_host
pythonqt_host.install()
headless.start()
import qSlicerSegmentationsEditorEffectsPythonQt as effects
instance = effects.qSlicerSegmentEditorScriptedEffect(None)
assert instance.setPythonSource({str(EFFECT)!r})
instance.self().clone()
assert not [name for name in ("torch", "scipy", "SimpleITK") if name in sys.modules]
assert threading.active_count() == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**__import__("os").environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    assert done.returncode == 0, done.stderr
