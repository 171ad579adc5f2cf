"""`slidesam benchmark`: that every figure is of what it says, at sizes that take no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from SlideSAMLib.api import segment
from SlideSAMLib.benchmark import (
    agreement,
    clock,
    encoding,
    large,
    machine,
    peak,
    phantom,
    profiling,
    runs,
    startup,
    subjects,
    suite,
    table,
)
from Testing.cli_tools import assert_refused, run_command, small_checkpoint, write_image
from Testing.fakes import ThresholdModel, ball_volume
from Testing.reference import MINI

CPU = torch.device("cpu")
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def network():
    return subjects.random_network(MINI)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in place of ViT-B, and small matrices."""
    monkeypatch.setitem(subjects.SIZES, "vit-b", MINI)
    monkeypatch.setitem(machine._SIDE, "cpu", 64)


def test_medians_take_turns() -> None:
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = clock.medians(works, CPU, rounds=2)
    assert calls == ["a", "b"] * 3  # one round to warm up
    assert set(found) == {"a", "b"}
    assert all(taken.clock >= 0 and taken.processor >= 0 for taken in found.values())


@pytest.mark.skipif(not LINUX, reason="only Linux tells")
def test_peak_memory_is_that_of_the_work() -> None:
    kept = [torch.ones(2**22)]  # 16 MiB that are there before

    def work() -> None:
        torch.ones(2**24)  # 64 MiB, gone afterwards

    peak.peak_beyond(work, CPU)
    assert 60 <= peak.peak_beyond(work, CPU) < 80
    assert peak.peak_beyond(lambda: kept[0].sum(), CPU) < 10


def test_the_machine_is_described_without_names() -> None:
    found = machine.describe(CPU)
    assert found["cores"] >= 1 and found["torch"] == torch.__version__
    text = json.dumps(found)
    assert str(Path.home()) not in text and "/" not in text
    assert machine.matrix_rate(CPU, torch.float32, side=64) > 0


def test_our_encoder_is_compared_with_the_original(network) -> None:
    rows = encoding.measure(
        "mini", network, CPU, [torch.float32, torch.bfloat16], [1, 2], 1, {torch.float32: 100.0}
    )
    named = [(row["network"], row["precision"], row["batch"]) for row in rows]
    ours = [("SlideSAM", p, n) for p in ("float32", "bfloat16") for n in (1, 2)]
    assert named[0] == ("segment_anything", "float32", 1)
    assert named[-4:] == ours
    by_name = dict(zip(named, rows, strict=True))
    exact, half = by_name[ours[0]], by_name[ours[2]]
    assert exact["error"] < 1e-5 < half["error"] < 0.05
    assert rows[0]["times_original"] == pytest.approx(1, abs=0.05) and rows[0]["error"] == 0
    assert exact["times_original"] == pytest.approx(
        rows[0]["seconds"] / exact["seconds"], rel=0.2, abs=0.05
    )
    assert exact["share_of_rate"] is not None and half["share_of_rate"] is None


