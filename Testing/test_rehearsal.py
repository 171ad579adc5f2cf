"""What models do once before the first prompt comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib import load_model, rehearsal
from SlideSAMLib.benchmark import subjects
from SlideSAMLib.network import NetworkConfig
from SlideSAMLib.protocol import encodes_before_prompts
from Testing.fakes import ThresholdModel

SMALL = NetworkConfig(embed_dim=32, depth=2, heads=2, global_blocks=(1,), image_size=128)


def asked_of(model, monkeypatch) -> list:
    """The prompts that come to a model from now on, each with what is answered."""
    asked = []
    predict = model.predict

    def noted(embedding, prompt):
        asked.append((prompt, predict(embedding, prompt)))
        return asked[-1][1]

    monkeypatch.setattr(model, "predict", noted)
    return asked


def test_the_built_in_model_answers_a_box_and_a_point(monkeypatch):
    model = load_model("builtin", device="cpu")
    asked = asked_of(model, monkeypatch)
    rehearsal.rehearse(model)
    assert [(prompt.box is None, len(prompt.points)) for prompt, _ in asked] == [
        (False, 0),
        (True, 1),
    ]
    disc = rehearsal.window().planes[1] > 0
    for _, answer in asked:
        found = answer.full(0)[1] > 0
        assert 2 * np.count_nonzero(found & disc) > 0.9 * (found.sum() + disc.sum())
    assert not encodes_before_prompts(model)


def test_it_ends_between_two_pieces(monkeypatch):
    model = load_model("builtin", device="cpu")
    asked = asked_of(model, monkeypatch)
    rehearsal.rehearse(model, lambda: bool(asked))
    assert len(asked) == 1
    rehearsal.rehearse(model, lambda: True)
    assert len(asked) == 1


@pytest.mark.parametrize(("device", "prompts"), [("cpu", 0), ("cuda", 2)])
def test_sam_rehearses_where_its_kernels_have_to_be_made(monkeypatch, device, prompts):
    network = subjects.random_network(SMALL)
    model = subjects.as_model(network, "small", torch.device("cpu"), torch.float32)
    offered = model.rehearsals
    with monkeypatch.context() as patch:
        patch.setattr(model, "_device", torch.device(device))
        pieces = offered()
    asked = asked_of(model, monkeypatch)
    for piece in pieces:
        piece()
    assert len(asked) == prompts and encodes_before_prompts(model)


def test_other_models_need_not_offer_any():
    model = ThresholdModel()
    rehearsal.rehearse(model)
    assert model.encoded == [] and model.predicted == []
