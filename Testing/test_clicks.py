"""The simulated user, and clicks to reach a Dice."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from SlideSAMLib.cli.main import main
from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.evaluation.click_report import click_tables, clicks_as_csv, summarise_clicks
from SlideSAMLib.evaluation.clicks import Point, SimulatedUser
from SlideSAMLib.evaluation.report import as_markdown
from SlideSAMLib.evaluation.results import ResultFile
from SlideSAMLib.models import register_model
from Testing.evaluation_data import FIRST, LAST, memory_case, write_manifest
from Testing.fakes import ThresholdModel

SPACING = (1.0, 1.0, 1.0)


def stack(*filled) -> np.ndarray:
    mask = np.zeros((4, 20, 24), bool)
    for place in filled:
        mask[place] = True
    return mask


def test_the_user_clicks_into_the_largest_error_of_the_worst_slice():
    truth = stack(np.s_[1, 2:9, 2:9], np.s_[2, 2:9, 2:9], np.s_[2, 12:17, 12:17])
    user = SimulatedUser(truth, SPACING)
    # slice 1 lacks 49 voxels, slice 2 has 25 too few and 39 too many
    mask = stack(np.s_[2, 2:9, 2:9], np.s_[2, 9:12, 0:13])
    assert user.next(mask) == Point(2, 1, 10, 0)
    mask[2] = truth[2]
    assert user.next(mask) == Point(1, 5, 5, 1)
    assert user.next(truth) is None


def test_the_middle_of_an_error_is_the_deepest_voxel_in_mm():
    truth = stack(np.s_[0, 0:9, 0:3])
    assert SimulatedUser(truth, SPACING).next(stack()) == Point(0, 1, 1, 1)
    # A T is deepest in its stem, but in its bar where the rows lie far apart
    truth = stack(np.s_[0, 2, 0:19], np.s_[0, 3:15, 8:13])
    assert SimulatedUser(truth, SPACING).next(stack()).y > 2
    assert SimulatedUser(truth, (1, 4, 1)).next(stack()).y == 2


def test_the_user_never_clicks_twice_on_one_voxel():
    truth = stack(np.s_[3, 5, 5:7])
    user = SimulatedUser(truth, SPACING)
    points = [user.next(stack()) for _ in range(3)]
    assert points == [Point(3, 5, 5, 1), Point(3, 6, 5, 1), None]


class Forgetful(ThresholdModel):
    """Loses the object on slice 9 and beyond, unless it is shown a point there."""

    def _masks(self, window, prompt):
        masks = super()._masks(window, prompt)
        centre = window.key[-1]
        if centre >= 9 and not prompt.points:
            masks[:] = False
        if centre == 8:
            masks[2] = False
        return masks


def test_one_click_is_enough_where_the_model_is_right():
    (result,) = evaluate([memory_case()], ThresholdModel(threshold=50), protocol="clicks", limit=1)
    assert result.protocol == "clicks"
    assert [(c.dice, c.label, c.x) for c in result.clicks] == [(1.0, 1, None)]
    summary = summarise_clicks([result])
    assert (summary.structures, summary.reached, summary.clicks) == (1, 1, 1.0)
    assert set(summary.dice_after.values()) == {1.0}
    assert summary.worsened == 0.0


def test_the_user_goes_on_until_it_is_right():
    (result,) = evaluate([memory_case()], Forgetful(threshold=50), protocol="clicks", limit=1)
    thick, seen = LAST - FIRST + 1, 9 - FIRST
    dice = [2 * n / (n + thick) for n in range(seen, thick)]
    got = [c.dice for c in result.clicks]
    assert got == pytest.approx(dice[: len(got)])
    assert got[-1] >= 0.9 > got[-2]
    assert [c.index for c in result.clicks] == [FIRST, *range(9, 8 + len(got))]
    assert all(c.label == 1 for c in result.clicks)
    assert summarise_clicks([result]).clicks == len(got)


def test_a_user_gives_up_after_twenty_clicks():
    class Blind(ThresholdModel):
        """Never sees anything."""

        def _masks(self, window, prompt):
            return np.zeros((3, *window.slices.shape[1:]), bool)

    (result,) = evaluate([memory_case()], Blind(threshold=50), protocol="clicks", limit=1)
    assert len(result.clicks) == 20
    summary = summarise_clicks([result])
    assert (summary.reached, summary.clicks) == (0, None)
    assert "not in 20" in click_tables([result])


def test_clicks_survive_the_result_file(tmp_path):
    results = evaluate([memory_case()], Forgetful(threshold=50), protocol="all", limit=1)
    assert [r.protocol for r in results] == ["full", "extent", "clicks"]
    file = ResultFile(tmp_path / "results.jsonl", {})
    file.start()
    for result in results:
        file.append(result)
    assert file.resume() == results
    lines = list(csv.DictReader(clicks_as_csv(results).splitlines()))
    assert [line["click"] for line in lines] == [str(n + 1) for n in range(len(lines))]
    assert (lines[0]["x"], lines[1]["label"]) == ("", "1")


def test_clicks_are_not_said_to_be_better_than_one_prompt_without_a_network():
    """The user has seen the truth up to twenty times, the baselines were given one prompt."""
    results = evaluate([memory_case()], Forgetful(threshold=50), protocol="all", baselines=True)
    report = as_markdown(results, {})
    assert "Under the protocol full the model" in report
    assert "Under the protocol extent the model" in report
    assert "Under the protocol clicks" not in report
    clicks = [r for r in results if r.protocol == "clicks" or r.method != "model"]
    assert "above the best baseline" not in as_markdown(clicks, {})


def test_the_command_reports_clicks(tmp_path, capsys):
    register_model("forgetful-for-tests", lambda device, precision: Forgetful(threshold=50))
    output = tmp_path / "out"
    words = ["evaluate", str(write_manifest(tmp_path)), "--model", "forgetful-for-tests"]
    words += ["--cases", "block", "--limit", "1", "--protocol", "clicks", "--output", str(output)]
    assert main(words) == 0
    assert "clicks to Dice 0.9: 1 of 1" in capsys.readouterr().out
    assert "## Clicks" in (output / "report.md").read_text()
    assert json.loads((output / "results.json").read_text())["clicks"]["reached"] == 1
    assert (output / "clicks.csv").is_file()
