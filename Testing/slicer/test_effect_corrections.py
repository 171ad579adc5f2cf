"""What a correction of an applied result writes, takes back, gives back, and leaves alone."""

import numpy as np
import pytest
from SlideSAMBridge.scene import editing, lattice, neighbours

from Testing.slicer import scenes
from Testing.slicer.scenes import SHAPE

pytestmark = pytest.mark.slicer


def leaky(stage_of):
    """A stage whose volume has a second bright thing apart from the object, on every slice."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE
    return stage_of(scene=scenes.Scene(image=image, oversampling=1))


def leak(stage):
    """Segment both things with one box."""
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.image > 0)


@pytest.mark.parametrize("step", [0.5, 1, 2])
def test_segments_on_other_lattices_get_back_what_was_taken(stage_of, step):
    """As imported files bring them; edges coincide, so that the block has the same voxels."""
    stage = leaky(stage_of)
    stage.scene.import_segment("C", step, (12, 4, 2))
    block = np.zeros(SHAPE, bool)
    block[2:12, 4:16, 12:20] = True
    stage.editor.node.SetSelectedSegmentID("A")
    leak(stage)
    assert np.array_equal(stage.mask("C"), block & ~stage.mask())
    stage.click((18, 13, 6), ctrl=1)
    stage.wait()
    assert not stage.mask()[6, 12:15, 16:20].any()
    assert np.array_equal(stage.mask("C"), block & ~stage.mask())


@pytest.mark.parametrize(("step", "first"), [(1, (7, -2, 3)), (0.5, (7, 2, 3)), (3, (1, 2, 3))])
def test_layers_of_other_lattices_are_read_on_the_part_alone(stage_of, monkeypatch, step, first):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.scene.import_segment("C", step, first)
    part = stage.interaction.reader.part().cropped((5, 12, 1, 9, 2, 6))
    size = np.array([8, 12, 10]) // step * step
    block = np.zeros(part.shape, bool)
    low = np.maximum(first - part.first, 0).astype(int)
    high = np.minimum(first + size - part.first, part.last - part.first + 1).astype(int)
    block[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = True
    read = []
    original = editing.on_lattice

    def counted(image, where):
        read.append(where.shape)
        return original(image, where)

    monkeypatch.setattr(editing, "on_lattice", counted)
    where = np.ones(part.shape, bool)
    found = neighbours.owned(stage.scene.segmentation, "A", part, where)
    assert np.array_equal(found["C"], np.flatnonzero(block))
    overlap = tuple(int(np.ptp(at)) + 1 for at in np.nonzero(block))
    assert read == [overlap if step == 1 else part.shape]  # resampled, it has the part's lattice
    far = lattice.Lattice((40, 42, 1, 9, 2, 6), part.ijk_to_local, part.local_to_ras)
    assert neighbours.owned(stage.scene.segmentation, "A", far, np.ones(far.shape, bool)) == {}


def segmented(stage, mode="add"):
    """Click, slide, apply."""
    stage.effect.setParameter("Mode", mode)
    stage.click()
    stage.panel.segment.click()
    stage.wait()


def paint(stage, name, mask, mode="Add"):
    """Change a segment as another effect does, by Slicer's own rules."""
    image = editing.label_image(mask, stage.interaction.reader.part())
    kind = getattr(stage.effect, f"ModificationMode{mode}")
    stage.effect.modifySegmentByLabelmap(stage.scene.segmentation, name, image, kind)


def taken_by_another(stage, *slices):
    """Another segment, "B", which gets what the object has on some slices."""
    mask = np.zeros(SHAPE, bool)
    mask[list(slices)] = stage.scene.truth[list(slices)]
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    paint(stage, "B", mask)
    assert np.array_equal(stage.mask("B"), mask)
    return mask


def correct(stage, ijk, **modifiers):
    stage.scroll_to(ijk)
    stage.click(ijk, **modifiers)
    stage.wait()


