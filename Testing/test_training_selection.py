"""The best weights of a run are found by the Dice of whole volumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib import load_model
from SlideSAMLib.errors import InputError
from SlideSAMLib.evaluation.report import summarise
from SlideSAMLib.evaluation.runner import evaluate
from SlideSAMLib.files.safetensors_files import read_safetensors
from SlideSAMLib.training.command import train
from SlideSAMLib.training.config import TrainConfig, read_config
from SlideSAMLib.training.curve import read_curve
from SlideSAMLib.training.datasets import held_out_cases, read_dataset
from SlideSAMLib.training.loop import Training
from SlideSAMLib.training.mixture import Mixture
from SlideSAMLib.training.selection import Selection, columns
from Testing.cli_tools import run_command
from Testing.evaluation_data import write_manifest
from Testing.training_data import tiny_run, write_balls


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return write_balls(tmp_path_factory.mktemp("data") / "Dataset001_Balls", 4)


def config(tmp_path: Path, balls: Path, **others) -> TrainConfig:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_run(tmp_path / "run", balls, **others)))
    return read_config(path)


def notes(folder: Path) -> dict[str, str]:
    return read_safetensors(folder / "best.safetensors")[1]


def test_the_best_of_several_evaluations_is_kept(tmp_path, balls, monkeypatch, capsys):
    """Of 0.3, 0.7 and 0.2 the second one stays, through a resumed run, and is named."""
    dice = iter([0.3, 0.7, 0.2, 0.5, 0.6])
    monkeypatch.setattr(Selection, "_dice", lambda self, weights, prompt: next(dice))
    chosen = {"steps": 2, "manifest": str(write_manifest(tmp_path))}
    settings = config(tmp_path, balls, steps=5, log_every=1, select=chosen)
    train(settings, resume=False)
    folder = tmp_path / "run"
    assert (notes(folder)["steps"], notes(folder)["volume_dice"]) == ("4", "0.7")
    values = read_curve(folder / "curve.csv")
    there = ~torch.tensor(values["volume_dice"]).isnan()
    assert torch.tensor(values["step"])[there].tolist() == [2, 4, 5]
    assert torch.tensor(values["volume_dice"])[there].tolist() == [0.3, 0.7, 0.2]
    best, last = (read_safetensors(folder / f"{n}.safetensors")[0] for n in ("best", "weights"))
    assert any(not torch.equal(best[name], last[name]) for name in best)

    settings = config(tmp_path, balls, steps=7, log_every=1, select=chosen)
    training = train(settings, resume=True)  # 0.5 at step 6, 0.6 at the end
    assert notes(folder)["steps"] == "4" and training.best_path == folder / "best.safetensors"
    capsys.readouterr()
    path = tmp_path / "run.yaml"
    done = run_command(capsys, "train", path, "--resume")  # finished: nothing is evaluated again
    assert done.code == 0, done.err
    assert f"The weights are in {folder / 'best.safetensors'}." in done.out
    assert "volume Dice of the run, 0.700" in done.out

    dice = iter([0.1])  # measured in another way, the weights of now are the best that is known
    train(config(tmp_path, balls, steps=7, select=chosen | {"limit": 1}), resume=True)
    assert (notes(folder)["steps"], notes(folder)["volume_dice"]) == ("7", "0.1")


def test_the_dice_is_that_of_an_evaluation(tmp_path, balls):
    """On the cases, prompts and structures that were asked for; random numbers stay untouched."""
    chosen = {"steps": 3, "manifest": str(write_manifest(tmp_path)), "limit": 1, "cases": 1}
    chosen |= {"prompts": ["box", "point"], "protocol": "extent"}
    settings = config(tmp_path, balls, steps=1, select=chosen)
    assert columns(settings.select) == ("volume_dice", "volume_dice_box", "volume_dice_point")
    training = Training(settings)
    before = torch.get_rng_state()
    found = training.selection.evaluate(training._write)
    assert torch.equal(before, torch.get_rng_state())
    model = load_model(training.best_path, "cpu")
    cases = training.selection._cases
    assert [case.id for case in cases] == ["block"]
    for prompt in ("box", "point"):
        results = evaluate(cases, model, prompt, "extent", 1)
        assert len(results) == 1
        assert found[f"volume_dice_{prompt}"] == summarise(results)[0].mean
    both = (found["volume_dice_box"] + found["volume_dice_point"]) / 2
    assert found["volume_dice"] == pytest.approx(both)
    assert list((tmp_path / "run").iterdir()) == [training.best_path]


def test_an_evaluation_leaves_the_gpus_of_others_alone(tmp_path, balls, monkeypatch):
    """Where each process has a GPU of its own, the others may be closed to it."""
    chosen = {"steps": 3, "manifest": str(write_manifest(tmp_path))}
    training = Training(config(tmp_path, balls, steps=1, select=chosen))
    states, given_back = {1: torch.ones(8, dtype=torch.uint8)}, []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: given_back.append((device, state))
    )
    monkeypatch.setattr(training.selection, "_device", "cuda")
    monkeypatch.setattr(Selection, "_dice", lambda *_: 0.5)
    assert training.selection.evaluate(training._write)["volume_dice"] == 0.5
    assert given_back == [(1, states[1])]


def test_held_out_cases_choose_where_no_manifest_is_named(tmp_path, balls):
    settings = config(tmp_path, balls, held_out=0.5, select={"steps": 1, "cases": 1})
    (dataset,) = (read_dataset(d) for d in settings.datasets)
    cases = Training(settings).selection._cases
    assert [c.id for c in cases] == [held_out_cases([dataset], 0.5)[0].id]


def test_the_clock_can_say_when_to_evaluate(tmp_path, balls, monkeypatch):
    judged = []
    monkeypatch.setattr(Selection, "_dice", lambda self, *_: judged.append(1) or 0.5)
    chosen = {"manifest": str(write_manifest(tmp_path))}
    for minutes, times in ((1e-6, 3), (60.0, 1)):  # each step, or at the end alone
        Training(config(tmp_path, balls, steps=3, select=chosen | {"minutes": minutes})).run()
        assert len(judged) == times
        judged.clear()


def test_cases_of_the_training_data_that_choose_are_not_trained_on(tmp_path, balls):
    content = json.loads(write_manifest(tmp_path).read_text())
    for case, name in zip(content["cases"], ("brain_1", "brain_2"), strict=True):
        case["id"], case["shape"] = name, [36, 32, 20]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(content))
    values = {"data": str(tmp_path), "sources": {"real": 1.0}, "datasets": []}
    counts = {}
    for ids in ((), ("brain_2",)):
        chosen = {"steps": 1, "manifest": str(tmp_path / "." / "manifest.json"), "ids": list(ids)}
        settings = config(tmp_path, balls, **values, **({"select": chosen} if ids else {}))
        (source,) = Mixture(settings, 1).sources
        counts[ids] = len(source.volumes)
    assert counts == {(): 2, ("brain_2",): 1}
    assert [case.id for case in Training(settings).selection._cases] == ["brain_2"]
    with pytest.raises(InputError, match="is trained on: name the cases"):
        config(tmp_path, balls, **values, select=chosen | {"ids": []})


def test_another_way_of_measuring_forgets_the_best(tmp_path, balls, monkeypatch):
    monkeypatch.setattr(Selection, "_dice", lambda self, weights, prompt: 0.4)
    manifest = str(write_manifest(tmp_path))
    one, same, other = (
        Training(config(tmp_path, balls, select={"steps": n, "manifest": manifest, "limit": k}))
        for n, k in ((2, 3), (5, 3), (2, 1))
    )
    one.selection.evaluate(one._write)
    for training, best in ((same, 0.4), (other, None)):
        training.selection.resume()
        assert training.selection.best == best
    one.selection.begin()
    assert not one.best_path.exists()


def test_a_finetuned_model_is_the_best_one_and_its_card_says_so(
    tmp_path, balls, monkeypatch, capsys
):
    dice = iter([0.9, 0.1])
    monkeypatch.setattr(Selection, "_dice", lambda self, weights, prompt: next(dice))
    first = Training(config(tmp_path, balls))
    base = first.folder / "base.safetensors"
    first._write(base, {})
    values = tiny_run(tmp_path / "tuned", balls, steps=2, held_out=0.3, start_from=str(base))
    values |= {"name": "Balls", "select": {"steps": 1}}
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(values))
    done = run_command(capsys, "finetune", path)
    assert done.code == 0, done.err
    model, note = read_safetensors(tmp_path / "tuned" / "balls.safetensors")
    best, _ = read_safetensors(tmp_path / "tuned" / "best.safetensors")
    assert note["steps"] == "1" and all(torch.equal(model[name], best[name]) for name in best)
    assert "have chosen the weights" in (tmp_path / "tuned" / "balls.md").read_text()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"manifest": "x"}, "either `steps` or `minutes`"),
        ({"manifest": "x", "steps": 1, "minutes": 1}, "either `steps` or `minutes`"),
        ({"manifest": "x", "steps": 1, "limit": -1}, "whole numbers from 0 on"),
        ({"manifest": "x", "steps": 1, "prompts": "scribble"}, "prompts of select"),
        ({"manifest": "x", "steps": 1, "protocol": "clicks"}, "protocol full or extent"),
        ({"manifest": "x", "steps": 1, "speed": 1}, "select has unknown settings: speed"),
        (["x"], "select cannot be used"),
        ({"steps": 1}, "needs a manifest"),
        ({"steps": 1, "manifest": "none.json"}, "none.json cannot be read"),
    ],
)
def test_bad_settings_are_named_and_nothing_is_written(tmp_path, balls, chosen, message):
    with pytest.raises(InputError, match=message):
        Training(config(tmp_path, balls, select=chosen))
    assert not (tmp_path / "run").exists()
