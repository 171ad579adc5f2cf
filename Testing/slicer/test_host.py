"""The stand-in host itself: it runs an effect as Slicer does, and refuses what Slicer refuses."""

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.effect_stage import SAMPLE_EFFECT
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer


@pytest.fixture
def qt(qt_application):
    from Testing.host.pythonqt_rules import qt

    return qt


def test_an_effect_runs_on_clicks_and_drags(session, gl):
    """A dragged box gives its voxels, on an oblique volume that is moved against the labels."""
    from Testing.host import pythonqt_host, views

    scene = Scene(scenes.GEOMETRIES["oblique"], ("volume",), oversampling=1)
    scene.segmentation.CreateDefaultDisplayNodes()
    view = views.SliceView(session)
    view.show(scene.volume)
    view.node.RotateToVolumePlane(scene.volume)
    view.node.JumpSliceByOffsetting(*scene.ras((9, 7, 6)))
    view.logic.FitSliceToBackground()
    editor = pythonqt_host.Editor(session, scene.segmentation, scene.volume, [view])
    editor.logic.AddEmptySegment("A")
    effect = editor.addEffect(SAMPLE_EFFECT)
    editor.setActiveEffectByName("Sample box")
    view.drag(*(view.ras_to_xy(scene.ras(ijk)) for ijk in ((3, 4, 6), (12, 9, 6))))
    expected = np.zeros(scenes.SHAPE, bool)
    expected[6, 4:10, 3:13] = True
    assert np.array_equal(scene.mask("A"), expected)
    effect.self().eraseCheckBox.checked = True
    assert editor.node.GetAttribute("Sample box.Erase") == "1"
    view.drag(*(view.ras_to_xy(scene.ras(ijk)) for ijk in ((5, 5, 6), (6, 6, 6))))
    assert scene.mask("A").sum() == 60 - 4
    editor.logic.Undo()
    assert np.array_equal(scene.mask("A"), expected)
    view.event("LeftButtonPressEvent", view.ras_to_xy(scene.ras((3, 4, 6))))
    editor.setActiveEffectByName("")
    assert effect.self().outline is None
    assert editor.errors == []
    editor.close()
    view.close()


def test_consumed_events_do_not_reach_the_view(session, gl):
    from Testing.host import views

    scene = Scene()
    view = views.SliceView(session)
    view.show(scene.volume)

    def scrolled():
        before = view.logic.GetSliceOffset()
        view.event("MouseWheelForwardEvent", (150, 140))
        return abs(view.logic.GetSliceOffset() - before) > 1e-6

    assert scrolled()
    name = "MouseWheelForwardEvent"
    tag = view.interactor.AddObserver(
        name, lambda caller, event: caller.GetCommand(tag).SetAbortFlag(1), 1.0
    )
    assert not scrolled()
    view.close()


def test_swallowed_exceptions_are_recorded(session, tmp_path):
    """In Slicer they show in the log only; here a test can look at them."""
    from Testing.host import pythonqt_host

    folder = tmp_path / "BrokenEffectLib"
    folder.mkdir()
    (folder / "SegmentEditorEffect.py").write_text(
        "from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect\n"
        "class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):\n"
        "    def __init__(self, scriptedEffect):\n"
        "        scriptedEffect.name = 'Broken'\n"
        "        super().__init__(scriptedEffect)\n"
        "    def activate(self):\n"
        "        raise OSError('broken on purpose')\n"
    )
    scene = Scene(oversampling=1)
    editor = pythonqt_host.Editor(session, scene.segmentation, scene.volume, [])
    editor.addEffect(folder / "SegmentEditorEffect.py")
    editor.setActiveEffectByName("Broken")
    assert len(editor.errors) == 1 and "broken on purpose" in editor.errors[0]
    with pytest.raises(AttributeError):
        editor.active.myState = 1
    editor.close()


def test_pythonqt_refuses_what_pyside_takes(qt):
    button = qt.QPushButton("Apply")
    with pytest.raises(AttributeError):
        button.myData = 1
    with pytest.raises(AttributeError):
        button.click = None
    with pytest.raises(ValueError):
        qt.QPushButton(text="x")
    with pytest.raises(TypeError):
        button.text()  # a property is an attribute
    button.setText("a")  # setters stay callable
    assert button.text == "a" and button.isEnabled() and button.enabled


def test_pythonqt_connections(qt, capsys):
    button = qt.QPushButton("Apply")
    clicks = []
    assert button.connect("clicked()", lambda: clicks.append(1)) is True
    assert button.connect("clikced()", print) is False  # a typo: a message, no exception
    assert "clikced" in capsys.readouterr().err
    button.click()
    assert clicks == [1]
    spin = qt.QSpinBox()
    seen = []
    assert spin.connect("valueChanged(int)", lambda: seen.append(()))  # fewer parameters are fine
    assert spin.connect("valueChanged(int)", seen.append)
    assert spin.connect("valueChanged(int)", lambda value: 1 / 0)  # printed, not raised
    spin.value = 7
    assert seen == [(), 7] and spin.value == 7
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert spin.disconnect("valueChanged(int)", seen.append)
    spin.value = 8
    assert seen == [(), 7, ()]


def test_no_main_window_and_no_dialogs(session):
    assert slicer.app.layoutManager() is None
    assert slicer.app.testingEnabled()
    slicer.util.errorDisplay("logged, not shown")
