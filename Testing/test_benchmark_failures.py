"""`slidesam benchmark` where something fails late: the figures so far stay, and it says why."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from SlideSAMLib.benchmark import apart, encoding, large, machine, profiling, subjects, suite, table
from SlideSAMLib.compute.memory import out_of_memory
from SlideSAMLib.errors import ModelError
from Testing.cli_tools import run_command, small_checkpoint
from Testing.reference import MINI

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
WORDS = ["--models", "vit-b", "--precisions", "float32", "bfloat16", "--rounds", "1"]
WORDS += ["--shape", "12", "48", "48", "--slices", "5", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in place of ViT-B, and small matrices."""
    monkeypatch.setitem(subjects.SIZES, "vit-b", MINI)
    monkeypatch.setitem(machine._SIDE, "cpu", 64)


def plan(*parts: str) -> suite.Plan:
    return suite.Plan(parts, ("vit-b",), "cpu", ["float32"], rounds=1, shape=(12, 48, 48), slices=5)


def fails_with(error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_late_failure_keeps_what_was_measured(capsys, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "out.json"
    monkeypatch.setattr(suite.agreement, "on_logits", fails_with(RuntimeError("the driver went")))
    words = ["--parts", "encode", "runs", "agreement", *WORDS, "--json", file]
    with pytest.raises(RuntimeError, match="the driver went"):
        run_command(capsys, "benchmark", *words)
    report = json.loads(file.read_text())
    assert report["runs"][0]["slices"] == 5 and len(report["encode"]) > 2
    assert report["command"].startswith("slidesam benchmark")
    assert "5 slices from one box" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["runs", "agreement", "profile", "memory"])
def test_too_little_memory_is_a_row_and_not_the_end(
    capsys, tmp_path: Path, monkeypatch, part: str
) -> None:
    places = {
        "runs": (suite.subjects, "as_model"),
        "agreement": (suite.agreement, "on_logits"),
        "profile": (suite.profiling, "table"),
        "memory": (suite.large, "measure"),
    }
    for other in ("memory", part):  # the child process takes its time
        monkeypatch.setattr(*places[other], fails_with(FULL))
    file, profile = tmp_path / "out.json", tmp_path / "profile.txt"
    words = ["--parts", "runs", "memory", "agreement", *WORDS, "--json", file]
    done = run_command(capsys, "benchmark", *words, "--profile", profile)
    assert done.code == 0, done.err
    report = json.loads(file.read_text())
    for name in places:
        full = [{"model": "vit-b", "out_of_memory": True}] if name in (part, "memory") else None
        assert full is None or report[name] == full
    assert {"runs", "memory", "agreement"} <= report.keys()
    lines = [line for line in done.out.splitlines() if "memory of the GPU is too small" in line]
    assert len(lines) == len({part, "memory"})


def test_a_batch_that_does_not_fit_is_a_row(monkeypatch) -> None:
    ours = encoding._ours

    def limited(network, device):
        encode = ours(network, device)
        return lambda images: encode(images) if len(images) < 3 else fails_with(FULL)()

    monkeypatch.setattr(encoding, "_ours", limited)
    network = subjects.random_network(MINI)
    rows = encoding.measure("mini", network, CPU, [torch.float32], [1, 3, 2], 1, {})
    ours_rows = [row for row in rows if row["network"] == "SlideSAM"]
    assert [row.get("out_of_memory") for row in ours_rows] == [None, True, None]
    assert ours_rows[1]["batch"] == 3 and "seconds" not in ours_rows[1]
    report = {"machine": machine.describe(CPU), "encode": rows}
    (line,) = [each for each in table.text(report).splitlines() if "too small" in each]
    assert "SlideSAM, batch 3" in line and "float32" in line


def test_without_the_original_there_is_no_comparison(monkeypatch) -> None:
    row = {"model": "vit-b", "network": encoding.ORIGINAL, "out_of_memory": True}
    half = {"model": "vit-b", "network": encoding.ORIGINAL, "seconds": 1.0}
    monkeypatch.setattr(suite.encoding, "measure", lambda *_: [row, half])
    report = suite.Suite(plan("encode", "runs"), lambda text: None).run()
    assert report["runs"][0]["slices"] == 5 and "published" not in report


def test_other_errors_of_a_batch_are_not_hidden(monkeypatch) -> None:
    monkeypatch.setattr(encoding, "_ours", lambda *_: fails_with(RuntimeError("driver")))
    with pytest.raises(RuntimeError, match="driver"):
        encoding.measure("mini", subjects.random_network(MINI), CPU, [torch.float32], [1], 1, {})


def test_the_profile_is_of_the_encoder_of_the_models(monkeypatch) -> None:
    """On CUDA that is not `network.encode`."""
    network, encoded = subjects.random_network(MINI), []

    def quickest(ours):
        return lambda images: encoded.append(len(images)) or ours.encode(images)

    monkeypatch.setattr(profiling, "quickest_encoder", quickest)
    assert "Self CPU" in profiling.table(network, CPU, torch.float32, 2)
    assert encoded == [2, 2]


def test_models_are_gone_when_another_process_measures(monkeypatch) -> None:
    made, alive = [], []
    as_model = subjects.as_model

    def noted(*arguments):
        model = as_model(*arguments)
        model.itself = model  # models with CUDA graphs are part of a cycle
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(suite.subjects, "as_model", noted)
    monkeypatch.setattr(
        suite.large, "measure", lambda *_: alive.extend(m() for m in made if m()) or {}
    )
    gc.disable()
    try:
        suite.Suite(plan("runs", "memory"), lambda text: None).run()
    finally:
        gc.enable()
    assert made and alive == []


def test_what_another_process_says_at_its_end_is_seen(tmp_path: Path, capfd) -> None:
    path = small_checkpoint(tmp_path / "mini.safetensors")
    with pytest.raises(ModelError, match=r"exit code 1: .*quantum") as failure:
        large.run_apart(path, "quantum", "float32", (30, 64, 64), 3)
    assert "Traceback" in capfd.readouterr().err
    assert not out_of_memory(failure.value)


def test_too_little_memory_of_another_process_is_known(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(
        "try:\n    raise RuntimeError('CUDA error: out of memory')\n"
        "except RuntimeError as error:\n    raise ValueError('too small') from error\n"
    )
    with pytest.raises(ModelError, match="ValueError: too small") as failure:
        apart.figures([str(tmp_path / "full.py")])
    assert out_of_memory(failure.value)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash runs it")
@pytest.mark.parametrize("package", ["scipy", "safetensors", "SimpleITK"])
def test_the_script_for_gpus_asks_for_its_packages_first(tmp_path: Path, package: str) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{package}.py").write_text(f"raise ImportError({package!r})")
    environment = {**os.environ, "SLIDESAM_PYTHON": sys.executable, "PYTHONPATH": str(hidden)}
    script, folder = ROOT / "scripts" / "benchmark-gpu", tmp_path / "out"
    command = ["bash", str(script), str(folder), "--data", "manifest.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and package in line
    assert not folder.exists()
    assert package in script.read_text().split("set -euo")[0]


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="signals of POSIX")
def test_the_script_for_gpus_keeps_the_table_where_it_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of the script; the benchmark prints what there is, and ends."""
    begun, python = tmp_path / "begun", tmp_path / "python"
    python.write_text(
        '#!/usr/bin/env bash\n[[ "$1" != - ]] || exit 0\n'
        "trap 'sleep 0.3; echo the table so far; exit 130' INT\n"
        f"touch '{begun}'\nwhile true; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    command = ["bash", str(ROOT / "scripts" / "benchmark-gpu"), str(tmp_path / "out")]
    environment = {**os.environ, "SLIDESAM_PYTHON": str(python)}

    def hear_interrupts() -> None:
        """Shells let what they start in the background ignore them, and bash cannot trap those."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    try:
        while not begun.exists():
            assert running.poll() is None
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended where all went well
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode != 0
    assert said == b"the table so far\n"
    assert (tmp_path / "out" / "table.txt").read_bytes() == said
