"""Going on after something came in between: a stop, a move, other views, segments and models."""

import numpy as np
import pytest
import slicer

from SlideSAMLib import models
from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, SHAPE, affine
from Testing.slicer.test_effect_prompts import voxels

pytestmark = pytest.mark.slicer


def segmented(stage):
    """Click, slide, apply."""
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def slices(mask):
    return np.flatnonzero(mask.any(axis=(1, 2))).tolist()


def move(stage, scale=1.0):
    """Turn (and scale) the transform that volume and segmentation have in common."""
    turn = scale * np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    parent = stage.scene.segmentation.GetParentTransformNode()
    moved = slicer.util.vtkMatrixFromArray(affine(turn, (2.3, -4.6, 15.0)))
    parent.SetMatrixTransformToParent(moved)
    stage.view.node.RotateToVolumePlane(stage.scene.volume)
    stage.scroll_to(MIDDLE)
    stage.view.logic.FitSliceToBackground()
    stage.scroll_to(MIDDLE)


def test_clicks_follow_a_transform_that_moves_everything(stage_of):
    stage = stage_of(transforms=("volume", "segmentation"))
    stage.click()
    stage.wait()
    move(stage)
    stage.click((6, 5, 6))
    stage.wait()
    assert [at for _kind, _axis, at, _label in voxels(stage)] == [[MIDDLE], [(6, 5, 6)]]
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_jumps_and_the_strip_follow_it_too(stage_of):
    from SlideSAMEffect.strip import state_of

    stage = stage_of(transforms=("volume", "segmentation"))
    segmented(stage)
    move(stage)
    assert state_of(stage.interaction, [stage.view.node]).current == 6
    stage.python.jumpTo(8)
    assert state_of(stage.interaction, [stage.view.node]).current == 8
    plane = slicer.util.arrayFromVTKMatrix(stage.view.node.GetSliceToRAS())
    heights = [(np.linalg.inv(plane) @ [*stage.scene.ras((9, 7, k))[:3], 1.0])[2] for k in (8, 6)]
    assert abs(heights[0]) < 1e-6 < abs(heights[1])


def test_a_transform_that_scales_makes_another_source(stage_of):
    """Sizes in mm decide how far an outline may move and what is too small."""
    stage = stage_of(transforms=("volume", "segmentation"))
    segmented(stage)
    before = stage.interaction.work.source
    move(stage, scale=2.0)
    stage.click((6, 5, 6))
    stage.wait()
    assert stage.interaction.work.source.signature != before.signature
    assert np.allclose(stage.interaction.work.session.stack.spacing, 2 * np.array(before_mm(stage)))


def before_mm(stage):
    """Voxel sizes (K, J, I) of the volume without any transform."""
    return np.linalg.norm(stage.scene.ijk_to_ras[:3, :3], axis=0)[::-1]


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_point_in_another_view_leaves_the_box_in_force(stage_of, label, reopened):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.drag((4, 3, 6), (16, 12, 6), "Red")
    stage.wait()
    stage.click((9, 14 if label == 0 else 7, 6), "Yellow", ctrl=1 - label)
    stage.wait()
    if reopened:
        stage.shut()
        stage.open()
    stage.panel.segment.click()
    stage.wait()
    work = stage.interaction.work
    assert work.axis == 2
    assert {mark.kind for mark in stage.interaction.wanted(work)[6]} == {"box", "point"}
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_without_the_box_the_points_choose_the_direction(stage_of):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.drag((4, 3, 6), (16, 12, 6), "Red")
    stage.click(MIDDLE, "Yellow")
    stage.wait()
    stage.interaction.remove_mark(0)
    stage.panel.segment.click()
    stage.wait()
    assert stage.interaction.work.axis == 0
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_second_run_that_is_cancelled_takes_nothing_back(stage_of, quick_model):
    stage = stage_of()
    segmented(stage)
    before = stage.interaction.work.written.voxels.sum()
    quick_model.delay = 0.1
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 2)
    stage.panel.cancel.click()
    stage.wait()
    assert 0 < len(stage.interaction.work.slices) < len(slices(stage.scene.truth))
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert stage.interaction.work.written.voxels.sum() == before
    quick_model.delay = 0
    stage.effect.setParameter("LimitSlices", 1)
    stage.effect.setParameter("FirstSlice", 5)
    stage.effect.setParameter("LastSlice", 7)
    stage.panel.segment.click()
    stage.wait()
    assert slices(stage.mask()) == [5, 6, 7]  # a run that ends by itself knows what is too much


