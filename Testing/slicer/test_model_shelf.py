"""One model on the GPU at a time, whatever the sessions of all segments hold; nothing is lost."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from SlideSAMBridge import shelf as shelves
from SlideSAMBridge import work as works
from SlideSAMBridge.lattice import Lattice
from SlideSAMBridge.prompt_set import Mark
from SlideSAMBridge.worker import Job

from Testing.fakes import ThresholdModel, ball_volume

CHOICE = shelves.ModelChoice("large", "cuda", "float32")
OTHER = shelves.ModelChoice("other", "cuda", "float32")
BOX = Mark(2, ((12.0, 10.0, 10.0), (32.0, 30.0, 10.0)))
POINT = Mark(2, ((22.0, 20.0, 8.0),))
FULL = torch.OutOfMemoryError("CUDA out of memory.")


class Loads:
    """Loads models, and knows which of them live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = shelves.ModelShelf()
        self.made: list[weakref.ref] = []
        self.alive_at_load: list[list[int]] = []
        self.cached_at_load: list[int] = []
        self.alive_at_retreat: list[list[int]] = []
        monkeypatch.setattr(shelves, "load_model", self._load)
        empty = shelves._empty_gpu_cache

        def noted() -> None:
            empty()
            self.alive_at_retreat.append(self._alive())

        monkeypatch.setattr(shelves, "_empty_gpu_cache", noted)

    def _load(self, name: str, device: str, precision: str) -> ThresholdModel:
        self.alive_at_load.append(self._alive())
        self.cached_at_load.append(len(self.shelf.cache()))
        model = ThresholdModel(name=name)
        model.device = device
        self.made.append(weakref.ref(model))
        return model

    def _alive(self) -> list[int]:
        return [number for number, made in enumerate(self.made) if made() is not None]


@pytest.fixture
def loads(monkeypatch):
    gc.disable()  # the worker may not collect garbage: models must go without
    yield Loads(monkeypatch)
    gc.enable()


def new_work(segment: str, choice: shelves.ModelChoice = CHOICE) -> works.Work:
    volume = ball_volume()[0]
    depth, height, width = volume.shape
    part = Lattice((0, width - 1, 0, height - 1, 0, depth - 1), np.eye(4), np.eye(4))
    source = SimpleNamespace(voxels=volume, part=part, number=1, stacks={})
    return works.Work(segment, 2, source, choice)


def result_of(task) -> dict[int, np.ndarray]:
    """The masks that a slide ends with."""
    job = Job("run", task)
    job.perform()
    assert job.error is None
    return {index: mask for index, (mask, _) in job.take()[-1].slices.items()}


def hungry(loads: Loads, work: works.Work, error: Exception, times: int):
    """A job that runs out of memory so many times, with half a result each time."""
    tries = []

    def perform(job: Job) -> None:
        session = works._session(loads.shelf, work)
        works._sync(session, work, {10: [BOX]})
        for _ in zip(range(3), session.run(), strict=False):
            pass
        tries.append(session.model.device)
        if len(tries) <= times:
            raise error

    job = Job("run", works.on_any_device(loads.shelf, work.choice, perform, work))
    job.perform()
    assert job.error is None
    return tries


def test_another_model_takes_the_place_of_one_that_sessions_hold(loads):
    first, second = new_work("A"), new_work("B", OTHER)
    before = result_of(works.run_task(loads.shelf, first, {10: [BOX]}))
    result_of(works.run_task(loads.shelf, second, {10: [BOX]}))
    after = result_of(works.correct_task(loads.shelf, first, {10: [BOX], 8: [POINT]}, 8))
    assert loads.alive_at_load == [[], [], []]
    assert loads.cached_at_load == [0, 0, 0]
    assert after.keys() == before.keys() and len(before) > 8
    for index, mask in before.items():
        assert np.array_equal(after[index], mask), index


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("error", [FULL, RuntimeError("CUDA error: out of memory")])
def test_less_memory_is_tried_with_all_of_it_free(loads, error, times):
    other, work = new_work("A"), new_work("B")
    before = result_of(works.run_task(loads.shelf, other, {10: [BOX]}))
    assert hungry(loads, work, error, times) == ["cuda", "cuda", "cpu"][: times + 1]
    assert loads.alive_at_retreat == [[]] * times
    assert loads.alive_at_load == [[]] * (times + 1)
    after = result_of(works.correct_task(loads.shelf, other, {10: [BOX], 8: [POINT]}, 8))
    assert after.keys() == before.keys()


def test_a_try_with_less_memory_starts_from_the_result_before(loads, monkeypatch):
    work, kept, session = new_work("A"), [], works._session
    before = result_of(works.run_task(loads.shelf, work, {10: [BOX]}))

    def noted(shelf, asked):
        found = session(shelf, asked)
        kept.append(sorted(found.snapshot().masks))
        return found

    monkeypatch.setattr(works, "_session", noted)
    assert hungry(loads, work, FULL, 2) == ["cuda", "cuda", "cpu"]
    assert kept == [sorted(before)] * 3


def test_nothing_left_to_try_leaves_the_session(loads):
    work = new_work("A", shelves.ModelChoice("large", "cpu", "float32"))
    result_of(works.run_task(loads.shelf, work, {10: [BOX]}))
    session = work.session

    def perform(job: Job) -> None:
        raise FULL

    job = Job("run", works.on_any_device(loads.shelf, work.choice, perform, work))
    job.perform()
    assert job.error is FULL and work.session is session and not loads.alive_at_retreat
