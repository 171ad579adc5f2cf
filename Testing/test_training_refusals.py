"""Data that a training cannot use: one sentence, exit code 2, before anything is learnt."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.training import sources
from SlideSAMLib.training.config import DatasetConfig, read_config
from SlideSAMLib.training.datasets import Shelf, read_dataset, split
from SlideSAMLib.training.loop import Training
from SlideSAMLib.training.mixture import Mixture
from Testing.cli_tools import assert_refused, run_command
from Testing.evaluation_data import write_manifest
from Testing.training_data import tiny_run, write_balls

CASE = {"id": "a", "image": "block_image.nii.gz", "label": "block_label.nii.gz"}


def write(tmp_path: Path, **values) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def data_folder(tmp_path: Path, content: object) -> Path:
    """A training folder whose manifest has this content, with the images of two cases."""
    write_manifest(tmp_path).write_text(json.dumps(content))
    return tmp_path


def run_on(tmp_path: Path, content: object, share: dict, **others) -> Path:
    """The configuration of a run on this manifest."""
    data = str(data_folder(tmp_path, content))
    more = {"data": data, "sources": share, "datasets": [], **others}
    return write(tmp_path, **tiny_run(tmp_path / "run", tmp_path, steps=1, **more))


@pytest.mark.parametrize(
    ("content", "share", "message"),
    [
        ({"cases": [{k: v for k, v in CASE.items() if k != "id"}]}, "real", 'needs an "id"'),
        ({"cases": [CASE, CASE]}, "real", 'needs an "id" of its own'),
        ({"cases": [{k: v for k, v in CASE.items() if k != "label"}]}, "real", "no share to any"),
        ({"cases": {"a": CASE}}, "real", 'a list "cases"'),
        ([CASE], "real", 'a list "cases"'),
        ({"cases": ["a"]}, "real", 'a list "cases"'),
        ({"cases": [{**CASE, "labels": [{"name": "x"}]}]}, "real", '"labels" must list'),
        ({"cases": [{**CASE, "labels": [{"name": "x"}]}]}, "label_maps", '"labels" must list'),
        *(
            ({"cases": [{**CASE, role: "none.nii.gz"}]}, share, "none.nii.gz is missing")
            for role, share in (("image", "real"), ("image", "regions"), ("label", "real"))
        ),
        ({"cases": [{"id": "a", "label": "none.nii.gz"}]}, "label_maps", "none.nii.gz is missing"),
        ({"cases": [{**CASE, "image": "manifest.json"}]}, "regions", "manifest.json"),
        ({"cases": [{"id": "a", "label": "manifest.json"}]}, "label_maps", "manifest.json"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path, capsys, content, share, message):
    path = run_on(tmp_path, content, {share: 1.0})
    done = run_command(capsys, "train", path)
    assert_refused(replace(done, out=""), message)  # it says before which sources are empty


def test_a_manifest_that_is_refused_leaves_nothing(tmp_path, capsys):
    path = run_on(tmp_path, {"cases": {"a": CASE}}, {"real": 1.0})
    assert_refused(run_command(capsys, "train", path), 'a list "cases"')
    path = write(tmp_path, **tiny_run(tmp_path / "run", tmp_path / "none"))
    assert_refused(run_command(capsys, "train", path), "There is no data set")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lightning_fabric", {}),
        ("tensorboard", {"tensorboard": True}),
        ("peft", {"trainable": "lora"}),
    ],
)
def test_a_package_that_is_missing_is_named_at_the_start(
    tmp_path, capsys, monkeypatch, name, wanted
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else find(n))
    config = tmp_path / "run.yaml"
    quick = {"output": str(tmp_path / "run"), "steps": 1, "shapes": 1}
    config.write_text(yaml.safe_dump(quick | wanted))
    assert_refused(run_command(capsys, "train", config), f"needs the package {name}: install")
    assert not (tmp_path / "run").exists()


def test_ids_may_be_numbers(tmp_path):
    """They are the texts that `select` names, as everywhere else."""
    data = data_folder(tmp_path, {"cases": [{**CASE, "id": 3}, {**CASE, "id": 4}]})
    assert [case["id"] for case in sources.read_manifest(data / "manifest.json")] == ["3", "4"]
    share, select = {"real": 1.0}, {"steps": 1, "manifest": str(data / "manifest.json")}
    for ids, count in (([], 2), ([4], 1)):
        chosen = {"select": {**select, "ids": ids}} if ids else {}
        values = {"output": "x", "data": str(data), "sources": share, **chosen}
        (source,) = Mixture(read_config(write(tmp_path, **values)), 1).sources
        assert len(source.volumes) == count


@pytest.fixture
def shifted(tmp_path) -> Path:
    """A data set, whose one case that is held out has labels that lie elsewhere."""
    root = write_balls(tmp_path / "Dataset001_Balls", 4)
    (case,) = split(read_dataset(DatasetConfig(str(root))), 0.25)[1].cases
    labels = sitk.ReadImage(str(case.label))
    labels.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(labels, str(case.label))
    return root


def test_a_held_out_case_that_cannot_be_measured_is_found_at_the_start(
    tmp_path, shifted, capsys, monkeypatch
):
    monkeypatch.setattr(Training, "_step", lambda self: pytest.fail("it has begun to learn"))
    values = tiny_run(tmp_path / "run", shifted, held_out=0.25, name="Balls", network={})
    done = run_command(capsys, "finetune", write(tmp_path, **values))
    assert_refused(done, "resample the labels")
    assert not (tmp_path / "run").exists()


def test_a_case_that_is_read_later_is_checked_at_the_start(tmp_path, capsys, monkeypatch):
    """One volume is in memory at a time, and that with wrong labels is not the first of them."""
    monkeypatch.setattr(Training, "_step", lambda self: pytest.fail("it has begun to learn"))
    root = write_balls(tmp_path / "Dataset001_Balls", 3)
    path = write(tmp_path, **tiny_run(tmp_path / "run", root, in_memory=1))
    first = Shelf(read_dataset(DatasetConfig(str(root))), 1, np.random.default_rng(1000))
    (there,) = first.state()["volumes"]
    label = root / "labelsTr" / f"ball_{(there + 1) % 3}.nii.gz"
    labels = sitk.ReadImage(str(label))
    shorter = labels[:, :, 1:]
    labels.SetOrigin((500.0, 0.0, 0.0))
    for changed, message in ((labels, "resample the labels"), (shorter, "same lattice")):
        sitk.WriteImage(changed, str(label))
        assert_refused(run_command(capsys, "train", path), message)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("manifest", [False, True])
def test_a_case_that_cannot_choose_is_found_at_the_start(
    tmp_path, shifted, capsys, monkeypatch, manifest
):
    monkeypatch.setattr(Training, "_step", lambda self: pytest.fail("it has begun to learn"))
    chosen = {"steps": 1}
    if manifest:
        path = write_manifest(tmp_path, sha256={})
        labels = sitk.ReadImage(str(tmp_path / "leaky_label.nii.gz"))
        labels.SetOrigin((500.0, 0.0, 0.0))
        sitk.WriteImage(labels, str(tmp_path / "leaky_label.nii.gz"))
        chosen["manifest"] = str(path)
    values = tiny_run(tmp_path / "run", shifted, held_out=0.25, select=chosen)
    assert_refused(run_command(capsys, "train", write(tmp_path, **values)), "resample the labels")
    assert not (tmp_path / "run").exists()
