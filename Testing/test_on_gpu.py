"""What only an NVIDIA GPU can show: its kernels and graphs are used, and answer what the CPU does.

Everything here is skipped where there is no such GPU.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import SlideSAMLib
from SlideSAMLib.benchmark import phantom, subjects
from SlideSAMLib.compute.cuda_graphs import PLAIN_RUNS
from SlideSAMLib.protocol import WindowPrompt
from SlideSAMLib.rehearsal import rehearse
from SlideSAMLib.sam import cuda_kernels
from SlideSAMLib.sam.network import VIT_B, NetworkConfig
from SlideSAMLib.stack import Stack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SMALL = NetworkConfig(embed_dim=256, depth=3, heads=4, global_blocks=(1,), image_size=512)


@pytest.fixture
def silent(caplog):
    """Whatever falls back to a slower way says so in the log."""
    with caplog.at_level(logging.WARNING):
        yield
    assert not caplog.get_records("call")  # `caplog.records` is that of the fixture by now


def windows(count: int):
    made = phantom.column((count + 2, 96, 128), count)
    return Stack(made.volume).windows(range(1, count + 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernels_prove_themselves(dtype, silent):
    found = cuda_kernels.operations(VIT_B.embed_dim, VIT_B.heads, dtype, CUDA)
    assert found is not cuda_kernels.PLAIN


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-3), (torch.float16, 5e-3), (torch.bfloat16, 2e-2)]
)
def test_a_model_answers_what_it_answers_on_the_cpu(dtype, most, silent):
    """Before and after there are graphs; float32 convolutions may use TF32 there."""
    network = subjects.random_network(SMALL)
    exact = subjects.as_model(network, "small", CPU, torch.float32)
    model = subjects.as_model(network, "small", CUDA, dtype)
    seen = windows(4)
    prompts = [WindowPrompt(box=(20.0 + n, 30.0, 80.0, 70.0)) for n in range(4)]
    expected = exact.encode(seen)
    answers = exact.predict_many(expected, prompts)
    for _ in range(PLAIN_RUNS + 2):
        embeddings = model.encode(seen)
        for found, wanted in zip(embeddings, expected, strict=True):
            difference = found.ready_tensor().float().cpu() - wanted.tensor.float()
            assert difference.norm() < most * wanted.tensor.float().norm()
        for found, wanted in zip(model.predict_many(embeddings, prompts), answers, strict=True):
            logits, exact_logits = np.asarray(found.logits), np.asarray(wanted.logits)
            difference = np.linalg.norm(logits - exact_logits)
            assert difference < 3 * most * np.linalg.norm(exact_logits)
    assert model._encoder._graphs._graphs and model._graphs._graphs


def test_the_built_in_model_finds_the_same_object(silent):
    made = phantom.column((24, 96, 128), 12)
    models = [SlideSAMLib.load_model("builtin", device=device) for device in ("cpu", "cuda")]
    masks = [SlideSAMLib.segment(made.volume, made.prompt(), model=m).mask for m in models]
    both, sizes = np.count_nonzero(masks[0] & masks[1]), [mask.sum() for mask in masks]
    assert sizes[0] > 1000 and 2 * both / sum(sizes) > 0.995


def test_a_rehearsal_leaves_graphs_for_one_window_and_for_both_directions(silent):
    model = SlideSAMLib.load_model("builtin", device="cuda")
    rehearse(model)
    batches = {kind[1][0] for kind in model._graphs._graphs}  # after `what`: the inputs' shapes
    assert batches >= {1, 2}


def test_sam_rehearses_on_a_gpu(silent):
    model = subjects.as_model(subjects.random_network(SMALL), "small", CUDA, torch.bfloat16)
    rehearse(model)
    (window,) = windows(1)
    early, (plain,) = model.encode_early(window, lambda: False), model.encode([window])
    assert torch.equal(early.ready_tensor(), plain.ready_tensor())
