"""The previews are those of the marks: where marks go, come back, or change behind the scenes."""

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, SHAPE
from Testing.slicer.test_effect_runs import window

pytestmark = pytest.mark.slicer


def marked(stage):
    return len(stage.interaction.book.prompts)


def other_edit(stage):
    """Save a state and draw a voxel, as another effect does; the state has the marks of now."""
    stage.editor.logic.SaveStateForUndo()
    voxel = np.zeros(SHAPE, bool)
    voxel[0, 0, 0] = True
    stage.write("A", voxel)


def test_undo_of_an_edit_before_the_marks(stage_of):
    """It takes the marks along, and nothing may go on showing them; Redo brings all back."""
    stage = stage_of()
    other_edit(stage)
    stage.click()
    stage.wait()
    stage.editor.logic.Undo()
    assert marked(stage) == 0 and stage.interaction.preview.node is None and stage.actors() == 0
    assert not stage.panel.segment.isEnabled() and "Click on the object" in stage.message
    stage.editor.logic.Redo()
    assert marked(stage) == 1 and stage.panel.segment.isEnabled()
    stage.click((6, 5, 6))
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))


def test_undo_of_an_edit_between_the_marks(stage_of):
    stage = stage_of()
    stage.scroll_to((9, 7, 4))
    stage.click((9, 7, 4))
    stage.wait()
    other_edit(stage)
    stage.scroll_to((9, 7, 7))
    stage.click((9, 7, 7))
    stage.wait()
    both = window(stage.scene.truth, 4) | window(stage.scene.truth, 7)
    assert np.array_equal(stage.preview(), both)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 4))
    stage.editor.logic.Redo()
    stage.wait()
    assert np.array_equal(stage.preview(), both)


def test_a_box_that_is_removed_leaves_the_preview_of_the_one_before(stage_of):
    """The last box chooses the direction; without it that of the other one counts again."""
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.drag((4, 3, 6), (17, 13, 6), "Red")
    stage.wait()
    stage.drag((9, 3, 2), (9, 13, 9), "Yellow")
    stage.wait()
    assert stage.interaction.work.axis == 0
    stage.interaction.remove_mark(1)
    stage.wait()
    assert stage.interaction.work.axis == 2
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))


def test_other_mask_after_the_latest_mark_was_removed(stage_of):
    """It belongs to the slice of the mark before then; the key did nothing."""
    stage = stage_of()
    for k in (4, 7):
        stage.scroll_to((9, 7, k))
        stage.click((9, 7, k))
        stage.wait()
    stage.interaction.remove_mark(1)
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 4))
    stage.key("c")
    stage.wait()
    shown = stage.preview()
    assert "Slice 4" in stage.message and 0 < shown[4].sum() != stage.scene.truth[4].sum()


def test_discard_shows_the_marks_that_the_corrections_have_added(stage_of):
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    stage.panel.autoApply.checked = False
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    stage.click((18, 13, 6), ctrl=1)
    stage.wait()
    stage.panel.discard.click()
    stage.wait()
    assert marked(stage) == 2 and np.array_equal(stage.preview(), window(stage.scene.truth, 6))


def test_a_preview_comes_when_its_segment_is_chosen_again(stage_of, quick_model):
    stage = stage_of()
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    quick_model.delay = 0.1
    stage.click()
    stage.editor.node.SetSelectedSegmentID("B")
    quick_model.delay = 0
    stage.editor.node.SetSelectedSegmentID("A")
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))


def test_another_name_is_no_reason_to_try_again_what_has_failed(stage_of, quick_model):
    stage = stage_of()
    quick_model.error = RuntimeError("for once")
    stage.click()
    stage.wait()
    tried = quick_model.predictions
    stage.scene.contents.GetSegment("A").SetName("Liver")
    assert stage.interaction.jobs.job is None and quick_model.predictions == tried
    assert stage.message == "for once"


def test_the_preview_has_the_colour_of_its_segment(stage_of):
    stage = stage_of()
    stage.click(MIDDLE)
    stage.wait()
    stage.effect.setParameter("WeakBelow", 1)  # with a dashed outline
    stage.interaction.refresh()
    (overlay,) = stage.python.views.overlays
    for color in ((0, 0, 1), (1, 0.5, 0)):
        stage.scene.contents.GetSegment("A").SetColor(*color)
        contents = stage.interaction.preview.node.GetSegmentation()
        for name in ("sure", "weak"):
            assert np.allclose(contents.GetSegment(name).GetColor(), color)
        assert np.allclose(overlay.dashes.GetProperty().GetColor(), color)


