"""What real Slicer does and a kind stand-in would not: each trap has a test, here or elsewhere.

`TRAPS` names them. Some are about how the code is written; those are read off the source.
"""

import importlib
import threading

import numpy as np
import pytest
import slicer
import vtk
from PySide6 import QtCore
from vtk.util.numpy_support import vtk_to_numpy

from Testing.host import pythonqt_rules
from Testing.slicer import scenes
from Testing.slicer.effect_stage import EFFECT, Stage
from Testing.slicer.scenes import SHAPE, Scene

pytestmark = pytest.mark.slicer

# What goes wrong in Slicer though it works on a stand-in -> the tests that would see it.
TRAPS = {
    "properties called as methods": "test_host.test_pythonqt_refuses_what_pyside_takes",
    "keyword arguments": "test_host.test_pythonqt_refuses_what_pyside_takes",
    "signals misspelt": "test_host.test_pythonqt_connections",  # and the fixture `session`
    "attributes set on C++ objects": "test_host.test_pythonqt_refuses_what_pyside_takes",
    "switches and coordinates as parameters": "test_parameters_are_short_texts",
    "events answered with None": "test_an_answer_that_is_no_bool_is_an_error",
    "methods replaced later": "test_methods_are_looked_up_once",
    "exceptions swallowed": "test_host.test_swallowed_exceptions_are_recorded",
    "relative imports in the effect": "test_contract_source.test_the_effect_stands_alone",
    "work in the constructor": "test_constructors_do_nothing",
    "parameters read before there is a node": "test_options_are_built_without_a_node",
    "images kept": "test_the_images_of_slicer_are_copied",
    "one modifier taken for two": "test_there_is_one_modifier",
    "axes and extents": "test_a_segment_below_zero_moves_nothing",
    "images without directions": "test_effect_life.test_the_whole_job_in_a_sagittal_view_of_an_oblique_volume",  # noqa: E501
    "set with another lattice": "test_replacing_leaves_nothing_of_before",
    "set with an extent": "test_replacing_leaves_nothing_of_before",
    "bypassing the intensity range": "test_effect_apply.test_intensity_range",
    "parent transforms": "test_effect_prompts.test_click_and_drag_are_voxel_exact",
    "axis by the name of the view": "test_effect_life.test_the_whole_job_in_a_sagittal_view_of_an_oblique_volume",  # noqa: E501
    "pixels of high-density screens": "test_double_density",
    "pixels kept, single precision": "test_effect_prompts.test_click_and_drag_are_voxel_exact",
    "rounding as an inside test": "test_just_outside_is_outside",
    "no way to cancel a drag": "test_effect_prompts.test_a_drag_is_cancelled",
    "the active effect while activating": "test_the_effect_does_not_ask_who_is_active",
    "no main window": "test_effect_life.test_works_without_a_layout_manager",
    "names taken for ids": "test_names_are_not_ids",
    "threads that starve": "test_contract_threads.test_a_starved_worker_gets_on",
    "threads that touch the scene": "test_contract_threads.test_the_worker_touches_neither_scene_nor_widgets",  # noqa: E501
    "events while waiting": "test_contract_threads.test_looking_is_not_reentrant",
    "objects without a reference": "test_contract_threads.test_timers_and_shortcuts_are_held",
    "idioms of PySide": "test_idioms_of_pyside_are_unknown",
    "arrays that VTK does not take": "test_contract_source.test_arrays_are_copied_for_vtk",
    "writes that go unnoticed": "test_effect_runs.test_the_preview_grows_in_a_view_that_stands_still",  # noqa: E501
    "an undo state a slice": "test_effect_apply.test_one_undo_step",
    "syntax of newer Pythons": "test_contract_source.test_it_is_python_3_11",
    "waiting for dead calls": "test_effect_life.test_geometry_changed",
    "dialogs in self-tests": "test_self_tests_open_no_dialog",
    "segmentations saved as NIfTI": "test_contract_source.test_no_segmentation_is_stored_as_nifti",
    "the type of the mode": "test_modes_are_of_the_right_type",
    "releases that are lost": "test_effect_prompts.test_lost_and_lone_releases",
}


