"""The training loop: it learns, logs, resumes, and refuses what it cannot use."""

from __future__ import annotations

import argparse
import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from lightning_fabric.plugins.precision import MixedPrecision

from SlideSAMLib.builtin.features import CHANNELS, Batch
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.weights import read_network, write_weights
from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.training import loop
from SlideSAMLib.training.command import run
from SlideSAMLib.training.config import TrainConfig, read_config
from SlideSAMLib.training.curve import draw_curve, smoothed
from SlideSAMLib.training.loop import Training
from SlideSAMLib.training.losses import figures, window_loss
from SlideSAMLib.training.rollouts import Step

SMALL = {"widths": [8, 16, 16, 32], "depths": [0, 1, 1, 1], "blocks": 1, "heads": 4}


def write(path, **values):
    path.write_text(yaml.safe_dump(values))
    return argparse.Namespace(config=path, resume=False, stop_after=None)


@pytest.fixture
def settings(tmp_path):
    return {
        "output": str(tmp_path / "run"),
        "steps": 4,
        "batch": 2,
        "shapes": 1,
        "log_every": 2,
        "precision": "32-true",
        "sources": {"shapes": 1.0},
        "network": SMALL,
    }


def curve(tmp_path):
    with (tmp_path / "run" / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_logs_its_curve_writes_weights_and_resumes(tmp_path, settings):
    arguments = write(tmp_path / "run.yaml", **settings)
    assert run(arguments) == 0
    assert [row["step"] for row in curve(tmp_path)] == ["2", "4"]
    assert all(0 < float(row["data_share"]) < 1 for row in curve(tmp_path))
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")
    network = read_network(tmp_path / "run" / "weights.safetensors")
    assert network.config["widths"] == SMALL["widths"]

    with pytest.raises(InputError, match="--resume"):
        run(arguments)
    arguments = write(tmp_path / "run.yaml", **settings | {"steps": 6})
    arguments.resume = True
    assert run(arguments) == 0
    assert [row["step"] for row in curve(tmp_path)] == ["2", "4", "6"]


def test_the_same_seed_gives_the_same_weights(tmp_path, settings):
    results = []
    settings["precision"] = "bf16-mixed"
    for name in ("one", "two"):
        settings["output"] = str(tmp_path / name)
        run(write(tmp_path / f"{name}.yaml", **settings))
        results.append(read_network(tmp_path / name / "weights.safetensors").state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


class Line:
    """A task that can be reckoned by hand: one weight, the loss is weight times a number."""

    figures, betas, data_seconds = (), (0.9, 0.999), 0.0

    def __init__(self) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.network.weight, 1.0)
        self.numbers = iter([0.1, 0.5, 0.3, 0.3])

    def loss(self, network):
        return network(torch.tensor([[next(self.numbers)]])).mean(), {}


def test_accumulated_batches_count_as_their_mean(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "make_task", lambda config: Line())
    config = TrainConfig(
        str(tmp_path), accumulate=2, average=0.5, warm_up=1, steps=10, precision="32-true"
    )
    training = Training(config)
    step = training.optimiser.step
    weight = training.task.network.weight
    monkeypatch.setattr(
        training.optimiser, "step", lambda: seen.append(weight.grad.item()) or step()
    )
    before = weight.item()
    for _ in range(2):
        training._step()
    assert seen == pytest.approx([0.3, 0.3])
    assert training._sums["loss"][0] == pytest.approx(0.3 * before)
    (average,) = training.average.values.values()
    assert weight.item() < average.item() < before  # it follows the weights


def test_gradients_are_clipped_as_they_are_without_a_scaler(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "make_task", lambda config: Line())
    training = Training(TrainConfig(str(tmp_path), precision="32-true"))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # as float16 has it on a GPU
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    monkeypatch.setattr(training.fabric.strategy, "_precision", precision)
    weight = training.task.network.weight
    clear = training.optimiser.zero_grad
    monkeypatch.setattr(
        training.optimiser, "zero_grad", lambda: seen.append(weight.grad.item()) or clear()
    )
    training._step()
    training._step()
    assert seen == pytest.approx([0.1, 0.5], rel=1e-2)


def test_the_first_step_may_have_the_full_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "make_task", lambda config: Line())
    config = TrainConfig(str(tmp_path), precision="32-true", warm_up=0, learning_rate=0.01)
    training = Training(config)
    training._step()
    assert training.optimiser.param_groups[0]["lr"] == 0.01


