"""Fronts that are predicted in one call give what they give one after the other."""

import numpy as np
import pytest

from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.window import EmbeddingCache
from Testing.fakes import ball_volume, block_volume
from Testing.sliding_helpers import BOX, Together, slide_all, through_block


def _story(found, model):
    """Everything that a slide says and does, in order."""
    finished, mask, stops = found
    told = [(f.index, f.confidence, f.direction, f.done, int(f.mask.sum())) for f in finished]
    asked = [
        (
            centre,
            prompt.box,
            prompt.known,
            None if prompt.masks is None else np.asarray(prompt.masks).tobytes(),
        )
        for centre, prompt in model.predicted
    ]
    return told, mask.tolist(), stops, asked, model.remembered


PLANS = [
    ((6,), (), {}),
    ((0, 14), (), {}),
    ((2, 5, 11), (4, 9), {}),
    ((3, 6, 7, 12), (10,), {}),
    *(((3, last), (), {"meet_overlap": n}) for last in (10, 11) for n in (0, 1, 2, 3, 99)),
    ((3, 11), (8, 7, 6), {"meet_overlap": 1}),
    ((6,), (), {"prompted_outer_weight": 1.0, "outer_weight": 1.0}),
    ((2, 5, 11), (), {"prompted_outer_weight": 1.0}),
]


@pytest.mark.parametrize(("prompted", "refused", "fields"), PLANS)
def test_nothing_but_the_calls_changes(prompted, refused, fields):
    volume, _ = through_block((15, 30, 34))
    prompts = [SlicePrompt(index, box=BOX) for index in prompted]
    settings = SlideSettings(**fields)
    alone = Together(1, refused)
    expected = _story(slide_all(volume, prompts, alone, settings=settings), alone)
    assert {len(call) for call in alone.calls} == {1}
    for most in (2, 3, 8):
        model = Together(most, refused)
        assert _story(slide_all(volume, prompts, model, settings=settings), model) == expected
        assert max(len(call) for call in model.calls) <= most
        assert len(model.calls) < len(alone.calls)


def test_both_directions_are_one_call():
    volume, _ = through_block((15, 30, 34))
    model = Together(8)
    slide_all(volume, [SlicePrompt(6, box=BOX)], model)
    both = [[6 - n, 6 + n] for n in range(1, 7)]
    assert model.calls == [[6], *both, [13], [14]]


def test_the_fronts_of_all_stretches_are_one_call():
    volume, _ = through_block((40, 30, 34))
    model = Together(8)
    slide_all(volume, [SlicePrompt(index, box=BOX) for index in (10, 20, 30)], model)
    assert model.calls[3:6] == [
        [9, 31, 11, 19, 21, 29],
        [8, 32, 12, 18, 22, 28],
        [7, 33, 13, 17, 23, 27],
    ]
    model = Together(4)
    slide_all(volume, [SlicePrompt(index, box=BOX) for index in (10, 20, 30)], model)
    assert model.calls[3:5] == [[9, 31, 11, 19], [21, 29]]


def test_a_front_that_another_may_end_waits_for_it():
    """Half way no window is predicted that nobody needs."""
    volume, _ = through_block((12, 30, 34))
    model = Together(8)
    settings = SlideSettings(meet_overlap=1)
    prompts = [SlicePrompt(0, box=BOX), SlicePrompt(11, box=BOX)]
    slide_all(volume, prompts, model, settings=settings)
    assert model.calls[2:] == [[1, 10], [2, 9], [3, 8], [4, 7], [5, 6], [6]]
    refusing = Together(8, refused=(6,))
    _, mask, _ = slide_all(volume, prompts, refusing, settings=settings)
    assert refusing.calls[6:] == [[5, 6], [6], [7]]  # the other one goes on alone
    assert mask.any(axis=(1, 2)).all()


@pytest.mark.parametrize("asked", range(14))
def test_cancelling_keeps_the_same_slices(asked):
    volume, _ = block_volume((25, 30, 34), slices=(2, 22))
    prompts = [SlicePrompt(5, box=BOX), SlicePrompt(18, box=BOX)]
    stories = []
    for most in (1, 4):
        calls = iter(range(1000))
        model = Together(most)
        found = slide_all(
            volume, prompts, model, cancelled=lambda calls=calls: next(calls) >= asked
        )
        stories.append(_story(found, model))
    assert stories[0] == stories[1]


@pytest.mark.parametrize("size", [0, None])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_what_is_being_predicted_is_not_encoded_again(size, batch):
    """Even where the cache keeps nothing."""
    volume, _ = ball_volume()
    model = Together(8)
    settings = SlideSettings(encode_batch=batch, use_memory=False)
    slide_all(
        volume,
        [SlicePrompt(10, points=[(22, 20)])],
        model,
        settings=settings,
        cache=EmbeddingCache(size),
    )
    encoded = [centre for call in model.encoded for centre in call]
    assert len(encoded) == len(set(encoded))
    assert max(len(call) for call in model.encoded) == batch


def test_runs_with_noise_repeat_one_after_the_other():
    rng = np.random.default_rng(3)
    volume = (ball_volume()[0] + rng.normal(0, 25, (21, 40, 44))).astype(np.float32)
    prompts = [SlicePrompt(8, box=(13, 11, 31, 29)), SlicePrompt(13, points=[(22, 20)])]
    stories = []
    for most in (1, 2, 8):
        model = Together(most)
        stories.append(_story(slide_all(volume, prompts, model), model))
    assert stories[0] == stories[1] == stories[2]
