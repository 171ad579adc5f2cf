"""A volume and a segmentation that are moved apart while there is a result, and back again."""

import numpy as np
import pytest
import vtk

from Testing.slicer import scenes

pytestmark = pytest.mark.slicer
AWAY = scenes.affine(np.eye(3), (0.8, 0, 0))  # by one voxel
CLICKED = (9, 7, 5)


@pytest.fixture
def slid(stage_of, quick_model):
    """A stage with a result; `place` is the matrix of the segmentation's own transform."""
    quick_model.encode_early = lambda window, cancelled: quick_model.encode([window])[0]
    stage = stage_of()
    node = scenes.add_transform(np.eye(4))
    stage.scene.segmentation.SetAndObserveTransformNodeID(node.GetID())

    def move(matrix):
        node.SetMatrixTransformToParent(scenes.slicer.util.vtkMatrixFromArray(matrix))

    stage.move = move
    stage.effect.setParameter("AutoApply", 0)
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    return stage


def hover(stage):
    """The mouse moves over another slice, whose window is then encoded."""
    stage.scroll_to(CLICKED)
    stage.view.event(vtk.vtkCommand.MouseMoveEvent, stage.xy(CLICKED))
    stage.wait()


@pytest.mark.parametrize("applied", [False, True])
def test_a_result_counts_again_once_all_is_back_in_its_place(slid, applied):
    """Also where the volume was looked at meanwhile, as a mouse that moves over a view does it."""
    stage = slid
    if applied:
        stage.panel.apply.click()
    work = stage.interaction.work
    stage.move(AWAY)
    hover(stage)
    assert stage.interaction.reader.read() is not work.source
    stage.move(np.eye(4))
    stage.scroll_to(CLICKED)
    stage.click(CLICKED)
    stage.wait()
    assert stage.interaction.work is work and work.has_result
    assert len(stage.panel.strip.state.confidence) == 6
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_result_that_does_not_fit_is_not_applied_and_the_sentence_says_why(slid):
    stage = slid
    stage.move(AWAY)
    stage.panel.apply.click()
    assert stage.interaction.message.kind == "error" and not stage.mask().any()
    assert "place" in stage.message and "ran" not in stage.message
    stage.move(np.eye(4))
    stage.panel.apply.click()
    assert np.array_equal(stage.mask(), stage.scene.truth)
