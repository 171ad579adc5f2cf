"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files.locks import alone_with
from SlideSAMLib.files.safetensors_files import read_safetensors, write_safetensors
from SlideSAMLib.training import checkpoints, datasets, loop, mixture, sources
from SlideSAMLib.training.command import run
from SlideSAMLib.training.config import DatasetConfig, TrainConfig, read_config
from SlideSAMLib.training.curve_log import CurveLog
from SlideSAMLib.training.generators import StateMismatch
from SlideSAMLib.training.mixture import Mixture
from SlideSAMLib.training.rollouts import Pool
from SlideSAMLib.training.slides import SEEDS_APART, OwnSlides, open_slides
from Testing.evaluation_data import write_manifest
from Testing.training_data import small_map, tiny_run, write_balls
from Testing.training_processes import ROOT, start_process

TIMES = ("minutes", "windows_per_second", "data_share")  # of the curve: they cannot be the same


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return write_balls(tmp_path_factory.mktemp("data") / "Dataset001_Balls", 4)


def write(path: Path, values: dict, resume: bool = False, stop_after=None) -> argparse.Namespace:
    path.write_text(yaml.safe_dump(values))
    return argparse.Namespace(config=path, resume=resume, stop_after=stop_after)


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of a curve without what depends on the clock."""
    with (folder / "curve.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def start(config: Path, *words: str, rank: int = 0, processes: int = 1) -> subprocess.Popen:
    """The command as one process of a run."""
    command = ["-m", "SlideSAMLib", "train", str(config), *words]
    return start_process(command, config.parent, rank, processes)


def kill_at(processes: list[subprocess.Popen], folder: Path, step: int) -> None:
    """SIGKILL once there is a checkpoint of this step or a later one."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        saved = [int(path.name.split("-")[1]) for path in folder.glob("windows-*-0.pt")]
        if saved and max(saved) >= step and (folder / "checkpoint.pt").exists():
            break
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.005)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, error.decode()[-2000:]