def test_a_batch_is_counted_by_the_window(network, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = clock.Taken(6.0, 12.0)
    monkeypatch.setattr(
        encoding, "medians", lambda works, *rest, **more: dict.fromkeys(works, taken)
    )
    rows = encoding.measure("mini", network, CPU, [torch.float32], [1, 3], 1, {}, originals=False)
    assert [row["seconds"] for row in rows] == [6.0, 2.0]
    assert [row["processor_s"] for row in rows] == [12.0, 4.0]


def test_transformers_is_measured_where_it_is_installed(network) -> None:
    pytest.importorskip("transformers")
    theirs = subjects.transformers_encoder(network, CPU)
    images = torch.randn(1, 3, MINI.image_size, MINI.image_size)
    with torch.inference_mode():
        difference = theirs(images) - network.encode(images)
    assert float(difference.norm() / network.encode(images).norm()) < 1e-4


def test_transformers_is_skipped_where_it_is_missing(network, monkeypatch) -> None:
    monkeypatch.setattr(subjects.importlib.util, "find_spec", lambda name: None)
    assert subjects.transformers_encoder(network, CPU) is None


def test_floating_point_operations_of_vit_b() -> None:
    # The linear layers by hand: 12 blocks, 4096 tokens, 12 C^2 weights; attention: 4 N^2 C.
    layers = 12 * 2 * 4096 * 12 * 768**2
    wide = 4 * 4 * 4096**2 * 768
    assert 1 < subjects.encoder_flop(subjects.SIZES["vit-b"]) / (layers + wide) < 1.06


def test_random_networks_are_the_same_and_leave_the_generator_alone(network) -> None:
    state = torch.random.get_rng_state()
    again = subjects.random_network(MINI)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    assert float(network.image_encoder.blocks[0].attn.rel_pos_h.std()) > 0.01


def test_a_column_is_where_it_says() -> None:
    made = phantom.column((12, 40, 40), 5)
    bright = made.volume[:, 20, 20] > 500
    assert np.flatnonzero(bright).tolist() == list(range(made.first, made.last + 1))
    assert made.last - made.first == 4
    x0, y0, x1, y1 = made.prompt().box
    rows = np.flatnonzero(made.outline().any(1))
    assert y0 <= rows[0] and rows[-1] <= y1 and x1 - x0 < 25


def test_a_led_model_follows_the_column_to_its_end(network) -> None:
    made = phantom.column((12, 40, 40), 5)
    model = subjects.as_model(network, "mini", CPU, torch.float32)
    result = segment(made.volume, made.prompt(), model=phantom.LedModel(model, made))
    filled = [index for index, count in result.voxels.items() if count]
    assert filled == list(range(made.first, made.last + 1))
    assert np.array_equal(result.mask[made.middle], made.outline())
    model.prompts_at_once = lambda: 8  # as on a GPU
    together = segment(made.volume, made.prompt(), model=phantom.LedModel(model, made))
    assert np.array_equal(together.mask, result.mask)


def test_runs_of_a_model() -> None:
    made = phantom.column((14, 40, 40), 6)
    found = runs.measure(ThresholdModel(threshold=500), made, CPU, rounds=1, limited=True)
    assert found["slices"] == 6
    assert found["run_s"] > 0 and found["slice_s"] == pytest.approx(found["run_s"] / 6, abs=1e-3)
    assert 0 < found["encode_share"] + found["predict_share"] <= 1
    for name in ("first_mask_s", "first_mask_cold_s", "refine_s", "decode_s", "decode_two_s"):
        assert found[name] > 0


@pytest.mark.parametrize("slices", [1, 3])
def test_runs_on_few_slices(slices) -> None:
    """Fewer than are marked one after the other; the smallest volume is one slice."""
    made = phantom.column((slices, 32, 40), slices)
    found = runs.measure(ThresholdModel(threshold=500), made, CPU, rounds=3, limited=True)
    assert found["slices"] == slices


def test_start_up_loads_no_torch() -> None:
    found = startup.measure("cpu", rounds=1)
    assert found["imports_torch"] is False
    assert 0 < found["import_slidesamlib_s"] < found["import_torch_s"]
    assert found["load_builtin_s"] > 0


def test_a_large_volume_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "mini.safetensors")
    found = large.run_apart(path, "cpu", "float32", (30, 64, 64), 3)
    assert found["slices"] == 3 and found["shape"] == [30, 64, 64]
    assert found["gpu_peak_mib"] is None
    assert found["cache_limit_mib"] >= 128
    if LINUX:
        assert found["host_peak_mib"] > found["before_mib"] > 20


