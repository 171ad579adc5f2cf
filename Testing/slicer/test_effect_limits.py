"""Runs and corrections within a range of slices, which the panel counts in the segmentation."""

import dataclasses

import numpy as np
import pytest
import slicer
from SlideSAMBridge.effect import limits

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
    assert "19 comes after 14" in padded.message
    limit(padded, 14, 17)
    padded.panel.segment.click()
    padded.wait()
    assert slices_of(padded) == [4, 5, 6, 7]


@pytest.mark.parametrize(("first", "last"), [(0, 17), (14, 31)])
def test_limits_beyond_the_volume_are_its_ends(padded, first, last):
    """The segmentation has slices there, so that the panel offers them."""
    limit(padded, first, last)
    padded.click()
    padded.wait()
    padded.panel.segment.click()
    padded.wait()
    found = np.flatnonzero(padded.scene.truth.any(axis=(1, 2))) + 10
    assert slices_of(padded) == [k - 10 for k in found if first <= k <= last]


@pytest.mark.parametrize(
    ("direction", "given", "count"),
    [
        ("both", (None, None), 12),
        ("both", (2, 8), 7),
        ("forward", (None, None), 9),
        ("forward", (1, 8), 6),
        ("forward", (4, 8), 5),
        ("forward", (0, 2), 1),  # before the first mark; a bar has to count to something
        ("backward", (None, None), 7),
        ("backward", (2, 10), 5),
        ("backward", (2, 5), 4),
    ],
)
def test_as_many_slices_as_a_run_may_find_are_told(padded, direction, given, count):
    """From the outermost mark on, where it goes one way only."""
    padded.click()
    padded.wait()
    work = padded.interaction.work
    assert limits.possible(direction, work, {3: [], 6: []}, *given) == count
    assert limits.possible(direction, work, {}, None, None) == 12  # the library tells what is wrong


def test_only_the_marks_that_count_must_lie_inside_the_limits(padded):
    """Those on the object; for a correction the nearest ones on either side of it."""
    padded.click()
    padded.wait()
    work = padded.interaction.work
    work.limits = (4, 7, "both")
    on = [padded.interaction.book.prompts.marks[0]]
    off = [dataclasses.replace(on[0], label=0)]
    limits.check_run(work, {2: off, 6: on}, 4, 7)
    with pytest.raises(ValueError, match="prompt on slice 12 is outside"):
        limits.check_run(work, {2: on, 6: on}, 4, 7)
    far = {10: on, 4: on, 1: on, 7: on, 6: on}  # in whatever order they were given
    limits.check_correction(work, far, 6)
    for wanted in ({2: off, 6: on}, {6: on, 9: off}):
        limits.check_correction(work, wanted, 6)
    for index, told in ((4, 11), (7, 20)):
        with pytest.raises(ValueError, match=f"Slice {told} is outside"):
            limits.check_correction(work, far, index)


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


def test_a_slice_that_negative_points_corrected_must_lie_inside_them_too(padded):
    """It was refused all the same, with numbers of slices that the panel does not have."""
    padded.click()
    padded.wait()
    padded.panel.segment.click()
    padded.wait()
    padded.scroll_to((14, 5, 7))
    padded.click((14, 5, 7), ctrl=1)
    padded.wait()
    limit(padded, 13, 16)
    padded.panel.segment.click()
    padded.wait()
    assert "The prompt on slice 17 is outside the slices 13 to 16" in padded.message


def slices_of(stage):
    return np.flatnonzero(stage.mask().any(axis=(1, 2))).tolist()
