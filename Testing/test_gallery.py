"""The gallery: which structures are shown, and what the picture holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from SlideSAMLib.cli.main import main
from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.evaluation.gallery import pick
from SlideSAMLib.models import register_model
from Testing.evaluation_data import memory_case, write_manifest
from Testing.fakes import ThresholdModel


@pytest.fixture(scope="module")
def one_result():
    results = evaluate([memory_case()], ThresholdModel(threshold=50), limit=1, baselines=True)
    return {(r.method, r.protocol): r for r in results}


def test_the_worst_and_those_about_the_median(one_result):
    base = one_result["model", "full"]
    dice = [0.9, 0.1, 0.5, 0.8, 0.3, 0.45, 0.7]
    results = [replace(base, value=n, metrics={"dice": d}) for n, d in enumerate(dice)]
    results += [replace(r, protocol="extent", metrics={"dice": 0.0}) for r in results]
    results.append(replace(one_result["copied mask", "extent"], metrics={"dice": 0.0}))
    worst, typical = pick(results, 2, 3)
    assert [r.dice for r in worst] == [0.1, 0.3]
    assert [r.dice for r in typical] == [0.45, 0.5, 0.7]
    worst, typical = pick(results, 10)
    assert len(worst) == 7 and typical == []
    assert {r.protocol for r in worst} == {"full"}


def test_without_full_runs_the_extent_is_shown(one_result):
    worst, typical = pick([one_result["model", "extent"]], 1)
    assert [r.protocol for r in worst] == ["extent"] and typical == []


def test_command_draws_the_gallery(tmp_path, capsys):
    from PIL import Image

    register_model("threshold-for-tests", lambda device, precision: ThresholdModel(threshold=50))
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["evaluate", str(manifest), "--model", "threshold-for-tests", "--no-overlays"]
    words += ["--no-surfaces", "--output", str(output)]
    assert main([*words, "--gallery", "1"]) == 0
    assert "gallery.png" in capsys.readouterr().out
    pixels = np.asarray(Image.open(output / "gallery.png").convert("RGB")).astype(int)
    assert pixels.shape[0] > 400  # four rows: one of the worst, three typical ones
    for colour in ((47, 211, 111), (255, 79, 160), (255, 210, 63)):  # truth, found, prompt
        assert (np.abs(pixels - colour).sum(axis=2) < 60).sum() > 20
    tall = pixels.shape[0]
    assert main([*words, "--resume", "--gallery", "1", "--limit", "1", "--workers", "2"]) == 0
    assert np.asarray(Image.open(output / "gallery.png")).shape[0] < tall
    assert main([*words, "--gallery", "none"]) == 2
