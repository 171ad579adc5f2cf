"""Candidates of SAM networks at the size of the slice, made once somebody asks for them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from SlideSAMLib.compute.cuda_graphs import PLAIN_RUNS, Graphed
from SlideSAMLib.patches import extent_of
from SlideSAMLib.protocol import Window, WindowPrompt
from SlideSAMLib.sam import candidates as sam_candidates
from SlideSAMLib.sam.model import SamModel, load_sam
from SlideSAMLib.sliding.candidates import best, rank
from SlideSAMLib.sliding.slide_types import SlideSettings

BOX = (5.0, 6.0, 30.0, 25.0)
POINT = {"points": ((20.0, 15.0),), "labels": (1,)}
SHAPES = [(40, 56), (96, 112), (17, 130), (32, 32), (8, 9)]  # the network's own are 32 x 32


@pytest.fixture
def model(mini_file) -> SamModel:
    return load_sam(mini_file, "cpu", "float32", kind="sam")


def embedded(model: SamModel, shape=(40, 56)):
    slices = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    return model.encode([Window(slices, (1, 1, 1), (-3, 3), ("w", 0))])[0]


@pytest.fixture
def enlarged(monkeypatch) -> list[int]:
    """How many planes are brought to another size in each call from now on."""
    planes, own = [], F.interpolate

    def counted(values, *args, **fields):
        planes.append(values.shape[0] * values.shape[1])
        return own(values, *args, **fields)

    monkeypatch.setattr(F, "interpolate", counted)
    return planes


def all_at_once(model: SamModel, embedding, prompt: WindowPrompt, monkeypatch) -> np.ndarray:
    """All candidates of the decoder brought to the size of the slice in one step."""
    kept, decode = [], model._network.decode

    def noted(*asked):
        kept.append(decode(*asked))
        return kept[0]

    with monkeypatch.context() as patch:
        patch.setattr(model._network, "decode", noted)
        found = model.predict(embedding, prompt)
    logits, quality = kept[0]
    order = model._order(quality, prompt.box is not None or len(prompt.points) != 1)[0]
    with torch.inference_mode():
        low = logits[0, order].flatten(0, 1)[None]
        full = F.interpolate(low, embedding.shape, mode="bilinear", antialias=True)
    assert np.array_equal(found.quality, quality[0, order].clamp(0, 1).numpy())
    return full.unflatten(1, (len(order), 3))[0].numpy()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["sam", "slide-sam", "medsam"])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_candidate_is_what_all_at_once_would_be(
    mini_file, monkeypatch, kind, precision, shape
):
    """To the last bit, and so are the parts where there is anything."""
    model = load_sam(mini_file, "cpu", precision, kind=kind)
    embedding = embedded(model, shape)
    masks = np.random.default_rng(1).uniform(0, 1, (3, *shape)).astype(np.float32)
    known = {"masks": masks, "known": (True, True, False)}
    for fields in ({"box": BOX}, POINT, {"box": BOX, **POINT}, {"box": BOX, **known}, known):
        prompt = WindowPrompt(**fields)
        expected = all_at_once(model, embedding, prompt, monkeypatch)
        found = model.predict(embedding, prompt)
        assert found.logits.shape == expected.shape
        for number in reversed(range(len(expected))):
            assert np.array_equal(found.logits[number], expected[number])
            for place in range(3):
                extent = extent_of(expected[number, place])
                top, left, bottom, right = found.extents[number, place].tolist()
                assert (top, left, bottom, right) == extent or top == bottom or left == right


def test_only_the_candidates_that_are_asked_for_are_made(model, enlarged):
    embedding = embedded(model)
    enlarged.clear()
    answer = model.predict(embedding, WindowPrompt(box=BOX))
    assert enlarged == [3]
    assert answer.logits.shape == (4, 3, 40, 56) and answer.logits[0, 1].shape == (40, 56)
    assert answer.extents[0, 2].tolist() and len(enlarged) == 1
    assert answer.logits[2, 0].shape == (40, 56)
    assert answer.extents[2, 1].shape == (4,)
    assert enlarged == [3, 3]  # logits and extents together, once
    assert np.asarray(answer.extents).shape == (4, 3, 4)
    assert np.asarray(answer.logits).dtype == np.float32
    assert enlarged == [3, 3, 3, 3]


def test_a_slide_makes_no_candidate_that_cannot_win(model, enlarged):
    embedding = embedded(model)
    enlarged.clear()
    answer = model.predict(embedding, WindowPrompt(box=BOX))
    sure = SlideSettings(first_bonus=9.0)
    assert best(answer, {}, sure).number == 0
    assert sum(enlarged) == 3
    assert rank(answer, {}, sure)[0].number == 0  # for *Other mask*
    assert sum(enlarged) == 12


def test_a_detached_choice_keeps_nothing_of_the_decoder(model):
    """Nor is any of it left to the garbage collector."""
    embedding = embedded(model)
    gc.disable()
    try:
        answer = model.predict(embedding, WindowPrompt(box=BOX))
        aside = weakref.ref(answer.logits._make.__self__)
        assert aside().nbytes == 3 * 3 * 32 * 32 * 4  # three candidates as the decoder made them
        choice = best(answer, {}, SlideSettings()).detached()
        del answer
        assert aside() is None
        assert choice.patches[1].logits.shape == (40, 56)
    finally:
        gc.enable()


def test_windows_of_one_batch_keep_only_their_own_candidates(model):
    embedding = embedded(model)
    answers = model.predict_many([embedding] * 3, [WindowPrompt(box=BOX)] * 3)
    for answer in answers:
        aside = answer.logits._make.__self__
        assert aside.held.untyped_storage().nbytes() == aside.nbytes


def test_candidates_that_a_full_gpu_has_no_room_for_are_made_on_the_host(model, monkeypatch):
    embedding = embedded(model)
    prompt = WindowPrompt(box=BOX)
    expected = np.asarray(model.predict(embedding, prompt).logits)
    answer, own, full = model.predict(embedding, prompt), sam_candidates.on_slice, []

    def without_room(*args):
        if not full:
            full.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return own(*args)

    monkeypatch.setattr(sam_candidates, "on_slice", without_room)
    assert np.array_equal(answer.logits[2], expected[2]) and full
    monkeypatch.setattr(sam_candidates, "on_slice", lambda *args: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        answer.logits[3]  # any other error is told


@pytest.mark.parametrize("kind", ["sam", "medsam"])
def test_graphs_answer_with_all_that_the_candidates_need(mini_file, kind, caplog):
    """A network with one candidate has nothing to keep aside."""
    model = load_sam(mini_file, "cpu", "float32", kind=kind)
    embedding, prompt = embedded(model), WindowPrompt(box=BOX)
    expected = np.asarray(model.predict(embedding, prompt).logits)
    replays = []

    def capture(work):
        answer = work()

        def replay():
            replays.append(1)
            for kept, new in zip(answer, work(), strict=True):
                kept.copy_(new)

        return answer, replay

    model._graphs = Graphed(model._answer, torch.device("cpu"), capture)
    answers = [model.predict(embedding, prompt) for _ in range(PLAIN_RUNS + 3)]
    assert len(replays) == 4 and not caplog.records
    for answer in answers:
        assert np.array_equal(answer.logits, expected)