def test_other_mask_of_an_applied_result_names_a_way_that_there_is(stage_of):
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert not stage.panel.discard.isEnabled()
    stage.key("c")
    assert "undo it" in stage.message and "discard" not in stage.message
    stage.editor.logic.Undo()
    stage.click((6, 5, 6))
    stage.wait()
    stage.key("c")
    stage.wait()
    assert stage.interaction.message.kind == "info" and stage.preview().any()


@pytest.mark.parametrize("how", ["discard", "undo", "failed", "other segment"])
def test_the_candidate_that_is_shown_is_the_one_that_is_segmented(stage_of, quick_model, how):
    """Also by a run after one that came to nothing: it has a session of its own."""
    stage = stage_of()
    stage.panel.autoApply.checked = how == "undo"
    stage.click()
    stage.wait()
    stage.key("c")
    stage.wait()
    shown = stage.preview()
    assert 0 < shown[6].sum() < stage.scene.truth[6].sum()
    if how == "failed":
        quick_model.error = RuntimeError("for once")
    if how == "other segment":
        stage.editor.logic.AddEmptySegment("B")
        stage.editor.node.SetSelectedSegmentID("A")
        quick_model.delay = 0.1
    stage.panel.segment.click()
    if how == "other segment":
        stage.editor.node.SetSelectedSegmentID("B")
        stage.editor.node.SetSelectedSegmentID("A")
    stage.wait()
    quick_model.delay, quick_model.error = 0, None
    if how == "discard":
        assert np.array_equal(stage.preview()[6], shown[6])
        stage.panel.discard.click()
    elif how == "undo":
        stage.editor.logic.Undo()
        stage.scroll_to((9, 7, 4))
        stage.click((9, 7, 4))
        stage.wait()
        shown[3:6] = stage.scene.truth[3:6]
    assert np.array_equal(stage.preview(), shown)
    stage.panel.autoApply.checked = True
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask()[6], shown[6])


@pytest.mark.parametrize("marked", [False, True])
def test_a_mask_of_another_geometry_is_left_out(stage_of, marked):
    """It stopped every preview and every run, with a sentence about a prompt that marks nothing."""
    stage = stage_of()
    drawn = np.zeros(SHAPE, bool)
    drawn[6] = stage.scene.truth[6]
    stage.write("A", drawn)
    stage.panel.existing.click()
    stage.wait()
    stage.scene.oversample(2)
    if marked:
        stage.scroll_to((9, 7, 4))
        stage.click((9, 7, 4))
        stage.wait()
        assert "Slice" in stage.message and stage.interaction.preview.node is not None
    stage.panel.segment.click()
    stage.wait()
    assert ("Applied" in stage.message) == marked
    assert marked or "mark the object" in stage.message


def test_a_mask_is_not_taken_for_that_of_a_volume_of_the_same_size(stage_of):
    """The segmentation covers both volumes, and the other one begins three columns before."""
    scene = scenes.Scene(oversampling=1)
    moved = scene.ijk_to_ras @ scenes.affine(np.eye(3), (-3, 0, 0))
    other = slicer.util.addVolumeFromArray(scene.image, ijkToRAS=moved)
    wide = np.zeros((*SHAPE[:2], SHAPE[2] + 3), np.int16)
    both = slicer.util.addVolumeFromArray(wide, ijkToRAS=moved)
    scene.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(both)
    stage = stage_of(scene=scene)
    drawn = np.zeros(SHAPE, bool)
    drawn[6] = scene.truth[6]
    stage.write("A", drawn)
    stage.panel.existing.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(scene.truth, 6))
    stage.editor.node.SetAndObserveSourceVolumeNode(other)
    stage.panel.segment.click()
    stage.wait()
    assert "mark the object" in stage.message and np.array_equal(stage.mask(), drawn)


def test_what_was_refused_is_still_told_when_the_preview_comes(stage_of, quick_model):
    stage = stage_of()
    quick_model.delay = 0.3
    stage.click()
    stage.click((-3, 7, 6))
    refused = stage.message
    assert stage.interaction.message.kind == "error"
    stage.wait()
    assert stage.preview().any() and stage.message == refused


def test_a_mask_that_was_chosen_before_another_mark_came_is_not_segmented(stage_of):
    """Nor by a run after one that was discarded: it is not what the preview shows."""
    stage = stage_of()
    stage.panel.autoApply.checked = False
    stage.click()
    stage.wait()
    stage.key("c")
    stage.wait()
    assert stage.preview()[6].sum() < stage.scene.truth[6].sum()
    stage.click((6, 5, 6))
    stage.wait()
    assert np.array_equal(stage.preview()[6], stage.scene.truth[6])
    for _ in range(2):
        stage.panel.segment.click()
        stage.wait()
        assert np.array_equal(stage.preview(), stage.scene.truth)
        stage.panel.discard.click()
        stage.wait()
