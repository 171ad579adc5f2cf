"""Before the first mark: the model rehearses, and the window under the mouse is encoded."""

import numpy as np
import pytest
import vtk

from Testing.slicer.scenes import MIDDLE

pytestmark = pytest.mark.slicer


@pytest.fixture
def heavy_model(quick_model):
    """A model whose encoding takes the time, as SAM's does."""
    quick_model.encode_early = lambda window, cancelled: quick_model.encode([window])[0]
    return quick_model


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
            stage.wait()
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


@pytest.mark.parametrize("missing", ["segment", "slice"])
def test_where_nothing_can_be_marked_nothing_is_encoded(stage_of, heavy_model, missing):
    stage = stage_of()
    told = stage.message
    if missing == "segment":
        stage.scene.contents.RemoveSegment("A")
    else:
        stage.scroll_to((9, 7, 40))
    point_at(stage)
    stage.wait()
    assert heavy_model.encoded == [] and stage.interaction.message.kind == "info"
    assert missing == "segment" or stage.message == told


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
