"""What the user does and reads while the model is being loaded."""

import threading

import pytest
import slicer
import vtk

from Testing.slicer.scenes import MIDDLE

pytestmark = pytest.mark.slicer
OUTSIDE = (9, 7, 40)


@pytest.fixture
def loading(stage_of, quick_model):
    """A stage whose model is being loaded until `loaded.set()`."""
    from SlideSAMLib import models

    stage, stage_loaded = stage_of(), threading.Event()

    def load(device, precision):
        stage_loaded.wait(20)
        return quick_model

    models.register_model("large", load)
    stage.shut()
    stage.effect.setParameter("Model", "large")
    stage.open()
    assert stage.interaction.jobs.job.kind == "load"
    stage.loaded = stage_loaded
    yield stage
    stage_loaded.set()


def other_volume(stage):
    """Choose another source volume."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node.CopyOrientation(stage.scene.volume)
    image = vtk.vtkImageData()
    image.DeepCopy(stage.scene.volume.GetImageData())
    node.SetAndObserveImageData(image)
    stage.editor.node.SetAndObserveSourceVolumeNode(node)


@pytest.mark.parametrize("wrong", ["outside", "oblique"])
def test_what_is_wrong_with_a_click_stays_to_be_read(loading, wrong):
    """The model comes a moment later, and has nothing to say against it."""
    stage = loading
    if wrong == "outside":
        stage.scroll_to(OUTSIDE)
        stage.click(OUTSIDE)
    else:
        stage.view.node.SetOrientation("Axial")
        turn = vtk.vtkTransform()
        turn.Concatenate(stage.view.node.GetSliceToRAS())
        turn.RotateX(30)
        stage.view.node.GetSliceToRAS().DeepCopy(turn.GetMatrix())
        stage.view.node.UpdateMatrices()
        stage.click(MIDDLE)
    told, kind = stage.message, stage.interaction.message.kind
    assert kind == ("error" if wrong == "outside" else "oblique")
    stage.loaded.set()
    stage.wait()
    assert (stage.message, stage.interaction.message.kind) == (told, kind)
    assert not stage.panel.rotate.isHidden() or wrong == "outside"


def test_a_model_goes_on_being_loaded_for_another_volume(loading):
    stage = loading
    other_volume(stage)
    stage.loaded.set()
    stage.wait()
    assert "Ready" in stage.message
