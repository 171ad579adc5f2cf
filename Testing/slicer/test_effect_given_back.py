"""What corrections give back to the segments that an apply has taken voxels from."""

import numpy as np
import pytest

from Testing.slicer import scenes
from Testing.slicer.scenes import SHAPE
from Testing.slicer.test_effect_corrections import correct, leak, leaky, paint, segmented

pytestmark = pytest.mark.slicer


@pytest.mark.parametrize("mask_mode", ["InsideAllSegments", "InsideVisibleSegments"])
def test_a_leak_into_the_segment_that_masks_leaves_no_hole_in_it(stage_of, mask_mode):
    """A part is cut out of a segment; what is let go of lies in no segment when that gets it."""
    stage = leaky(stage_of)
    whole = stage.scene.image > 0
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", whole)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.editor.node.SetMaskMode(getattr(stage.scene.segmentation, f"EditAllowed{mask_mode}"))
    leak(stage)
    assert not stage.mask("B").any()
    correct(stage, (18, 13, 6), ctrl=1)
    assert not stage.mask("A")[6, 12:15, 16:20].any()
    assert np.array_equal(stage.mask("B"), whole & ~stage.mask("A"))


def test_what_others_got_back_and_were_erased_of_is_not_given_back_again(stage_of):
    """Once they have it back it is theirs, to be erased, too."""
    stage = leaky(stage_of)
    leaked = (stage.scene.image > 0) & ~stage.scene.truth
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", leaked)
    stage.editor.node.SetSelectedSegmentID("A")
    leak(stage)
    correct(stage, (18, 13, 6), ctrl=1)
    assert np.array_equal(stage.mask("B")[6], leaked[6])
    paint(stage, "B", leaked, "Remove")
    stage.interaction.remove_mark(1)
    correct(stage, (18, 13, 6))  # taken anew, from nobody
    assert stage.mask()[6, 12:15, 16:20].all()
    stage.interaction.remove_mark(1)
    correct(stage, (18, 13, 6), ctrl=1)
    assert not stage.mask()[6, 12:15, 16:20].any() and not stage.mask("B").any()


def test_what_a_correction_takes_is_given_back_by_the_next(stage_of):
    """From a segment that has lost something to the run before, too."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[6, 12:15, 16:20] = scenes.INSIDE
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    b = np.zeros(SHAPE, bool)
    b[5:8, 6:15, 10:20] = True
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", b)
    stage.editor.node.SetSelectedSegmentID("A")
    segmented(stage)
    assert np.array_equal(stage.mask("B"), b & ~stage.scene.truth)
    correct(stage, (18, 13, 6))
    assert np.array_equal(stage.mask("B"), b & (image == 0))
    stage.interaction.remove_mark(1)
    correct(stage, (18, 13, 6), ctrl=1)
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert np.array_equal(stage.mask("B"), b & ~stage.scene.truth)


@pytest.mark.parametrize("overwrite", ["OverwriteAllSegments", "OverwriteNone"])
def test_what_was_removed_and_given_to_another_segment_stays_there(stage_of, overwrite):
    """The correction that lets go of it has it back only where nobody has got it since."""
    stage = leaky(stage_of)
    found = stage.scene.image > 0
    leaked = found & ~stage.scene.truth
    stage.write("A", np.ones(SHAPE, bool))
    stage.editor.node.SetOverwriteMode(getattr(stage.editor.node, overwrite))
    stage.effect.setParameter("Mode", "remove")
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), ~found)
    b = leaked & (np.arange(SHAPE[2]) < 18)
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    paint(stage, "B", b)
    correct(stage, (18, 13, 6), ctrl=1)
    assert np.array_equal(stage.mask("B"), b)
    assert stage.mask()[6, 12:15, 18:20].all()
