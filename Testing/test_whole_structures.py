"""The benchmark that joins the parts of structures, run as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from SlideSAMLib.evaluation.cases import read_manifest
from Testing.cli_tools import SPACING, write_image

SCRIPT = Path(__file__).parent / "Benchmarks" / "whole_structures.py"
NAMES = {2: "left cerebral cortex", 3: "left putamen", 8: "left cerebellum cortex", 24: "CSF"}


def run(*arguments: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_parts_become_one_structure_and_the_rest_background(tmp_path):
    labels = np.zeros((6, 7, 8), np.uint8)
    for n, value in enumerate(NAMES):
        labels[n] = value
    write_image(tmp_path / "image.nii.gz", labels.astype(np.int16))
    write_image(tmp_path / "label.nii.gz", labels)
    known = [{"value": v, "name": n} for v, n in NAMES.items()]
    both = {"image": "image.nii.gz", "label": "label.nii.gz"}
    cases = [{"id": "head", **both, "labels": known}, {"id": "part", **both, "labels": known[:1]}]
    (tmp_path / "manifest.json").write_text(json.dumps({"cases": cases}))
    ended = run(tmp_path / "manifest.json", tmp_path / "wholes")
    assert ended.returncode == 0, ended.stderr
    (case,) = read_manifest(tmp_path / "wholes" / "manifest.json")
    assert case.id == "head"
    assert case.names == {1: "left hemisphere"}
    content = case.load()
    assert np.array_equal(content.labels, np.isin(labels, (2, 3)))
    assert np.array_equal(content.volume, labels)
    assert content.spacing == pytest.approx(SPACING[::-1])  # ITK's i, j, k -> k, j, i


def test_a_manifest_is_never_written_over(tmp_path):
    known = [{"value": v, "name": n} for v, n in NAMES.items()]
    case = {"id": "head", "image": "image.nii.gz", "label": "label.nii.gz", "labels": known}
    for name in ("image", "label"):
        write_image(tmp_path / f"{name}.nii.gz", np.ones((6, 7, 8), np.uint8))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"cases": [case]}))
    before = manifest.read_bytes()
    ended = run(manifest, tmp_path)
    assert ended.returncode == 2 and "give another one" in ended.stderr
    assert manifest.read_bytes() == before
    (tmp_path / "file").write_text("")
    ended = run(manifest, tmp_path / "file")
    assert ended.returncode == 2 and "cannot be made" in ended.stderr

    manifest.write_text(json.dumps({"cases": [{**case, "labels": known[:1]}]}))
    ended = run(manifest, tmp_path / "wholes")
    assert ended.returncode == 0 and "nothing is written" in ended.stdout
    assert not (tmp_path / "wholes").exists()


def test_a_missing_manifest_is_one_line(tmp_path):
    ended = run(tmp_path / "nothing.json", tmp_path / "wholes")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "wholes").exists()