def test_every_trap_has_its_test():
    for trap, name in TRAPS.items():
        module, _, function = name.rpartition(".")
        source = importlib.import_module(f"Testing.slicer.{module}" if module else __name__)
        assert callable(getattr(source, function)), trap


# Parameters and life


def test_parameters_are_short_texts(stage_of):
    """Nothing with coordinates is a parameter; switches can be read as numbers."""
    stage = stage_of()
    stage.drag((4, 3, 6), (17, 12, 6))
    stage.panel.autoApply.click()
    stage.panel.limit.click()
    names = list(stage.editor.node.GetAttributeNames())
    ours = {n: stage.editor.node.GetAttribute(n) for n in names if n.startswith("Slide-SAM.")}
    assert len(ours) >= 8 and all(len(text) < 40 for text in ours.values())
    assert {ours["Slide-SAM.AutoApply"], ours["Slide-SAM.LimitSlices"]} == {"0", "1"}
    stage.effect.setParameter("AutoApply", True)  # what would happen otherwise
    assert stage.effect.integerParameter("AutoApply") == 0
    pythonqt_rules.log.clear()  # it was told


def test_an_answer_that_is_no_bool_is_an_error(stage_of):
    stage = stage_of()
    for answer in (None, np.bool_(True), 1):
        stage.effect._methods["processInteractionEvents"] = lambda *_, answer=answer: answer
        stage.view.event("MouseMoveEvent", (5, 5))
    assert len(stage.editor.errors) == 2  # None is what a failed call gives
    stage.editor.errors.clear()


def test_methods_are_looked_up_once(stage_of):
    stage = stage_of()
    stage.python.processInteractionEvents = lambda *_: 1 / 0
    stage.click()
    assert len(stage.interaction.book.prompts) == 1


def test_constructors_do_nothing(session, slidesam, qt_application):
    """They run for the prototype and for every editor, also when nobody uses the effect."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    before = scenes.snapshot(), set(threading.enumerate())
    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    assert instance.setPythonSource(str(EFFECT))
    clone = instance.self().clone()
    clone.self().sourceVolumeNodeChanged()  # inactive effects are told, too
    clone.self().layoutChanged()
    clone.self().cleanup()
    assert (scenes.snapshot(), set(threading.enumerate())) == before


def test_options_are_built_without_a_node(session, slidesam, qt_application):
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    assert instance.setPythonSource(str(EFFECT))
    instance.self().setupOptionsFrame()
    instance.self().updateGUIFromMRML()
    instance.self().updateMRMLFromGUI()
    instance.self().cleanup()
    assert pythonqt_rules.log == []
    assert instance.parameter("Mode") == "" and len(pythonqt_rules.log) == 1  # as it is told
    pythonqt_rules.log.clear()


def test_another_node_gets_the_defaults(stage_of):
    """As after closing a scene; what the user has set in a node stays."""
    stage = stage_of()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    node.SetAttribute("Slide-SAM.Mode", "remove")
    node.SetAndObserveSegmentationNode(stage.scene.segmentation)
    node.SetAndObserveSourceVolumeNode(stage.scene.volume)
    node.SetSelectedSegmentID("A")
    stage.editor.setParameterNode(node)
    assert stage.effect.parameter("Direction") == "both"
    stage.effect.setParameter("Model", "threshold")
    stage.open()
    assert stage.interaction.options.mode == "remove" and stage.panel.mode.currentIndex == 2
    stage.click()
    stage.wait()
    assert stage.preview().any()


def test_the_effect_does_not_ask_who_is_active(stage_of, monkeypatch):
    """While it is activated, the widget still names the effect of before."""
    stage = stage_of()
    stage.shut()
    seen = []
    original = stage.effect._methods["activate"]
    stage.effect._methods["activate"] = lambda: (seen.append(stage.editor.active), original())
    stage.open()
    assert seen == [None] and stage.editor.active is stage.effect
    stage.click()
    assert len(stage.interaction.book.prompts) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_placing_markups_ends_the_effect(stage_of, quick_model, busy):
    stage = stage_of()
    props = stage.props()
    stage.click()
    stage.wait()
    if busy:
        quick_model.delay = 0.05
        stage.panel.segment.click()
    stage.editor.setPlaceMode(True)
    assert stage.editor.active is None and not stage.python.pump.running
    assert stage.props() == props and not stage.mask().any()


def test_the_icon_has_a_size(stage_of):
    """Slicer's default cursor takes the first of its sizes."""
    icon = stage_of().python.icon()
    assert icon.availableSizes() and not icon.pixmap(QtCore.QSize(21, 21)).isNull()


