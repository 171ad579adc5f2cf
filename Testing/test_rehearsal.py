"""What models do before the first prompt comes: a rehearsal, and a window that may be needed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import SlideSAMLib
from SlideSAMLib import load_model, rehearsal
from SlideSAMLib.benchmark import subjects
from SlideSAMLib.benchmark.phantom import column
from SlideSAMLib.builtin.requests import POINT_SIDES
from SlideSAMLib.compute.cuda_graphs import Graphed
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.protocol import encodes_early
from SlideSAMLib.sam.network import NetworkConfig
from SlideSAMLib.sliding.slide import Slider
from SlideSAMLib.sliding.stops import Stop
from SlideSAMLib.stack import Stack
from SlideSAMLib.window import EmbeddingCache, WindowPredictor
from Testing.fakes import ThresholdModel
from Testing.sliding_helpers import BOX, WINDOW, through_block

SMALL = NetworkConfig(embed_dim=32, depth=2, heads=2, global_blocks=(1,), image_size=128)


def asked_of(model, monkeypatch) -> list:
    """The prompts that come to a model from now on, each with what is answered."""
    asked = []
    predict = model.predict_many

    def noted(embeddings, prompts):
        answers = predict(embeddings, prompts)
        asked.extend(zip(prompts, answers, strict=True))
        return answers

    monkeypatch.setattr(model, "predict_many", noted)
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
    assert not encodes_early(model)


def test_it_ends_between_two_pieces(monkeypatch):
    model = load_model("builtin", device="cpu")
    asked = asked_of(model, monkeypatch)
    rehearsal.rehearse(model, lambda: bool(asked))
    assert len(asked) == 1
    rehearsal.rehearse(model, lambda: True)
    assert len(asked) == 1


def test_a_gpu_has_its_graphs_before_the_first_slide():
    """One window, both directions of a slide, and the sizes that are tried for a point."""
    model = load_model("builtin", device="cpu")
    captured = []

    def capture(work):
        answer = work()
        captured.append(len(answer[0]))
        return answer, lambda: [own.copy_(new) for own, new in zip(answer, work(), strict=True)]

    model._graphs = Graphed(model._forward, torch.device("cpu"), capture)
    rehearsal.rehearse(model)
    assert set(captured) >= {1, 2, len(POINT_SIDES)}
    before = list(captured)
    made = column((12, 200, 160), 6)
    SlideSAMLib.segment(made.volume, [made.prompt()], model=model)
    assert captured == before


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
    assert len(asked) == prompts and encodes_early(model)


def test_other_models_need_not_offer_any():
    model = ThresholdModel()
    rehearsal.rehearse(model)
    assert model.encoded == [] and model.predicted == []


@pytest.fixture(scope="module")
def sam():
    network = subjects.random_network(SMALL)
    return subjects.as_model(network, "small", torch.device("cpu"), torch.float32)


def counted(answers):
    """A `cancelled` that gives these answers, and how often it was asked."""
    asked = []

    def cancelled() -> bool:
        asked.append(threading.get_ident())
        return answers[min(len(asked), len(answers)) - 1]

    return cancelled, asked


def test_sam_encodes_early_what_it_encodes(sam):
    cancelled, asked = counted([False])
    early = sam.encode_early(rehearsal.window(), cancelled)
    (plain,) = sam.encode([rehearsal.window()])
    assert torch.equal(early.tensor, plain.tensor) and early.shape == plain.shape
    assert len(asked) == SMALL.depth


@pytest.mark.parametrize("block", range(SMALL.depth))
def test_sam_gives_up_before_any_block(sam, block):
    cancelled, asked = counted([False] * block + [True])
    assert sam.encode_early(rehearsal.window(), cancelled) is None
    assert len(asked) == block + 1
    assert sam.encode([rehearsal.window()])[0].tensor.abs().sum() > 0
    assert len(asked) == block + 1  # nobody is asked any more


def test_who_encodes_meanwhile_is_not_disturbed(sam):
    found = []
    (plain,) = sam.encode([rehearsal.window()])

    def cancelled() -> bool:
        other = threading.Thread(target=lambda: found.extend(sam.encode([rehearsal.window()])))
        other.start()
        other.join()
        return True

    assert sam.encode_early(rehearsal.window(), cancelled) is None
    assert len(found) == 1 and torch.equal(found[0].tensor, plain.tensor)


class Early(ThresholdModel):
    """Encodes early, or not, as `cancelled` wants."""

    def encode_early(self, window, cancelled):
        return None if cancelled() else self.encode([window])[0]


def test_a_window_that_was_encoded_early_is_not_encoded_again():
    model, cache = Early(), EmbeddingCache()
    stack = Stack(np.arange(320, dtype=np.float32).reshape(5, 8, 8))
    predictor = WindowPredictor(stack, model, cache)
    predictor.prepare(2, lambda: True)
    assert model.encoded == [] and len(cache) == 0
    for _ in range(2):
        predictor.prepare(2, lambda: False)
    assert model.encoded == [[2]]
    WindowPredictor(stack, model, cache).embedding(2)
    assert model.encoded == [[2]]


def test_a_model_whose_windows_cost_nothing_encodes_none_early():
    model = ThresholdModel()
    stack = Stack(np.arange(320, dtype=np.float32).reshape(5, 8, 8))
    WindowPredictor(stack, model).prepare(2, lambda: False)
    assert model.encoded == []


class Slow(ThresholdModel):
    """Somebody cancels while it is at the window of slice `at`."""

    def __init__(self, at):
        super().__init__()
        self.at, self.stopped = at, False

    def encode_early(self, window, cancelled):
        self.stopped |= window.key[-1] == self.at
        return None if cancelled() else self.encode([window])[0]


def test_a_slide_that_is_cancelled_does_not_wait_for_its_window():
    volume, _ = through_block((15, 30, 34))
    stack, model, cache = Stack(volume, window=WINDOW), Slow(at=9), EmbeddingCache()
    slider = Slider(
        stack, [SlicePrompt(6, box=BOX)], model, cache=cache, cancelled=lambda: model.stopped
    )
    finished = {each.index: each.mask for each in slider.run()}
    whole = Slider(stack, [SlicePrompt(6, box=BOX)], ThresholdModel())
    expected = {each.index: each.mask for each in whole.run()}
    assert set(finished) >= {5, 6, 7, 8} and 10 not in finished
    assert all(np.array_equal(finished[k], expected[k]) for k in (5, 6, 7, 8))
    assert slider.stops == dict.fromkeys(("backward", "forward"), Stop.CANCELLED)
    assert [9] not in model.encoded and [8] in model.encoded


@pytest.mark.parametrize(("at", "finished"), [(6, []), (9, [6])])
def test_nor_does_it_wait_for_the_window_of_a_prompted_slice(at, finished):
    volume, _ = through_block((15, 30, 34))
    model = Slow(at)
    prompts = [SlicePrompt(index, box=BOX) for index in (6, 9)]
    slider = Slider(Stack(volume, window=WINDOW), prompts, model, cancelled=lambda: model.stopped)
    assert [each.index for each in slider.run()] == finished
    assert set(slider.stops.values()) == {Stop.CANCELLED}
    assert [at] not in model.encoded
