"""What applying writes: one undo step, the modes, Slicer's own masking, and taking back."""

import numpy as np
import pytest
from SlideSAMBridge.scene import editing

from Testing.slicer import scenes
from Testing.slicer.scenes import SHAPE

pytestmark = pytest.mark.slicer


def test_one_undo_step(stage_of):
    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    logic = stage.editor.logic
    assert np.array_equal(stage.mask(), stage.scene.truth)
    logic.Undo()
    assert not stage.mask().any()
    assert stage.actors() == 2  # the prompts are still there
    logic.Redo()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_apply_by_hand_and_discard(stage_of):
    stage = stage_of()
    stage.panel.autoApply.checked = False
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert not stage.mask().any() and np.array_equal(stage.preview(), stage.scene.truth)
    stage.panel.discard.click()
    assert not stage.panel.apply.isEnabled() and stage.preview().sum() < stage.scene.truth.sum()
    stage.panel.segment.click()
    stage.wait()
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert not stage.panel.apply.isEnabled()


def test_a_hidden_segment_is_asked_about_before_it_is_written(stage_of, monkeypatch):
    """The result was written, and to be seen nowhere. Who cancels the dialog writes nothing."""
    stage = stage_of()
    stage.click()
    stage.wait()
    display = stage.scene.segmentation.GetDisplayNode()
    display.SetSegmentVisibility("A", False)
    with monkeypatch.context() as patched:
        patched.setattr(type(stage.effect), "confirmCurrentSegmentVisible", lambda self: 0)
        stage.key("Return")
    assert stage.interaction.jobs.job is None
    stage.panel.autoApply.checked = False
    stage.key("Return")
    stage.wait()
    assert stage.editor.dialogs == 1 and display.GetSegmentVisibility("A")
    display.SetSegmentVisibility("A", False)
    stage.panel.apply.click()
    assert stage.editor.dialogs == 2 and display.GetSegmentVisibility("A")
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_without_a_segment_it_is_told_that_there_is_none(stage_of):
    """Slicer's question about a hidden segment says no without a word where there is none."""
    stage = stage_of()
    stage.editor.node.SetSelectedSegmentID("")
    stage.interaction.say("")
    assert not stage.python.onSegment()  # as a script calls it
    assert stage.message == "Choose or add a segment first."


def test_modes(stage_of):
    stage = stage_of()
    block = np.zeros(SHAPE, bool)
    block[0:5, 0:8, 0:8] = True
    truth = stage.scene.truth
    for mode, expected in (
        ("add", block | truth),
        ("remove", block & ~truth),
        ("replace", truth),
    ):
        stage.interaction.clear()
        stage.write("A", block)
        stage.effect.setParameter("Mode", mode)
        stage.click()
        stage.panel.segment.click()
        stage.wait()
        assert np.array_equal(stage.mask(), expected), mode


def test_removing_from_a_segment_that_has_none_of_it_is_told(stage_of):
    """It would be no step: the next Undo would take back what was done before."""
    stage = stage_of()
    block = np.zeros(SHAPE, bool)
    block[0, 0, 0] = True
    stage.write("A", block)
    stage.effect.setParameter("Mode", "remove")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert stage.message == "Nothing was changed: the segment has nothing of what was found."
    assert np.array_equal(stage.mask(), block)
    assert np.array_equal(stage.preview(), stage.scene.truth)  # nothing is lost
    stage.effect.setParameter("Mode", "add")
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), block | stage.scene.truth)


@pytest.mark.parametrize("first", [(8, 2, 1), (15, 6, -4)])
@pytest.mark.parametrize("step", [0.5, 1, 2])
def test_replacing_a_segment_on_another_lattice(stage_of, step, first):
    """As an imported file brings it: nothing of it is left, and one undo brings it back."""
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.scene.import_segment("C", step, first)
    stage.editor.logic.ClearUndoState()
    before = stage.scene.found("C")
    stage.editor.node.SetSelectedSegmentID("C")
    stage.effect.setParameter("Mode", "replace")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask("C"), stage.scene.truth)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.scene.found("C"), before) and not stage.editor.logic.CanUndo()


def other(stage):
    """A second segment "B" that covers a part of the object."""
    mask = np.zeros(SHAPE, bool)
    mask[4:7, 3:9, 3:10] = True
    stage.editor.logic.AddEmptySegment("B")
    stage.write("B", mask)
    stage.editor.node.SetSelectedSegmentID("A")
    return mask


