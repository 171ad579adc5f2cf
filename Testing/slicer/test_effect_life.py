"""Every moment at which the ground may go from under the effect, each with a job running too."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import slicer
from PySide6 import QtWidgets
from SlideSAMBridge.drawing import slice_views

from Testing.host.scripted_effect import LayoutManager

pytestmark = pytest.mark.slicer

JOBS = ("preview", "run", "correct")


@pytest.fixture(params=JOBS)
def busy(request, stage_of, quick_model):
    """A stage with prompts, and with a slow job under way, or none."""
    stage = stage_of()
    stage.empty = stage.props()
    stage.click()
    stage.wait()
    if request.param == "correct":
        stage.panel.segment.click()
        stage.wait()
    quick_model.delay = 0.15
    if request.param in ("preview", "correct"):
        stage.click((6, 5, 6))
    elif request.param == "run":
        stage.panel.segment.click()
        stage.wait(lambda: stage.interaction.work.slices)
    stage.before = stage.mask().copy()
    stage.request_kind = request.param
    return stage


def settle(stage, quick_model):
    """Whatever a late job may do has been done."""
    quick_model.delay = 0
    application = QtWidgets.QApplication.instance()
    done = threading.Event()
    stage.interaction.jobs.worker.submit("test", lambda job: done.set())
    while not done.wait(0.01):
        application.processEvents()
    for _ in range(5):
        application.processEvents()


def test_deactivate_and_come_back(busy, quick_model):
    """As on Esc, on another effect, and on leaving the module."""
    busy.shut()
    busy.shut()
    assert busy.props() == busy.empty and busy.interaction.preview.node is None
    assert busy.interaction.jobs.job is None and not busy.python.pump.running
    settle(busy, quick_model)
    assert np.array_equal(busy.mask(), busy.before)
    busy.open()
    assert busy.actors() > 0
    busy.panel.segment.click()
    busy.wait()
    assert np.array_equal(busy.mask(), busy.scene.truth)


def test_segment_removed(busy, quick_model):
    busy.editor.logic.AddEmptySegment("B")
    busy.editor.node.SetSelectedSegmentID("A")
    busy.scene.contents.RemoveSegment("A")
    settle(busy, quick_model)
    assert busy.interaction.preview.node is None and busy.actors() == 0
    assert busy.interaction.jobs.job is None
    assert not busy.mask("B").any()


def test_segment_switched(busy, quick_model):
    busy.editor.logic.AddEmptySegment("B")
    busy.editor.node.SetSelectedSegmentID("B")
    settle(busy, quick_model)
    assert busy.interaction.jobs.job is None and not busy.preview().any()
    assert not busy.mask("B").any() and np.array_equal(busy.mask(), busy.before)
    busy.editor.node.SetSelectedSegmentID("A")
    busy.panel.segment.click()
    busy.wait()
    assert np.array_equal(busy.mask(), busy.scene.truth) and not busy.mask("B").any()


@pytest.mark.parametrize("how", ["voxels", "other", "none", "deleted"])
def test_source_volume_changed(busy, quick_model, how):
    scene = busy.scene
    if how == "voxels":
        image = slicer.util.arrayFromVolume(scene.volume)
        image[:] = 0
        slicer.util.arrayFromVolumeModified(scene.volume)
    elif how == "other":
        other = slicer.util.addVolumeFromArray(
            np.zeros_like(scene.image), ijkToRAS=scene.ijk_to_ras, name="Empty"
        )
        busy.editor.node.SetAndObserveSourceVolumeNode(other)
    elif how == "none":
        busy.editor.node.SetAndObserveSourceVolumeNode(None)
    else:
        slicer.mrmlScene.RemoveNode(scene.volume)
    settle(busy, quick_model)
    assert busy.interaction.jobs.job is None and busy.interaction.preview.node is None
    assert np.array_equal(busy.mask(), busy.before)
    if busy.request_kind in ("run", "correct"):
        assert "source volume changed" in busy.message
    assert busy.scene.contents.GetSegment("A").HasTag("SlideSAM.Prompts")
    busy.panel.segment.click()  # without a volume the button is off; without an object, nothing
    busy.wait()
    assert np.array_equal(busy.mask(), busy.before)


def test_segmentation_deleted(busy, quick_model):
    slicer.mrmlScene.RemoveNode(busy.scene.segmentation)
    settle(busy, quick_model)
    assert busy.interaction.preview.node is None and busy.interaction.jobs.job is None


def test_scene_closed(busy, quick_model):
    slicer.mrmlScene.Clear(False)
    settle(busy, quick_model)
    assert busy.interaction.jobs.job is None and busy.interaction.preview.node is None
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert names == []


def test_undo_and_redo(busy, quick_model):
    logic = busy.editor.logic
    logic.Undo()
    logic.Redo()
    busy.wait()
    assert np.array_equal(busy.mask(), busy.scene.truth) or np.array_equal(busy.mask(), busy.before)


def test_layout_changed_and_views_gone(busy, quick_model):
    """PythonQt raises at every call of a widget that was destroyed."""
    for view in busy.views.values():
        view.closed = True
    slicer.app.layout = LayoutManager([])
    busy.python.layoutChanged()
    settle(busy, quick_model)
    busy.shut()
    for view in busy.views.values():
        view.closed = False


@pytest.mark.parametrize("how", ["layout", "deactivate", "cleanup"])
def test_views_gone_while_the_button_is_pressed(busy, quick_model, how):
    busy.view.event("LeftButtonPressEvent", busy.xy())
    busy.view.event("MouseMoveEvent", busy.xy() + 40)
    for view in busy.views.values():
        view.closed = True
    slicer.app.layout = LayoutManager([])
    if how == "layout":
        busy.python.layoutChanged()
        assert busy.python.gesture.view is None and busy.python.views.overlays == []
    elif how == "cleanup":
        busy.python.cleanup()
    busy.shut()
    settle(busy, quick_model)
    assert busy.python.watch.observers == 0 and busy.interaction.preview.node is None
    assert busy.props() == busy.empty and busy.editor.errors == []
    for view in busy.views.values():
        view.closed = False


def test_geometry_changed(busy, quick_model):
    """A result for other voxels is not written."""
    busy.scene.oversample(2)
    busy.wait()
    found = busy.scene.contents.GetSegment("A")
    assert found is not None
    busy.panel.apply.click()
    busy.panel.segment.click()
    quick_model.delay = 0
    busy.wait()
    assert busy.interaction.jobs.job is None


def test_two_editors(stage_of, quick_model):
    """Two clones on two segmentations, both busy: neither sees the other."""
    one = stage_of()
    two = stage_of("oblique", view_names=("Green",))
    quick_model.delay = 0.02
    one.click()
    two.click()
    one.wait()
    two.wait()
    assert one.interaction.preview.node is not two.interaction.preview.node
    one.panel.segment.click()
    two.panel.segment.click()
    one.panel.cancel.click()
    two.wait()
    one.wait()
    assert np.array_equal(two.mask(), two.scene.truth) and not one.mask().any()
    one.shut()
    assert two.actors() == 2


def test_nothing_keeps_the_effect_alive(stage_of):
    """When its editor is gone, no signal, timer, observer or job holds on to the Python half."""
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.shut()
    clone = stage.editor.cloneEffect(stage.effect)  # takes the place of the first one
    stage.python, kept = clone.self(), weakref.ref(stage.python)
    stage.open()
    stage.click((6, 5, 6))
    stage.wait()
    stage.shut()
    stage.editor._call(stage.effect, "cleanup")
    stage.editor._call(stage.effect, "cleanup")  # callable twice
    stage.effect = clone
    gc.collect()
    assert kept() is None


@pytest.fixture
def kept_modules():
    """The modules of before: other tests hold on to their classes."""
    names = ("SegmentEditorSlideSAMLib", "SlideSAMEffect", "SlideSAMBridge", "SlideSAMLib")
    before = {n: m for n, m in sys.modules.items() if n.split(".")[0] in names}
    yield
    fresh = sys.modules["SlideSAMBridge.tasks.worker"]._shared
    if fresh is not None:
        fresh.close()  # the thread of the new code
    for name in [n for n in sys.modules if n.split(".")[0] in names]:
        del sys.modules[name]
    sys.modules.update(before)


def test_reload(kept_modules, busy, quick_model):
    """The old half leaves nothing behind, the new one is made of the files as they are now."""
    from SlideSAMBridge.tasks import worker
    from SlideSAMEffect import reloading

    old, thread = busy.python, worker._shared._thread
    interaction = old.interaction
    marks = [mark.key for mark in interaction.book.prompts.marks]
    widgets = set(busy.effect.optionsFrame().findChildren(QtWidgets.QWidget))
    quick_model.delay = 0.01
    reloading.reload()
    thread.join(5)
    assert not thread.is_alive() and interaction.jobs.job is None
    assert not old.pump.running and old.watch.observers == 0
    assert interaction.preview.node is None and old.views.overlays == []
    busy.python = new = busy.effect.self()
    assert new is not old and type(new) is not type(old) and new.isActive
    assert type(new.interaction) is not type(interaction)
    QtWidgets.QApplication.sendPostedEvents(None, 52)  # deferred deletes
    assert not widgets & set(busy.effect.optionsFrame().findChildren(QtWidgets.QWidget))
    assert np.array_equal(busy.mask(), busy.before)
    assert [mark.key for mark in new.interaction.book.prompts.marks] == marks
    assert busy.editor.errors == []
    busy.click((9, 7, 6), ctrl=1, alt=1)  # real events reach the new half
    assert len(new.interaction.book.prompts) == len(marks) - 1
    busy.shut()
    assert busy.props() == busy.empty


def test_the_preferred_size_of_the_cache_counts(stage_of, slidesam):
    """Also where nobody has opened the module's panel."""
    from SlideSAMBridge.setup import preferences
    from SlideSAMBridge.tasks import shelf

    preferences.change(cache_mib=64)
    stage_of()
    assert shelf.shared_shelf.cache().max_bytes == 64 * 2**20
    assert slidesam.SlideSAMLogic()._cache().max_bytes == 64 * 2**20


