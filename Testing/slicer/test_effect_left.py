"""What becomes of a result that was not applied when the effect is left."""

import gc
import weakref

import numpy as np
import pytest
import slicer
import vtk
from PySide6 import QtWidgets
from SlideSAMBridge.scene.marks import TAG

from Testing.slicer import scenes
from Testing.slicer.effect_stage import SAMPLE_EFFECT
from Testing.slicer.scenes import MIDDLE
from Testing.slicer.test_effect_continues import slices
from Testing.slicer.test_effect_life import kept_modules  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slicer


def unapplied(stage):
    """A whole result in the preview, and nothing of it in the segment."""
    stage.panel.autoApply.checked = False
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.preview(), stage.scene.truth) and not stage.mask().any()
    return stage


@pytest.fixture
def left(stage_of):
    """A stage whose effect was left with a result that was not applied."""
    stage = unapplied(stage_of())
    stage.shut()
    return stage


def nothing_waits(stage):
    return len(stage.interaction.waiting) == 0 and stage.interaction.work is None


@pytest.mark.parametrize("how", ["other effect", "none", "place mode"])
def test_it_is_there_again(stage_of, how):
    stage = unapplied(stage_of())
    empty = stage.props()
    weakest = stage.interaction.work.weakest
    if how == "other effect":
        name = stage.editor.addEffect(SAMPLE_EFFECT).name
        stage.editor.setActiveEffectByName(name)
    elif how == "none":
        stage.shut()
    else:
        stage.editor.setPlaceMode(True)
    assert stage.editor.active is not stage.effect
    assert not stage.preview().any() and stage.interaction.preview.node is None
    assert stage.python.watch.observers == 0 and not stage.python.pump.running
    assert stage.props() <= empty
    stage.open()
    assert np.array_equal(stage.preview(), stage.scene.truth) and not stage.mask().any()
    assert "6 slices" in stage.message and "Apply" in stage.message
    stage.wait()
    assert "Apply" in stage.message  # no model that is ready has taken its place
    assert stage.panel.apply.isEnabled() and stage.panel.discard.isEnabled()
    assert stage.interaction.work.weakest == weakest is not None
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.editor.logic.Undo()
    assert not stage.mask().any()


@pytest.mark.parametrize("stopped", [True, False])
def test_so_are_the_slices_of_a_run_that_was_stopped_or_left(stage_of, quick_model, stopped):
    stage = stage_of()
    stage.click()
    stage.wait()
    quick_model.delay = 0.1
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 2)
    if stopped:
        stage.panel.cancel.click()
        stage.wait()
    finished = sorted(stage.interaction.work.slices)
    stage.shut()
    quick_model.delay = 0
    assert stage.interaction.jobs.job is None and stage.interaction.preview.node is None
    stage.open()
    stage.wait()
    work = stage.interaction.work
    assert set(finished) <= set(work.slices) and work.unfinished
    assert slices(stage.preview()) == sorted(work.slices) and not stage.mask().any()
    assert f"{len(work.slices)} slices" in stage.message
    assert stage.panel.weakest.isEnabled() and work.weakest in set(work.slices) - {6}
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_going_on_from_it(left):
    """A click corrects it, as if nobody had been away."""
    left.open()
    left.click((6, 5, 6))
    left.wait()
    assert left.interaction.work.has_result and not left.mask().any()
    assert np.array_equal(left.preview(), left.scene.truth)
    left.panel.discard.click()
    assert not left.interaction.work.has_result
    left.shut()
    assert nothing_waits(left)


def test_it_is_there_again_with_other_marks(left):
    """As when a script has segmented from marks of its own: what was not applied is not lost."""
    left.scene.segmentation.GetSegmentation().GetSegment("A").RemoveTag(TAG)
    left.open()
    assert np.array_equal(left.preview(), left.scene.truth)
    left.panel.apply.click()
    assert np.array_equal(left.mask(), left.scene.truth)


@pytest.mark.parametrize("what", ["preview", "discarded", "cleared"])
def test_nothing_else_is_kept(stage_of, what):
    stage = stage_of()
    if what == "preview":
        stage.click()
        stage.wait()
    else:
        unapplied(stage)
        button = {"discarded": "discard", "cleared": "clear"}[what]
        getattr(stage.panel, button).click()
    stage.shut()
    assert nothing_waits(stage)


