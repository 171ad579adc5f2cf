"""The encoder's own kernels: their twins in PyTorch, the kernels themselves, and the way back.

No GPU is needed: a C++ compiler and `emulated_cuda` stand for it.
"""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from SlideSAMLib.sam import cuda_compiler, cuda_kernels
from SlideSAMLib.sam.cuda_kernels import PLAIN, operations
from Testing.emulated_cuda import emulated

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WIDTH, HEADS = 256, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if sys.platform != "linux" or shutil.which("g++") is None:
        pytest.skip("the emulation needs g++ on Linux")
    source = cuda_kernels.source_for(WIDTH, HEADS, torch.bfloat16)
    return cuda_kernels._wrapped(*emulated(source, tmp_path_factory.mktemp("kernels")))


def test_queries_and_keys_lie_where_the_biases_say():
    side, channels, room = 3, WIDTH // HEADS, 72
    entries = 2 * side - 1
    y = random(2, side**2, 3 * WIDTH + 2 * HEADS * entries)
    queries, keys = torch.zeros(2, side**2, HEADS, room), torch.full((2, side**2, HEADS, room), 7.0)
    PLAIN.spread(y, queries, keys, side)
    for n, token, head in ((0, 0, 0), (1, 5, 2), (1, 8, 3)):
        row, column = divmod(token, side)
        own, query = y[n, token], queries[n, token, head]
        assert torch.equal(query[:channels], own[head * channels : (head + 1) * channels])
        rows = own[3 * WIDTH + head * entries :][:entries]
        columns = own[3 * WIDTH + (HEADS + head) * entries :][:entries]
        for other in range(side):  # the table is turned round: larger distances come first
            assert query[channels + other] == rows[side - 1 - row + other]
            assert query[channels + side + other] == columns[side - 1 - column + other]
        assert (query[channels + 2 * side :] == 0).all()
        key = keys[n, token, head]
        first = WIDTH + head * channels
        assert torch.equal(key[:channels], own[first : first + channels])
        assert (key[channels:] == 7).all()


def test_the_kernels_answer_what_pytorch_answers(kernels):
    cuda_kernels._prove(kernels, WIDTH, HEADS, torch.bfloat16, CPU)  # raises where they do not
    tokens, weight, bias = random(21, WIDTH), random(WIDTH, seed=1), random(WIDTH, seed=2)
    delta = random(21, WIDTH, seed=3).bfloat16()
    own, out = tokens.clone(), torch.zeros(21, WIDTH, dtype=torch.bfloat16)
    kernels.add_and_norm(own, delta, weight, bias, out)
    assert torch.equal(own, tokens + delta)
    expected = F.layer_norm(own, (WIDTH,), weight, bias, 1e-6)
    assert torch.allclose(out.float(), expected, rtol=2**-8, atol=1e-5)

    side = 7
    y = random(3, side**2, 3 * WIDTH + 2 * HEADS * (2 * side - 1)).bfloat16()
    found = []
    for way in (kernels, PLAIN):
        queries = torch.zeros(3, side**2, HEADS, 80, dtype=torch.bfloat16)
        keys = torch.ones_like(queries)
        way.spread(y, queries, keys, side)
        found.append((queries, keys))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("wrong", ["add_and_norm", "spread"])
def test_kernels_that_are_wrong_are_found_out(wrong):
    def nothing(*arguments):
        """Writes nothing."""

    with pytest.raises(RuntimeError, match="of a kernel: wrong by"):
        cuda_kernels._prove(replace(PLAIN, **{wrong: nothing}), WIDTH, HEADS, torch.bfloat16, CPU)


def test_without_a_compiler_pytorch_does_it(monkeypatch, caplog):
    def refuse(*arguments):
        raise RuntimeError("There is no libnvrtc.so.12.")

    assert operations(WIDTH, HEADS, torch.bfloat16, CPU) is PLAIN
    monkeypatch.setattr(cuda_kernels, "compiled", refuse)
    with caplog.at_level(logging.WARNING):
        assert operations(WIDTH, HEADS, torch.float32, CUDA) is PLAIN
        assert operations(WIDTH + 8, HEADS, torch.bfloat16, CUDA) is PLAIN
        assert not caplog.records
        assert operations(WIDTH, HEADS, torch.bfloat16, CUDA) is PLAIN
    assert "slower: There is no libnvrtc.so.12." in caplog.text


def test_libraries_that_are_not_there_are_named():
    with pytest.raises(RuntimeError, match=r"There is no libnothing\.so\.1"):
        cuda_compiler._library(["libnothing.so.1", "nowhere/libnothing.so.1"])


@pytest.mark.parametrize(
    ("cuda", "platform", "name"),
    [
        ("11.8", "linux", "libnvrtc.so.11.2"),  # the name that it has had since CUDA 11.2
        ("12.6", "linux", "libnvrtc.so.12"),
        ("13.0", "linux", "libnvrtc.so.13"),
        ("11.8", "win32", "nvrtc64_112_0.dll"),
        ("12.6", "win32", "nvrtc64_120_0.dll"),
        ("13.0", "win32", "nvrtc64_130_0.dll"),
    ],
)
def test_the_compiler_of_each_version_of_cuda_has_its_name(monkeypatch, cuda, platform, name):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(cuda_compiler.sys, "platform", platform)
    monkeypatch.setattr(cuda_compiler, "_library", lambda names: names)
    first, *others = cuda_compiler._nvrtc()
    assert first == name and others[0].endswith(name)