def test_a_correction_completes_what_a_cancelled_run_has_replaced(stage_of, quick_model):
    """What the run before had written on the other slices is not there any more."""
    stage = stage_of()
    stage.effect.setParameter("Mode", "replace")
    segmented(stage)
    quick_model.delay = 0.1
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 2)
    stage.panel.cancel.click()
    stage.wait()
    quick_model.delay = 0
    stage.panel.apply.click()
    finished = sorted(stage.interaction.work.slices)
    assert slices(stage.mask()) == finished and len(finished) < len(slices(stage.scene.truth))
    stage.click((6, 5, 6))
    stage.wait()
    assert "Applied" in stage.message and np.array_equal(stage.mask(), stage.scene.truth)


def test_a_correction_after_a_cancelled_run_takes_back_nothing_that_it_did_not_reach(
    stage_of, quick_model
):
    """It slides on from its slice, not on the other side of the prompt."""
    stage = stage_of()
    segmented(stage)
    quick_model.delay = 0.2
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 2)
    stage.panel.cancel.click()
    stage.wait()
    quick_model.delay = 0
    stage.panel.apply.click()
    beside = max(stage.interaction.work.slices, key=lambda k: abs(k - 6))
    stage.scroll_to((9, 7, beside))
    stage.click((9, 7, beside))
    stage.wait()
    assert "Applied" in stage.message and len(stage.interaction.work.slices) < 6
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_run_that_fails_at_once_leaves_the_result_before_it(stage_of, quick_model):
    stage = stage_of()
    stage.panel.autoApply.checked = False
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    quick_model.error = RuntimeError("for once")
    stage.panel.segment.click()
    stage.wait()
    assert stage.message == "for once" and np.array_equal(stage.preview(), stage.scene.truth)
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_run_that_fails_half_way_leaves_what_is_finished(stage_of, quick_model):
    """It can be applied, and takes back nothing of what it did not reach."""
    stage = stage_of()
    segmented(stage)
    quick_model.delay = 0.2
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 2)
    quick_model.error = RuntimeError("for once")
    stage.wait()
    quick_model.delay, quick_model.error = 0, None
    assert stage.message == "for once"
    finished = sorted(stage.interaction.work.slices)
    assert 2 <= len(finished) < 6 and slices(stage.preview()) == finished
    assert stage.panel.weakest.isEnabled()
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.click((6, 5, 6))
    stage.wait()
    assert "Applied" in stage.message and len(stage.interaction.work.slices) == 6


@pytest.mark.parametrize("how", ["model", "segment"])
def test_corrections_keep_to_the_limits_of_the_run(stage_of, quick_model, monkeypatch, how):
    monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
    models.register_model("another", lambda device, precision: scenes.model())
    stage = stage_of()
    for name, value in (("LimitSlices", 1), ("FirstSlice", 5), ("LastSlice", 7)):
        stage.effect.setParameter(name, value)
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert slices(stage.mask()) == [5, 6, 7]
    if how == "model":
        stage.effect.setParameter("Model", "another")
    else:  # the correction that is under way is given up, and made again
        stage.editor.logic.AddEmptySegment("B")
        stage.editor.node.SetSelectedSegmentID("A")
        quick_model.delay = 0.15
        stage.click((6, 5, 6))
        stage.editor.node.SetSelectedSegmentID("B")
        stage.editor.node.SetSelectedSegmentID("A")
        quick_model.delay = 0
    stage.click((12, 9, 6))
    stage.wait()
    assert stage.interaction.work.has_result and slices(stage.mask()) == [5, 6, 7]


def test_a_result_of_one_slice_is_corrected(stage_of):
    """And not taken for one that was undone."""
    stage = stage_of()
    for name, value in (("LimitSlices", 1), ("FirstSlice", 6), ("LastSlice", 6)):
        stage.effect.setParameter(name, value)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert slices(stage.mask()) == [6]
    stage.click((6, 5, 6), ctrl=1)
    stage.wait()
    assert "Applied" in stage.message and not stage.mask()[6, 5, 6]