# Images and voxels


def test_the_images_of_slicer_are_copied(stage_of):
    """They are the same objects at every call, and others write to them."""
    stage = stage_of()
    stage.click()
    stage.wait()
    volume = stage.effect.sourceVolumeImageData()
    assert volume is stage.effect.sourceVolumeImageData()
    source = stage.interaction.reader.read()
    before = source.voxels.copy()
    voxels = vtk_to_numpy(volume.GetPointData().GetScalars())
    assert not np.shares_memory(voxels, source.voxels)
    voxels[:] = 0
    assert np.array_equal(source.voxels, before)
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_there_is_one_modifier(stage_of):
    """A second call clears the first; the preview must not lie in it."""
    stage = stage_of()
    stage.click()
    stage.wait()
    shown = stage.preview()
    one, two = stage.effect.defaultModifierLabelmap(), stage.effect.defaultModifierLabelmap()
    assert one is two and shown.any() and np.array_equal(stage.preview(), shown)
    ours = vtk_to_numpy(stage.interaction.preview._patch.image.GetPointData().GetScalars())
    assert not np.shares_memory(ours, vtk_to_numpy(one.GetPointData().GetScalars()))


def test_a_segment_below_zero_moves_nothing(stage_of):
    """Then the modifier starts below zero, and its array index is not the voxel index."""
    scene = Scene(scenes.GEOMETRIES["oblique"], ("volume",), oversampling=1)
    stage = stage_of(scene=scene)
    outside = slicer.vtkOrientedImageData()
    outside.SetExtent(-4, 2, -3, 0, -2, 1)
    outside.SetImageToWorldMatrix(
        slicer.util.vtkMatrixFromArray(scenes.to_world(scene.volume) @ scene.ijk_to_ras)
    )
    outside.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    outside.GetPointData().GetScalars().Fill(1)
    old = slicer.vtkSegment()
    old.AddRepresentation("Binary labelmap", outside)
    scene.contents.AddSegment(old, "Old")
    assert min(stage.effect.defaultModifierLabelmap().GetExtent()) < 0
    stage.click()
    stage.wait()
    assert np.array_equal(np.flatnonzero(stage.preview().any(axis=(1, 2))), [5, 6, 7])
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), scene.truth)
    assert len(scene.found("Old")) == 7 * 4 * 4


def test_replacing_leaves_nothing_of_before(stage_of):
    """Mode Set erases the rest of the segment only where the lattice is the segment's own."""
    stage = stage_of("oblique anisotropic", ("segmentation", "volume"))
    mine, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    mine[0:3, 0:16, 0:20] = mine[10:12, 0:9, 0:9] = True
    other[11, 13:16, 15:20] = True
    stage.editor.logic.AddEmptySegment("B")
    stage.write("A", mine)
    stage.write("B", other)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.effect.setParameter("Mode", "replace")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask("A"), stage.scene.truth)
    assert np.array_equal(stage.mask("B"), other)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.mask("A"), mine)


def test_double_density(stage_of):
    """Events count pixels of the render window from its lower left corner, not Qt's."""
    from Testing.slicer.test_effect_prompts import voxels

    stage = stage_of(size=(480, 360), ratio=2)
    stage.drag((4, 3, 6), (17, 12, 6))
    stage.click((6, 5, 6), ctrl=1)
    box, point = voxels(stage)
    assert sorted(box[2]) == [(4, 3, 6), (17, 12, 6)] and point[2] == [(6, 5, 6)]
    discs = [
        actor.GetMapper().GetInput().GetBounds()
        for overlay in stage.python.views.overlays
        for actor in overlay.actors[1:]
    ]
    assert all(20 <= b[1] - b[0] <= 21 for b in discs)  # ten Qt pixels across
    x, y = stage.xy((6, 5, 6))
    assert all(abs((b[0] + b[1]) / 2 - x) < 1 and abs((b[2] + b[3]) / 2 - y) < 1 for b in discs)