def test_many_processes_agree_to_go_on(tmp_path, monkeypatch):
    """Where every one of them wants to, whatever rounding does to their mean."""
    monkeypatch.setattr(loop, "make_task", lambda config: Line())
    training = Training(TrainConfig(str(tmp_path), precision="32-true"))
    processes = 41  # the mean of so many ones, summed in float32, is less than 1
    finished = 0

    def reduced(wishes, reduce_op):
        share = wishes / processes if reduce_op == "mean" else wishes
        total = torch.zeros_like(wishes)
        for n in range(processes):
            total = total + (share if n >= finished else 0 * share)
        return total

    monkeypatch.setattr(type(training.fabric), "world_size", processes)
    monkeypatch.setattr(training.fabric, "all_reduce", reduced)
    assert training._agree(0.0, False) == (True, False, False, False)
    assert training._agree(0.0, True) == (False, False, False, True)
    finished = 1
    assert training._agree(0.0, True) == (False, False, False, False)


@pytest.mark.parametrize("spoilt", ["the loss", "the gradients"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, spoilt):
    """Before the weights are spoilt; what was saved before stays."""
    monkeypatch.setattr(loop, "make_task", lambda config: Line())
    training = Training(TrainConfig(str(tmp_path), precision="32-true"))
    training.task.state, training.task.write = dict, lambda *given: None
    training._step()
    monkeypatch.setattr(training.curve, "draw", lambda: None)
    training.save()
    saved = training.checkpoints.path.read_bytes()
    before = training.task.network.weight.item()
    if spoilt == "the loss":
        training.task.numbers = iter([float("nan")])
    else:
        training.task.network.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        InputError, match="At step 2 the loss is no finite number: go on with --resume"
    ):
        training._step()
    assert training.task.network.weight.item() == before
    assert training.checkpoints.path.read_bytes() == saved


@pytest.mark.parametrize("place", ["none/run", "there"])
def test_an_output_that_cannot_be_written_to_is_said_at_the_start(
    tmp_path, settings, monkeypatch, place
):
    """On a read-only disk, also where the folder of the run is there already."""
    (tmp_path / "there").mkdir()
    output = tmp_path / place

    def refused(*given, **named):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused if place != "there" else Path.mkdir)
    monkeypatch.setattr(os, "access", lambda *given, **named: False)
    with pytest.raises(InputError, match=f"The folder {output} cannot be"):
        Training(TrainConfig(**settings | {"output": str(output)}))