@pytest.mark.parametrize("mode", ["add", "replace"])
def test_a_correction_leaves_alone_what_changed_on_other_slices(stage_of, mode):
    stage = stage_of()
    segmented(stage, mode)
    b = taken_by_another(stage, 3, 4)
    erased, drawn = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    erased[5, 4:8, 5:9] = True
    drawn[10, 12:15, 15:18] = drawn[8, 13:15, 15:18] = True
    paint(stage, "A", erased, "Remove")
    paint(stage, "A", drawn)
    stage.editor.logic.ClearUndoState()
    before = stage.mask()
    correct(stage, (9, 7, 8))
    assert "Applied" in stage.message and not stage.interaction.work.dirty
    assert np.array_equal(stage.mask("B"), b)
    assert np.array_equal(stage.mask(), (stage.scene.truth & ~b & ~erased) | drawn)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.mask(), before) and not stage.editor.logic.CanUndo()


def test_a_correction_that_removes_leaves_other_slices_alone(stage_of):
    stage = leaky(stage_of)
    stage.write("A", np.ones(SHAPE, bool))
    stage.effect.setParameter("Mode", "remove")
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    found = stage.scene.image > 0
    assert np.array_equal(stage.mask(), ~found)
    drawn = np.zeros(SHAPE, bool)
    drawn[3:7, 4:8, 5:9] = True
    paint(stage, "A", drawn)
    correct(stage, (18, 13, 6), ctrl=1)
    drawn[6] = False  # the slice that was clicked on
    drawn[6, 12:15, 16:20] = True  # what the correction lets go of
    assert np.array_equal(stage.mask(), ~found | drawn)


@pytest.mark.parametrize("mode", ["add", "replace"])
@pytest.mark.parametrize("k", [4, 6])
def test_the_slice_of_the_correction_is_written_whole(stage_of, mode, k):
    """The user looks there; slice 6 is clicked on at the very place of the first mark."""
    stage = stage_of()
    segmented(stage, mode)
    b = taken_by_another(stage, 3, 4, 6)
    correct(stage, (9, 7, k))
    b[k] = False
    assert np.array_equal(stage.mask("B"), b)
    assert np.array_equal(stage.mask(), stage.scene.truth & ~b)
    correct(stage, (9, 7, 8))  # that mark is not new any more
    paint(stage, "B", stage.scene.truth & (np.arange(12) == k)[:, None, None])
    b = stage.mask("B")
    correct(stage, (6, 5, 8))
    assert b[k].any() and np.array_equal(stage.mask("B"), b)


def test_a_mark_made_while_a_correction_ran_counts_for_the_next(stage_of, quick_model):
    stage = stage_of()
    segmented(stage)
    b = taken_by_another(stage, 3, 4, 5)
    quick_model.delay = 0.1
    stage.scroll_to((9, 7, 8))
    stage.click((9, 7, 8))
    stage.scroll_to((9, 7, 4))
    stage.click((9, 7, 4))
    assert stage.interaction.sliding and "next run" in stage.message
    quick_model.delay = 0
    stage.wait()
    assert np.array_equal(stage.mask("B"), b)
    correct(stage, (9, 7, 7))
    b[4] = False
    assert np.array_equal(stage.mask("B"), b)


@pytest.mark.parametrize("how", ["run", "button"])
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_a_fresh_run_and_the_button_write_everything(stage_of, how, mode):
    stage = stage_of()
    segmented(stage, mode)
    taken_by_another(stage, 3, 4)
    if how == "run":
        stage.panel.segment.click()
        stage.wait()
    else:
        stage.panel.autoApply.checked = False
        correct(stage, (9, 7, 8))
        assert stage.mask("B").any()
        stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth) and not stage.mask("B").any()


