"""From the prompts to the segment: preview, slide, cancel, apply, undo, correct."""

import numpy as np
import pytest

from Testing.slicer import scenes
from Testing.slicer.scenes import MIDDLE, SHAPE

pytestmark = pytest.mark.slicer


def window(truth, k):
    """The object on slice k and its two neighbours."""
    found = np.zeros(SHAPE, bool)
    found[k - 1 : k + 2] = truth[k - 1 : k + 2]
    return found


def test_a_click_previews_three_slices(stage_of, quick_model):
    """Encodes one window, and does not touch the segment."""
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))
    assert [len(centres) for centres in quick_model.encoded] == [1]
    assert not stage.mask().any() and not stage.editor.logic.CanUndo()
    stage.click((6, 5, 6))
    stage.wait()
    assert len(quick_model.encoded) == 1  # cached
    assert "confidence" in stage.message and "Slice 6" in stage.message


def test_the_preview_node_is_a_guest(stage_of):
    stage = stage_of("oblique", ("segmentation", "volume"))
    stage.click()
    stage.wait()
    node = stage.interaction.preview.node
    assert not node.GetSaveWithScene() and not node.GetDisplayNode().GetSaveWithScene()
    assert node.GetParentTransformNode() is stage.scene.segmentation.GetParentTransformNode()
    assert not node.GetDisplayNode().GetVisibility3D()
    color = stage.scene.contents.GetSegment("A").GetColor()
    assert np.allclose(node.GetSegmentation().GetSegment("sure").GetColor(), color)
    stage.shut()
    assert node.GetScene() is None


def test_the_preview_is_seen(stage_of):
    """Pixels change where the object is, and on the previewed slices only."""
    stage = stage_of()
    plain = stage.view.pixels()
    stage.click()
    stage.wait()
    shown = stage.view.pixels()
    x, y = (round(v) for v in stage.xy((6, 6, 6)))
    assert not np.array_equal(shown[y, x], plain[y, x])
    far = stage.xy((1, 1, 6))
    x, y = (round(v) for v in far)
    assert np.array_equal(shown[y, x], plain[y, x])


def test_the_preview_grows_in_a_view_that_stands_still(stage_of):
    """The slide crosses a sagittal view slice by slice; nothing but the preview tells it."""
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.effect.setParameter("AutoApply", 0)
    yellow = stage.views["Yellow"]
    plain = yellow.pixels().astype(int)

    def colored():
        return int((np.abs(yellow.pixels() - plain).sum(axis=2) > 30).sum())

    stage.click()
    stage.wait()
    small = colored()
    stage.panel.segment.click()
    stage.wait()
    assert 0 < 1.5 * small < colored()
    stage.panel.clear.click()
    assert colored() == 0


def test_candidates_are_cycled(stage_of):
    stage = stage_of()
    stage.click()
    stage.wait()
    sizes = [stage.preview().sum()]
    for _ in range(3):
        stage.key("c")
        stage.wait()
        sizes.append(stage.preview().sum())
    assert len(set(sizes[:3])) == 3 and sizes[3] == sizes[0]
    stage.key("c")
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    assert 0 < stage.mask()[6].sum() != stage.scene.truth[6].sum()  # the chosen one counts


@pytest.mark.parametrize("view", ["Red", "Yellow", "Green"])
@pytest.mark.parametrize(
    ("geometry", "transforms"),
    [("oblique", ("volume",)), ("anisotropic", ("volume", "segmentation")), ("sagittal scan", ())],
)
def test_every_voxel_where_it_belongs(stage_of, view, geometry, transforms):
    stage = stage_of(geometry, transforms, view_names=(view,))
    stage.click()
    stage.key("Return")
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    assert stage.interaction.preview.node is None  # it is in the segment now
    assert np.array_equal(slicer_array(stage), stage.scene.image)


def slicer_array(stage):
    import slicer

    return slicer.util.arrayFromVolume(stage.scene.volume)


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


def test_direction_and_limits(stage_of):
    stage = stage_of()
    stage.effect.setParameter("Direction", "forward")
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    expected = stage.scene.truth.copy()
    expected[:6] = False
    assert np.array_equal(stage.mask(), expected)
    stage.effect.setParameter("Direction", "both")
    stage.effect.setParameter("LimitSlices", 1)
    stage.effect.setParameter("FirstSlice", 5)
    stage.effect.setParameter("LastSlice", 7)
    stage.effect.setParameter("Mode", "replace")
    stage.panel.segment.click()
    stage.wait()
    assert np.flatnonzero(stage.mask().any(axis=(1, 2))).tolist() == [5, 6, 7]


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
        write(stage, "A", block)
        stage.effect.setParameter("Mode", mode)
        stage.click()
        stage.panel.segment.click()
        stage.wait()
        assert np.array_equal(stage.mask(), expected), mode


def write(stage, segment, mask):
    """Put a mask into a segment, whatever it had."""
    import slicer

    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), stage.scene.segmentation, segment, stage.scene.volume
    )


def other(stage):
    """A second segment "B" that covers a part of the object."""
    mask = np.zeros(SHAPE, bool)
    mask[4:7, 3:9, 3:10] = True
    stage.editor.logic.AddEmptySegment("B")
    write(stage, "B", mask)
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


