"""Whole evaluations with a model that needs no weights: results, resuming, reports, command."""

from __future__ import annotations

import csv
import json
import os
import re
import signal

import numpy as np
import pytest
import SimpleITK

from SlideSAMLib import InputError, ModelError
from SlideSAMLib.cli.main import main
from SlideSAMLib.evaluation import command, evaluate, metrics, read_manifest, summarise
from SlideSAMLib.evaluation.report import as_markdown
from SlideSAMLib.evaluation.results import ResultFile, read_results
from SlideSAMLib.evaluation.tables import table
from SlideSAMLib.models import register_model
from Testing.evaluation_data import FIRST, LAST, SLICES, memory_case, write_manifest
from Testing.fakes import ThresholdModel

THICK = LAST - FIRST + 1


@pytest.fixture
def model() -> ThresholdModel:
    return ThresholdModel(threshold=50)


@pytest.fixture
def registered(model) -> str:
    register_model("threshold-for-tests", lambda device, precision: model)
    return "threshold-for-tests"


@pytest.mark.parametrize("prompt", ["box", "point"])
def test_a_clean_block_is_found_exactly(model, prompt):
    results = evaluate([memory_case()], model, prompt=prompt)
    assert [(r.value, r.protocol) for r in results] == [
        (1, "full"),
        (1, "extent"),
        (2, "full"),
        (2, "extent"),
    ]
    for result in results:
        assert result.dice == 1.0
        assert (result.leaked_before, result.leaked_after, result.missed) == (0, 0, 0)
        assert result.confidence > 0.5
        assert result.prompt == prompt
    large = results[0]
    assert (large.structure, large.voxels, large.pieces) == ("large block", 1200, 1)
    assert (large.first, large.last, large.index) == (FIRST, LAST, FIRST)
    assert large.predicted == THICK


def test_a_leak_counts_under_full_and_not_under_extent(model):
    full, extent = evaluate([memory_case(leak=True)], model, limit=1)
    assert full.dice == pytest.approx(2 * THICK / (THICK + SLICES))
    assert (full.leaked_before, full.leaked_after) == (FIRST, SLICES - 1 - LAST)
    assert extent.dice == 1.0
    assert (extent.leaked_before, extent.leaked_after, extent.missed) == (0, 0, 0)
    assert set(extent.stops.values()) == {"limit reached"}


def test_every_case_needs_an_id_of_its_own(model):
    with pytest.raises(InputError, match="Several cases have the id block"):
        evaluate([memory_case(), memory_case(leak=True)], model)


def test_slices_along_another_axis(model):
    (result,) = evaluate([memory_case(axis=2)], model, protocol="extent", limit=1)
    assert result.dice == 1.0
    assert (result.axis, result.slices, result.first, result.last) == (2, 36, 5, 16)


def test_missed_slices_are_counted():
    class Blind(ThresholdModel):
        """Sees nothing beyond slice 9."""

        def _masks(self, window, prompt):
            masks = super()._masks(window, prompt)
            centre = window.key[-1]
            for place in range(3):
                if centre + place - 1 > 9:
                    masks[place] = False
            return masks

    (result,) = evaluate([memory_case()], Blind(threshold=50), protocol="full", limit=1)
    assert result.missed == LAST - 9
    assert result.dice == pytest.approx(2 * 5 / (5 + THICK))


def test_both_protocols_share_the_embeddings(model):
    evaluate([memory_case()], model, protocol="full", limit=1)
    alone = len(model.encoded)
    model.encoded.clear()
    evaluate([memory_case()], model, protocol="both", limit=1)
    assert len(model.encoded) == alone


def test_baselines_stand_beside_the_model(model):
    results = evaluate([memory_case()], model, baselines=True, limit=1)
    methods = [(r.method, r.protocol) for r in results]
    assert methods == [
        ("model", "full"),
        ("model", "extent"),
        ("copied mask", "extent"),
        ("copied ellipse", "extent"),
        ("region growing", "extent"),
    ]
    assert results[2].dice == 1.0
    assert 0.8 < results[3].dice < 0.95
    assert results[4].dice > 0.8
    only = evaluate([memory_case()], None, baselines=True, limit=1)
    assert [(r.method, r.dice) for r in only] == [(r.method, r.dice) for r in results[2:]]