def test_a_correction_does_not_bring_back_what_was_undone_elsewhere(stage_of):
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[6, 12:15, 16:20] = scenes.INSIDE
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    segmented(stage)
    assert np.array_equal(stage.mask(), stage.scene.truth)
    correct(stage, (18, 13, 6))
    assert np.array_equal(stage.mask(), image > 0)
    stage.editor.logic.Undo()
    correct(stage, (9, 7, 8))
    assert "Applied" in stage.message and np.array_equal(stage.mask(), stage.scene.truth)


def test_what_masking_left_out_is_not_written_by_a_correction_elsewhere(stage_of):
    stage = stage_of()
    b = np.zeros(SHAPE, bool)
    b[4:7, 3:9, 3:10] = True
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", b)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.editor.node.SetMaskMode(stage.scene.segmentation.EditAllowedOutsideAllSegments)
    segmented(stage)
    stage.editor.node.SetMaskMode(stage.scene.segmentation.EditAllowedEverywhere)
    correct(stage, (9, 7, 8))
    assert np.array_equal(stage.mask("B"), b)
    assert np.array_equal(stage.mask(), stage.scene.truth & ~b)
    correct(stage, (9, 7, 5))
    b[5] &= ~stage.scene.truth[5]
    assert np.array_equal(stage.mask("B"), b)


def test_what_masking_left_out_and_was_drawn_by_hand_stays(stage_of):
    """A correction that lets go of it has not written it."""
    stage = leaky(stage_of)
    leaked = (stage.scene.image > 0) & ~stage.scene.truth
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", leaked)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.editor.node.SetMaskMode(stage.scene.segmentation.EditAllowedOutsideAllSegments)
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.editor.node.SetMaskMode(stage.scene.segmentation.EditAllowedEverywhere)
    paint(stage, "A", leaked)
    correct(stage, (18, 13, 6), ctrl=1)
    assert not stage.interaction.work.slices[6][0][12:15, 16:20].any()
    assert np.array_equal(stage.mask(), stage.scene.truth | leaked)


def test_a_replacing_correction_takes_back_what_it_lets_go_of(stage_of):
    """Also what the segment had there before; what was drawn by hand meanwhile stays."""
    stage = leaky(stage_of)
    before = np.zeros(SHAPE, bool)
    before[:, 12:14, 16:20] = True
    stage.write("A", before)
    stage.effect.setParameter("Mode", "replace")
    leak(stage)
    drawn = np.zeros(SHAPE, bool)
    drawn[:, 1:3, 1:3] = True
    paint(stage, "A", drawn)
    correct(stage, (18, 13, 6), ctrl=1)
    assert not stage.mask()[6, 12:15, 16:20].any()
    found = np.zeros(SHAPE, bool)
    for index, (mask, _confidence) in stage.interaction.work.slices.items():
        found[index] = mask
    assert np.array_equal(stage.mask(), found | drawn)


def test_a_fresh_run_that_finds_nothing_replaces_nothing(stage_of):
    stage = stage_of()
    segmented(stage, "replace")
    stage.panel.autoApply.checked = False
    correct(stage, (1, 1, 6))
    stage.interaction.remove_mark(0)
    stage.editor.logic.ClearUndoState()
    stage.panel.autoApply.checked = True
    stage.panel.segment.click()
    stage.wait()
    assert "Nothing was found" in stage.message and stage.interaction.message.kind == "error"
    assert np.array_equal(stage.mask(), stage.scene.truth) and not stage.editor.logic.CanUndo()


def test_what_was_let_go_of_and_drawn_by_hand_stays(stage_of):
    stage = leaky(stage_of)
    leak(stage)
    correct(stage, (18, 13, 6), ctrl=1)
    drawn = (stage.scene.image > 0) & ~stage.mask()
    assert drawn[6, 12:15, 16:20].all()
    paint(stage, "A", drawn)
    correct(stage, (9, 7, 8))
    assert stage.mask()[drawn].all()


