"""Runs and corrections within a range of slices, which the panel counts in the segmentation."""

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE

pytestmark = pytest.mark.slicer


@pytest.fixture
def padded(stage_of):
    """The segmentation begins ten slices before the volume, and the panel counts its slices."""
    scene = scenes.Scene(oversampling=1)
    matrix = scene.ijk_to_ras @ scenes.affine(np.eye(3), (0, 0, -10))
    larger = np.zeros((32, *scene.image.shape[1:]), np.int16)
    reference = slicer.util.addVolumeFromArray(larger, ijkToRAS=matrix)
    scene.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    return stage_of(scene=scene)


def limit(stage, first, last):
    for name, value in (("LimitSlices", 1), ("FirstSlice", first), ("LastSlice", last)):
        stage.effect.setParameter(name, value)


def test_refused_limits_are_told_in_slices_of_the_panel(padded):
    padded.click()
    padded.wait()
    assert "Slice 16" in padded.message
    limit(padded, 17, 19)
    padded.panel.segment.click()
    padded.wait()
    assert "prompt on slice 16 is outside the slices 17 to 19" in padded.message
    limit(padded, 19, 14)
    padded.panel.segment.click()
    padded.wait()
    assert "19 lies behind 14" in padded.message
    limit(padded, 14, 17)
    padded.panel.segment.click()
    padded.wait()
    assert slices_of(padded) == [4, 5, 6, 7]


def test_a_mark_outside_the_limits_does_not_block_the_corrections(padded):
    """It was kept, and every click next to it failed from then on, with or without other limits."""
    limit(padded, 14, 17)
    padded.click()
    padded.wait()
    padded.panel.segment.click()
    padded.wait()
    padded.scroll_to((9, 7, 8))
    padded.click((9, 7, 8))
    padded.wait()
    assert "Slice 18 is outside the slices 14 to 17 of the last run" in padded.message
    assert len(padded.interaction.book.prompts) == 1
    padded.scroll_to(MIDDLE)
    padded.click((6, 5, 6))
    padded.wait()
    assert padded.interaction.message.kind == "info" and slices_of(padded) == [4, 5, 6, 7]
    limit(padded, 14, 18)  # and the way out that the sentence names
    padded.panel.segment.click()
    padded.wait()
    padded.scroll_to((9, 7, 8))
    padded.click((9, 7, 8))
    padded.wait()
    assert padded.interaction.message.kind == "info" and slices_of(padded) == [4, 5, 6, 7, 8]


def slices_of(stage):
    return np.flatnonzero(stage.mask().any(axis=(1, 2))).tolist()