@pytest.mark.parametrize(
    ("mask_mode", "overwrite", "expected"),
    [
        ("EditAllowedEverywhere", "OverwriteNone", lambda truth, b: (truth, b)),
        ("EditAllowedEverywhere", "OverwriteAllSegments", lambda truth, b: (truth, b & ~truth)),
        ("EditAllowedEverywhere", "OverwriteVisibleSegments", lambda truth, b: (truth, b & ~truth)),
        ("EditAllowedInsideVisibleSegments", "OverwriteNone", lambda truth, b: (truth & b, b)),
        ("EditAllowedOutsideAllSegments", "OverwriteAllSegments", lambda t, b: (t & ~b, b)),
    ],
)
def test_masking_is_slicers_own(stage_of, mask_mode, overwrite, expected):
    stage = stage_of()
    b = other(stage)
    node = stage.editor.node
    node.SetMaskMode(getattr(stage.scene.segmentation, mask_mode))
    node.SetOverwriteMode(getattr(node, overwrite))
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    in_a, in_b = expected(stage.scene.truth, b)
    assert np.array_equal(stage.mask("A"), in_a) and np.array_equal(stage.mask("B"), in_b)


def test_intensity_range(stage_of):
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, :, :9] += (image[:, :, :9] > 0) * np.int16(200)
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    stage.editor.node.SourceVolumeIntensityMaskOn()
    stage.editor.node.SetSourceVolumeIntensityMaskRange(500, 700)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth & (image >= 500))


def test_nothing_to_write_is_said_and_costs_no_undo_state(stage_of):
    stage = stage_of()
    stage.editor.node.SourceVolumeIntensityMaskOn()
    stage.editor.node.SetSourceVolumeIntensityMaskRange(900, 1000)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    assert "masking settings" in stage.message
    assert not stage.mask().any() and not stage.editor.logic.CanUndo()


def test_oversampled_lattice(stage_of):
    stage = stage_of("oblique", ("volume",), oversampling=2)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    found = stage.scene.found("A")
    truth = scenes.fine_truth(stage.scene, 2)
    assert np.array_equal(scenes.sorted_rows(found), scenes.sorted_rows(truth))


def test_a_correction_takes_back_what_was_applied(stage_of):
    """Voxels that the corrected result no longer has go; what was there before stays."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE  # a second thing, apart from the object
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    drawn = np.zeros(SHAPE, bool)
    drawn[7:9, 12:13, 16:17] = True  # the user's own voxels, inside what is found wrongly
    stage.write("A", drawn)
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    both = image > 0
    assert np.array_equal(stage.mask(), both)
    stage.click((18, 13, 6), ctrl=1)  # not this one
    stage.wait()
    after = stage.mask()
    assert not after[6, 12:15, 16:20].any() and after[6, 4:11, 5:14].all()
    assert after[7, 12, 16]
    stage.editor.logic.Undo()  # one step for taking back and adding
    assert np.array_equal(stage.mask(), both)
    stage.editor.logic.Undo()
    assert np.array_equal(stage.mask(), drawn)


@pytest.mark.parametrize("overwrite", ["OverwriteAllSegments", "OverwriteVisibleSegments"])
@pytest.mark.parametrize("mode", ["add", "replace"])
def test_a_correction_gives_other_segments_back_what_was_taken(stage_of, overwrite, mode):
    """Or a leak that was corrected would leave a hole where something else had been drawn."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    stage.editor.node.SetOverwriteMode(getattr(stage.editor.node, overwrite))
    stage.effect.setParameter("Mode", mode)
    drawn = {"B": np.zeros(SHAPE, bool), "C": np.zeros(SHAPE, bool)}
    drawn["B"][:, 12:15, 16:20] = True
    drawn["C"][4:6, 5:8, 6:9] = True  # inside the object: rightly taken
    for name, mask in drawn.items():
        stage.editor.logic.AddEmptySegment(name)
        stage.write(name, mask)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    assert not stage.mask("B").any() and not stage.mask("C").any()
    stage.click((18, 13, 6), ctrl=1)
    stage.wait()
    leaks = stage.mask("A") & ~stage.scene.truth
    assert not leaks[6].any()
    assert np.array_equal(stage.mask("B"), drawn["B"] & ~leaks) and not stage.mask("C").any()
    assert not (stage.mask("A") & stage.mask("B")).any()
    stage.editor.logic.Undo()
    assert not stage.mask("B").any() and np.array_equal(stage.mask(), image > 0)