def test_others_get_back_what_was_erased_by_hand_before_the_correction(stage_of):
    """Then there is nothing to change in the segment itself."""
    stage = leaky(stage_of)
    leaked = (stage.scene.image > 0) & ~stage.scene.truth
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", leaked)
    stage.editor.node.SetSelectedSegmentID("A")
    leak(stage)
    paint(stage, "A", leaked, "Remove")
    assert not stage.mask("B").any()
    correct(stage, (18, 13, 10), ctrl=1)
    assert not stage.interaction.work.slices[10][0].any()
    assert np.array_equal(stage.mask("B")[10], leaked[10])
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_what_is_remembered_is_as_small_as_the_result(stage_of):
    """After a leak was corrected, too."""
    stage = leaky(stage_of)
    leak(stage)
    for k in range(12):
        correct(stage, (18, 13, k), ctrl=1)
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert stage.interaction.work.written.part.extent == (5, 16, 4, 12, 3, 8)


# After Undo


def undone(stage, mode="add"):
    """Applied, and taken back."""
    segmented(stage, mode)
    applied = stage.mask()
    stage.editor.logic.Undo()
    return applied


@pytest.mark.parametrize("mode", ["add", "replace", "remove"])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_click_after_undo_gives_a_preview(stage_of, mode, drawn):
    """The segment may have had voxels of the object before; the result does not come back."""
    stage = leaky(stage_of)
    before = np.zeros(SHAPE, bool)
    before[:, 2:9, 3:10] = drawn or mode == "remove"
    if before.any():
        stage.write("A", before)
    undone(stage, mode)
    assert np.array_equal(stage.mask(), before) and len(stage.interaction.book.prompts) == 1
    correct(stage, (18, 13, 6))
    assert np.array_equal(stage.mask(), before)
    assert len(stage.interaction.book.prompts) == 2
    work = stage.interaction.work
    assert not work.has_result and work.written is None
    assert stage.preview()[6, 12:15, 16:20].all() and not stage.preview()[9:].any()
    assert "Slice 6" in stage.message and "Enter segments all slices" in stage.message
    assert not stage.panel.apply.isEnabled()
    stage.effect.setParameter("Mode", "add")
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), before | (stage.scene.image > 0))


def test_a_click_after_the_segment_was_emptied_gives_a_preview(stage_of):
    stage = stage_of()
    segmented(stage)
    paint(stage, "A", np.ones(SHAPE, bool), "Remove")
    correct(stage, (9, 7, 8))
    assert not stage.mask().any() and not stage.interaction.work.has_result
    assert stage.preview()[8].any()


def test_a_result_that_the_segment_had_already_is_corrected(stage_of):
    """Nothing of it was changed by the apply, so nothing of it can have been undone."""
    stage = stage_of()
    stage.write("A", stage.scene.truth)
    segmented(stage)
    correct(stage, (9, 7, 8))
    assert stage.interaction.work.has_result and "Applied" in stage.message
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_after_undo_and_redo_a_click_corrects(stage_of):
    stage = stage_of()
    applied = undone(stage)
    stage.editor.logic.Redo()
    correct(stage, (9, 7, 8))
    assert "Applied" in stage.message and np.array_equal(stage.mask(), applied)


def test_a_box_after_undo_may_choose_another_direction(stage_of):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click(view="Red")
    stage.panel.segment.click()
    stage.wait()
    stage.editor.logic.Undo()
    stage.drag((9, 3, 2), (9, 12, 9), "Yellow")
    stage.wait()
    assert stage.interaction.work.axis == 0 and not stage.interaction.work.has_result
    assert not stage.mask().any() and stage.preview().any()


def test_a_result_that_waits_for_apply_is_not_dropped(stage_of):
    stage = stage_of()
    undone(stage)
    stage.panel.autoApply.checked = False
    stage.panel.segment.click()
    stage.wait()
    correct(stage, (9, 7, 8))
    assert stage.interaction.work.has_result and stage.panel.apply.isEnabled()
