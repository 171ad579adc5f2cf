"""A resumed evaluation goes on with the same images and labels, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import SimpleITK as sitk

from SlideSAMLib.files.locks import alone_with
from SlideSAMLib.models import register_model
from Testing.cli_tools import assert_refused, run_command
from Testing.evaluation_data import write_manifest
from Testing.fakes import ThresholdModel

VARIANTS = {"variants": [{"name": "no masks", "slide": {"use_masks": False}}]}


@pytest.fixture
def model() -> ThresholdModel:
    one = ThresholdModel(threshold=50)
    register_model("threshold-for-tests", lambda device, precision: one)
    return one


@pytest.fixture
def words(tmp_path) -> list[object]:
    manifest = write_manifest(tmp_path, sha256={})
    options = ["--model", "threshold-for-tests", "--limit", "1", "--output", tmp_path / "out"]
    return [manifest, *options]


def replace_voxels(path: Path) -> None:
    """Other voxels on the same lattice."""
    image = sitk.ReadImage(str(path))
    image[0, 0, 0] = 1 - image[0, 0, 0]
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("part", ["image", "label"])
@pytest.mark.parametrize("command", ["evaluate", "ablate"])
def test_other_data_do_not_go_on(model, words, tmp_path, capsys, part, command):
    (tmp_path / "variants.json").write_text(json.dumps(VARIANTS))
    own = ["--no-overlays"] if command == "evaluate" else ["--variants", tmp_path / "variants.json"]
    words = [command, *words, *own]
    assert run_command(capsys, *words).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    replace_voxels(tmp_path / f"leaky_{part}.nii.gz")
    done = run_command(capsys, *words, "--resume")
    assert_refused(done, "made with another image or label of leaky: ", "another --output")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("command", ["evaluate", "ablate"])
@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_folder(model, words, tmp_path, capsys, command, resume):
    """Results with one prompt would come into the file of those with another one."""
    (tmp_path / "variants.json").write_text(json.dumps(VARIANTS))
    own = ["--no-overlays"] if command == "evaluate" else ["--variants", tmp_path / "variants.json"]
    words, output = [command, *words, *own], tmp_path / "out"
    if resume:
        assert run_command(capsys, *words).code == 0
        words.append("--resume")
    output.mkdir(exist_ok=True)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    name = "results.jsonl" if command == "evaluate" else "ablation.json"
    with alone_with(output / name):  # as another run has it
        assert_refused(run_command(capsys, *words), f"'{name}' is being written by another program")
        (output / f"{name}.lock").rename(tmp_path / "lock")
        assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
    assert run_command(capsys, *words).code == 0
    assert not (output / f"{name}.lock").exists()


def test_a_run_that_begins_while_the_cases_are_read_keeps_its_results(
    model, words, tmp_path, capsys, monkeypatch
):
    def load(args):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "results.jsonl").write_text("of the other run")
        return model, {}

    monkeypatch.setattr("SlideSAMLib.evaluation.command.load_described", load)
    done = run_command(capsys, "evaluate", *words, "--no-overlays")
    assert_refused(done, "results of an earlier run")
    assert (tmp_path / "out" / "results.jsonl").read_text() == "of the other run"


def test_the_same_data_go_on_whatever_their_time(model, words, tmp_path, capsys):
    words = ["evaluate", *words, "--no-overlays"]
    assert run_command(capsys, *words).code == 0
    for path in tmp_path.glob("*.nii.gz"):
        os.utime(path, (0, 0))
    model.predicted.clear()
    assert run_command(capsys, *words, "--resume").code == 0
    assert model.predicted == []


def test_cases_may_be_added_and_are_watched_from_then_on(model, words, tmp_path, capsys):
    words = ["evaluate", *words, "--no-overlays"]
    assert run_command(capsys, *words, "--cases", "block").code == 0
    replace_voxels(tmp_path / "leaky_image.nii.gz")  # nobody has used it yet
    for cases in (["--cases", "leaky"], []):
        assert run_command(capsys, *words, "--resume", *cases).code == 0
    replace_voxels(tmp_path / "leaky_image.nii.gz")
    assert run_command(capsys, *words, "--resume", "--cases", "block").code == 0
    assert_refused(run_command(capsys, *words, "--resume"), "image or label of leaky")
    replace_voxels(tmp_path / "block_label.nii.gz")
    assert_refused(run_command(capsys, *words, "--resume"), "image or label of block, leaky")


def test_voxels_beside_their_header_count(model, words, tmp_path, capsys):
    manifest = words[0]
    content = json.loads(manifest.read_text())
    for case in content["cases"]:
        image = sitk.ReadImage(str(tmp_path / case["image"]))
        case["image"] = f"{case['id']}.mhd"
        sitk.WriteImage(image, str(tmp_path / case["image"]))
    manifest.write_text(json.dumps(content))
    words = ["evaluate", *words, "--no-overlays"]
    assert run_command(capsys, *words).code == 0
    voxels = tmp_path / "leaky.raw"
    voxels.write_bytes(voxels.read_bytes()[:-1] + b"\x01")
    assert_refused(run_command(capsys, *words, "--resume"), "image or label of leaky")
