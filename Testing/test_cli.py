"""`slidesam segment` and the frame of the command, with a model that needs no weights."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SlideSAMLib import intensity, stack
from SlideSAMLib.cli import outputs
from SlideSAMLib.cli.stopping import signals_as_interrupts
from SlideSAMLib.images import volumes
from Testing.cli_tools import (
    BOX,
    DIRECTION,
    ORIGIN,
    SPACING,
    assert_refused,
    noisy_ball,
    read_mask,
    run_command,
    write_image,
)
from Testing.fakes import ThresholdModel


@pytest.fixture
def ball(tmp_path: Path) -> tuple[Path, np.ndarray]:
    volume, mask = noisy_ball()
    return write_image(tmp_path / "image.nii.gz", volume), mask


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_a_box_becomes_a_label_map_on_the_image(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
    suffix: str,
) -> None:
    image, mask = ball
    output = tmp_path / f"out{suffix}"
    outcome = run_command(capsys, "segment", image, output, *BOX, "--model", threshold_model)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    expected = mask.copy()
    expected[[4, 16]] = False  # the poles, one voxel each, are below the smallest area
    assert f"{expected.sum()} voxels on slices 5 to 15" in outcome.out
    assert np.array_equal(read_mask(output), expected)
    written = sitk.ReadImage(str(output))
    assert written.GetSpacing() == pytest.approx(SPACING)
    assert written.GetOrigin() == pytest.approx(ORIGIN)
    assert written.GetDirection() == pytest.approx(DIRECTION)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["image.nii.gz", output.name])


@pytest.mark.parametrize(
    ("axis", "index", "x", "y"),
    [("k", 10, 22, 20), ("j", 20, 22, 10), ("i", 22, 20, 10)],
)
def test_x_and_y_are_the_remaining_itk_indices(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
    axis: str,
    index: int,
    x: int,
    y: int,
) -> None:
    # The ball's centre is i = 22, j = 20, k = 10; a click beside it would find nothing.
    image, mask = ball
    words = ["--axis", axis, "--slice", index, "--point", x, y, "--model", threshold_model]
    outcome = run_command(capsys, "segment", image, tmp_path / "out.nrrd", *words)
    assert outcome.code == 0, outcome.err
    found = read_mask(tmp_path / "out.nrrd")
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.97


def test_the_image_is_searched_once_and_gone_before_the_mask_is_written(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched, held, alive = [], [], []
    search, read, write = stack.value_range, volumes.read_image, volumes.write_mask

    def counted(volume: np.ndarray) -> tuple[float, float] | None:
        searched.append(volume.shape)
        return search(volume)

    def watched(*args: object, **options: object) -> volumes.ImageVolume:
        image = read(*args, **options)
        held.append(weakref.ref(image.array))
        return image

    def checked(*args: object, **options: object) -> None:
        alive.append(held[0]() is not None)
        write(*args, **options)

    monkeypatch.setattr(stack, "value_range", counted)
    monkeypatch.setattr(intensity, "value_range", counted)
    monkeypatch.setattr(volumes, "read_image", watched)
    monkeypatch.setattr(volumes, "write_mask", checked)
    words = ["segment", ball[0], tmp_path / "mask.nrrd", *BOX, "--model", threshold_model]
    outcome = run_command(capsys, *words, "--report", tmp_path / "report.json")
    assert outcome.code == 0, outcome.err
    assert len(searched) == 1
    assert alive == [False]


def test_negative_points_and_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold_model: str
) -> None:
    volume, mask = noisy_ball()
    volume[:, 2:6, 2:6] = 150  # a second bright thing
    image = write_image(tmp_path / "image.nrrd", volume)
    box = ["--slice", 10, "--box", 0, 0, 43, 39, "--first", 8, "--last", 11]
    words = [*box, "--negative-point", 3, 4, "--model", threshold_model]
    outcome = run_command(capsys, "segment", image, tmp_path / "out.nrrd", *words)
    assert outcome.code == 0, outcome.err
    found = read_mask(tmp_path / "out.nrrd")
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [8, 9, 10, 11]
    assert np.array_equal(found[10], mask[10])


@pytest.mark.parametrize("low", ["-1e-5", "-1.5E+01", "-2.", "-.5", "-3"])
def test_negative_numbers_in_any_notation(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
    low: str,
) -> None:
    words = [*BOX, "--model", threshold_model, "--window", low, "1e3"]
    report = tmp_path / "report.json"
    words += ["--report", report]
    outcome = run_command(capsys, "segment", ball[0], tmp_path / "out.nrrd", *words)
    assert outcome.code == 0, outcome.err
    assert json.loads(report.read_text())["intensity"] == [float(low), 1000.0]


def test_prompts_from_a_file_and_the_report(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
) -> None:
    image, mask = ball
    prompts = tmp_path / "prompts.json"
    prompts.write_text('[{"slice": 6, "points": [[22, 20]]}, {"slice": 14, "box": [10,8,34,32]}]')
    report_file = tmp_path / "report.json"
    words = ["--prompts", prompts, "--report", report_file, "--model", threshold_model]
    words += ["--window", "-20", "220.5"]
    outcome = run_command(capsys, "segment", image, tmp_path / "out.mha", *words)
    assert outcome.code == 0, outcome.err
    report = json.loads(report_file.read_text())
    assert report["model"] == "threshold"
    assert (report["device"], report["precision"], report["axis"]) == ("cpu", "float32", "k")
    assert report["intensity"] == [-20, 220.5]
    assert [p["slice"] for p in report["prompts"]] == [6, 14]
    assert {"encode", "predict", "total"} <= set(report["seconds"])
    assert {"backward", "forward"} <= set(report["stops"])
    found = read_mask(tmp_path / "out.mha")
    per_slice = {entry["index"]: entry["voxels"] for entry in report["slices"]}
    assert per_slice == {index: int(found[index].sum()) for index in per_slice}
    assert sum(per_slice.values()) == report["voxels"] == found.sum()
    assert all(0 <= entry["confidence"] <= 1 for entry in report["slices"])
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.97


def test_prompts_from_an_editor_that_writes_a_byte_order_mark(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('[{"slice": 10, "points": [[22, 20]]}]', encoding="utf-8-sig")
    words = ["--prompts", prompts, "--model", threshold_model]
    outcome = run_command(capsys, "segment", ball[0], tmp_path / "out.nrrd", *words)
    assert outcome.code == 0, outcome.err
    assert read_mask(tmp_path / "out.nrrd").any()


def test_a_mask_without_a_voxel_is_said(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
) -> None:
    words = ["--slice", 1, "--point", 2, 3, "--model", threshold_model]
    outcome = run_command(capsys, "segment", ball[0], tmp_path / "out.nrrd", *words)
    assert outcome.code == 0
    assert outcome.err.startswith("warning: ")
    assert not read_mask(tmp_path / "out.nrrd").any()


def test_an_interrupt_leaves_the_old_output(
    ball: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold_model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.nrrd"
    output.write_text("old")
    calls = []

    def interrupted(self: ThresholdModel, *args: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, *args)

    predict = ThresholdModel.predict
    monkeypatch.setattr(ThresholdModel, "predict", interrupted)
    outcome = run_command(capsys, "segment", ball[0], output, *BOX, "--model", threshold_model)
    assert outcome.code == 130
    assert outcome.err == "interrupted: nothing half written\n"
    assert output.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.nii.gz", "out.nrrd"]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outputs.write_together(
            {tmp_path / "a.txt": lambda path: path.write_text("whole"), tmp_path / "b.txt": fails}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="not everybody may make links")
@pytest.mark.parametrize("earlier", [True, False])
def test_outputs_go_where_links_lead_to(tmp_path: Path, earlier: bool) -> None:
    place, link = tmp_path / "large disk" / "a.nrrd", tmp_path / "a.nrrd"
    place.parent.mkdir()
    if earlier:
        place.write_text("earlier")
    link.symlink_to(place)
    outputs.check_writable(link)
    outputs.write_together({link: lambda path: path.write_text("whole")})
    assert link.is_symlink()
    assert place.read_text() == "whole"
    assert list(place.parent.iterdir()) == [place]


def test_outputs_get_ordinary_permissions(tmp_path: Path) -> None:
    """And what the process writes later does, too."""
    before = os.umask(0o027)
    try:
        outputs.write_together({tmp_path / "a.txt": lambda path: path.write_text("whole")})
        (tmp_path / "later.txt").write_text("of somebody else")
    finally:
        os.umask(before)
    for name in ("a.txt", "later.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from SlideSAMLib.cli.main import main\n"
        "codes = main(['--help']), main(['--version']), main(['segment', '--help'])\n"
        "heavy = {'torch', 'scipy', 'SimpleITK'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy or any(codes) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "segment" in done.stdout and "SlideSAM 0." in done.stdout


def test_sub_commands_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("segment", "models", "evaluate", "train", "finetune", "demo"):
        outcome = run_command(capsys, name, "--help")
        assert outcome.code == 0, name
        assert f"usage: slidesam {name}" in outcome.out


def test_python_m_ends_with_one_line_and_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "SlideSAMLib", "segment", "no-such-file.nii.gz", "out.nrrd", *BOX],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 2
    assert done.stderr == "error: There is no file no-such-file.nii.gz.\n"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("cp1252", "結果.nrrd"), ("ascii", "naïf.nrrd")],
)
def test_what_an_output_cannot_hold_is_escaped(
    tmp_path: Path, repository_root: Path, encoding: str, name: str
) -> None:
    """Output that goes into a file has the code page of the system on Windows."""
    image = write_image(tmp_path / "image.nrrd", noisy_ball()[0])
    output = tmp_path / name
    words = [sys.executable, "-m", "SlideSAMLib", "segment"]
    options = {"capture_output": True, "cwd": repository_root}
    options["env"] = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([*words, str(image), str(output), *BOX], **options)
    assert done.returncode == 0, done.stderr.decode()
    escaped = name.encode(encoding, "backslashreplace")
    assert escaped + b": " in done.stdout and done.stderr == b""
    assert output.exists()
    done = subprocess.run([*words, str(tmp_path / ("no " + name)), "out.nrrd", *BOX], **options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert escaped in done.stderr and done.stderr.startswith(b"error: ")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_in_a_process(tmp_path: Path, repository_root: Path, name: str, code: int) -> None:
    """While the mask is being written: nothing of it is left."""
    image = write_image(tmp_path / "image.nrrd", noisy_ball()[0])
    program = (
        "import signal, sys, time\n"
        "import SimpleITK\n"
        "from SlideSAMLib import models\n"
        "from SlideSAMLib.cli.main import main\n"
        "from Testing.fakes import ThresholdModel\n"
        # Shells let what they start in the background ignore the one, nohup the other.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "def write(*arguments, **more):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "SimpleITK.WriteImage = write\n"
        "models.register_model('threshold', lambda device, precision: ThresholdModel())\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["segment", str(image), str(tmp_path / "out.nrrd"), *BOX, "--model", "threshold"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository_root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == "interrupted: nothing half written\n"
    assert [p.name for p in tmp_path.iterdir()] == ["image.nrrd"]


def test_signals_are_left_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does it
    try:
        with signals_as_interrupts():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert run_command(capsys, "--version").code == 0
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert signal.getsignal(signal.SIGTERM) == before


def test_unknown_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(run_command(capsys), "no command")
    assert_refused(run_command(capsys, "paint"), "invalid choice", "paint")
    assert_refused(run_command(capsys, "segment"), "IMAGE, OUTPUT")
    assert_refused(run_command(capsys, "segment", "a", "b.nrrd", "--bogus"), "--bogus")
    assert_refused(run_command(capsys, "models"), "ACTION")


def test_files_that_are_read_are_not_overwritten(
    ball: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = ball
    prompts = tmp_path / "prompts.json"
    prompts.write_text('[{"slice": 10, "points": [[22, 20]]}]')
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    words = ["segment", image, tmp_path / "out.nrrd", "--prompts", prompts, "--model", model]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, name in ((prompts, "--prompts"), (model, "--model"), (image, "IMAGE")):
        outcome = run_command(capsys, *words, "--report", path)
        assert_refused(outcome, "--report", name, "are the same file")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