def test_what_waits_is_packed(left):
    (entry,) = left.interaction.waiting._results.values()
    shape = left.scene.truth[0].shape
    assert all(bits.nbytes * 8 == np.prod(shape) for bits, _ in entry[0].slices.values())
    left.open()
    assert all(mask.shape == shape for mask, _ in left.interaction.work.slices.values())


def test_no_image_and_no_session_is_kept(stage_of):
    """Of the volume, of the model, or of the segment that has nothing to apply."""
    stage = unapplied(stage_of())
    work = stage.interaction.work
    gone = [weakref.ref(each) for each in (work, work.session, work.source)]
    del work
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    stage.click((6, 5, 6))
    stage.wait()
    gone.append(weakref.ref(stage.interaction.work))
    stage.shut()
    gc.collect()
    assert [each() for each in gone] == [None] * 4
    assert len(stage.interaction.waiting) == 1


def test_that_of_another_segment_is_named(stage_of):
    stage = unapplied(stage_of())
    stage.scene.contents.GetSegment("A").SetName("Liver")
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    stage.shut()
    stage.open()
    stage.wait()
    assert "Liver" in stage.message and not stage.preview().any()
    stage.editor.node.SetSelectedSegmentID("A")
    assert np.array_equal(stage.preview(), stage.scene.truth)


def other_voxels(stage):
    slicer.util.arrayFromVolume(stage.scene.volume)[0, 0, 0] = 1
    slicer.util.arrayFromVolumeModified(stage.scene.volume)


def other_volume(stage):
    scene = stage.scene
    twin = slicer.util.addVolumeFromArray(scene.image, ijkToRAS=scene.ijk_to_ras, name="Twin")
    stage.editor.node.SetAndObserveSourceVolumeNode(twin)


def other_geometry(stage):
    stage.scene.oversample(2)


def other_segmentation(stage):
    """On the same voxels, with a segment of the same id."""
    twin = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Twin")
    twin.CreateDefaultDisplayNodes()
    twin.SetReferenceImageGeometryParameterFromVolumeNode(stage.scene.volume)
    twin.GetSegmentation().AddEmptySegment("A", "A")
    stage.editor.node.SetAndObserveSegmentationNode(twin)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.scene.segmentation = twin


CHANGES = [other_voxels, other_volume, other_geometry, other_segmentation]


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_dropped_with_a_word_where_it_does_not_fit_any_more(left, change):
    change(left)
    left.open()
    assert "not applied" in left.message and left.interaction.preview.node is None
    assert nothing_waits(left)
    left.click()
    left.wait()
    assert not left.interaction.work.has_result  # a first preview
    assert not left.mask().any() if change is not other_geometry else True


@pytest.mark.parametrize("change", [other_voxels, other_volume, other_segmentation])
def test_the_same_while_the_effect_is_active(stage_of, change):
    stage = unapplied(stage_of())
    change(stage)
    assert "not applied" in stage.message
    assert nothing_waits(stage) and stage.interaction.preview.node is None


def test_the_same_for_the_result_of_another_segment(stage_of):
    """It was shown again with its segment, and could not be applied."""
    stage = unapplied(stage_of())
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    other_voxels(stage)
    assert "not applied" in stage.message
    stage.editor.node.SetSelectedSegmentID("A")
    assert nothing_waits(stage) and stage.interaction.preview.node is None


def moved_volume(stage):
    """By a transform that was there before, as dragging it in a view does."""
    stage.scene.volume.GetParentTransformNode().SetMatrixTransformToParent(
        slicer.util.vtkMatrixFromArray(scenes.affine(np.eye(3), (-0.8, 0, 0)))
    )


@pytest.mark.parametrize("change", [moved_volume, other_geometry])
def test_a_click_drops_it_with_a_word_where_nobody_tells_of_the_change(stage_of, change):
    stage = stage_of()
    node = scenes.add_transform(np.eye(4))
    stage.scene.volume.SetAndObserveTransformNodeID(node.GetID())
    unapplied(stage)
    change(stage)
    stage.click((6, 5, 6))
    assert "not applied" in stage.message and nothing_waits(stage)
    assert len(stage.interaction.book.prompts) == 1
    stage.click((6, 5, 6))
    stage.wait()
    assert len(stage.interaction.book.prompts) == 2 and stage.interaction.preview.node is not None


