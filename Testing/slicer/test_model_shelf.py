"""One model on the GPU at a time, whatever the sessions of all segments hold; nothing is lost."""

from __future__ import annotations

import gc
import os
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from SlideSAMBridge.scene.lattice import Lattice
from SlideSAMBridge.scene.prompt_set import Mark
from SlideSAMBridge.tasks import retreat
from SlideSAMBridge.tasks import shelf as shelves
from SlideSAMBridge.tasks import work as works
from SlideSAMBridge.tasks.worker import Job

from Testing.fakes import ThresholdModel, ball_volume
from Testing.slicer import scenes

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
    source = SimpleNamespace(voxels=volume, part=part, signature=("A", 1), stacks={})
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
        works._sync(session, work, {10: [BOX]}, {})
        for _ in zip(range(3), session.run(), strict=False):
            pass
        tries.append(session.model.device)
        if len(tries) <= times:
            raise error

    job = Job("run", retreat.on_any_device(loads.shelf, work.choice, perform, work))
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


def test_a_new_session_has_the_prompts_in_the_order_in_which_they_were_given(loads):
    """The first of them counts in which intensity window the object is seen."""
    work, session = new_work("A"), None
    below, outside = Mark(2, ((2.0, 2.0, 8.0),), 0), Mark(2, ((3.0, 3.0, 10.0),), 0)
    result_of(works.run_task(loads.shelf, work, {10: [BOX]}))
    result_of(works.correct_task(loads.shelf, work, {10: [BOX], 8: [below]}, 8))
    for points in ([], [outside]):
        work.go_on_from(work.session.snapshot())
        wanted = {10: [BOX, *points], 8: [below]}
        result_of(works.correct_task(loads.shelf, work, wanted, 10))
        assert list(work.session.prompts) == [10, 8] and work.session is not session
        session = work.session


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


def test_another_device_or_precision_is_tried_as_it_was_chosen(loads):
    """What ran out of memory is remembered for that choice: the user may know better."""
    assert hungry(loads, new_work("A"), FULL, 2) == ["cuda", "cuda", "cpu"]
    again = shelves.ModelChoice("large", "cuda", "bfloat16")
    assert loads.shelf.model(CHOICE).device == "cpu"
    assert loads.shelf.model(again).device == "cuda"
    assert loads.shelf.next_step(again) == "smaller" and loads.shelf.next_step(CHOICE) is None


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

    job = Job("run", retreat.on_any_device(loads.shelf, work.choice, perform, work))
    job.perform()
    assert job.error is FULL and work.session is session and not loads.alive_at_retreat


# Files that change


def adapter_of(base: str, path: Path, place: str | None = None) -> Path:
    """An adapter file that names its base model."""
    note = {"adapter_of": base} | ({} if place is None else {"base_place": place})
    save_file({"image_encoder.x": torch.zeros(1)}, path, note)
    return path


def replace(path: Path, content: bytes) -> None:
    """As an installation or a training does it, with another file."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)


@pytest.fixture(params=["file", "catalogue", "base by place", "base by name", "base of a base"])
def model_file(request, tmp_path, monkeypatch):
    """What to choose, and the file that will change."""
    folder = tmp_path / "models"
    monkeypatch.setenv("SLIDESAM_MODELS", str(folder))
    folder.mkdir()
    file = folder / "slidesam_b.pth"
    if request.param == "file":
        file = tmp_path / "mine.pth"
    file.write_bytes(b"old weights")
    if request.param in ("file", "catalogue"):
        return str(file) if request.param == "file" else "slidesam-b", file
    (tmp_path / "run").mkdir()
    adapter = tmp_path / "run" / "mine.safetensors"
    if request.param == "base by place":
        file = tmp_path / "base.pth"
        file.write_bytes(b"old weights")
        return str(adapter_of("base.pth", adapter, "../base.pth")), file
    if request.param == "base by name":
        return str(adapter_of("slidesam-b", adapter)), file
    adapter_of("slidesam-b", tmp_path / "run" / "first.safetensors")
    return str(adapter_of("first.safetensors", adapter)), file


def test_a_file_that_was_replaced_is_loaded_again(loads, model_file):
    name, file = model_file
    choice = shelves.ModelChoice(name, "cpu", "float32")
    work = new_work("A", choice)
    before = result_of(works.run_task(loads.shelf, work, {10: [BOX]}))
    old = weakref.ref(loads.shelf.model(choice))
    assert len(loads.made) == 1 and len(loads.shelf.cache()) > 0
    replace(file, b"new weights")  # of the same size
    after = result_of(works.correct_task(loads.shelf, work, {10: [BOX], 8: [POINT]}, 8))
    assert old() is None and work.session.model is loads.shelf.model(choice)
    assert len(loads.made) == 2 and loads.cached_at_load == [0, 0]  # nor the old embeddings
    assert after.keys() == before.keys()


def test_a_file_that_vanished_leaves_its_model(loads, model_file):
    name, file = model_file
    choice = shelves.ModelChoice(name, "cpu", "float32")
    model, content, times = loads.shelf.model(choice), file.read_bytes(), file.stat()
    file.unlink()
    assert loads.shelf.model(choice) is model
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loads.shelf.model(choice) is model
    replace(file, b"more weights")
    assert loads.shelf.model(choice) is not model and len(loads.made) == 2


def test_files_are_not_read_at_each_request(loads, model_file, monkeypatch):
    choice = shelves.ModelChoice(model_file[0], "cpu", "float32")
    model = loads.shelf.model(choice)

    def opened(*arguments, **options):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(Path, "open", opened)
    assert loads.shelf.model(choice) is model


@pytest.mark.parametrize("place", ["trained", "beside", "models"])
def test_the_base_is_looked_for_where_loading_does(tmp_path, monkeypatch, place):
    from SlideSAMLib.files.tensor_files import read_tensor_file
    from SlideSAMLib.sam.adapters import base_path

    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path / "models"))
    for folder in ("models", "run", "trained"):
        (tmp_path / folder).mkdir()
    adapter = adapter_of("b.pth", tmp_path / "run" / "mine.safetensors", "../trained/b.pth")
    folder = "run" if place == "beside" else place
    (tmp_path / folder / "b.pth").write_bytes(b"weights")
    found = base_path(read_tensor_file(adapter))
    assert found.resolve() in [path.resolve() for path in shelves.files_of(str(adapter))]


def test_the_logic_loads_a_replaced_file_again(session, slidesam, tmp_path):
    from SlideSAMLib.catalogue import model_info

    builtin = model_info("builtin").path
    scene, file = scenes.Scene(oversampling=1), tmp_path / f"mine{builtin.suffix}"
    segment = partial(
        slidesam.SlideSAMLogic().segment,
        scene.volume,
        scene.segmentation,
        points=[scene.ras()],
        model=str(file),
        device="cpu",
    )
    replace(file, builtin.read_bytes())
    segment()
    file.unlink()
    segment()  # with what is loaded
    replace(file, b"no weights")
    with pytest.raises(RuntimeError, match="is not a model file"):
        segment()
    replace(file, builtin.read_bytes())
    segment()