def test_a_slide_left_for_another_segment_keeps_its_slices(stage_of, quick_model):
    stage = stage_of()
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    stage.click()
    stage.wait()
    quick_model.delay = 0.05
    stage.panel.segment.click()
    stage.wait(lambda: len(stage.interaction.work.slices) >= 3)
    stage.editor.node.SetSelectedSegmentID("B")
    assert "another segment is chosen" in stage.message and "What is finished (" in stage.message
    assert stage.interaction.jobs.job is None and not stage.preview().any()
    stage.editor.node.SetSelectedSegmentID("A")
    work = stage.interaction.work
    assert len(work.slices) >= 3 and stage.panel.apply.isEnabled()
    assert slices(stage.preview()) == sorted(work.slices)
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth & stage.mask())
    assert slices(stage.mask()) == sorted(work.slices)


def test_the_mark_after_the_last_was_removed_is_that_of_another_object(stage_of):
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[10:12, 4:11, 5:14] = scenes.INSIDE  # behind an empty slice
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    first = scenes.object_mask()
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), first)
    stage.click(ctrl=1, alt=1)
    assert len(stage.interaction.book.prompts) == 0 and stage.interaction.work is None
    stage.scroll_to((9, 7, 11))
    stage.click((9, 7, 11))
    stage.wait()
    assert not stage.interaction.work.has_result  # a preview, no correction of the first
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), image > 0)


def test_a_result_not_applied_stays_when_its_last_mark_goes(stage_of):
    stage = stage_of()
    stage.panel.autoApply.checked = False
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    stage.click(ctrl=1, alt=1)
    assert stage.panel.apply.isEnabled() and stage.panel.clear.isEnabled()
    assert np.array_equal(stage.preview(), stage.scene.truth)
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.panel.clear.click()
    assert stage.interaction.work is None and np.array_equal(stage.mask(), stage.scene.truth)


def test_a_mark_removed_before_its_preview_came_has_none(stage_of, quick_model):
    stage = stage_of()
    quick_model.delay = 0.2
    stage.click()
    stage.click(ctrl=1, alt=1)
    stage.wait()
    assert not stage.preview().any() and stage.interaction.work is None


def test_two_quick_clicks_are_both_previewed(stage_of, quick_model):
    """The second one first, as the user looks there; what was marked before is not forgotten."""
    stage = stage_of()
    quick_model.delay = 0.15
    stage.click()
    stage.scroll_to((9, 7, 3))
    stage.click((9, 7, 3))
    stage.wait()
    assert list(stage.interaction.work.previews) == [3, 6]
    assert "Slice 3" in stage.message
    expected = np.zeros(SHAPE, bool)
    for k in (2, 3, 4, 5, 6, 7):
        expected[k] = stage.scene.truth[k]
    assert np.array_equal(stage.preview(), expected)


def test_a_preview_that_was_overtaken_is_made_anew(stage_of, quick_model):
    """Its slice had a preview, but of fewer marks."""
    stage = stage_of()
    stage.click()
    stage.wait()
    old = stage.interaction.work.previews[6]
    quick_model.delay = 0.15
    stage.click((6, 5, 6))
    stage.scroll_to((9, 7, 3))
    stage.click((9, 7, 3))
    stage.wait()
    work = stage.interaction.work
    assert work.previews[6] is not old and not work.unpreviewed(stage.interaction.wanted(work))
    assert len(work.session.prompts[6].points) == 2


@pytest.mark.parametrize("left_for", ["another segment", "another effect"])
def test_a_correction_that_was_left_half_way_changes_nothing(stage_of, quick_model, left_for):
    """Half of it is neither what was there nor what was wanted."""
    stage, model = stage_of(), quick_model._model
    segmented(stage)
    usual = type(model)._masks
    model._masks = lambda window, prompt: usual(model, window, prompt) & (np.arange(20) < 12)
    quick_model.delay = 0.2
    stage.scroll_to((6, 6, 3))
    stage.click((6, 6, 3))
    stage.wait(lambda: stage.interaction.progress.done >= 1)
    assert stage.interaction.work.dirty and not stage.interaction.work.slices[3][0][:, 12:].any()
    if left_for == "another segment":
        stage.editor.logic.AddEmptySegment("B")
        stage.editor.node.SetSelectedSegmentID("B")
        stage.editor.node.SetSelectedSegmentID("A")
    else:
        stage.shut()
        stage.open()
    quick_model.delay = 0
    stage.wait()
    work = stage.interaction.work
    assert not work.dirty and not stage.panel.apply.isEnabled()
    assert all(np.array_equal(work.slices[k][0], stage.scene.truth[k]) for k in range(3, 9))
    assert np.array_equal(stage.mask(), stage.scene.truth)