def without_seconds(results):
    return [{**vars(r), "seconds": 0} for r in results]


def test_two_processes_give_the_same_results(model, tmp_path):
    cases = read_manifest(write_manifest(tmp_path))
    alone = evaluate(cases, model, baselines=True)
    shared = evaluate(cases, model, baselines=True, workers=2)
    assert without_seconds(alone) == without_seconds(shared)


def test_a_worker_that_cannot_start_says_why(tmp_path):
    cases = read_manifest(write_manifest(tmp_path))
    with pytest.raises(InputError, match="no-such-model"):
        evaluate(cases, "no-such-model", workers=2)


class Killed(ThresholdModel):
    """A model whose process the system ends, as it does where memory runs short."""

    def encode(self, windows):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def test_a_worker_that_was_ended_is_told_of(tmp_path):
    cases = read_manifest(write_manifest(tmp_path))
    with pytest.raises(ModelError, match="fewer --workers and go on with --resume"):
        evaluate(cases, Killed(threshold=50), workers=2)


def test_results_that_are_there_are_not_computed_again(model):
    case = memory_case()
    first = evaluate([case], model, limit=1)
    stored = []
    model.predicted.clear()
    again = evaluate([case], model, limit=2, done=first, store=stored.append)
    assert [r.value for r in stored] == [2, 2]
    assert again[:2] == first
    model.predicted.clear()
    assert evaluate([case], model, limit=1, done=first) == first
    assert model.predicted == []


def test_progress_counts_structures(model):
    steps = []
    evaluate([memory_case()], model, protocol="full", progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]


def test_another_metric_is_reported(model, monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    metrics.register_metric("volume ratio", lambda p, t, spacing: p.sum() / t.sum())
    results = evaluate([memory_case(leak=True)], model, limit=1)
    assert results[0].metrics["volume ratio"] == SLICES / THICK
    assert results[1].metrics["volume ratio"] == 1.0
    assert summarise(results)[0].metrics == {"volume ratio": SLICES / THICK}


def test_the_summary_is_a_mean_over_cases(model):
    leaky = memory_case(leak=True, case_id="leaky")
    results = evaluate([memory_case(), leaky], model, protocol="full")
    (summary,) = summarise(results)
    low = 2 * THICK / (THICK + SLICES)
    cases, dice = [1.0, (low + 1) / 2], [1.0, 1.0, low, 1.0]
    assert (summary.cases, summary.structures) == (2, 4)
    assert summary.mean == pytest.approx(np.mean(cases))
    assert summary.lower_cases == pytest.approx(np.percentile(cases, 25))
    assert summary.lower_structures == pytest.approx(np.percentile(dice, 25))
    assert summary.structures_mean == pytest.approx(np.mean(dice))
    assert summary.leaked_before == FIRST / 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "scribble"},
        {"protocol": "half"},
        {"limit": -1},
        {"min_voxels": 10**6},
        {"workers": 0},
        {"model": None},
    ],
)
def test_wrong_arguments(model, wrong):
    with pytest.raises(InputError):
        evaluate([memory_case()], **{"model": model, **wrong})


def test_a_constant_volume_names_its_case(model):
    case = memory_case()
    case.content.volume[:] = 3
    with pytest.raises(InputError, match=r"Case block: .*constant"):
        evaluate([case], model)


# The file of results


def test_a_cut_off_line_is_dropped(model, tmp_path):
    results = evaluate([memory_case()], model)
    file = ResultFile(tmp_path / "results.jsonl", {"seed": 0})
    assert file.start() == []
    for result in results:
        file.append(result)
    assert file.resume() == results
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-40])
    assert file.resume() == results[:-1]
    file.append(results[-1])
    assert file.path.read_bytes() == whole


