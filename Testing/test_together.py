"""Several objects side by side: what each gets is what it gets alone, in fewer calls."""

from __future__ import annotations

import numpy as np
import pytest

from SlideSAMLib.errors import ModelError
from SlideSAMLib.models import load_model
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.protocol import WindowPrompt, objects_at_once
from SlideSAMLib.sliding.slide import Slider
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.together import slide_together
from SlideSAMLib.stack import Stack
from SlideSAMLib.window import EmbeddingCache
from Testing.fakes import ThresholdModel, ball_volume
from Testing.sliding_helpers import BOX, WINDOW, Together, through_block

OBJECTS = [(6,), (0, 14), (2, 11), (3, 6, 7, 12)]  # prompted slices


def sliders(model, objects=OBJECTS, cancelled=None, **fields) -> list[Slider]:
    volume, _ = through_block((15, 30, 34))
    stack = Stack(volume, window=WINDOW, key="one")
    cache, settings = EmbeddingCache(), SlideSettings(**fields)
    made = []
    for indices in objects:
        prompts = [SlicePrompt(index, box=BOX) for index in indices]
        made.append(Slider(stack, prompts, model, None, None, settings, cache, cancelled))
    return made


def told(finished) -> tuple:
    return finished.index, finished.confidence, finished.direction, finished.mask.tobytes()


@pytest.mark.parametrize("most", [1, 2, 3, 8])
@pytest.mark.parametrize("scheme", ["default", "reference"])
def test_each_object_gets_what_it_gets_alone(most, scheme):
    objects = OBJECTS if scheme == "default" else [(6,), (4,)]
    alone = [s for indices in objects for s in sliders(Together(most), [indices], scheme=scheme)]
    expected = [[told(finished) for finished in slider.run()] for slider in alone]
    model = Together(most)
    together = sliders(model, objects, scheme=scheme)
    found, ended = [[] for _ in objects], []
    for number, finished in slide_together(together):
        if finished is None:
            ended.append(number)
        else:
            assert number not in ended
            found[number].append(told(finished))
    assert found == expected
    assert sorted(ended) == list(range(len(objects)))
    assert [s.stops for s in together] == [s.stops for s in alone]
    assert max(len(call) for call in model.calls) <= most
    if most == 8 and scheme == "default":
        assert max(len(call) for call in model.calls) == 8
        first = sum(len(indices) for indices in objects)  # prompted slices are asked one by one
        single = sum(len(slider.predictor.model.calls) for slider in alone)
        assert len(model.calls) - first < 0.5 * (single - first)


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


class Narrow(Together):
    """A GPU with room for so many windows in one call; `refused` counts the calls without."""

    def __init__(self, most, room, **fields):
        super().__init__(most, **fields)
        self.room, self.too_many = room, []

    def predict_many(self, embeddings, prompts):
        if len(prompts) > self.room:
            self.too_many.append(len(prompts))
            raise OutOfMemoryError
        return super().predict_many(embeddings, prompts)


def test_too_little_memory_halves_the_call_for_good():
    expected = [[told(finished) for finished in slider.run()] for slider in sliders(Together(8))]
    model = Narrow(8, room=2)
    found = [[] for _ in OBJECTS]
    for number, finished in slide_together(sliders(model)):
        if finished is not None:
            found[number].append(told(finished))
    assert found == expected
    assert model.too_many == [8, 4]
    assert max(len(call) for call in model.calls) == 2
    calls = len(model.calls)
    list(slide_together(sliders(model)))  # other sliders, the same model
    assert model.too_many == [8, 4] and len(model.calls) > calls


def test_only_a_window_alone_that_does_not_fit_is_a_shortage():
    """Embeddings that are kept are given up for it, not for more windows in one call."""
    model = Narrow(8, room=1)
    predictor = sliders(model)[0].predictor
    kept = [predictor.embedding(centre) for centre in range(3)]
    prompts = [WindowPrompt(box=BOX)] * 3
    assert len(predictor.predict_many(kept, prompts)) == 3
    assert model.too_many == [3] and len(predictor.cache) == 3
    model.room = 0
    with pytest.raises(OutOfMemoryError):
        predictor.predict_many(kept, prompts)
    assert model.too_many == [3, 1, 1] and len(predictor.cache) == 0


def test_another_error_of_several_windows_is_told_as_it_is(monkeypatch):
    model = Together(8)
    predictor = sliders(model)[0].predictor

    def fails(embeddings, prompts):
        model.calls.append(len(prompts))
        raise RuntimeError("the driver has gone")

    monkeypatch.setattr(model, "predict_many", fails)
    with pytest.raises(RuntimeError, match="driver"):
        predictor.predict_many([predictor.embedding(5)] * 2, [WindowPrompt(box=BOX)] * 2)
    assert model.calls == [2]


def test_windows_of_all_objects_are_encoded_once():
    model = Together(8)
    list(slide_together(sliders(model)))
    encoded = [centre for call in model.encoded for centre in call]
    assert sorted(encoded) == list(range(15))


def test_a_short_object_is_told_as_soon_as_it_is_finished():
    volume, _ = through_block((15, 30, 34))
    stack = Stack(volume, window=WINDOW)
    model = Together(8)
    long = Slider(stack, [SlicePrompt(7, box=BOX)], model)
    short = Slider(stack, [SlicePrompt(7, box=BOX)], model, 6, 8)
    events = list(slide_together([long, short]))
    assert events.index((1, None)) < events.index((0, None))
    after = [number for number, _ in events[events.index((1, None)) + 1 :]]
    assert set(after) == {0} and len(after) > 8


def test_cancelled_every_object_ends_where_it_is():
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 30

    together = sliders(Together(8), cancelled=cancelled)
    found = {number for number, finished in slide_together(together) if finished is not None}
    assert found
    assert any("cancelled" in map(str, slider.stops.values()) for slider in together)


def test_what_the_model_raises_comes_out(monkeypatch):
    model = Together(8)

    def fails(*_):
        raise ModelError("The model is broken.")

    together = sliders(model)
    events = slide_together(together)
    next(events)
    monkeypatch.setattr(model, "predict_many", fails)
    with pytest.raises(ModelError, match="broken"):
        list(events)


def test_none_at_all_is_nothing():
    assert list(slide_together([])) == []


def test_the_built_in_model_gives_the_same_masks():
    """Batches of other sizes round differently, by next to nothing."""
    model = load_model("builtin", "cpu")
    volume, _ = ball_volume((24, 60, 60), (12, 30, 30), (9, 14, 14))
    stack = Stack(volume)
    boxes = [(14, 14, 46, 46), (20, 20, 40, 40)]

    def made() -> list[Slider]:
        return [Slider(stack, [SlicePrompt(12, box=box)], model) for box in boxes]

    masks = [np.zeros(stack.shape, bool) for _ in boxes]
    for number, finished in slide_together(made()):
        if finished is not None:
            masks[number][finished.index] = finished.mask
    for mask, slider in zip(masks, made(), strict=True):
        alone = np.zeros(stack.shape, bool)
        for finished in slider.run():
            alone[finished.index] = finished.mask
        assert alone.any()
        assert 2 * (mask & alone).sum() > 0.999 * (mask.sum() + alone.sum())


def test_only_a_gpu_takes_several_objects():
    model = Together(8)
    assert objects_at_once(model) == 1
    model.device = "cuda:0"
    assert objects_at_once(model) == 4
    one_by_one = ThresholdModel()
    one_by_one.device = "cuda:0"
    assert objects_at_once(one_by_one) == 1
