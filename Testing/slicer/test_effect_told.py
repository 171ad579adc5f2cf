"""What the panel says is true of what is chosen now, and good English."""

import numpy as np
import pytest
import vtk
from SlideSAMBridge.effect import options

pytestmark = pytest.mark.slicer


def other_frame(stage):
    """As a sequence does it: other image data in the same volume node."""
    image = vtk.vtkImageData()
    image.DeepCopy(stage.scene.volume.GetImageData())
    stage.scene.volume.SetAndObserveImageData(image)


@pytest.fixture
def stage(stage_of):
    stage = stage_of()
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    stage.click()
    stage.wait()
    return stage


def choose(stage, segment):
    stage.editor.node.SetSelectedSegmentID(segment)
    stage.wait()
    return stage.message


def test_another_segment_is_told_of_itself(stage):
    """What was said of the one before stayed: that it is applied, or to be applied."""
    assert choose(stage, "B") == options.start_text()
    assert choose(stage, "A") == options.refined_text()
    stage.panel.autoApply.checked = False
    stage.panel.segment.click()
    stage.wait()
    assert choose(stage, "B") == options.start_text()
    assert choose(stage, "A") == options.waiting_text(6)
    stage.panel.apply.click()
    assert "Applied 6 slices" in stage.message
    assert choose(stage, "B") == options.start_text()
    assert choose(stage, "A") == options.corrected_text()


def test_undo_is_told(stage):
    """The panel still said that the result is applied, and how to correct it."""
    stage.panel.segment.click()
    stage.wait()
    assert "Applied 6 slices" in stage.message
    stage.editor.logic.Undo()
    assert not stage.mask().any()
    assert stage.message == options.marked_text()
    assert choose(stage, "B") == options.start_text()
    assert choose(stage, "A") == options.marked_text()
    stage.editor.logic.Redo()
    assert choose(stage, "B") == options.start_text()
    assert choose(stage, "A") == options.corrected_text()


def test_other_voxels_are_told_of_where_they_take_the_preview(stage):
    other_frame(stage)
    assert stage.interaction.preview.node is None and not stage.panel.candidate.isEnabled()
    assert stage.message == options.marked_text()
    stage.key("c")
    assert stage.message == f"There is no preview yet. {options.marked_text()}"
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    other_frame(stage)
    assert stage.message == options.marked_text()


def test_a_model_that_is_ready_is_told_with_what_a_click_does_now(stage):
    """It was the same for a segment with a result, where a click corrects."""
    for after in (options.marked_text(), options.corrected_text()):
        stage.shut()
        stage.open()
        stage.wait()
        assert stage.message == f"Ready: threshold (cpu, float32). {after}"
        stage.panel.segment.click()
        stage.wait()


def test_a_preview_of_nothing_is_told(stage):
    stage.click((6, 5, 6), ctrl=1)  # it hangs together with the point inside
    stage.wait()
    assert not stage.preview()[6].any()
    assert "Slice 6: nothing was found" in stage.message and "confidence" not in stage.message


def test_one_is_not_several(stage):
    assert options.slices_text(1) == "1 slice" and options.slices_text(2) == "2 slices"
    stage.click((6, 5, 6))
    stage.wait()
    stage.key("Delete")
    stage.panel.limit.checked = True
    stage.panel.first.value = stage.panel.last.value = 6
    stage.panel.segment.click()
    stage.wait()
    assert "Applied 1 slice in" in stage.message


def test_a_negative_point_alone_is_not_said_to_be_kept_for_the_next_run(stage, quick_model):
    """No run goes by it; what was made where the object is marked is kept."""
    quick_model.delay = 0.1
    stage.panel.segment.click()
    assert stage.interaction.sliding
    stage.click((12, 9, 6), ctrl=1)
    assert "Kept for the next run" in stage.message
    stage.scroll_to((6, 5, 5))
    stage.click((6, 5, 5), ctrl=1)
    assert "a negative point alone finds nothing" in stage.message
    assert stage.interaction.sliding and len(stage.interaction.book.prompts) == 3
