"""Taking back what Segment all has written: by its own button, and in the Segment Editor."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer

from Testing.slicer.panel_tools import exact, find, wait

pytestmark = pytest.mark.slicer


class SegmentEditor:
    """The Segment Editor module, which shows the segmentation, and somebody who edits with it."""

    def __init__(self, scene):
        self.scene, self.widget = scene, slicer.qMRMLSegmentEditorWidget()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.widget.setMRMLSegmentEditorNode(node)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.widget.setSegmentationNode(scene.segmentation)
        self.widget.setSourceVolumeNode(scene.volume)
        slicer.modules.SegmentEditorWidget = SimpleNamespace(editor=self.widget)

    @property
    def logic(self):
        return self.widget._editor.logic

    def paint(self, name, first=0):
        """Two slices of 5 x 5 voxels, as one step of undo."""
        from SlideSAMBridge.scene import editing, lattice

        self.widget.saveStateForUndo()
        assert self.logic.UpdateReferenceGeometryImage()
        part = lattice.of_image(self.logic.GetReferenceGeometryImage(), self.scene.segmentation)
        mask = np.zeros(part.shape, bool)
        mask[first : first + 2, :5, :5] = True
        self.logic.ModifySegmentByLabelmap(
            self.scene.segmentation,
            self.scene.ids[name],
            editing.label_image(mask, part),
            self.logic.ModificationModeAdd,
            True,
            False,
        )


@pytest.fixture
def editor(prompted):
    return SegmentEditor(prompted)


def count(scene, name):
    return len(scene.found(scene.ids[name])) if scene.has(name) else 0


def counts(scene):
    return count(scene, "A"), count(scene, "B"), count(scene, "Empty")


def segment_all(panel, replace=False):
    find(panel, "SlideSAMReplace").checked = replace
    find(panel, "SlideSAMSegmentAll").click()
    assert not button(panel).enabled
    wait(lambda: panel.batch.ticker.job is None)


def button(panel):
    return find(panel, "SlideSAMUndoAll")


def message(panel):
    return find(panel, "SlideSAMBatchMessage").text


@pytest.mark.parametrize("replace", [False, True])
def test_the_segment_editors_undo_takes_back_the_batch_and_nothing_else(
    panel, prompted, editor, replace
):
    editor.paint("A")
    find(panel, "SlideSAMReplace").checked = replace
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: panel.batch.ticker.job is None)
    after, size = counts(prompted), int(prompted.truth.sum())
    assert after == (size + (0 if replace else 50), size, 0)
    editor.widget.undo()
    assert counts(prompted) == (50, 0, 0)
    editor.widget.redo()
    assert counts(prompted) == after
    editor.widget.undo()
    editor.widget.undo()
    assert counts(prompted) == (0, 0, 0)


def test_the_button_takes_back_the_whole_batch(panel, prompted):
    assert not button(panel).enabled
    for _ in range(2):
        segment_all(panel)
        assert exact(prompted, "A") and exact(prompted, "B") and button(panel).enabled
        button(panel).click()
        assert counts(prompted) == (0, 0, 0)
        assert message(panel) == "Taken back; segments restored: 2."
        assert not button(panel).enabled


@pytest.mark.parametrize("replace", [False, True])
def test_taken_back_by_the_button_it_is_taken_back_in_the_segment_editor_too(
    panel, prompted, editor, replace
):
    editor.paint("A")
    segment_all(panel, replace)
    after = counts(prompted)
    button(panel).click()
    assert counts(prompted) == (50, 0, 0) and not button(panel).enabled
    editor.widget.undo()
    assert counts(prompted) == (0, 0, 0)  # the stroke from before, not the batch once more
    editor.widget.redo()
    editor.widget.redo()
    assert counts(prompted) == after


def test_what_the_segment_editor_took_back_is_not_taken_back_once_more(panel, prompted, editor):
    segment_all(panel)
    editor.widget.undo()
    editor.paint("B")
    button(panel).click()
    assert counts(prompted) == (0, 50, 0)
    assert message(panel).startswith("Not taken back")
    assert not button(panel).enabled
    editor.widget.undo()
    assert counts(prompted) == (0, 0, 0)


@pytest.mark.parametrize("edit", ["paint", "prompt", "name", "colour", "segment"])
def test_the_button_takes_nobodys_later_work_along(panel, prompted, editor, edit):
    from SlideSAMBridge.scene.marks import TAG

    segment_all(panel)
    segment = prompted.contents.GetSegment(prompted.ids["A"])
    if edit == "paint":
        editor.paint("Empty")
    elif edit == "prompt":
        segment.SetTag(TAG, "[]")
    elif edit == "name":
        segment.SetName("Liver")
    elif edit == "colour":
        segment.SetColor(1, 0, 0)
    else:
        prompted.contents.RemoveSegment(prompted.ids["Empty"])
    button(panel).click()
    assert message(panel).startswith("Not taken back")
    assert exact(prompted, "A") and exact(prompted, "B") and not button(panel).enabled
    panel.enter()  # from another module
    assert not button(panel).enabled


def test_a_surface_that_is_shown_is_no_later_work(panel, prompted):
    segment_all(panel)
    prompted.segmentation.CreateClosedSurfaceRepresentation()
    panel.enter()
    assert button(panel).enabled
    button(panel).click()
    assert counts(prompted) == (0, 0, 0)


def test_a_stroke_between_two_segments_is_a_step_of_its_own(panel, prompted, editor, quick_model):
    quick_model.delay = 0.01
    find(panel, "SlideSAMSegmentAll").click()
    wait(lambda: prompted.has("A"))
    editor.paint("Empty")
    wait(lambda: panel.batch.ticker.job is None)
    size = int(prompted.truth.sum())
    assert counts(prompted) == (size, size, 50)
    button(panel).click()
    assert message(panel) == "Taken back; segments restored: 1."
    assert counts(prompted) == (size, 0, 50) and not button(panel).enabled
    for left in ((size, 0, 0), (0, 0, 0)):
        editor.widget.undo()
        assert counts(prompted) == left


@pytest.mark.parametrize(
    "why", ["undo is off", "another segmentation", "shown again", "a state without an edit"]
)
def test_where_the_segment_editor_has_no_step_the_button_takes_it_back(
    panel, prompted, editor, why
):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    if why == "undo is off":
        editor.logic.SetMaximumNumberOfUndoStates(0)
    elif why == "another segmentation":
        editor.widget.setSegmentationNode(other)
    segment_all(panel)
    assert editor.logic.CanUndo() == (why in ("shown again", "a state without an edit"))
    if why == "a state without an edit":
        editor.widget.saveStateForUndo()
    if why == "shown again":
        editor.widget.setSegmentationNode(other)
        editor.widget.setSegmentationNode(prompted.segmentation)
    button(panel).click()
    assert counts(prompted) == (0, 0, 0)
    assert message(panel).startswith("Taken back; segments restored: 2")


def test_a_batch_that_writes_nothing_leaves_the_undo_of_the_one_before(
    panel, prompted, quick_model
):
    segment_all(panel)
    quick_model.error = RuntimeError("The model is broken.")
    segment_all(panel)
    assert "Segments written: 0" in message(panel) and button(panel).enabled
    button(panel).click()
    assert counts(prompted) == (0, 0, 0)


@pytest.mark.parametrize("what", ["scene", "segmentation"])
def test_what_went_away_is_not_taken_back(panel, prompted, what):
    segment_all(panel)
    if what == "scene":
        slicer.mrmlScene.Clear()
    else:
        slicer.mrmlScene.RemoveNode(prompted.segmentation)
        button(panel).click()
        assert message(panel).startswith("Not taken back")
    assert not button(panel).enabled


def elsewhere():
    """A segmentation without prompts."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")


