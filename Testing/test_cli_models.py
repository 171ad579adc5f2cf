"""`slidesam models`, on a small checkpoint and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.cli_tools import assert_refused, run_command, small_checkpoint

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def empty_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_list_names_every_model_with_its_licence(capsys: Capture, tmp_path: Path) -> None:
    from SlideSAMLib.models import list_models

    outcome = run_command(capsys, "models", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    for model in list_models():
        (line,) = [text for text in lines if text.split()[0] == model.name]
        assert model.licence in line
    assert lines[-1] == f"Models folder: {tmp_path / 'models'}"


def test_convert_and_verify(capsys: Capture, tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "lora.safetensors")
    target = tmp_path / "plain.safetensors"
    outcome = run_command(capsys, "models", "convert", source, target, "--half")
    assert outcome.code == 0, outcome.err
    assert "LoRA" in outcome.out
    assert target.stat().st_size < source.stat().st_size
    verified = run_command(capsys, "models", "verify", target)
    assert verified.code == 0, verified.err
    assert "Slide-SAM" in verified.out
    assert "no published SHA-256" in verified.out


def test_convert_refuses_and_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "lora.safetensors")
    before = source.read_bytes()
    cases = [
        ((tmp_path / "none.pth", tmp_path / "out.safetensors"), "none.pth"),
        ((source, tmp_path / "out.pth"), ".safetensors"),
        ((source, tmp_path / "none" / "out.safetensors"), "none"),
        ((source, source), "same file"),
    ]
    for words, part in cases:
        assert_refused(run_command(capsys, "models", "convert", *words), part)
    assert source.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["lora.safetensors"]


def test_a_file_that_only_people_can_fetch(
    capsys: Capture, tmp_path: Path, empty_models_folder: Path
) -> None:
    assert_refused(run_command(capsys, "models", "download", "slidesam-b"), "--from FILE")
    source = small_checkpoint(tmp_path / "chosen.safetensors")
    outcome = run_command(capsys, "models", "download", "slidesam-b", "--from", source)
    assert outcome.code == 0, outcome.err
    verified = run_command(capsys, "models", "verify", "slidesam-b")
    assert "as expected" in verified.out  # the hash was recorded when it was installed
    installed = next(empty_models_folder.glob("slidesam*"))
    installed.write_bytes(source.read_bytes()[:-4] + b"\0\0\0\0")
    assert_refused(run_command(capsys, "models", "verify", "slidesam-b"), "SHA-256")
    removed = run_command(capsys, "models", "remove", "slidesam-b")
    assert removed.code == 0
    assert not installed.exists()
    assert_refused(run_command(capsys, "models", "remove", "slidesam-b"), "nothing to remove")


@pytest.mark.parametrize("action", ["verify", "download", "remove"])
def test_unknown_names(capsys: Capture, action: str) -> None:
    assert_refused(run_command(capsys, "models", action, "nonsense"), "nonsense")


def test_the_built_in_model_stays(capsys: Capture) -> None:
    assert_refused(run_command(capsys, "models", "remove", "builtin"), "cannot be removed")
