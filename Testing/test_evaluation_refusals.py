"""What `slidesam evaluate` refuses, and that it has written nothing then."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from SlideSAMLib.cli.main import main
from SlideSAMLib.models import register_model
from Testing.evaluation_data import write_manifest
from Testing.fakes import ThresholdModel


@pytest.fixture
def registered() -> str:
    register_model("threshold-for-tests", lambda device, precision: ThresholdModel(threshold=50))
    return "threshold-for-tests"


@pytest.mark.parametrize(
    "change",
    [
        ["--cases", "nothing"],
        ["--model", "no-such-model"],
        ["--limit", "-1"],
        ["--workers", "0"],
        ["--min-voxels", "many"],
        ["--min-voxels", "100000"],
        ["--prompt", "scribble"],
    ],
)
def test_wrong_use_writes_nothing(registered, tmp_path, capsys, change):
    output = tmp_path / "out"
    words = ["evaluate", str(write_manifest(tmp_path)), "--output", str(output)]
    if "--model" not in change:
        words += ["--model", registered]
    assert main([*words, *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not output.exists()


def test_bad_files_write_nothing(registered, tmp_path, capsys):
    output = tmp_path / "out"
    manifest = tmp_path / "manifest.json"
    words = ["evaluate", str(manifest), "--model", registered, "--output", str(output)]
    assert main(words) == 2  # no manifest
    write_manifest(tmp_path, sha256={"image": "0" * 64})
    assert main(words) == 2  # wrong checksum
    write_manifest(tmp_path)
    (tmp_path / "leaky_image.nii.gz").unlink()
    assert main(words) == 2  # missing file
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True] * 3
    assert not output.exists()


@pytest.mark.parametrize("part", ["image", "label"])
def test_every_case_is_read_before_anything_is_written(registered, tmp_path, capsys, part):
    manifest = write_manifest(tmp_path, sha256={})
    path = tmp_path / f"leaky_{part}.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    words = ["evaluate", str(manifest), "--model", registered, "--output", str(tmp_path / "out")]
    assert main([*words, "--no-overlays"]) == 2
    assert f"leaky_{part}.nii.gz is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_another_command_are_named_as_such(registered, tmp_path, capsys):
    manifest, output = write_manifest(tmp_path, sha256={}), tmp_path / "out"
    voxels = SimpleITK.GetImageFromArray(np.full((20, 32, 36), np.nan, np.float32))
    SimpleITK.WriteImage(voxels, str(tmp_path / "leaky_image.nii.gz"))
    words = ["evaluate", str(manifest), "--model", registered, "--output", str(output)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "NaN or infinite voxels" in error and "'slidesam segment' can replace them" in error
    assert not output.exists()


def test_earlier_results_are_not_replaced(registered, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["evaluate", str(write_manifest(tmp_path)), "--output", str(output), "--no-overlays"]
    words += ["--model", registered, "--limit", "1"]
    assert main(words) == 0
    before = {path: path.read_bytes() for path in output.iterdir()}
    capsys.readouterr()
    assert main([*words, "--seed", "2"]) == 2
    error = capsys.readouterr().err
    assert "earlier run: give --resume to go on with them, or another --output" in error
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_an_output_that_is_a_file(registered, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    words = ["evaluate", str(write_manifest(tmp_path)), "--output", str(tmp_path / "out")]
    assert main([*words, "--model", registered]) == 2
    assert "cannot be made" in capsys.readouterr().err