def test_a_try_on_another_segmentation_costs_no_undo(panel, prompted):
    segment_all(panel)
    find(panel, "SlideSAMSegmentation").setCurrentNode(elsewhere())
    find(panel, "SlideSAMVolume").setCurrentNode(prompted.volume)
    find(panel, "SlideSAMSegmentAll").click()
    assert message(panel).startswith("No segment of this segmentation has prompts")
    button(panel).click()
    assert message(panel) == "Taken back; segments restored: 2."
    assert counts(prompted) == (0, 0, 0)


def test_a_run_elsewhere_that_writes_nothing_costs_no_undo(panel, prompted, quick_model):
    from SlideSAMBridge.scene import segments
    from SlideSAMBridge.scene.marks import TAG

    segment_all(panel)
    other = prompted.of(elsewhere())
    text = segments.saved_text(prompted.segmentation, prompted.ids["A"])
    made = other.contents.AddEmptySegment("", "A")
    other.contents.GetSegment(made).SetTag(TAG, text)
    find(panel, "SlideSAMSegmentation").setCurrentNode(other.segmentation)
    find(panel, "SlideSAMVolume").setCurrentNode(prompted.volume)
    quick_model.error = RuntimeError("The model is broken.")
    segment_all(panel)
    assert message(panel).startswith("Segments written: 0.")
    button(panel).click()
    assert counts(prompted) == (0, 0, 0)


def test_a_call_elsewhere_that_fails_costs_no_undo(prompted, slidesam):
    from Testing.slicer.scenes import model

    logic = slidesam.SlideSAMLogic()
    logic.segmentAll(prompted.segmentation, model=model())
    with pytest.raises(ValueError, match="outside the volume"):
        logic.segment(prompted.volume, elsewhere(), points=[[9e9, 0, 0]], model=model())
    logic.undo()
    assert counts(prompted) == (0, 0, 0) and not logic.canUndo()
    logic.redo()
    assert counts(prompted)[0] > 0


