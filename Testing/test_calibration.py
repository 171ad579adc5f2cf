"""The confidence of a slice beside its Dice: scores, reliability, tables, and the benchmark."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.evaluation.calibration import confidence_tables, pooled, reliability
from SlideSAMLib.evaluation.command import RESULTS
from SlideSAMLib.evaluation.results import ResultFile
from Testing.evaluation_data import FIRST, LAST, SLICES, memory_case
from Testing.fakes import ThresholdModel

SCRIPT = Path(__file__).parent / "Benchmarks" / "calibration.py"


def test_scores_of_a_leak_are_zero():
    full, extent = evaluate([memory_case(leak=True)], ThresholdModel(threshold=50), limit=1)
    assert [index for index, _, _ in full.scores] == list(range(SLICES))
    dice = {index: value for index, _, value in full.scores}
    assert {dice[i] for i in range(FIRST, LAST + 1)} == {1.0}
    assert {dice[i] for i in (*range(FIRST), *range(LAST + 1, SLICES))} == {0.0}
    assert [index for index, _, _ in extent.scores] == list(range(FIRST, LAST + 1))
    assert full.confidence == pytest.approx(np.mean([s for _, s, _ in full.scores]), abs=1e-4)


def test_reliability_of_known_numbers():
    confidence = np.array([0.85, 0.82, 0.35, 1.0])
    dice = np.array([0.80, 0.90, 0.15, 0.9])
    found = reliability(confidence, dice, np.array([1.0, 1.0, 2.0, 4.0]))
    assert [(b.low, b.slices) for b in found.bins] == [(0.3, 1), (0.8, 2), (0.9, 1)]
    assert found.bins[1].confidence == pytest.approx(0.835)
    assert found.bins[1].dice == pytest.approx(0.85)
    assert [b.share for b in found.bins] == [0.25, 0.25, 0.5]
    assert found.error == pytest.approx(0.25 * 0.2 + 0.25 * 0.015 + 0.5 * 0.1)
    assert found.bias == pytest.approx(0.25 * 0.2 - 0.25 * 0.015 + 0.5 * 0.1)
    assert found.rank == pytest.approx(0.6325, abs=1e-4)  # ranks 3 2 1 4, 2 3.5 1 3.5
    assert reliability(confidence, confidence, np.ones(4)).error == 0.0
    assert reliability(np.ones(3), np.ones(3), np.ones(3)).rank is None


def results_with(scores) -> list:
    results = evaluate([memory_case()], ThresholdModel(threshold=50), "box", "full", baselines=True)
    return [replace(r, scores=scores) if r.method == "model" else r for r in results]


def test_every_structure_has_the_same_weight():
    long, short = [r for r in results_with(()) if r.method == "model"]
    long = replace(long, scores=((1, 0.9, 0.5),) * 30)
    short = replace(short, scores=((1, 0.5, 0.5),))
    confidence, dice, weight = pooled([long, short], "full")
    assert len(confidence) == len(dice) == 31
    assert weight.sum() == pytest.approx(2)
    assert reliability(confidence, dice, weight).bias == pytest.approx(0.2)


def test_the_report_has_the_table_where_there_is_a_confidence():
    text = confidence_tables(results_with(((3, 0.8, 0.9), (4, 0.6, 0.4))))
    assert "| full | 2 | 4 | **0.150** | +0.050 | 1.00 |" in text
    assert "| full | 0.8 to 0.9 | 2 | 50% | 0.80 | 0.90 |" in text
    assert "only in the rank correlation (Spearman) every slice has" in text
    assert confidence_tables(results_with(())) == ""


def test_the_benchmark_finds_a_map(tmp_path):
    """Confidences that are the square root of the Dice: the power 2 puts them right."""
    random = np.random.default_rng(0)
    for name in ("train", "other"):
        (tmp_path / name).mkdir()
        file = ResultFile(tmp_path / name / RESULTS, {})
        file.start()
        for number in range(10):
            dice = random.uniform(0.1, 0.9, 20)
            scores = tuple((i, float(d**0.5), float(d)) for i, d in enumerate(dice))
            file.append(replace(results_with(scores)[0], value=number))
    words = [sys.executable, str(SCRIPT), str(tmp_path / "train"), str(tmp_path / "other")]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    row = next(line for line in found.splitlines() if "other" in line and "power" in line)
    assert "power (0.693)" in row  # log 2
    assert "| 0.0000 | -0." in row
    missing = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True)
    assert missing.returncode == 2 and missing.stderr.startswith("error: There is no result file")