def test_cancel_keeps_what_is_finished(stage_of, quick_model):
    stage = stage_of()
    quick_model.delay = 0.05
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    assert stage.panel.cancel.isEnabled() and not stage.panel.segment.isEnabled()
    stage.wait(lambda: stage.interaction.work.slices)
    assert stage.panel.progress.isVisibleTo(stage.effect.optionsFrame())
    stage.panel.cancel.click()
    stage.wait()
    shown = stage.preview()
    assert 0 < shown.sum() < stage.scene.truth.sum() and not stage.mask().any()
    assert "Cancelled" in stage.message
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), shown)
    quick_model.delay = 0
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_an_error_is_told_once_and_ends_the_job(stage_of, quick_model):
    stage = stage_of()
    stage.click()
    stage.wait()
    told = []
    say = stage.interaction.say
    stage.interaction.say = lambda text, kind="info": (told.append((text, kind)), say(text, kind))
    quick_model.error = RuntimeError("The model broke.")
    stage.panel.segment.click()
    stage.wait()
    assert told.count(("The model broke.", "error")) == 1 and told[-1][1] == "error"
    assert not stage.mask().any() and stage.panel.segment.isEnabled()
    quick_model.error = None
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_missing_model_is_told(stage_of):
    stage = stage_of(model="no such model")
    stage.click()
    stage.wait()
    assert "no such model" in stage.message and len(stage.interaction.book.prompts) == 1


def test_memory_of_the_gpu_is_too_small(stage_of, monkeypatch):
    """The same job goes on with the CPU, and says so."""
    from SlideSAMLib import models

    class OutOfMemoryError(RuntimeError):
        pass

    def load(device, precision):
        made = scenes.model()
        if device != "cpu":
            made.encode = lambda windows: (_ for _ in ()).throw(OutOfMemoryError("CUDA"))
        return made

    models.register_model("large", load)
    stage = stage_of(model="large")
    told = []
    say = stage.interaction.say
    stage.interaction.say = lambda text, kind="info": (told.append(text), say(text, kind))
    stage.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))
    assert any("too small" in text for text in told)


def test_correct_slides_only_where_it_matters(stage_of, quick_model):
    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    stage.scroll_to((6, 6, 3))
    quick_model.predictions = 0
    stage.click((6, 6, 3))
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    # The corrected slice, the stretch to the prompted slice 6, and the rest below.
    assert 0 < quick_model.predictions < 9
    assert stage.interaction.work.session.prompts.keys() == {3, 6}


def test_a_correction_takes_back_what_was_applied(stage_of):
    """Voxels that the corrected result no longer has go; what was there before stays."""
    image = np.where(scenes.object_mask(), scenes.INSIDE, 0).astype(np.int16)
    image[:, 12:15, 16:20] = scenes.INSIDE  # a second thing, apart from the object
    stage = stage_of(scene=scenes.Scene(image=image, oversampling=1))
    drawn = np.zeros(SHAPE, bool)
    drawn[7:9, 12:13, 16:17] = True  # the user's own voxels, inside what is found wrongly
    write(stage, "A", drawn)
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


def test_prompts_of_several_orientations_work_together(stage_of):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click(MIDDLE, "Red")
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    stage.click((9, 5, 4), "Yellow")  # corrects slice 4 of the axial result
    stage.wait()
    assert stage.interaction.work.axis == 2
    assert stage.interaction.work.session.prompts.keys() == {4, 6}
    assert np.array_equal(stage.mask(), stage.scene.truth)
    stage.drag((9, 4, 3), (9, 11, 8), "Yellow")
    assert "another direction" in stage.message


def test_existing_work_is_a_prompt(stage_of):
    stage = stage_of()
    stage.panel.existing.click()
    assert "nothing on this slice" in stage.message
    drawn = np.zeros(SHAPE, bool)
    drawn[6] = stage.scene.truth[6]
    write(stage, "A", drawn)
    stage.panel.existing.click()
    stage.wait()
    assert np.array_equal(stage.preview(), window(stage.scene.truth, 6))
    stage.shut()
    stage.open()  # from the tag
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_negative_points_alone_find_nothing(stage_of):
    stage = stage_of()
    stage.click(ctrl=1)
    assert stage.interaction.jobs.job is None and "negative" in stage.message
    stage.panel.segment.click()
    stage.wait()
    assert stage.interaction.message.kind == "error" and not stage.mask().any()
    stage.click((6, 5, 6))
    stage.wait()


def test_strip_shows_the_slices_and_jumps(stage_of):
    from PySide6 import QtCore, QtTest

    stage = stage_of()
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    state = stage.panel.strip.state
    assert (state.low, state.high, state.current) == (0, 11, 6)
    assert sorted(state.confidence) == list(range(3, 9)) and state.prompted == {6}
    label = stage.panel.strip.label
    x = 4 + round((label.width - 8) * 3.5 / 12)
    QtTest.QTest.mouseClick(label, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, QtCore.QPoint(x, 20))
    assert stage.panel.strip.state.current == 3
    weakest = stage.interaction.work.weakest
    stage.panel.weakest.click()
    assert stage.panel.strip.state.current == weakest != 6


def test_weak_slices_are_dimmed(stage_of):
    stage = stage_of()
    stage.effect.setParameter("AutoApply", 0)
    stage.effect.setParameter("WeakBelow", 1)
    stage.click()
    stage.panel.segment.click()
    stage.wait()
    values = stage.interaction.work.slices.values()
    assert all(confidence < 1 for _, confidence in values)
    node = stage.interaction.preview.node
    display = node.GetDisplayNode()
    assert display.GetSegmentOpacity2DFill("weak") < display.GetSegmentOpacity2DFill("sure")
    shown = scenes.Scene.__new__(scenes.Scene)
    shown.volume, shown.ijk_to_ras, shown.segmentation = (
        stage.scene.volume,
        stage.scene.ijk_to_ras,
        node,
    )
    assert np.array_equal(shown.mask("weak"), stage.scene.truth) and not shown.mask("sure").any()
