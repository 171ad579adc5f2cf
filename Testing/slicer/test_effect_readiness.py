"""Before the first mark: the model rehearses, and the window under the mouse is encoded."""

import threading

import numpy as np
import pytest
import slicer
import vtk

from Testing.host.pythonqt_host import Editor
from Testing.slicer.effect_stage import EFFECT
from Testing.slicer.scenes import MIDDLE

pytestmark = pytest.mark.slicer


@pytest.fixture
def heavy_model(quick_model):
    """A model whose encoding takes the time, as SAM's does."""
    quick_model.encode_early = lambda window, cancelled: quick_model.encode([window])[0]
    return quick_model


@pytest.fixture
def slow_encoder(quick_model):
    """A model that encodes until `done` is set, or somebody waits for another window.

    quick : windows that are encoded at once.
    """

    def encode_early(window, cancelled):
        quick_model.begun.append(window.key[-1])
        while window.key[-1] not in quick_model.quick and not quick_model.done.wait(0.002):
            if cancelled():
                return None
        return quick_model.encode([window])[0]

    quick_model.begun, quick_model.quick, quick_model.done = [], set(), threading.Event()
    quick_model.encode_early = encode_early
    yield quick_model
    quick_model.done.set()


@pytest.fixture
def other_editor(session):
    """Makes a second Segment Editor widget with an active effect on a segmentation of its own."""
    editors = []

    def make(stage):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
        node.CreateDefaultDisplayNodes()  # without one no view shows it
        geometry = slicer.vtkSlicerSegmentationGeometryLogic()
        geometry.SetInputSegmentationNode(node)
        geometry.SetSourceGeometryNode(stage.scene.volume)
        geometry.SetOversamplingFactor(2)
        assert geometry.CalculateOutputGeometry() == ""
        geometry.SetReferenceImageGeometryInSegmentationNode()
        editor = Editor(session, node, stage.scene.volume, list(stage.views.values()))
        editor.logic.AddEmptySegment("B")
        effect = editor.addEffect(EFFECT)
        effect.setParameter("Model", "threshold")
        editor.setActiveEffectByName("Slide-SAM")
        editors.append(editor)
        stage.wait(lambda: effect.self().interaction.jobs.job is None)
        return effect.self().interaction

    yield make
    for editor in editors:
        editor.close()
        assert editor.errors == []


def point_at(stage, ijk=MIDDLE, view=None):
    """The mouse moves over a voxel."""
    xy = stage.xy(ijk, view)
    stage._view(view).event(vtk.vtkCommand.MouseMoveEvent, xy)


def test_the_window_under_the_mouse_is_encoded_before_the_click(stage_of, heavy_model):
    stage = stage_of()
    told = stage.message
    point_at(stage)
    stage.wait()
    assert heavy_model.encoded == [[6]] and heavy_model.predictions == 0
    assert stage.message == told and not stage.interaction.book.prompts
    stage.click()
    stage.wait()
    assert heavy_model.encoded == [[6]] and heavy_model.predictions == 1
    assert stage.preview().any()


def test_each_slice_is_encoded_once_and_only_where_the_mouse_rests(stage_of, heavy_model):
    stage = stage_of(view_names=("Red", "Yellow"))
    for k in (6, 5, 4):
        stage.scroll_to((9, 7, k))
        if k != 5:
            point_at(stage, (9, 7, k))
            stage.wait()
            point_at(stage, (8, 6, k))
            assert stage.interaction.jobs.job is None
    assert heavy_model.encoded == [[6], [4]]
    point_at(stage, (9, 7, 4), "Yellow")
    stage.wait()
    assert heavy_model.encoded == [[6], [4], [9]]


def test_a_light_model_is_asked_for_nothing(stage_of, quick_model):
    stage = stage_of()
    point_at(stage)
    stage.wait()
    assert quick_model.encoded == []


def test_the_built_in_model_costs_no_copy_of_the_volume(stage_of, quick_model):
    stage = stage_of(model="builtin")
    stage.interaction.message = type(stage.interaction.message)("Ready.")
    point_at(stage)
    assert stage.interaction.jobs.job is None and stage.interaction.reader._last is None


def test_the_mouse_disturbs_no_slide(stage_of, heavy_model):
    stage = stage_of()
    stage.click()
    stage.wait()
    heavy_model.delay = 0.05
    stage.panel.segment.click()
    for k in (6, 4):
        stage.scroll_to((9, 7, k))
        point_at(stage, (9, 7, k))
        assert stage.interaction.jobs.job.kind == "run"
    heavy_model.delay = 0
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)


def test_a_slide_that_starts_meanwhile_uses_it(stage_of, heavy_model):
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.scroll_to((9, 7, 5))
    point_at(stage, (9, 7, 5))
    assert stage.interaction.jobs.job.kind == "aim"
    stage.panel.segment.click()
    assert stage.interaction.jobs.job.kind == "run"
    stage.wait()
    assert np.array_equal(stage.mask(), stage.scene.truth)
    centres = [centre for call in heavy_model.encoded for centre in call]
    assert len(centres) == len(set(centres))


def test_nothing_is_done_while_an_error_waits_for_the_user(stage_of, heavy_model):
    stage = stage_of()
    heavy_model.encode = None  # "NoneType is not callable"
    point_at(stage)
    stage.wait()
    assert stage.interaction.message.kind == "error"
    stage.scroll_to((9, 7, 5))
    point_at(stage, (9, 7, 5))
    assert stage.interaction.jobs.job is None