def test_there_must_be_something_to_resume(tmp_path, settings):
    arguments = write(tmp_path / "run.yaml", **settings)
    arguments.resume = True
    with pytest.raises(InputError, match="no checkpoint"):
        run(arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 5}, "output"),
        ({"output": "x", "speed": 3}, "unknown settings: speed"),
        ({"output": "x", "learning_rat": 3}, r"learning_rat \(did you mean learning_rate\?\)"),
        (
            {"output": "x", "datasets": [{"path": "y", "wieght": 1}]},
            "entry of datasets has unknown settings: wieght",
        ),
        ({"output": "x", "select": {"step": 1}}, r"select has unknown settings: step \(did you"),
        ({"output": "x", "steps": 0}, "must be a whole number from 1 on"),
        ({"output": "x", "threads": 0}, "must be positive"),
        ({"output": "x", "warm_up": -1}, "warm_up must be 0 or more"),
        ({"output": "x", "average": 1.0}, "average 0 or more and below 1"),
        ({"output": "x", "average": -0.1}, "average 0 or more and below 1"),
        ({"output": "x", "optimiser": "sgd"}, "optimiser must be one of adamw, muon"),
    ],
)
def test_bad_settings_are_named(tmp_path, values, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        read_config(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_a_long_curve_is_smoothed_a_short_one_is_not():
    long = smoothed(np.arange(100) % 2)
    assert long[10:90] == pytest.approx(0.5, abs=0.1)
    assert smoothed(np.array([3.0, 2.0, 4.0])).tolist() == [3, 2, 4]
    assert smoothed(np.arange(20) % 2)[:2] == pytest.approx([1 / 3, 1 / 2])  # 5 of 20 at a time


def test_lines_of_a_curve_pass_over_rows_without_their_value(tmp_path, monkeypatch):
    """Those of an evaluation have no loss, and some rows saw no point."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    rows = ["step,loss,point_centre,volume_dice", "1,3,,", "1,,,0.5", "2,1,0.25,", "3,2,0.75,"]
    (tmp_path / "curve.csv").write_text("\n".join(rows))
    draw_curve(tmp_path / "curve.csv", tmp_path / "curve.png")
    (loss,), (points, volumes) = (axes.get_lines() for axes in drawn[-1].axes)
    assert loss.get_xydata().tolist() == [[1, 3], [2, 1], [3, 2]]
    assert points.get_xydata().tolist() == [[2, 0.25], [3, 0.75]]
    assert volumes.get_xydata().tolist() == [[1, 0.5]]


# Linear RGB as people without green cones see it (Machado, Oliveira, Fernandes 2009)
GREEN_BLIND = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)


def test_the_lines_of_a_curve_can_be_told_apart_by_the_green_blind(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from matplotlib.colors import to_rgb

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    for names in (
        ("box_centre", "point_centre", "slide_centre", "slide_ahead"),
        ("centre", "outer", "best_centre"),
    ):
        rows = [f"step,loss,{','.join(names)}", f"1,0.5{',0.5' * len(names)}"]
        (tmp_path / "curve.csv").write_text("\n".join(rows))
        draw_curve(tmp_path / "curve.csv", tmp_path / "curve.png")
        lines = drawn[-1].axes[1].get_lines()
        assert len(lines) == len(names)
        seen = [GREEN_BLIND @ np.array(to_rgb(line.get_color())) ** 2.2 for line in lines]
        for number, one in enumerate(seen):
            for other in seen[:number]:
                assert np.abs(one - other).max() > 0.12


def example(count: int = 4) -> Step:
    target = torch.zeros(count, 3, 128, 128)
    target[:, :2, 40:80, 40:80] = 1  # the object ends before the third slice
    flags = torch.tensor([True, False] * (count // 2))
    return Step(Batch.empty(count), target, torch.ones(count, 3), flags, flags)


def answer(step: Step, scale: float) -> tuple[torch.Tensor, ...]:
    fine = scale * (2 * step.target - 1)
    logits = fine[:, None, :, ::2, ::2].expand(-1, 4, -1, -1, -1)
    there = torch.tensor([1.0, 1.0, -1.0]) * scale
    return logits, fine, torch.full((4, 4), scale), there.expand(4, 3)


def test_better_answers_cost_less():
    step = example()
    right, vague, wrong = (float(window_loss(*answer(step, s), step)) for s in (9.0, 0.5, -9.0))
    assert right < 0.05 < vague < wrong


def test_slices_that_do_not_exist_do_not_count():
    step = example()
    step.valid[:, 0] = 0
    logits, fine, quality, presence = (value.clone() for value in answer(step, 9.0))
    before = window_loss(logits, fine, quality, presence, step)
    logits[:, :, 0] *= -1
    fine[:, 0] *= -1
    presence[:, 0] *= -1
    after = window_loss(logits, fine, quality, presence, step)
    assert float(after) == pytest.approx(float(before), abs=1e-6)


def test_figures_tell_the_kinds_of_prompt_apart():
    step = example()
    _, fine, _, presence = answer(step, 9.0)
    found = figures(fine, presence, step)
    assert found["point_centre"] == pytest.approx(1.0)
    assert found["slide_ahead"] == pytest.approx(1.0)
    assert found["presence_absent"] == 1.0
    assert "box_centre" not in found


def test_an_untrained_network_says_nothing_about_an_empty_image():
    network = BuiltinNetwork(**SMALL)
    logits, fine, quality, presence = network(torch.zeros(2, CHANNELS, 128, 128))
    assert logits.shape == (2, 4, 3, 64, 64)
    assert fine.shape == (2, 3, 128, 128)
    assert quality.shape == (2, 4)
    assert presence.shape == (2, 3)


@pytest.mark.parametrize("network", [{"depth": [0, 1, 1, 1]}, {"depths": [0, 1]}])
def test_sizes_of_a_network_that_do_not_exist_are_refused(settings, network):
    with pytest.raises(InputError, match=r"The setting network, .*cannot be used"):
        Training(TrainConfig(**settings | {"network": network}))


def test_what_is_wrong_with_the_model_to_start_from_is_said(tmp_path, settings):
    path = tmp_path / "start.safetensors"
    network = BuiltinNetwork(**SMALL)
    write_weights(network.state_dict(), network.config, path)
    wider = {"network": {"widths": [8, 16, 16, 64]}, "start_from": str(path)}
    with pytest.raises(InputError, match=r"^A network of .* cannot start from .*greater\.$"):
        Training(TrainConfig(**settings | wider))
    write_weights(network.state_dict(), network.config | {"blocks": 3}, path)
    with pytest.raises(ModelError, match=r"^The model file .*does not fit"):
        Training(TrainConfig(**settings | {"start_from": str(path)}))