def test_parameters_count_while_the_effect_is_not_active(stage_of):
    """As a script uses it: effectByName, setParameter, onSegment."""
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.shut()
    stage.effect.setParameter("Direction", "forward")
    stage.effect.setParameter("AutoApply", 0)
    stage.python.onSegment()
    stage.wait()
    assert not stage.mask().any()
    stage.write("A", stage.scene.truth)
    stage.effect.setParameter("Mode", "replace")
    stage.python.onApply()
    assert np.flatnonzero(stage.mask().any((1, 2)))[0] == 6  # and nothing behind the marked slice
    stage.interaction.reset()


def test_works_without_a_layout_manager(stage_of):
    """As in a window-less Slicer: views join with their first event."""
    stage = stage_of(layout=False)
    stage.click()
    stage.wait()
    assert stage.actors() == 2
    stage.panel.existing.click()


def test_shortcuts_live_with_the_effect(stage_of, qt_application):
    from Testing.host.pythonqt_rules import qt

    window = qt.QMainWindow()
    window.objectName = "qSlicerMainWindow"
    stage = stage_of()
    keys = sorted(s.key.toString() for s in window.findChildren(qt.QShortcut))
    assert keys == ["C", "X"]
    stage.shut()
    QtWidgets.QApplication.sendPostedEvents(None, 52)  # deferred deletes
    assert window.findChildren(qt.QShortcut) == []
    stage.open()
    window.deleteLater()  # as when the application closes
    QtWidgets.QApplication.sendPostedEvents(None, 52)
    stage.shut()
    assert not stage.python.pump.running and stage.python.views.overlays == []


