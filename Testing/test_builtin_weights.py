"""The weights that ship: their file, what they find on real volumes, and what that costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import SlideSAMLib
from SlideSAMLib.builtin import weights
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.weights import (
    FORMAT,
    deepened,
    deepened_like,
    read_network,
    write_weights,
)
from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.evaluation import evaluate, read_manifest, summarise
from SlideSAMLib.files.safetensors_files import read_safetensors, save

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "Resources" / "Models" / "slidesam-builtin.safetensors"


@pytest.fixture(scope="module")
def model():
    return SlideSAMLib.load_model("builtin", device="cpu")


def test_the_file_is_small_and_in_half_precision():
    assert WEIGHTS.stat().st_size < 25e6
    with safe_open(WEIGHTS, framework="pt") as file:
        assert file.metadata()["format"] == FORMAT
        names = list(file.keys())
        assert all(file.get_tensor(name).dtype == torch.float16 for name in names)


def test_models_can_be_averaged(tmp_path):
    torch.manual_seed(3)
    tiny = {"widths": (8, 16, 16, 24), "depths": (0, 1, 1, 1), "blocks": 1, "heads": 3}
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    networks = [BuiltinNetwork(**tiny) for _ in paths]
    for path, network in zip(paths, networks, strict=True):
        write_weights(network.state_dict(), network.config, path)
    command = [sys.executable, str(ROOT / "scripts" / "average-models"), str(tmp_path / "mean")]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    a, b, mean = (read_network(p).state_dict() for p in (*paths, tmp_path / "mean"))
    for key, value in mean.items():
        assert torch.allclose(value, (a[key] + b[key]) / 2, atol=2e-3), key
    assert any(not torch.equal(value, a[key]) for key, value in mean.items())

    other = BuiltinNetwork(**(tiny | {"widths": (8, 16, 16, 48)}))
    write_weights(other.state_dict(), other.config, paths[1])
    (tmp_path / "mean").unlink()
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 2 and "different shapes" in done.stderr
    paths[1].unlink()
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: The model file")
    nowhere = [*command[:2], str(tmp_path / "none" / "mean"), str(paths[0])]
    done = subprocess.run(nowhere, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no folder" in done.stderr
    assert not (tmp_path / "mean").exists()


def test_a_deeper_model_can_be_averaged_with_the_one_that_it_was_trained_from(tmp_path):
    """The mean lies half way: what was added does half of what it does in the deeper one."""
    torch.manual_seed(4)
    tiny = {"widths": (8, 16, 16, 24), "depths": (0, 1, 1, 1), "blocks": 1, "heads": 3}
    network = BuiltinNetwork(**tiny)
    deeper = deepened(network, depths=[0, 1, 1, 2], blocks=2, decoder=[0, 1])
    for parameter in deeper.parameters():  # as if trained
        torch.nn.init.normal_(parameter, std=0.2)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, each in zip(paths, (network, deeper), strict=True):
        write_weights(each.state_dict(), each.config, path)
    command = [sys.executable, str(ROOT / "scripts" / "average-models"), str(tmp_path / "mean")]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    a, b, mean = (read_network(p).state_dict() for p in (*paths, tmp_path / "mean"))
    assert set(mean) == set(b) and set(a) < set(b)
    halved = {"blocks.1.proj", "blocks.1.mlp.2", "stages.3.1.conv2", "decoder.1.0.conv2"}
    for key, value in mean.items():
        if key in a:
            wanted = (a[key] + b[key]) / 2
        else:
            wanted = b[key] / 2 if key.rpartition(".")[0] in halved else b[key]
        assert torch.allclose(value, wanted, atol=2e-3), key
    same = deepened_like(network, deeper).eval()
    inputs = torch.rand(1, deeper.channels, 128, 128)
    for found, expected in zip(same(inputs), network.eval()(inputs), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_a_deeper_network_starts_with_the_answers_of_a_shallower_one():
    torch.manual_seed(5)
    tiny = {"widths": (8, 16, 16, 24), "depths": (0, 1, 1, 1), "blocks": 1, "heads": 3}
    network = BuiltinNetwork(**tiny).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    deeper = deepened(network, depths=[1, 1, 3, 2], blocks=3, decoder=[1, 2]).eval()
    assert sum(p.numel() for p in deeper.parameters()) > sum(
        p.numel() for p in network.parameters()
    )
    inputs = torch.randn(2, 24, 128, 128)
    with torch.inference_mode():
        for found, expected in zip(deeper(inputs), network(inputs), strict=True):
            torch.testing.assert_close(found, expected)
    loss = sum(output.square().mean() for output in deeper(inputs))
    loss.backward()  # what was added can learn
    assert deeper.blocks[2].proj.weight.grad.abs().max() > 0
    assert deeper.stages[2][2].conv2.weight.grad.abs().max() > 0
    assert deeper.decoder[1][0].conv2.weight.grad.abs().max() > 0
    assert deeper.config["decoder"] == [1, 2]
    assert deepened(network) is network
    for wanted in ({"depths": [0, 0, 1, 1]}, {"widths": [8, 16, 16, 48]}, {"blocks": 0}):
        with pytest.raises(InputError, match="cannot start from one of"):
            deepened(network, **wanted)


def test_a_damaged_file_is_noticed(tmp_path, monkeypatch):
    """One bit of a weight changes no shape, so only the SHA-256 tells."""
    from SlideSAMLib import catalogue, models

    assert models.verify("builtin").matches is True
    damaged = bytearray(WEIGHTS.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    (tmp_path / WEIGHTS.name).write_bytes(damaged)
    moved = property(lambda info: tmp_path / info.file)
    monkeypatch.setattr(catalogue.ModelInfo, "path", moved)
    assert models.verify("builtin").matches is False


@pytest.mark.parametrize(
    "size",
    [
        {"blocks": 10**9},
        {"depths": [0, 10**9, 0, 0]},
        {"decoder": [0, 10**9]},
        {"widths": [30_000] * 4},
        {"widths": [8, 30_000, 8, 224]},
    ],
)
def test_sizes_that_a_file_does_not_carry_are_not_made(tmp_path, monkeypatch, size):
    """A note of one line must not take all the memory before the file is refused."""
    tensors, note = read_safetensors(WEIGHTS)
    config = json.dumps(json.loads(note["config"]) | size)
    save(tensors, tmp_path / "odd.safetensors", note | {"config": config})
    monkeypatch.setattr(weights, "BuiltinNetwork", lambda **sizes: pytest.fail("was made"))
    with pytest.raises(ModelError, match="its sizes are not those of its tensors"):
        weights.read_network(tmp_path / "odd.safetensors")


def test_the_model_card_names_this_file():
    import hashlib

    card = WEIGHTS.with_name("README.md").read_text()
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in card


def ball(radius: int = 12, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball in noise, int16, and its mask."""
    line = np.arange(size) - size // 2
    k, j, i = np.meshgrid(line, line, line, indexing="ij")
    truth = k**2 + j**2 + i**2 < radius**2
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    return (np.where(truth, 700, 300) + noise).astype(np.int16), truth


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_box_finds_a_ball_and_stops_at_its_ends(model, axis):
    volume, truth = ball()
    prompt = SlideSAMLib.SlicePrompt(index=32, box=(19.5, 20, 44, 44.5))
    result = SlideSAMLib.segment(volume, [prompt], axis=axis, model=model)
    dice = 2 * (result.mask & truth).sum() / (result.mask.sum() + truth.sum())
    assert dice > 0.85
    assert min(result.confidence) >= 17 and max(result.confidence) <= 47


