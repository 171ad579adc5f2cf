"""Undo of what a write has changed: by the module's logic, a logic of one's own, a widget."""

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.editing_tools import add_block, editor_node, half, run
from Testing.slicer.scenes import Scene

pytestmark = pytest.mark.slicer


def test_one_undo_step_for_each_call(session, slidesam):
    scene = Scene(oversampling=1)
    logic = slidesam.SlideSAMLogic()
    assert not logic.canUndo()
    first = run(logic, scene)
    second = run(logic, scene, orientation="I")
    assert list(scene.contents.GetSegmentIDs()) == [first, second]
    logic.undo()
    assert list(scene.contents.GetSegmentIDs()) == [first]
    logic.undo()
    assert scene.contents.GetNumberOfSegments() == 0
    assert not logic.canUndo()
    logic.redo()
    logic.redo()
    assert np.array_equal(scene.mask(first), scene.truth)
    assert np.array_equal(scene.mask(second), scene.truth)
    assert not logic.canRedo()
    with pytest.raises(RuntimeError, match="redo"):
        logic.redo()


def test_undo_on_an_existing_segment(session, slidesam):
    """Voxels, overwritten neighbours and the saved prompts all come back."""
    scene = Scene(oversampling=1)
    mine = add_block(scene, "Mine", np.roll(half(), 11, axis=2))
    add_block(scene, "Half", half())
    before = scene.mask(mine)
    node = editor_node(scene, OverwriteMode=slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    logic = slidesam.SlideSAMLogic()
    run(logic, scene, segmentId=mine, mode="replace", editorNode=node)
    assert np.array_equal(scene.mask("Half"), half() & ~scene.truth)
    assert logic.prompts(scene.segmentation, mine) is not None
    logic.undo()
    assert np.array_equal(scene.mask(mine), before)
    assert np.array_equal(scene.mask("Half"), half())
    assert logic.prompts(scene.segmentation, mine) is None


def own_logic(session, scene):
    """A segment editor logic as a script makes it, with a node of its own."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLApplicationLogic(session.app_logic)
    logic.SetMRMLScene(session.scene)
    logic.SetSegmentEditorNode(node)
    node.SetAndObserveSegmentationNode(scene.segmentation)
    node.SetAndObserveSourceVolumeNode(scene.volume)
    return logic


def test_undo_of_a_logic_of_ones_own(session, slidesam):
    """The result is one step of its undo, and none of SlideSAMLogic's."""
    scene = Scene(oversampling=1)
    own = own_logic(session, scene)
    logic = slidesam.SlideSAMLogic()
    segment = run(logic, scene, editorLogic=own)
    assert np.array_equal(scene.mask(segment), scene.truth)
    assert not logic.canUndo()
    own.Undo()
    assert scene.contents.GetNumberOfSegments() == 0
    assert not own.CanUndo()
    own.Redo()
    assert np.array_equal(scene.mask(segment), scene.truth)


def test_undo_of_a_segment_editor_widget(session, slidesam):
    """Its logic cannot be had, but it saves a state when asked: then its undo takes all back."""
    scene = Scene(oversampling=1)
    widget = slicer.qMRMLSegmentEditorWidget()
    widget.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    widget.setMRMLScene(slicer.mrmlScene)
    widget.setSegmentationNode(scene.segmentation)
    widget.setSourceVolumeNode(scene.volume)
    logic = slidesam.SlideSAMLogic()
    first = run(logic, scene)
    before = scene.mask(first)
    widget.saveStateForUndo()
    second = run(logic, scene)
    assert np.array_equal(scene.mask(second), scene.truth)
    widget.undo()
    assert scene.contents.GetNumberOfSegments() == 1
    assert np.array_equal(scene.mask(first), before)
    widget.redo()
    assert np.array_equal(scene.mask(second), scene.truth)
    assert np.array_equal(scene.mask(first), before)


def test_a_logic_whose_undo_is_switched_off(session, slidesam):
    """Then there is no undo state to save, and the result is written all the same."""
    scene = Scene()
    own = own_logic(session, scene)
    own.SetMaximumNumberOfUndoStates(0)
    logic = slidesam.SlideSAMLogic()
    segment = run(logic, scene, editorLogic=own)
    assert np.array_equal(scene.mask(segment), scene.truth)
    report = logic.segmentAll(scene.segmentation, model=scenes.model(), editorLogic=own)
    assert (report.written, report.failed) == ([segment], {})
    assert not own.CanUndo()


def test_where_no_state_can_be_saved_nothing_changes(session, slidesam, monkeypatch):
    from SlideSAMBridge.scene import editing

    scene = Scene()
    before = scenes.snapshot()

    def fails(self):
        raise RuntimeError("No state.")

    monkeypatch.setattr(editing.Editor, "save_state", fails)
    with pytest.raises(RuntimeError, match="No state"):
        run(slidesam.SlideSAMLogic(), scene)
    assert scenes.snapshot() == before


def test_a_logic_that_shows_something_else_is_refused(session, slidesam):
    scene, other = Scene(), Scene()
    logic = slidesam.SlideSAMLogic()
    with pytest.raises(ValueError, match="another segmentation"):
        run(logic, scene, editorLogic=own_logic(session, other))
    own = own_logic(session, scene)
    own.GetSegmentEditorNode().SetAndObserveSourceVolumeNode(other.volume)
    with pytest.raises(ValueError, match="another source volume"):
        run(logic, scene, editorLogic=own)
    with pytest.raises(ValueError, match="not both"):
        run(logic, scene, editorLogic=own, editorNode=own.GetSegmentEditorNode())


def test_history_follows_the_segmentation(session, slidesam):
    """Undo is about the segmentation written last; another one starts a new history."""
    scene, other = Scene(), Scene()
    logic = slidesam.SlideSAMLogic()
    first = run(logic, scene)
    run(logic, other)
    logic.undo()
    assert other.contents.GetNumberOfSegments() == 0
    assert not logic.canUndo()
    assert np.array_equal(scene.mask(first), scene.truth)


def test_closing_the_scene_ends_the_history(session, slidesam):
    scene = Scene()
    logic = slidesam.SlideSAMLogic()
    run(logic, scene)
    slicer.mrmlScene.Clear()
    assert not logic.canUndo() and not logic.canRedo()
    fresh = Scene()
    assert np.array_equal(fresh.mask(run(logic, fresh)), fresh.truth)
