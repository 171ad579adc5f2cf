"""Correcting an applied result after the effect was left, as to erase something by hand."""

import numpy as np
import pytest
from SlideSAMBridge.scene.prompt_set import PromptSet

from Testing.slicer.effect_stage import SAMPLE_EFFECT
from Testing.slicer.test_effect_left import nothing_waits, other_voxels, unapplied

pytestmark = pytest.mark.slicer


def erased_by_hand(stage, columns):
    """Apply, and erase something with another effect, as the Segment Editor does it."""
    stage.panel.apply.click()
    stage.editor.setActiveEffectByName(stage.editor.addEffect(SAMPLE_EFFECT).name)
    stage.editor.logic.SaveStateForUndo()
    rest = stage.mask()
    rest[:, :, columns] = False
    stage.write("A", rest)
    stage.panel.autoApply.checked = True
    stage.open()
    stage.wait()
    return rest


def test_an_applied_result_is_corrected_after_another_effect(stage_of):
    """And what was erased there stays so, on all slices but the one that was clicked."""
    stage = unapplied(stage_of())
    confidence = stage.panel.strip.state.confidence
    rest = erased_by_hand(stage, slice(5, 8))
    assert stage.panel.strip.state.confidence == confidence and stage.panel.weakest.isEnabled()
    assert stage.interaction.preview.node is None and not stage.panel.apply.isEnabled()
    assert "not applied" not in stage.message
    stage.click((12, 7, 6))
    stage.wait()
    assert stage.interaction.work.has_result and stage.interaction.preview.node is None
    rest[6] = stage.scene.truth[6]
    assert np.array_equal(stage.mask(), rest)


def test_an_applied_result_goes_without_a_word(stage_of):
    """Its segment has it: where the volume or the marks are others, a click begins anew."""
    for change in (other_voxels, lambda stage: stage.interaction.book.save(PromptSet())):
        stage = unapplied(stage_of())
        stage.panel.apply.click()
        stage.shut()
        change(stage)
        stage.open()
        assert nothing_waits(stage) and "not applied" not in stage.message
        stage.click()
        stage.wait()
        assert stage.preview().any() and not stage.interaction.work.has_result


def left(stage):
    stage.shut()
    stage.open()
    stage.wait()


def another_segment(stage):
    stage.editor.logic.AddEmptySegment("B")
    for name in "BA":
        stage.editor.node.SetSelectedSegmentID(name)


@pytest.mark.parametrize("go_and_return", [left, another_segment])
def test_a_slice_corrected_by_negative_points_alone_stays_so(stage_of, go_and_return):
    """They say something about the mask that the slice had; what has seen it is gone by then."""
    stage = unapplied(stage_of())
    stage.panel.autoApply.checked = True
    stage.panel.apply.click()
    stage.scroll_to((14, 5, 7))
    stage.click((14, 5, 7), ctrl=1)  # nothing of this slice is the object, nor behind it
    stage.wait()
    rest = stage.scene.truth.copy()
    rest[7:] = False
    assert np.array_equal(stage.mask(), rest)
    go_and_return(stage)
    stage.scroll_to((6, 5, 6))
    stage.click((6, 5, 6))  # next to it
    stage.wait()
    assert np.array_equal(stage.mask(), rest)
    go_and_return(stage)
    stage.key("Return")
    stage.wait()
    assert np.array_equal(stage.mask(), rest)