def test_only_the_segmentation_that_was_written_last_keeps_its_steps(prompted, slidesam):
    from Testing.slicer.scenes import model

    logic, other = slidesam.SlideSAMLogic(), elsewhere()
    logic.segmentAll(prompted.segmentation, model=model())
    logic.segment(prompted.volume, other, points=[prompted.ras()], model=model())
    logic.undo()
    assert other.GetSegmentation().GetNumberOfSegments() == 0 and counts(prompted)[0] > 0
    assert not logic.canUndo()


def test_a_segmentation_that_was_removed_cannot_be_undone(prompted, slidesam):
    from Testing.slicer.scenes import model

    logic = slidesam.SlideSAMLogic()
    logic.segmentAll(prompted.segmentation, model=model())
    slicer.mrmlScene.RemoveNode(prompted.segmentation)
    assert not logic.canUndo()
    with pytest.raises(RuntimeError, match="nothing to undo"):
        logic.undo()


def test_saving_costs_no_undo(panel, prompted, tmp_path):
    """Slicer gives labels other values and layers when it saves."""
    segment_all(panel)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(prompted.segmentation)
    panel.enter()
    assert button(panel).enabled
    button(panel).click()
    assert message(panel) == "Taken back; segments restored: 2."
    assert counts(prompted) == (0, 0, 0)


def test_every_voxel_is_looked_at_once_before_and_once_after_a_batch(panel, prompted, monkeypatch):
    """Not after each segment: a layer may hold a hundred of them."""
    from SlideSAMBridge.scene import contents

    looked, of = [], contents.Contents.of
    monkeypatch.setattr(
        contents.Contents, "of", lambda self, node: (looked.append(node), of(self, node))[1]
    )
    monkeypatch.setattr(type(panel.batch), "refresh", lambda self: None)  # for the button
    segment_all(panel)
    assert counts(prompted)[0] > 0 and counts(prompted)[1] > 0 and len(looked) == 2


def test_coming_back_to_the_panel_looks_at_no_voxel_again(panel, prompted, editor, monkeypatch):
    from SlideSAMBridge.scene import contents

    segment_all(panel)
    looked, sums = [], contents._sums
    monkeypatch.setattr(contents, "_sums", lambda image: (looked.append(image), sums(image))[1])
    panel.enter()
    assert button(panel).enabled and looked == []
    editor.paint("Empty")
    panel.enter()
    assert not button(panel).enabled and looked


def test_an_edit_after_saving_is_not_lost(panel, prompted, editor, tmp_path):
    segment_all(panel)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(prompted.segmentation)
    editor.paint("Empty")
    after = counts(prompted)
    panel.batch._undo()
    assert message(panel).startswith("Not taken back") and counts(prompted) == after


def test_steps_that_came_to_nothing_do_not_hide_the_batch(panel, prompted, editor):
    segment_all(panel)
    editor.widget.saveStateForUndo()
    prompted.contents.AddEmptySegment("more", "More")
    editor.widget.saveStateForUndo()
    prompted.contents.RemoveSegment("more")
    button(panel).click()
    assert message(panel) == "Taken back; segments restored: 2."
    assert counts(prompted) == (0, 0, 0) and prompted.contents.GetSegment("more") is None


def test_the_place_of_every_voxel_counts(prompted):
    from SlideSAMBridge.scene.contents import Contents

    editor = SegmentEditor(prompted)
    states = []
    for first in (0, 1):
        editor.paint("Empty", first)
        states.append(Contents().of(prompted.segmentation))
        editor.widget.undo()
    assert states[0] != states[1]


def test_a_transform_that_was_hardened_since_is_not_taken_back(panel, prompted):
    """It moves the labels, and leaves them as they are."""
    from Testing.slicer.scenes import TRANSFORM, add_transform

    segment_all(panel)
    before = prompted.found(prompted.ids["A"])
    prompted.segmentation.SetAndObserveTransformNodeID(add_transform(TRANSFORM).GetID())
    assert prompted.segmentation.HardenTransform()
    moved = prompted.found(prompted.ids["A"])
    assert moved.shape == before.shape and not np.allclose(moved, before)
    panel.batch._undo()
    assert message(panel).startswith("Not taken back")
    assert np.allclose(prompted.found(prompted.ids["A"]), moved)


def test_what_was_edited_since_goes_with_the_consoles_undo_and_comes_back(prompted, slidesam):
    from Testing.slicer.scenes import model

    logic, editor = slidesam.SlideSAMLogic(), SegmentEditor(prompted)
    logic.segmentAll(prompted.segmentation, model=model())
    editor.paint("Empty")
    after = counts(prompted)
    logic.undo()
    assert counts(prompted) == (0, 0, 0)
    logic.redo()
    assert counts(prompted) == after and after[2] == 50
