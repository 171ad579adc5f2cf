"""What the effect says of volumes without anything to see, and how often it looks at all voxels."""

import numpy as np
import pytest
import slicer

from Testing.slicer.scenes import SHAPE, Scene

pytestmark = pytest.mark.slicer


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full(SHAPE, 7, np.int16), "constant"),
        (np.full(SHAPE, np.nan, np.float32), "no finite voxel"),
    ],
)
def test_a_volume_without_contrast_is_one_sentence(stage_of, capsys, image, message):
    """And no traceback: nothing is wrong with the program."""
    stage = stage_of(scene=Scene(image=image, oversampling=1))
    stage.click()
    stage.wait()
    assert message in stage.message
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_wrong_with_the_program_is_in_the_log(stage_of, quick_model, capsys):
    stage = stage_of()
    quick_model.error = RuntimeError("The model is broken.")
    stage.click()
    stage.wait()
    assert "The model is broken." in stage.message
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def scans(monkeypatch):
    """How often the library looked at every voxel of a volume."""
    from SlideSAMLib import stack

    seen = []
    original = stack.value_range
    monkeypatch.setattr(stack, "value_range", lambda volume: seen.append(1) or original(volume))
    return seen


def test_segments_on_the_same_volume_share_what_was_found_in_it(stage_of, scans):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click()
    stage.wait()
    first = stage.interaction.work.session
    assert len(scans) == 1
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    stage.click()
    stage.wait()
    second = stage.interaction.work.session
    assert second is not first and second.stack is first.stack
    assert len(scans) == 1
    stage.panel.segment.click()
    stage.wait()
    assert np.array_equal(stage.mask("B"), stage.scene.truth)


def test_entries_of_a_batch_share_what_was_found_in_the_volume(session, slidesam, scans):
    from SlideSAMBridge.scene import segments
    from SlideSAMBridge.scene.marks import TAG

    from Testing.slicer import scenes

    scene, logic = Scene(oversampling=1), slidesam.SlideSAMLogic()
    call = {"points": [scene.ras()], "model": scenes.model()}
    made = logic.segment(scene.volume, scene.segmentation, **call)
    text = segments.saved_text(scene.segmentation, made)
    others = [scene.contents.AddEmptySegment("", f"More {n}") for n in range(3)]
    for other in others:
        scene.contents.GetSegment(other).SetTag(TAG, text)
    scans.clear()
    report = logic.segmentAll(scene.segmentation, model=scenes.model())
    assert report.written == [made, *others] and len(scans) == 1
    assert all(np.array_equal(scene.mask(other), scene.truth) for other in others)


@pytest.mark.parametrize("geometry", ["its own voxels", "others"])
def test_no_memory_for_a_copy_of_the_volume_is_told(stage_of, monkeypatch, geometry):
    from SlideSAMBridge.scene import editing, source

    copied = editing.copied
    larger = np.broadcast_to(np.zeros(1, np.int16), (10**6, 10**6, 10))  # than any memory

    def short(voxels):
        assert voxels.size
        return copied(larger)

    stage = stage_of(oversampling=1 if geometry == "its own voxels" else 2)
    with monkeypatch.context() as patch:
        for module in (editing, source):
            patch.setattr(module, "copied", short)
        stage.click()
    assert stage.interaction.message.kind == "error"
    assert "no memory for a copy of the volume (20000.0 GB)" in stage.message
    assert not stage.interaction.book.prompts
    stage.click()
    stage.wait()
    assert stage.interaction.work.previews


def test_where_the_labels_end_before_the_volume_it_is_told(stage_of):
    """As on a second series that shows more than the one that the segmentation was made for."""
    stage = stage_of(view_names=("Red", "Yellow"))
    larger = np.pad(stage.scene.image, ((0, 4), (0, 0), (0, 10)))
    second = slicer.util.addVolumeFromArray(larger, ijkToRAS=stage.scene.ijk_to_ras)
    stage.editor.node.SetAndObserveSourceVolumeNode(second)
    stage.click((24, 7, 6))
    assert "geometry ends before this place" in stage.message
    stage.scroll_to((9, 7, 14))
    stage.drag((5, 4, 14), (13, 10, 14))
    assert "geometry ends before this place" in stage.message
    stage.scroll_to((9, 7, 18))
    stage.click((9, 7, 18))
    assert "This slice is outside the volume" in stage.message
    assert len(stage.interaction.book.prompts) == 0
    stage.click((9, 7, 6), "Yellow")
    stage.wait()
    assert len(stage.interaction.book.prompts) == 1