def test_what_others_have_got_meanwhile_is_not_given_back(stage_of):
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    drawn = (image > 0) & ~stage.scene.truth
    for name in "BCD":
        stage.editor.logic.AddEmptySegment(name)
    stage.write("B", drawn)
    stage.editor.node.SetSelectedSegmentID("A")
    stage.drag((4, 3, 6), (19, 15, 6))
    stage.panel.segment.click()
    stage.wait()
    later = drawn.copy()
    later[:, :, 18:] = False
    stage.write("C", later)
    stage.scene.contents.RemoveSegment("D")  # and one that is gone is no trouble
    stage.click((18, 13, 6), ctrl=1)
    stage.wait()
    assert np.array_equal(stage.mask("C")[6], later[6])
    assert np.array_equal(stage.mask("B")[6], (drawn & ~later)[6])


MASKS = (
    "EditAllowedEverywhere",
    "EditAllowedInsideAllSegments",
    "EditAllowedInsideVisibleSegments",
    "EditAllowedOutsideAllSegments",
    "EditAllowedOutsideVisibleSegments",
)
OVERWRITES = ("OverwriteNone", "OverwriteVisibleSegments", "OverwriteAllSegments")


@pytest.mark.parametrize("mask_mode", MASKS)
@pytest.mark.parametrize("overwrite", OVERWRITES)
@pytest.mark.parametrize("ranged", [False, True])
def test_as_slicer_writes_the_same_labelmap(stage_of, mask_mode, overwrite, ranged):
    """Applied voxels equal what Slicer's logic makes of the result as a labelmap, in one call."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, :, :9] += (image[:, :, :9] > 0) * np.int16(200)
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    hidden = np.zeros(SHAPE, bool)
    hidden[5:9, 8:12, 5:9] = True
    other(stage)
    stage.editor.logic.AddEmptySegment("C")
    stage.write("C", hidden)
    stage.scene.segmentation.GetDisplayNode().SetSegmentVisibility("C", False)
    stage.editor.node.SetSelectedSegmentID("A")
    before = {name: stage.mask(name) for name in "ABC"}
    node = stage.editor.node
    node.SetMaskMode(getattr(stage.scene.segmentation, mask_mode))
    node.SetOverwriteMode(getattr(node, overwrite))
    node.SetSourceVolumeIntensityMask(ranged)
    node.SetSourceVolumeIntensityMaskRange(500, 700)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    ours = {name: stage.mask(name) for name in "ABC"}
    stage.editor.logic.Undo()
    assert all(np.array_equal(stage.mask(name), before[name]) for name in "ABC")
    labelmap = stage.effect.defaultModifierLabelmap()
    voxels = editing.image_array(labelmap)
    assert voxels.shape == stage.scene.truth.shape
    voxels[...] = stage.scene.truth
    labelmap.Modified()
    stage.effect.modifySelectedSegmentByLabelmap(labelmap, stage.effect.ModificationModeAdd)
    theirs = {name: stage.mask(name) for name in "ABC"}
    for name in "ABC":
        assert np.array_equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("mask_mode", (*MASKS, "EditAllowedInsideSingleSegment"))
@pytest.mark.parametrize("overwrite", ["OverwriteNone", "OverwriteAllSegments"])
@pytest.mark.parametrize("ranged", [False, True])
def test_replacing_is_masked_everywhere(stage_of, mask_mode, overwrite, ranged):
    """What may not be edited stays, on whatever lattice the segment was, and wherever it is."""
    for step in (None, 1, 2):
        stage = stage_of()
        b, truth, drawn = other(stage), stage.scene.truth, np.zeros(SHAPE, bool)
        drawn[1:11, 2:14, 10:18] = True  # apart from B
        stage.scene.import_segment("C", step or 1, (10, 2, 1))
        if step is None:
            stage.write("C", drawn)  # on the lattice of the volume
        node = stage.editor.node
        node.SetSelectedSegmentID("C")
        node.SetMaskMode(getattr(stage.scene.segmentation, mask_mode))
        node.SetMaskSegmentID("B")
        node.SetOverwriteMode(getattr(node, overwrite))
        node.SetSourceVolumeIntensityMask(ranged)
        node.SetSourceVolumeIntensityMaskRange(300, 700)
        stage.effect.setParameter("Mode", "replace")
        stage.click()
        stage.panel.segment.click()
        stage.wait()
        editable = {
            "EditAllowedEverywhere": np.ones(SHAPE, bool),
            "EditAllowedInsideSingleSegment": b,
        }.get(mask_mode, b | drawn if "Inside" in mask_mode else ~b)
        if ranged:
            editable = editable & truth
        written = truth & editable
        assert np.array_equal(stage.mask("C"), written | (drawn & ~editable)), step
        kept = b if overwrite == "OverwriteNone" else b & ~written
        assert np.array_equal(stage.mask("B"), kept), step