def test_a_full_disk_is_told_of(model, tmp_path):
    resource = pytest.importorskip("resource")
    (result, *_) = evaluate([memory_case()], model)
    file = ResultFile(tmp_path / "results.jsonl", {"seed": 0})
    file.start()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(InputError, match=r"results\.jsonl cannot be written: .* --resume"):
            file.append(result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.resume() == []


def test_a_result_that_lacks_only_its_line_end_is_kept_whole(model, tmp_path, monkeypatch):
    """And until the file is complete again, the old one stays."""
    results = evaluate([memory_case()], model)
    file = ResultFile(tmp_path / "results.jsonl", {"seed": 0})
    file.start()
    for result in results[:2]:
        file.append(result)
    cut = file.path.read_bytes()[:-1]
    file.path.write_bytes(cut)
    with monkeypatch.context() as patch:
        patch.setattr("json.dumps", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            file.resume()
    assert file.path.read_bytes() == cut
    assert file.resume() == results[:2]
    file.append(results[2])
    assert file.resume() == read_results(file.path) == results[:3]


def test_other_settings_are_refused(tmp_path):
    ResultFile(tmp_path / "results.jsonl", {"seed": 0, "model": "a"}).start()
    with pytest.raises(InputError, match="another model"):
        ResultFile(tmp_path / "results.jsonl", {"seed": 0, "model": "b"}).resume()
    (tmp_path / "results.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="not a result file"):
        ResultFile(tmp_path / "results.jsonl", {}).resume()


# The command


def test_command_writes_everything(registered, tmp_path, capsys):
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["evaluate", str(manifest), "--model", registered, "--baselines"]
    assert main([*words, "--output", str(output)]) == 0
    assert "model, full" in capsys.readouterr().out

    with (output / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 2 * 5
    leaky = next(r for r in rows if r["case"] == "leaky" and r["protocol"] == "full")
    assert float(leaky["dice"]) == pytest.approx(2 / 3, abs=1e-6)
    assert 0.4 < float(leaky["surface dice"]) < 1 and 4 <= float(leaky["HD95 mm"]) <= 5
    assert leaky["leaked_before"] == str(FIRST)
    assert leaky["stopped_forward"] == "end of volume"

    content = json.loads((output / "results.json").read_text())
    assert content["settings"]["model"] == "threshold"
    assert content["settings"]["prompt"] == "box"
    assert content["settings"]["command line"].startswith(
        f"slidesam evaluate {manifest} --output {output} --prompt box --protocol both --limit 3"
    )
    assert " --baselines " in content["settings"]["command line"]
    assert len(content["results"]) == len(rows)
    assert [s["method"] for s in content["summary"]][:2] == ["model", "model"]

    report = (output / "report.md").read_text()
    for text in (
        "command line | `slidesam evaluate",
        "## Summary",
        "| surface dice | HD95 mm |",
        "copied mask (extent given)",
        "large block (1)",
    ):
        assert text in report
    assert "**0.917**" in report  # mean of 1 and (2/3 + 1) / 2
    assert "NOT above the best baseline" in report
    assert "It is not above all of them on 2 of 2 cases: block, leaky." in report
    (leaky,) = (output / "overlays").glob("leaky-large-block-1-*_box_full.png")
    assert f"![leaky, large block](overlays/{leaky.name})" in report

    pictures = sorted(path.name for path in (output / "overlays").iterdir())
    assert len(pictures) == 8
    assert pictures[0].startswith("block-large-block-1-")
    assert pictures[0].endswith("_box_extent.png")
    assert {path.stat().st_size < 200_000 for path in (output / "overlays").iterdir()} == {True}


def test_overlays_show_truth_prediction_and_prompt(registered, tmp_path):
    from PIL import Image

    manifest = write_manifest(tmp_path)
    words = ["evaluate", str(manifest), "--model", registered, "--limit", "1", "--cases", "leaky"]
    for prompt in ("box", "point"):
        output = tmp_path / prompt
        assert main([*words, "--prompt", prompt, "--output", str(output)]) == 0
        (path,) = (output / "overlays").glob(f"leaky-large-block-1-*_{prompt}_full.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert pixels.shape[1] > 2 * pixels.shape[0]
        for colour in ((47, 211, 111), (255, 79, 160), (255, 210, 63)):  # truth, found, prompt
            assert (np.abs(pixels - colour).sum(axis=2) < 60).sum() > 10


@pytest.mark.parametrize("slices", [3, 1])
def test_the_published_scheme_measures_what_it_does_not_refuse(
    registered, tmp_path, capsys, slices
):
    """Among two cases there is one whose block fills the volume, from its first slice on."""
    manifest, output = write_manifest(tmp_path, sha256={}), tmp_path / "out"
    for part in ("image", "label"):
        path = str(tmp_path / f"leaky_{part}.nii.gz")
        SimpleITK.WriteImage(SimpleITK.ReadImage(path)[:, :, FIRST : FIRST + slices], path)
    words = ["evaluate", str(manifest), "--model", registered, "--scheme", "reference"]
    words += ["--baselines", "--no-overlays", "--no-surfaces", "--output", str(output)]
    assert main([*words, "--cases", "leaky"]) == 2
    error = capsys.readouterr().err
    assert "refuses every structure" in error and error.count("\n") == 1
    assert main([*words, "--resume"]) == 0
    assert "Left out: 1 of 3 structures" in capsys.readouterr().out
    with (output / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["block"] * 2 * 5
    assert "| structures refused | `1` |" in (output / "report.md").read_text()


def test_every_case_has_pictures_of_its_own(model, tmp_path):
    """Whatever the letters of its id are, and however many."""
    ids = ["M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller", "M\N{GREEK SMALL LETTER MU}ller"]
    ids += ["m ller", "M-ller", "x" * 300]
    results = evaluate(
        [memory_case(case_id=name) for name in ids],
        model,
        protocol="full",
        limit=1,
        overlays=tmp_path,
    )
    assert len(list(tmp_path.iterdir())) == len(ids)
    report = as_markdown(results, {}, tmp_path)
    assert len(set(re.findall(r"\]\((.*?)\)", report))) == len(ids)


def test_a_name_of_two_lines_stays_in_its_cell():
    assert table(("case", "dice"), [("a\nb|c", 1)]).splitlines()[2] == "| a b\\|c | 1 |"


def test_resume_computes_only_what_is_missing(registered, model, tmp_path, capsys, monkeypatch):
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["evaluate", str(manifest), "--model", registered, "--no-overlays"]
    words += ["--output", str(output)]
    assert main([*words, "--limit", "1"]) == 0
    lines = (output / "results.jsonl").read_text().splitlines()
    (output / "results.jsonl").write_text("\n".join(lines[:3]) + "\n")
    model.predicted.clear()
    assert main([*words, "--limit", "1", "--resume"]) == 0
    again = (output / "results.jsonl").read_text().splitlines()
    assert again[:3] == lines[:3]
    assert len(again) == len(lines) == 5
    model.predicted.clear()
    assert main([*words, "--limit", "1", "--resume"]) == 0
    assert model.predicted == []
    assert not (output / "overlays").exists()
    capsys.readouterr()
    assert main([*words, "--seed", "1", "--resume"]) == 2
    assert "another seed" in capsys.readouterr().err
    monkeypatch.setattr(command, "code_hash", lambda: "of an earlier version")
    assert main([*words, "--resume"]) == 2
    assert "another code sha256" in capsys.readouterr().err


def test_baselines_alone_need_no_model(tmp_path):
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["evaluate", str(manifest), "--model", "no-such-model", "--output", str(output)]
    assert main([*words, "--baselines-only"]) == 0
    content = json.loads((output / "results.json").read_text())
    assert content["summary"][0]["mean"] == 1.0
    assert len(content["summary"]) == 3


# Real volumes


@pytest.mark.data
def test_a_real_case_runs(data_folder):
    cases = read_manifest(data_folder / "manifest.json", ["hippocampus_small"])
    results = evaluate(cases, ThresholdModel(), baselines=True)
    assert len(results) == 2 * 5
    assert {r.structure for r in results} == {"anterior hippocampus", "posterior hippocampus"}
    for result in results:
        assert 0.0 < result.dice <= 1.0
    copied = [r for r in summarise(results) if r.method == "copied mask"]
    assert copied[0].mean == pytest.approx(0.476, abs=0.001)


@pytest.mark.parametrize(
    "text",
    [
        b"5\n",
        b"\xff\xfe\n",
        b'{"settings": 5}\n',
        b'{"settings": {"a": 1, "data sha256": 5}}\n',
        b'{"settings": {"a": 1}}\n{"x": 1}\n',
        b'{"settings": {"a": 1}}\n5\n',
        b'{"settings": {"a": 1}}\n{"box": null, "points": 5, "clicks": []}\n',
        b'{"settings": {"a": 1}}\n' + b"[" * 100_000 + b"\n{}\n",
    ],
)
def test_files_that_are_no_results_are_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"is not a result file|Line 2 of .* is damaged"):
        ResultFile(path, {"a": 1}).resume()
    assert path.read_bytes() == text
