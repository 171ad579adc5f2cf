"""Bad input: one clear sentence, exit code 2, nothing written. The list of the product's brief."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.cli_tools import BOX, assert_refused, noisy_ball, run_command, write_image

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "image.nii.gz", noisy_ball()[0])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "mask.nii.gz"


@pytest.fixture(autouse=True)
def nothing_written(output: Path):
    yield
    assert list(output.parent.iterdir()) == []


def refuse_image(capsys: Capture, path: Path, output: Path, *parts: str) -> None:
    words = [*BOX, "--model", "threshold"]
    assert_refused(run_command(capsys, "segment", path, output, *words), *parts)


def write(path: Path, array: np.ndarray, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


pytestmark = pytest.mark.usefixtures("threshold_model")


def test_missing_file(capsys: Capture, tmp_path: Path, output: Path) -> None:
    refuse_image(capsys, tmp_path / "none.nii.gz", output, "There is no file", "none.nii.gz")


@pytest.mark.parametrize("name", ["text.txt", "text.nii.gz", "text.nrrd", "empty.mha"])
def test_not_an_image(capsys: Capture, tmp_path: Path, output: Path, name: str) -> None:
    (tmp_path / name).write_text("" if name.startswith("empty") else "this is no image\n")
    refuse_image(capsys, tmp_path / name, output, name, "is not an image that can be read")


def test_truncated_image(capsys: Capture, tmp_path: Path, output: Path, image: Path) -> None:
    cut = tmp_path / "cut.nrrd"
    whole = write_image(tmp_path / "whole.nrrd", noisy_ball()[0]).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    refuse_image(capsys, cut, output, "cut.nrrd", "damaged")


def test_a_folder_without_dicom(capsys: Capture, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse_image(capsys, tmp_path / "empty", output, "without DICOM images")


def test_2d(capsys: Capture, tmp_path: Path, output: Path) -> None:
    flat = write(tmp_path / "flat.png", np.arange(600, dtype=np.uint8).reshape(20, 30))
    refuse_image(capsys, flat, output, "2D image (30 x 20)")


def test_4d(capsys: Capture, tmp_path: Path, output: Path) -> None:
    frames = [sitk.GetImageFromArray(noisy_ball(n)[0]) for n in range(3)]
    sitk.WriteImage(sitk.JoinSeries(frames), str(tmp_path / "4d.nii.gz"))
    refuse_image(capsys, tmp_path / "4d.nii.gz", output, "4D image (44 x 40 x 21 x 3)")


@pytest.mark.parametrize("name", ["rgb.nrrd", "rgb.png"])
def test_rgb(capsys: Capture, tmp_path: Path, output: Path, name: str) -> None:
    shape = (20, 30, 3) if name.endswith("png") else (6, 20, 30, 3)
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    refuse_image(capsys, write(tmp_path / name, array, True), output, "3 components per voxel")


def test_complex(capsys: Capture, tmp_path: Path, output: Path) -> None:
    array = noisy_ball()[0].astype(np.complex64)
    refuse_image(capsys, write(tmp_path / "c.nrrd", array), output, "complex")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels(
    capsys: Capture, tmp_path: Path, output: Path, value: float, suffix: str
) -> None:
    array = noisy_ball()[0].astype(np.float32)
    array[5, 6, 7] = value
    path = write(tmp_path / f"nan{suffix}", array)
    refuse_image(capsys, path, output, "NaN or infinite voxels (1 of 36960)", "--fill-non-finite")


@pytest.mark.parametrize("value", [0, 7])
def test_constant_volume(capsys: Capture, tmp_path: Path, output: Path, value: int) -> None:
    path = write(tmp_path / "flat.nrrd", np.full((21, 40, 44), value, np.int16))
    refuse_image(capsys, path, output, "constant")


def test_label_map_as_image(capsys: Capture, tmp_path: Path, output: Path) -> None:
    path = write(tmp_path / "label.nii.gz", noisy_ball()[1].astype(np.uint8))
    refuse_image(capsys, path, output, "looks like a label map", "--allow-labels")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--slice", 10, "--box", 12, 10, 12, 30], "empty"),
        (["--slice", 10, "--box", 32, 10, 12, 30], "inverted"),
        (["--slice", 10, "--box", 12, "nan", 32, 30], "finite"),
        (["--slice", 10, "--box", 100, 100, 120, 120], "outside"),
        (["--slice", 10, "--point", 44, 5], "outside"),
        (["--slice", 10, "--point", 5, -1], "outside"),
        (["--slice", 21, "--point", 5, 5], "Slice 21 is outside"),
        (["--slice", -1, "--point", 5, 5], "Slice -1 is outside"),
        (["--axis", "i", "--slice", 44, "--point", 5, 5], "Slice 44 is outside"),
        (["--slice", 10, "--negative-point", 5, 5], "marks nothing"),
        (["--slice", 10], "Nothing is marked"),
        (["--box", 12, 10, 32, 30], "--slice"),
        ([], "no prompt"),
        ([*BOX, "--box", 1, 2, 3, 4], "Only one --box"),
        ([*BOX, "--first", 12, "--last", 8], "greater than"),
        ([*BOX, "--first", -1], "--first -1 is outside"),
        ([*BOX, "--last", 21], "--last 21 is outside"),
        ([*BOX, "--first", 12], "10"),
        ([*BOX, "--window", 100, 100], "LOW < HIGH"),
        ([*BOX, "--window", "nan", 100], "finite"),
        ([*BOX, "--window", "-inf", "inf"], "finite"),
        ([*BOX, "--axis", "x"], "invalid choice"),
        ([*BOX, "--precision", "int8"], "invalid choice"),
        (["--slice", "ten", "--point", 5, 5], "invalid int"),
        (["--slice", 10, "--box", 1, 2, 3], "4 arguments"),
    ],
)
def test_bad_prompts(
    capsys: Capture, image: Path, output: Path, words: list[object], part: str
) -> None:
    outcome = run_command(capsys, "segment", image, output, *words, "--model", "threshold")
    assert_refused(outcome, part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "There is no file"),
        ("[{", "JSON"),
        ("{}", "JSON list"),
        ("[]", "JSON list"),
        ('[{"box": [1, 2, 3, 4]}]', "slice"),
        ('[{"slice": 10, "box": [1, 2, 3]}]', "four"),
        ('[{"slice": 10.5, "points": [[1, 2]]}]', "whole number"),
        ('[{"slice": 1e999, "points": [[1, 2]]}]', ""),
        ('[{"slice": 10, "points": [[1, 2]], "labels": [1, 0]}]', "labels"),
        ('[{"slice": 10, "points": [1, 2]}]', "pairs"),
        ('[{"slice": 10, "pionts": [[1, 2]]}]', "pionts"),
        ('[{"slice": 10, "points": [[1, 200]]}]', "outside"),
    ],
)
def test_bad_prompt_files(
    capsys: Capture, tmp_path: Path, image: Path, output: Path, text: str | None, part: str
) -> None:
    if text is not None:
        (tmp_path / "prompts.json").write_text(text)
    words = ["--prompts", tmp_path / "prompts.json", "--model", "threshold"]
    assert_refused(run_command(capsys, "segment", image, output, *words), part)


def test_a_folder_of_prompts(capsys: Capture, tmp_path: Path, image: Path, output: Path) -> None:
    words = ["--prompts", tmp_path, "--model", "threshold"]
    outcome = run_command(capsys, "segment", image, output, *words)
    assert_refused(outcome, f"{tmp_path} cannot be read: ")


def test_outputs_that_cannot_be_written(capsys: Capture, tmp_path: Path, image: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("a file")
    (tmp_path / "folder.nrrd").mkdir()
    cases = [
        (tmp_path / "none" / "out.nrrd", "no folder"),
        (plain / "out.nrrd", "no folder"),
        (tmp_path / "folder.nrrd", "is a folder"),
        (tmp_path / "out.png", "suffix"),
        (image, "same file"),
    ]
    before = image.read_bytes()
    for output, part in cases:
        outcome = run_command(capsys, "segment", image, output, *BOX, "--model", "threshold")
        assert_refused(outcome, part)
    assert image.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "folder.nrrd",
        "image.nii.gz",
        "out",
        "plain.txt",
    ]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder nobody can write")
def test_a_folder_that_takes_no_files(capsys: Capture, image: Path) -> None:
    words = [*BOX, "--model", "threshold"]
    outcome = run_command(capsys, "segment", image, "/proc/out.nrrd", *words)
    assert_refused(outcome, "cannot be written")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_folder(capsys: Capture, image: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    words = [*BOX, "--model", "threshold"]
    outcome = run_command(capsys, "segment", image, locked / "out.nrrd", *words)
    assert_refused(outcome, "cannot be written")


@pytest.mark.parametrize("report", ["none/report.json", "out"])
def test_a_report_that_cannot_be_written(
    capsys: Capture, tmp_path: Path, image: Path, output: Path, report: str
) -> None:
    words = [*BOX, "--model", "threshold", "--report", tmp_path / report]
    assert_refused(run_command(capsys, "segment", image, output, *words), "The report")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such pipes here")
def test_a_report_into_a_pipe(
    capsys: Capture, tmp_path: Path, image: Path, output: Path, threshold_model: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [*BOX, "--model", threshold_model, "--report", pipe]
    assert_refused(run_command(capsys, "segment", image, output, *words), "The report", "pipe")
    assert pipe.is_fifo()


def test_report_and_output_are_two_files(capsys: Capture, image: Path, output: Path) -> None:
    words = [*BOX, "--model", "threshold", "--report", output]
    assert_refused(run_command(capsys, "segment", image, output, *words), "same file")


def test_unknown_model(capsys: Capture, image: Path, output: Path) -> None:
    outcome = run_command(capsys, "segment", image, output, *BOX, "--model", "nonsense")
    assert_refused(outcome, "nonsense", "builtin")


def test_device_that_is_not_there(capsys: Capture, image: Path, output: Path) -> None:
    torch = pytest.importorskip("torch")
    from Testing.cli_tools import small_checkpoint

    checkpoint = small_checkpoint(image.parent / "model.safetensors")
    device = "mps" if torch.cuda.is_available() else "cuda"
    words = [*BOX, "--model", checkpoint, "--device", device]
    assert_refused(run_command(capsys, "segment", image, output, *words), "device")
    words[-1] = "toaster"
    assert_refused(run_command(capsys, "segment", image, output, *words), "toaster")


class Malicious:
    """Unpickling it writes a file; loading a model must never do so."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.target, "code has run"))