def test_one_point_finds_a_ball(model):
    volume, truth = ball()
    prompt = SlideSAMLib.SlicePrompt(index=32, points=[(33, 31)])
    result = SlideSAMLib.segment(volume, [prompt], model=model)
    dice = 2 * (result.mask & truth).sum() / (result.mask.sum() + truth.sum())
    assert dice > 0.7


@pytest.mark.data
@pytest.mark.slow
def test_real_volumes_are_segmented_as_the_model_card_says(model, data_folder):
    """Small cases of three kinds; the bar is the issue's mean over all development cases."""
    wanted = {"hippocampus_small", "mr_sarcoma_thigh", "cord_mt_aniso"}
    cases = [case for case in read_manifest(data_folder / "manifest.json") if case.id in wanted]
    found = {s.protocol: s.mean for s in summarise(evaluate(cases, model))}
    assert found["extent"] > 0.62
    assert found["full"] > 0.56


@pytest.mark.slow
def test_a_large_volume_stays_below_two_gigabytes():
    command = [sys.executable, str(ROOT / "Testing" / "Benchmarks" / "segment_cost.py")]
    command += ["--child", "--runs", "1", "--device", "cpu", "--shape", "200", "512", "512"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    measured = json.loads(done.stdout)
    assert measured["slices"] > 100  # it did slide
    assert measured["peak_mib"] < 2048