def test_the_memory_of_the_gpu_that_the_model_is_on(monkeypatch) -> None:
    """It need not be the current one."""

    def on_second(*_):
        model = ThresholdModel()
        model.device = "cuda:1"
        return model

    monkeypatch.setattr("SlideSAMLib.models.load_model", on_second)
    used = {None: 2**20, "cuda:1": 7 * 2**20}
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device=None: used[device])
    found = large.segment_large("none", (12, 40, 40), 3, "cuda:1", "float32")
    assert (found["device"], found["gpu_peak_mib"]) == ("cuda:1", 7)


def test_half_precision_against_float32(network, tmp_path: Path) -> None:
    made = phantom.column((3, 40, 40), 3)
    found = agreement.on_logits("mini", network, CPU, torch.bfloat16, made)
    assert 1e-4 < found["error"] < 0.1 and 0.9 < found["same_sign"] <= 1
    volume, mask = ball_volume()
    write_image(tmp_path / "i.nii.gz", volume)
    write_image(tmp_path / "l.nii.gz", mask.astype(np.uint8))
    case = {"id": "ball", "image": "i.nii.gz", "label": "l.nii.gz"}
    (tmp_path / "m.json").write_text(json.dumps({"cases": [case]}))
    models = [ThresholdModel(), ThresholdModel(threshold=60)]
    found = agreement.on_volumes(models, tmp_path / "m.json", None, 1)
    assert found["structures"] == 1 and found["mean_dice"] == found["cases"]["ball"] == 1
    models = [ThresholdModel(), ThresholdModel(threshold=200)]  # finds nothing
    assert agreement.on_volumes(models, tmp_path / "m.json", None, 1)["mean_dice"] == 0


def test_a_whole_benchmark(small, capsys, tmp_path: Path) -> None:
    file, profile = tmp_path / "out.json", tmp_path / "profile.txt"
    words = ["--parts", "encode", "runs", "agreement", "--models", "builtin", "vit-b"]
    words += ["--precisions", "float32", "--rounds", "1", "--shape", "12", "48", "48"]
    words += ["--slices", "5", "--json", file, "--profile", profile, "--device", "cpu"]
    done = run_command(capsys, "benchmark", *words)
    assert done.code == 0, done.err
    report = json.loads(file.read_text())
    assert "--json out.json" in report["command"] and str(tmp_path) not in file.read_text()
    assert [row["model"] for row in report["runs"]] == ["builtin", "vit-b"]
    original = report["encode"][0]["seconds"]
    (published,) = report["published"]
    assert published["windows"] == 10
    assert published["first_mask_s"] == pytest.approx(10 * original, abs=0.2)
    for words in ("encode a window, segment_anything", "5 slices from one box", "first mask"):
        assert words in done.out
    assert "linear" in profile.read_text() or "mm" in profile.read_text()
    assert report["machine"]["device"] == "cpu" and report["matrix_gflops"]["float32"] > 0


def test_a_benchmark_reads_no_volumes(tmp_path: Path) -> None:
    """A machine with a GPU may have PyTorch, and not much else."""
    file = tmp_path / "out.json"
    words = ["benchmark", "--parts", "runs", "--models", "builtin", "--rounds", "1"]
    words += ["--shape", "12", "48", "48", "--slices", "5", "--device", "cpu", "--json", str(file)]
    code = "import sys; sys.modules['SimpleITK'] = None; import SlideSAMLib.api\n"
    code += f"from SlideSAMLib.cli.main import main; sys.exit(main({words!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(file.read_text())["runs"][0]["slices"] > 0


