"""A fast model, and many prompts: how often things are drawn, and how much one look takes in."""

import time

import numpy as np
import pytest
from SlideSAMBridge.drawing.overlay import Overlay
from SlideSAMBridge.effect import jobs as job_module
from SlideSAMBridge.scene.prompt_set import Mark, PromptSet
from vtk.util.numpy_support import vtk_to_numpy

from Testing.slicer.scenes import MIDDLE

pytestmark = pytest.mark.slicer


def slid(stage):
    """All slices of a slide are finished, and none of them was looked at."""
    stage.effect.setParameter("AutoApply", 0)
    stage.click()
    stage.wait()
    stage.python.pump.stop()
    stage.interaction.segment()
    job = stage.interaction.jobs.job
    stage.python.pump.stop()
    while not job.finished:
        time.sleep(0.002)


def counted(monkeypatch, owner, name):
    """The calls of a method, which goes on working."""
    calls, original = [], getattr(owner, name)

    def count(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, count)
    return calls


def test_what_has_piled_up_is_shown_at_once(stage_of, monkeypatch):
    stage = stage_of()
    slid(stage)
    shown = counted(monkeypatch, stage.interaction, "refresh")
    told = counted(monkeypatch, stage.interaction, "on_change")
    assert not stage.interaction.poll()
    assert len(stage.interaction.work.slices) == 6
    assert len(shown) <= 2 and len(told) <= 3  # the slices, and the end
    assert np.array_equal(stage.preview(), stage.scene.truth)


def test_a_look_takes_in_so_much_only(stage_of, monkeypatch):
    """The rest comes with the next ones, and nothing of it after Discard."""
    stage = stage_of()
    monkeypatch.setattr(job_module, "POLL_VOXELS", 2 * 16 * 20, raising=False)
    slid(stage)
    interaction, before = stage.interaction, 0
    for _ in range(2):
        assert interaction.poll(5)
        found = len(interaction.work.slices)
        assert before < found <= before + 2 and interaction.progress.done == found
        assert np.count_nonzero(stage.preview().any(axis=(1, 2))) == found
        before = found
    interaction.discard()
    assert not interaction.poll() and not interaction.work.has_result
    slid(stage)
    looks = 1
    while interaction.poll():
        looks += 1
    assert looks > 3 and np.array_equal(stage.preview(), stage.scene.truth)


def test_cancel_is_heard_between_two_looks(stage_of, monkeypatch):
    stage = stage_of()
    monkeypatch.setattr(job_module, "POLL_VOXELS", 1, raising=False)
    slid(stage)
    assert stage.interaction.poll() and stage.panel.cancel.enabled
    stage.panel.cancel.click()
    assert "Stopping" in stage.message
    stage.wait()
    assert "Cancelled, with 6 slices in the preview" in stage.message


def test_another_segment_loses_no_slice_that_waits(stage_of, monkeypatch):
    stage = stage_of()
    monkeypatch.setattr(job_module, "POLL_VOXELS", 1, raising=False)
    slid(stage)
    assert stage.interaction.poll()
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("B")
    assert "What is finished (6 slices) is there again" in stage.message
    stage.editor.node.SetSelectedSegmentID("A")
    assert np.array_equal(stage.preview(), stage.scene.truth)


def test_finished_slices_leave_the_marks_alone(stage_of, monkeypatch):
    stage = stage_of(view_names=("Red", "Yellow", "Green"))
    stage.effect.setParameter("AutoApply", 0)
    stage.effect.setParameter("WeakBelow", 1)
    stage.click()
    stage.wait()
    marks, weak = (counted(monkeypatch, Overlay, name) for name in ("show", "show_weak"))
    stage.panel.segment.click()
    stage.wait()
    assert marks == [] and weak
    stage.click((6, 5, 6))  # another mark
    assert len(marks) == 3
    stage.wait()


def test_marks_are_drawn_anew_where_their_voxels_move(stage_of, monkeypatch):
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.python.onChange()
    marks = counted(monkeypatch, Overlay, "show")
    stage.python.onChange()
    assert marks == []
    stage.scene.oversample(2)
    stage.python.onChange()
    assert len(marks) == 1


def crowd(stage, count):
    """So many points on the middle slice, one in ten of them negative; their voxels."""
    part, random = stage.interaction.reader.read().part, np.random.default_rng(0)
    voxels = [(*random.integers(1, 15, 2).tolist(), MIDDLE[2]) for _ in range(count)]
    points = (
        Mark(2, (tuple(part.local(voxel).tolist()),), int(n % 10 > 0))
        for n, voxel in enumerate(voxels)
    )
    stage.interaction.book.save(PromptSet(tuple(points)))
    stage.python.redraw()
    return voxels


def test_many_marks_are_few_actors(stage_of):
    stage = stage_of(size=(500, 500))
    voxels = crowd(stage, 100)
    overlay = stage.python.views.overlays[0]
    assert len(overlay.actors) == 4  # discs and rims in two colours
    for actor, wanted in zip(
        overlay.actors[::2],
        ([v for n, v in enumerate(voxels) if n % 10], voxels[::10]),
        strict=True,
    ):
        data = actor.GetMapper().GetInput()
        assert data.GetNumberOfPolys() == len(wanted)
        discs = vtk_to_numpy(data.GetPoints().GetData()).reshape(len(wanted), -1, 3)
        places = [stage.xy(voxel) for voxel in wanted]
        assert np.allclose(discs.mean(axis=1)[:, :2], places, atol=0.01)
    stage.view.event("MouseMoveEvent", stage.xy(voxels[7]))
    assert len(overlay.actors) == 6  # that under the mouse looks different, and lies on top
    disc, rim = overlay.actors[-2:]
    assert disc.GetMapper().GetInput().GetNumberOfPolys() == 1
    assert rim.GetProperty().GetColor() == (1, 1, 1)
    assert rim.GetProperty().GetLineWidth() > overlay.actors[1].GetProperty().GetLineWidth()


def test_the_work_of_a_mouse_move_does_not_grow_with_the_marks(stage_of, monkeypatch):
    stage, solved = stage_of(), []
    stage.view.event("MouseMoveEvent", (1, 1))
    stage.wait()  # the first move over a slice has it encoded
    for count in (2, 100):
        voxels = crowd(stage, count)
        with monkeypatch.context() as patch:
            calls = counted(patch, np.linalg, "solve"), counted(patch, np.linalg, "inv")
            stage.view.event("MouseMoveEvent", stage.xy(voxels[-1]))
            stage.view.event("MouseMoveEvent", (1, 1))
        solved.append(sum(map(len, calls)))
    assert solved[0] == solved[1] > 0
