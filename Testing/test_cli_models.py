"""`slidesam models`, on a small checkpoint and without a network."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from SlideSAMLib import load_model
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.weights import write_weights
from SlideSAMLib.errors import ModelError
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


TINY = {"widths": [8, 16, 16, 24], "depths": [0, 1, 1, 1], "blocks": 1, "heads": 3}


def tiny_model(path: Path, weight: float = 0.5, **changes: object) -> Path:
    """A small built-in network in a file, with one weight of this value."""
    network = BuiltinNetwork(**TINY)
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] = weight
    write_weights(network.state_dict(), network.config | changes, path, {"name": "My liver model"})
    return path


def test_verify_names_a_model_of_ones_own(capsys: Capture, tmp_path: Path) -> None:
    outcome = run_command(capsys, "models", "verify", tiny_model(tmp_path / "own.safetensors"))
    assert outcome.code == 0, outcome.err
    assert "My liver model" in outcome.out


@pytest.mark.parametrize(
    "changes", [{"widths": [8, 16]}, {"widths": 5}, {"heads": 0}, {"blocks": 2}, {"colour": 1}]
)
def test_verify_builds_the_network(capsys: Capture, tmp_path: Path, changes: dict) -> None:
    path = tiny_model(tmp_path / "own.safetensors", **changes)
    assert_refused(run_command(capsys, "models", "verify", path), "own.safetensors")
    with pytest.raises(ModelError):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(
    capsys: Capture, tmp_path: Path, value: float
) -> None:
    plain = small_checkpoint(tmp_path / "sam.safetensors")
    with safe_open(plain, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name in tensors if "patch_embed" in name)
    tensors[name].view(-1)[5] = value
    save_file(tensors, plain)
    for path in (plain, tiny_model(tmp_path / "own.safetensors", value)):
        assert_refused(run_command(capsys, "models", "verify", path), path.name, "not finite")
        with pytest.raises(ModelError, match="not finite"):
            load_model(path)


def test_a_header_that_is_nested_too_deeply(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    path.write_bytes((100_000).to_bytes(8, "little") + b'{"a":' * 20_000)
    assert_refused(run_command(capsys, "models", "verify", path), "damaged")


def test_model_files_may_be_read_by_others(capsys: Capture, tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "lora.safetensors")
    target = tmp_path / "plain.safetensors"
    earlier = os.umask(0o027)
    try:
        assert run_command(capsys, "models", "convert", source, target).code == 0
        own = tiny_model(tmp_path / "own.safetensors")
    finally:
        os.umask(earlier)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (target, own)] == [0o640, 0o640]


def test_nothing_is_left_of_a_model_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_model(tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())