def test_a_segmentation_that_goes_with_its_effect(stage_of):
    """The editor may end the effect before it tells anybody that the segmentation is another."""
    stage = unapplied(stage_of())
    first, node = stage.scene.segmentation, stage.editor.node
    modifying = node.StartModify()
    other_segmentation(stage)
    stage.shut()
    node.EndModify(modifying)
    assert nothing_waits(stage)
    for segmentation in (stage.scene.segmentation, first):
        node.SetAndObserveSegmentationNode(segmentation)
        stage.open()
        assert not stage.preview().any() and nothing_waits(stage)
        stage.shut()


def test_a_new_segment_of_the_same_id_does_not_get_it(left):
    left.scene.contents.RemoveSegment("A")
    left.editor.logic.AddEmptySegment("A")
    left.editor.node.SetSelectedSegmentID("A")
    left.open()
    left.wait()
    assert nothing_waits(left) and not left.preview().any()
    assert "not applied" not in left.message  # who removes a segment does not want it


def test_undo_of_another_edit_leaves_it(left):
    left.editor.logic.SaveStateForUndo()
    left.write("A", left.scene.truth)
    left.editor.logic.Undo()
    left.open()
    assert np.array_equal(left.preview(), left.scene.truth)


@pytest.mark.parametrize("how", ["closed", "deleted"])
def test_closed_scenes_and_deleted_segmentations_take_it_along(left, how):
    """At once: an editor asks its effects for defaults, or tells of the volume that is gone."""
    entry = next(iter(left.interaction.waiting._results.values()))
    work = weakref.ref(entry[0])
    del entry
    if how == "deleted":
        slicer.mrmlScene.RemoveNode(left.scene.segmentation)
        left.editor.node.SetAndObserveSourceVolumeNode(None)
    else:
        slicer.mrmlScene.Clear(False)
        fresh = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        left.editor.setParameterNode(fresh)
    gc.collect()
    assert work() is None and nothing_waits(left)


def test_a_closed_scene_while_active(stage_of):
    stage = unapplied(stage_of())
    slicer.mrmlScene.Clear(False)
    stage.shut()
    assert nothing_waits(stage)


def test_it_keeps_no_node_alive(left):
    reference = vtk.vtkWeakReference()
    reference.Set(left.scene.segmentation)
    slicer.mrmlScene.RemoveNode(left.scene.segmentation)
    left.scene.segmentation = None
    left.editor._shown = ()
    gc.collect()
    assert reference.Get() is None


def test_it_goes_with_its_editor(left):
    left.editor._call(left.effect, "cleanup")
    assert nothing_waits(left)


def test_it_goes_when_the_module_is_reloaded(kept_modules, left):  # noqa: F811
    from SlideSAMEffect import reloading

    old = left.interaction
    reloading.reload()
    left.python = left.effect.self()
    QtWidgets.QApplication.sendPostedEvents(None, 52)  # deferred deletes
    assert len(old.waiting) == 0 and left.interaction is not old and nothing_waits(left)


@pytest.mark.parametrize("again", ["click", "box", "existing", "segment"])
def test_after_the_last_mark_is_removed_nothing_replaces_it(stage_of, again):
    """The next mark would be that of another object."""
    stage = unapplied(stage_of())
    stage.click(ctrl=1, alt=1)
    assert "Apply or discard the result" in stage.message
    if again == "click":
        stage.click((6, 5, 6))
    elif again == "box":
        stage.drag((4, 3, 6), (17, 12, 6))
    elif again == "existing":
        stage.write("A", stage.scene.truth)
        stage.panel.existing.click()
    else:
        stage.python.onSegment()
    stage.wait()
    assert len(stage.interaction.book.prompts) == 0
    assert np.array_equal(stage.preview(), stage.scene.truth)
    assert stage.interaction.message.kind == "error"
    if again != "segment":
        assert stage.message == "Apply or discard the result first."


@pytest.mark.parametrize("button", ["apply", "discard", "clear"])
def test_and_then_the_next_object_can_be_marked(stage_of, button):
    stage = unapplied(stage_of())
    stage.click(ctrl=1, alt=1)
    getattr(stage.panel, button).click()
    stage.click((6, 5, 6))
    stage.wait()
    assert len(stage.interaction.book.prompts) == 1 and not stage.interaction.work.has_result
    assert stage.mask().any() == (button == "apply")


def test_without_marks_it_survives_leaving_too(stage_of):
    stage = unapplied(stage_of())
    stage.click(ctrl=1, alt=1)
    stage.shut()
    stage.open()
    assert np.array_equal(stage.preview(), stage.scene.truth)
    stage.click(MIDDLE)
    assert stage.message == "Apply or discard the result first."
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert scenes.object_mask().sum() == stage.mask().sum()