def test_saved_and_loaded(stage_of, tmp_path):
    """The prompts come back with the scene's segmentation; the preview does not."""
    stage = stage_of()
    stage.drag((4, 3, 6), (17, 12, 6))
    stage.click((3, 13, 6), ctrl=1)
    stage.wait()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "kept.seg.nrrd"))
    assert storage.WriteData(stage.scene.segmentation)
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    assert storage.ReadData(loaded)
    before = [mark.key for mark in stage.interaction.book.prompts.marks]
    stage.editor.node.SetAndObserveSegmentationNode(loaded)
    stage.editor.node.SetSelectedSegmentID("A")
    if stage.editor.active is None:
        stage.open()
    assert [mark.key for mark in stage.interaction.book.prompts.marks] == before
    stage.scene.segmentation = loaded
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_the_whole_job_in_a_sagittal_view_of_an_oblique_volume(stage_of, quick_model, tmp_path):
    """Oblique, anisotropic and transformed: every voxel where it belongs, at every step."""
    stage = stage_of("oblique anisotropic", ("volume", "segmentation"), view_names=("Yellow",))
    truth = stage.scene.truth
    shown = slice_views.shown_slice(stage.view.node, stage.interaction.book.reader.part())
    assert shown == (1, 7)  # the transform turns by a right angle
    stage.drag((4, 7, 2), (17, 7, 9))
    stage.wait()
    window = np.zeros_like(truth)
    window[:, 6:9] = truth[:, 6:9]
    assert np.array_equal(stage.preview(), window) and not stage.mask().any()
    quick_model.delay = 0.05
    stage.key("Return")
    stage.wait(lambda: len(stage.interaction.work.slices) > 2)
    stage.panel.cancel.click()
    stage.wait()
    quick_model.delay = 0
    partly = stage.preview()
    assert partly.any() and not (partly & ~truth).any() and not stage.mask().any()
    stage.key("Return")
    stage.wait()
    assert np.array_equal(stage.mask(), truth)
    stage.scroll_to((6, 5, 6))
    stage.click((6, 5, 6))
    stage.wait()
    assert np.array_equal(stage.mask(), truth)
    while stage.editor.logic.CanUndo():
        stage.editor.logic.Undo()
    assert not stage.mask().any()
    while stage.editor.logic.CanRedo():
        stage.editor.logic.Redo()
    assert np.array_equal(stage.mask(), truth)
    marks = [mark.key for mark in stage.interaction.book.prompts.marks]
    assert len(marks) == 2
    stage.save_and_load(tmp_path)
    assert [mark.key for mark in stage.interaction.book.prompts.marks] == marks
    assert np.array_equal(stage.mask(), truth)