@pytest.mark.parametrize("missing", ["segment", "slice", "volume", "straight view"])
def test_where_nothing_can_be_marked_nothing_is_encoded(stage_of, heavy_model, missing):
    stage = stage_of("oblique")
    told = stage.message
    if missing == "segment":
        stage.scene.contents.RemoveSegment("A")
    elif missing == "volume":
        stage.editor.node.SetAndObserveSourceVolumeNode(None)
    elif missing == "straight view":
        stage.view.node.SetOrientation("Axial")  # anatomical, not the scan's
    else:
        stage.scroll_to((9, 7, 40))
    point_at(stage)
    stage.wait()
    assert heavy_model.encoded == [] and stage.interaction.message.kind == "info"
    assert missing in ("segment", "volume") or stage.message == told


def test_other_voxels_are_encoded_anew(stage_of, heavy_model):
    stage = stage_of()
    point_at(stage)
    stage.wait()
    stage.scene.volume.GetImageData().Modified()
    stage.interaction.source_changed()
    point_at(stage)
    stage.wait()
    assert heavy_model.encoded == [[6], [6]]


def test_with_a_result_the_views_of_the_other_direction_are_left_alone(stage_of, heavy_model):
    stage = stage_of(view_names=("Red", "Yellow"))
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    before = len(heavy_model.encoded)
    point_at(stage, MIDDLE, "Yellow")
    stage.wait()
    assert len(heavy_model.encoded) == before


def test_the_model_rehearses_once_it_can_be_used(stage_of, quick_model):
    done = []
    quick_model.rehearsals = lambda: [lambda: done.append("box"), lambda: done.append("point")]
    stage_of()
    assert done == ["box", "point"]


def test_a_click_ends_the_rehearsal(stage_of, quick_model):
    stage, done = stage_of(), []

    def first():
        done.append("box")
        while not job.cancelled():
            pass

    quick_model.rehearsals = lambda: [first, lambda: done.append("point")]
    stage.interaction.readiness.load()
    job = stage.interaction.jobs.job
    stage.wait(lambda: done)
    stage.click()
    stage.wait()
    assert done == ["box"] and stage.preview().any()


def test_a_click_does_not_wait_for_what_another_editor_encodes(
    stage_of, slow_encoder, other_editor
):
    """Both see the mouse move over the same view, and only one of them gets the click."""
    stage = stage_of()
    other = other_editor(stage)
    slow_encoder.quick = {6}
    point_at(stage)
    assert stage.interaction.jobs.job.kind == other.jobs.job.kind == "aim"
    stage.click()
    assert len(stage.interaction.book.prompts) == 1 and not other.book.prompts
    stage.wait(seconds=3)
    assert stage.preview().any()
    stage.wait(lambda: other.jobs.job is None)
    slow_encoder.done.set()
    point_at(stage, (8, 7, 6))  # the mouse goes on, and nobody waits for anything now
    assert other.jobs.job.kind == "aim"
    stage.wait(lambda: other.jobs.job is None)
    assert [13] in slow_encoder.encoded


@pytest.mark.parametrize("slid", [False, True])
def test_a_click_on_the_slice_that_is_being_encoded_waits_for_its_rest(
    stage_of, slow_encoder, slid
):
    """Or a window that takes seconds on a CPU would begin anew with the click."""
    stage = stage_of()
    if slid:
        slow_encoder.quick = {6}
        for name, value in (("LimitSlices", 1), ("FirstSlice", 6), ("LastSlice", 6)):
            stage.effect.setParameter(name, value)
        stage.click()
        stage.panel.segment.click()
        stage.wait()
        stage.interaction.work.limits = (None, None, "both")
        slow_encoder.begun.clear()
    stage.scroll_to((9, 7, 5))
    point_at(stage, (9, 7, 5))
    stage.wait(lambda: slow_encoder.begun == [5])
    early = stage.interaction.jobs.job
    stage.click((9, 7, 5))
    assert not early.cancelled()
    assert stage.interaction.jobs.job.kind == ("correct" if slid else "preview")
    slow_encoder.done.set()
    stage.wait()
    assert slow_encoder.begun.count(5) == 1
    assert [call for call in slow_encoder.encoded if 5 in call] == [[5]]
    assert stage.mask().any() if slid else stage.preview().any()


def test_what_a_click_waits_for_ends_with_it(stage_of, slow_encoder):
    stage = stage_of()
    point_at(stage)
    stage.wait(lambda: slow_encoder.begun == [6])
    stage.click()
    early = stage.interaction.jobs.job.needs
    assert early.kind == "aim" and not early.cancelled()
    stage.panel.clear.click()
    stage.wait(lambda: early.finished, seconds=3)
    assert slow_encoder.encoded == []


def test_a_further_click_ends_the_preview_of_the_one_before(stage_of, heavy_model):
    """Although the window of both had been encoded before the first."""
    stage = stage_of()
    point_at(stage)
    stage.wait()
    stage.click((6, 5, 6))
    first = stage.interaction.jobs.job
    stage.click((10, 5, 6))
    assert first.kind == "preview" and first.cancelled()
    stage.wait()