@pytest.mark.parametrize("spot", [(-0.6, 7), (-1.4, 7), (9, -0.6), (19.6, 7), (9, 15.6)])
def test_just_outside_is_outside(stage_of, spot):
    """Slicer's own rounding takes -1.4 for voxel 0."""
    stage = stage_of(size=(500, 500))
    stage.click((*spot, 6))
    assert len(stage.interaction.book.prompts) == 0 and "outside the volume" in stage.message
    stage.click((min(max(spot[0], -0.4), 19.4), min(max(spot[1], -0.4), 15.4), 6))
    assert len(stage.interaction.book.prompts) == 1


def test_names_are_not_ids(stage_of):
    """Two segments, each named as the other's id; and no segment at all."""
    stage = stage_of()
    stage.editor.logic.AddEmptySegment("B")
    stage.scene.contents.GetSegment("A").SetName("B")
    stage.scene.contents.GetSegment("B").SetName("A")
    stage.editor.node.SetSelectedSegmentID("B")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask("B"), stage.scene.truth) and not stage.mask("A").any()
    stage.editor.node.SetSelectedSegmentID(None)
    assert stage.editor.active is None and stage.interaction.book.segment_id is None
    for action in ("segment", "apply", "clear", "existing", "weakest"):
        getattr(stage.python, f"on{action.capitalize()}")()
    stage.interaction.discard()
    assert np.array_equal(stage.mask("B"), stage.scene.truth) and not stage.mask("A").any()


def test_modes_are_of_the_right_type(stage_of):
    """The effect wants ints, the logic its own enum; each refuses the other's."""
    stage = stage_of()
    logic, image = stage.editor.logic, stage.effect.defaultModifierLabelmap()
    node = stage.scene.segmentation
    with pytest.raises(ValueError):
        stage.effect.modifySelectedSegmentByLabelmap(image, logic.ModificationModeAdd)
    with pytest.raises(TypeError):
        logic.ModifySegmentByLabelmap(node, "A", image, 1, [0, -1, 0, -1, 0, -1], True, False)


# The host


def test_idioms_of_pyside_are_unknown(qt_application):
    from Testing.host.pythonqt_rules import qt

    for name in ("Signal", "Slot", "QtCore", "QtWidgets"):
        with pytest.raises(AttributeError):
            getattr(qt, name)
    assert qt.QPushButton and qt.QTimer and qt.QPixmap  # flat


def test_self_tests_open_no_dialog(session, slidesam, qt_application, monkeypatch):
    """A hidden segment brings up a dialog also in testing mode; nobody would close it."""
    from SlideSAMBridge.tasks import worker

    from Testing.host.scripted_effect import ScriptedEffect

    monkeypatch.setattr(worker, "_shared", worker.Worker())
    editors = []
    original = slicer.qMRMLSegmentEditorWidget.setMRMLScene

    def remember(widget, scene):
        original(widget, scene)
        editors.append(widget._editor)

    def refuse(*arguments, **options):
        raise AssertionError(f"a dialog: {arguments}")

    monkeypatch.setattr(slicer.qMRMLSegmentEditorWidget, "setMRMLScene", remember)
    for name in ("errorDisplay", "warningDisplay", "infoDisplay", "confirmOkCancelDisplay"):
        monkeypatch.setattr(slicer.util, name, refuse)
    test = slidesam.SlideSAMTest()
    test.setUp()
    test.test_effect()
    assert len(editors) == 1 and editors[0].dialogs == 0
    segmentation = editors[0].node.GetSegmentationNode()
    segmentation.GetDisplayNode().SetAllSegmentsVisibility(False)  # the count can count
    effect = editors[0].effects["Slide-SAM"]
    assert effect.confirmCurrentSegmentVisible() == ScriptedEffect.ConfirmedWithDialog
    assert editors[0].dialogs == 1
    worker._shared.close()


def test_a_stage_that_leaves_something_fails(stage_of):
    """The stage's own look at the end can fail."""
    stage = stage_of()
    stage.editor.errors.append("something")
    with pytest.raises(AssertionError):
        Stage.close(stage)
    stage.editor.errors.clear()