def test_bad_checkpoints(capsys: Capture, tmp_path: Path, image: Path, output: Path) -> None:
    torch = pytest.importorskip("torch")
    from Testing.cli_tools import small_checkpoint

    whole = small_checkpoint(tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1000])
    torch.save({"image_encoder.pos_embed": torch.zeros(3)}, tmp_path / "shape.pth")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pth")
    packed = (tmp_path / "shape.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "text.pth").write_text("no model")
    (tmp_path / "empty.pth").write_bytes(b"")
    trap = tmp_path / "trap"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Malicious(trap)}))
    torch.save({"model": Malicious(trap)}, tmp_path / "evil-zip.pth")
    for name in (
        "cut.safetensors",
        "cut.pth",
        "shape.pth",
        "other.pth",
        "text.pth",
        "empty.pth",
        "evil.pth",
        "evil-zip.pth",
    ):
        words = [*BOX, "--model", tmp_path / name]
        assert_refused(run_command(capsys, "segment", image, output, *words), name)
        assert_refused(run_command(capsys, "models", "verify", tmp_path / name), name)
    assert not trap.exists()


def test_nifti_for_sheared_axes(capsys: Capture, tmp_path: Path, output: Path) -> None:
    image = sitk.GetImageFromArray(noisy_ball()[0])
    image.SetDirection((1.0, 0.0, 0.0, 0.0, 1.0, 0.6, 0.0, 0.0, 0.8))
    sitk.WriteImage(image, str(tmp_path / "sheared.nrrd"))
    words = [*BOX, "--model", "no model is loaded for this"]
    outcome = run_command(capsys, "segment", tmp_path / "sheared.nrrd", output, *words)
    assert_refused(outcome, "right angles", ".nrrd or .mha")