def test_the_table_holds_every_part() -> None:
    report = {
        "machine": machine.describe(CPU),
        "memory": [
            {"model": "vit-b", "shape": [9, 8, 7], "precision": "float32", "host_peak_mib": 12,
             "volume_mib": 1, "cache_limit_mib": 77, "gpu_peak_mib": None}
        ],
        "agreement": [
            {"model": "builtin", "precisions": ["float32", "bfloat16"], "structures": 0,
             "mean_dice": None, "least_dice": None}
        ],
        "startup": {
            "import_slidesamlib_s": 0.01, "import_torch_s": 1.5, "load_builtin_s": 0.2,
            "imports_torch": False,
        },
    }  # fmt: skip
    lines = table.text(report).splitlines()
    assert any("9 x 8 x 7" in line and "12 MiB" in line and "77 MiB" in line for line in lines)
    assert any("10.0 ms" in line and "without PyTorch" in line for line in lines)
    assert any("1.50 s" in line for line in lines)


def test_a_profile_names_the_operations(network) -> None:
    assert "Self CPU" in profiling.table(network, CPU, torch.float32, 1)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--shape", "20", "40", "40"], ["100 slices", "volume of 20", "larger --shape"]),
        (["--data", "missing.json"], ["missing.json"]),
        (["--data", "m.json", "--cases", "other"], ["no case other"]),
        (["--data", "m.json"], ["i.nii.gz is missing"]),
        (["--data", "empty.json"], ["No case has a structure"]),
        (["--data", "whole.json", "--checkpoint", "missing.pth"], ["missing.pth"]),
    ],
)
def test_what_is_needed_is_read_before_anything_is_measured(
    tmp_path: Path, capsys, monkeypatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    volume, mask = ball_volume()
    write_image(tmp_path / "v.nii.gz", volume)
    write_image(tmp_path / "l.nii.gz", mask.astype(np.uint8))
    write_image(tmp_path / "none.nii.gz", mask.astype(np.uint8) * 0)
    for name, image, label in (("m", "i", "l"), ("whole", "v", "l"), ("empty", "v", "none")):
        case = {"id": "ball", "image": f"{image}.nii.gz", "label": f"{label}.nii.gz"}
        (tmp_path / f"{name}.json").write_text(json.dumps({"cases": [case]}))
    for name in ("_rates", "_network"):
        monkeypatch.setattr(suite.Suite, name, lambda *rest: pytest.fail("it measures"))
    outcome = run_command(capsys, "benchmark", "--parts", "runs", "agreement", *words)
    assert_refused(outcome, *parts)


def test_the_names_of_the_command_are_those_of_the_suite() -> None:
    from SlideSAMLib.cli import benchmark

    assert benchmark.PARTS == suite.PARTS
    assert (suite.BUILTIN, *subjects.SIZES) == benchmark.MODELS


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--rounds", "0"], ["1 or more"]),
        (["--rounds", "x"], ["a whole number, 1 or more, not x"]),
        (["--parts", "agreement", "--models", "builtin"], ["needs --data"]),
        (["--parts", "encode", "memory", "--models", "builtin"], ["encode and memory", "vit"]),
        (["--quick", "--profile", "none.txt"], ["profile", "vit"]),
        (["--quick", "--data", "none.json"], ["--parts"]),
        (["--cases", "a"], ["--data"]),
        (["--slices", "9", "--shape", "5", "40", "40"], ["fewer --slices"]),
        (["--json", "missing/out.json"], ["no folder"]),
        (["--parts", "nothing"], ["invalid choice"]),
        (["--device", "quantum"], ["quantum"]),
    ],
)
def test_bad_arguments(words: list[str], parts: list[str], capsys) -> None:
    assert_refused(run_command(capsys, "benchmark", *words), *parts)


@pytest.mark.parametrize("option", ["--json", "--profile"])
@pytest.mark.parametrize("read", ["--data", "--checkpoint"])
def test_files_that_are_read_are_not_overwritten(capsys, tmp_path, read, option) -> None:
    (tmp_path / "file").write_text("mine")
    words = ["--data", tmp_path / "manifest.json", read, tmp_path / "file"]
    outcome = run_command(capsys, "benchmark", *words, option, tmp_path / "file")
    assert_refused(outcome, option, read, "are the same file")
    assert (tmp_path / "file").read_text() == "mine"