def assert_same(one: Path, other: Path) -> None:
    """The same weights, states and curves, bit by bit."""
    first, second = (read_safetensors(folder / "weights.safetensors") for folder in (one, other))
    assert first[1] == second[1]
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    states = [torch.load(f / "checkpoint.pt", weights_only=True) for f in (one, other)]
    for part in ("network", "average"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    assert curve(one) == curve(other)


@pytest.mark.slow
@pytest.mark.parametrize(("ahead", "optimiser"), [(0, "adamw"), (2, "muon")])
def test_a_killed_run_goes_on_bit_by_bit(tmp_path, balls, capsys, ahead, optimiser):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    chosen = {
        "data_processes": ahead,
        "slab_uses": 1 + ahead,
        "optimiser": optimiser,
        "log_every": 5,
        "held_out": 0.25,
        "select": {"steps": 2, "limit": 1},
    }
    settings = tiny_run(killed, balls, save_minutes=0.0, **chosen)
    config = write(tmp_path / "killed.yaml", settings, resume=True)
    kill_at([start(config.config)], killed, 2)
    state = torch.load(killed / "checkpoint.pt", weights_only=True)
    assert 1 <= state["done"] < 5  # 1: killed while step 2 was written
    assert state["sums"]["loss"]  # of a row that is not written yet
    with (killed / "curve.csv").open("a") as file:
        file.write("9,0.5,1.0,0.5,1e-3,7.0,,,,,,,,,\n9,0.")  # as if it had gone on, and was cut off
    capsys.readouterr()
    assert run(config) == 0
    assert "other windows" not in capsys.readouterr().out
    assert run(write(tmp_path / "whole.yaml", tiny_run(whole, balls, **chosen))) == 0
    assert [row["step"] for row in curve(whole)] == ["2", "4", "5", "6", "8", "10", "10"]
    judged = [row["step"] for row in curve(whole) if row["volume_dice"]]
    assert judged == ["2", "4", "6", "8", "10"]
    assert_same(whole, killed)
    best = [read_safetensors(folder / "best.safetensors") for folder in (whole, killed)]
    assert best[0][1] == best[1][1]
    assert len(list(killed.glob("windows-*.pt"))) == 1
    assert (killed / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_killed_processes_go_on_bit_by_bit(tmp_path, balls):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = write(
        tmp_path / "killed.yaml", tiny_run(killed, balls, steps=6, save_minutes=0.0)
    ).config
    kill_at([start(config, rank=n, processes=2) for n in range(2)], killed, 2)
    assert len(list(killed.glob("windows-*-1.pt"))) >= 1
    other = write(tmp_path / "whole.yaml", tiny_run(whole, balls, steps=6)).config
    for path, words in ((config, ["--resume"]), (other, [])):
        both = [start(path, *words, rank=n, processes=2) for n in range(2)]
        for process in both:
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error.decode()[-2000:]
    assert_same(whole, killed)


def saved(state: dict) -> dict:
    """As it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_windows_are_the_same_wherever_a_run_is_cut(balls, monkeypatch):
    """Slides on their way, corrections, exchanged cases and shapes that were invented since."""
    monkeypatch.setattr(sources.shapes, "label_map", small_map)
    monkeypatch.setattr(mixture, "REFRESH", 3)
    monkeypatch.setattr(datasets, "EXCHANGE", 2)
    own = [DatasetConfig(str(balls))]
    config = TrainConfig("x", shapes=2, sources={"shapes": 1.0}, datasets=own, in_memory=1)
    ours = Mixture(config, 5)
    pool = Pool(4, ours.draw, np.random.default_rng(6))
    centres, kinds = set(), set()
    for _ in range(14):
        state = saved({"mixture": ours.state(), "pool": pool.state()})
        theirs = Mixture(config, 5, state["mixture"])
        other = Pool.restored(state["pool"], theirs.draw, theirs.again)
        for step in range(2):  # the pool's own next step, and the one after it
            mine, copy = pool.step(), other.step()
            theirs_now = copy.tensors()
            for name, tensor in mine.tensors().items():
                assert torch.equal(tensor, theirs_now[name]), name
            centres |= {place.centre for place in pool.places}
            kinds |= {(place.box is None, place.corrections > 0) for place in pool.places}
            guess = (mine.target + 0.1).roll(step, -1).clamp(0, 1)
            pool.advance(guess)
            other.advance(guess)
    assert max(centres) > 4 and len(kinds) == 3
    seeds = ours.state()["sources"][0]["seeds"]
    assert set(seeds).isdisjoint(sources.first_seeds(2, 5))


@pytest.mark.slow
def test_processes_take_turns_and_end_with_their_owner(balls):
    own = [DatasetConfig(str(balls))]
    config = TrainConfig("x", sources={}, datasets=own, batch=2, data_processes=2)
    ahead = open_slides(config, 1)
    alone = [OwnSlides(config, 1), OwnSlides(config, 1 + SEEDS_APART)]
    for turn in (0, 1, 0, 1, 0):
        mine, theirs = ahead.step(), alone[turn].step()
        mine, theirs = mine.tensors(), theirs.tensors()
        for name, tensor in theirs.items():  # images and masks come in half precision
            assert torch.allclose(mine[name].float(), tensor.float(), atol=6e-4), name
        for slides in (ahead, alone[turn]):
            slides.advance((theirs["target"] > 0.5).float())
    state = ahead.state()
    processes = multiprocessing.active_children()
    assert state["turn"] == 1 and len(processes) == 2
    del ahead
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    with pytest.raises(StateMismatch, match="the cases of Dataset001_Balls are others"):
        open_slides(replace(config, held_out=0.5), 1, state)


def test_slabs_stay_on_the_cpu_where_the_gpu_is_not_nvidias(balls):
    """The device "meta" stands for such a GPU: nothing could be read from slabs on it."""
    config = TrainConfig("x", sources={}, datasets=[DatasetConfig(str(balls))], batch=2)
    slides = open_slides(config, 1, device="meta")
    step = slides.step()
    assert {tensor.device.type for tensor in step.tensors().values()} == {"meta"}
    assert {place.image.device.type for place in slides._pool.places} == {"cpu"}
    slides.advance(torch.ones(step.target.shape))


def test_other_data_are_found_out(balls, tmp_path):
    own = [DatasetConfig(str(balls))]
    state = Mixture(TrainConfig("x", sources={}, datasets=own), 1).state()
    with pytest.raises(StateMismatch, match="the cases of Dataset001_Balls are others"):
        Mixture(TrainConfig("x", sources={}, datasets=own, held_out=0.5), 1, state)
    with pytest.raises(StateMismatch, match="volumes of heart"):
        sources.Source("heart", 1.0, []).check({"name": "heart", "volumes": 3})


def test_slides_of_an_earlier_version_are_found_out(balls):
    own = [DatasetConfig(str(balls))]
    ours = Mixture(TrainConfig("x", sources={}, datasets=own), 1)
    state = Pool(2, ours.draw, np.random.default_rng(0)).state()
    del state["places"][1]["remembered"]
    with pytest.raises(StateMismatch, match="earlier SlideSAM"):
        Pool.restored(state, ours.draw, ours.again)


def test_what_does_not_fit_is_told_and_replaced(tmp_path, balls, capsys):
    """Other settings, or files of another step: new windows, and a sentence that says so."""
    output = tmp_path / "run"
    settings = tiny_run(output, balls, steps=2, log_every=1)
    assert run(write(tmp_path / "run.yaml", settings)) == 0
    changed = write(tmp_path / "run.yaml", settings | {"steps": 3, "batch": 3}, resume=True)
    assert run(changed) == 0
    assert "Process 0 goes on with other windows: the settings have another batch." in (
        capsys.readouterr().out
    )
    (window,) = output.glob("windows-3-0.pt")
    window.rename(output / "windows-2-0.pt")
    assert run(write(tmp_path / "run.yaml", settings | {"steps": 4}, resume=True)) == 0
    assert "at this step is not there" in capsys.readouterr().out
    assert [row["step"] for row in curve(output)] == ["1", "2", "3", "4"]
    assert [path.name for path in output.glob("windows-*")] == ["windows-4-0.pt"]

    wider = settings | {"network": {**settings["network"], "widths": [8, 16, 16, 48]}}
    with pytest.raises(InputError, match="another network"):
        run(write(tmp_path / "run.yaml", wider, resume=True))
    (output / "checkpoint.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="cannot be read"):
        run(write(tmp_path / "run.yaml", settings, resume=True))


def test_a_run_in_pieces_is_the_same_run(tmp_path, balls, capsys, monkeypatch):
    """`--stop-after`: each call ends with a checkpoint, the last one at the schedule's end."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert run(write(tmp_path / "whole.yaml", tiny_run(whole, balls, steps=4))) == 0
    settings = tiny_run(pieces, balls, steps=4)
    step = loop.Training._step
    clock = []  # two minutes pass with every step

    def slow(self):
        step(self)
        clock.append(120.0)

    monkeypatch.setattr(loop.Training, "_step", slow)
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: sum(clock) + 1e-3 * next(ticks))
    said = []
    for n in range(3):
        assert run(write(tmp_path / "run.yaml", settings, resume=n > 0, stop_after=3)) == 0
        said.append(capsys.readouterr().out)
    assert "Stopped at step 2" in said[0] and "--resume" in said[0]
    assert "The weights are in" in said[1]  # the schedule ended with that call
    assert "The weights are in" in said[2]  # and there is nothing left to do
    assert_same(whole, pieces)
    with pytest.raises(InputError, match="above 0 minutes"):
        run(write(tmp_path / "run.yaml", settings, resume=True, stop_after=0))


@pytest.mark.slow
@pytest.mark.parametrize("log_every", [1, 90_000])  # the second one ends before there is a curve
def test_the_script_for_gpus_trains_in_pieces_and_measures(tmp_path, balls, log_every):
    """With a small recipe, on the CPU; the recipe itself can be read."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    for folder in (tmp_path / "data", tmp_path / "data" / "train"):
        write_manifest(folder)
    settings = tiny_run(tmp_path / "elsewhere", balls, steps=100_000, log_every=log_every)
    config = write(tmp_path / "recipe.yaml", settings).config
    words = [tmp_path / "data", tmp_path / "run", "0.05", config]
    environment = {**os.environ, "SLIDESAM_PYTHON": sys.executable}
    for _ in range(2):
        script = ["bash", str(ROOT / "scripts" / "train-gpu"), *map(str, words)]
        done = subprocess.run(script, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Stopped at step" in done.stdout and "Dice" in done.stdout
        assert ("no NVIDIA GPU" in done.stderr) != torch.cuda.is_available()
    assert "other windows" not in done.stdout
    assert len(list((tmp_path / "run").glob("evaluation-*/*.csv"))) >= 2
    recipe = read_config(ROOT / "Resources" / "Models" / "builtin-training-gpu.yaml")
    assert recipe.data_processes and recipe.optimiser == "muon"


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["monai", "matplotlib", "manifest.json", "train/manifest.json"])
def test_the_script_for_gpus_asks_for_all_it_needs_before_it_trains(tmp_path, balls, lacking):
    """What the evaluation needs, too: the minutes of the training would be lost."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    for folder in (tmp_path / "data", tmp_path / "data" / "train"):
        write_manifest(folder)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if lacking.endswith(".json"):
        (tmp_path / "data" / lacking).unlink()
    else:
        (hidden / f"{lacking}.py").write_text(f"raise ImportError({lacking!r})")
    config = write(tmp_path / "recipe.yaml", tiny_run(tmp_path / "elsewhere", balls)).config
    script = ["bash", str(ROOT / "scripts" / "train-gpu")]
    script += map(str, (tmp_path / "data", tmp_path / "run", "0.05", config))
    environment = {**os.environ, "SLIDESAM_PYTHON": sys.executable, "PYTHONPATH": str(hidden)}
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert lacking in line and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [3000, 6001, 60_000])
def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path, size):
    """Files of more bytes than this fail as they do on a full disk."""
    resource = pytest.importorskip("resource")
    state = {f"t{n}": torch.zeros(1000 * (n + 1)) for n in range(10)}
    path, weights = tmp_path / "checkpoint.pt", tmp_path / "weights.safetensors"
    path.write_bytes(b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(InputError, match=r"checkpoint\.pt cannot be written: File too large"):
            checkpoints._write(path, state)
        with pytest.raises(OSError, match=r"weights\.safetensors cannot be written: [^.]+\.$"):
            write_safetensors(state, weights, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_folder(tmp_path, balls, resume):
    """The other one would mix its rows into the curve, and its steps into the checkpoint."""
    output = tmp_path / "run"
    config = write(tmp_path / "run.yaml", tiny_run(output, balls, steps=1))
    if resume:
        run(config)
        config = write(config.config, tiny_run(output, balls, steps=2), resume=True)
    output.mkdir(exist_ok=True)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with alone_with(output / "checkpoint.pt"):  # as another run has it
        with pytest.raises(ModelError, match=r"'checkpoint\.pt' is being written by another"):
            run(config)
        (output / "checkpoint.pt.lock").rename(tmp_path / "lock")
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert run(config) == 0
    assert not (output / "checkpoint.pt.lock").exists()


def test_another_optimiser_does_not_go_on(tmp_path, balls):
    output = tmp_path / "run"
    run(write(tmp_path / "run.yaml", tiny_run(output, balls, steps=1)))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    other = tiny_run(output, balls, steps=2, optimiser="muon")
    with pytest.raises(InputError, match="another optimiser: set `optimiser` as it was"):
        run(write(tmp_path / "run.yaml", other, resume=True))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_curve_is_cut_back(tmp_path):
    log = CurveLog(tmp_path, ("a",), False)
    log.cut_back(0)
    for step in (2, 4, 6):
        log.write({"step": step, "loss": 1.0, "a": step / 10})
    with log.path.open("a") as file:
        file.write("4,0.0")
    CurveLog(tmp_path, ("a", "b"), False).cut_back(4)
    rows = curve(tmp_path)
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [
        ("2", "0.2000", ""),
        ("4", "0.4000", ""),
    ]
    log.cut_back(0)
    log.draw()  # there is nothing to draw
    assert list(tmp_path.iterdir()) == []
