"""What the built-in model makes of its network's answers, most of all to points alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib.builtin import requests
from SlideSAMLib.builtin.model import BuiltinModel
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.regions import paste_region
from SlideSAMLib.builtin.requests import Request
from SlideSAMLib.patches import Patch, dice
from SlideSAMLib.protocol import Window, WindowPrompt


@pytest.fixture(scope="module")
def model() -> BuiltinModel:
    torch.manual_seed(0)
    network = BuiltinNetwork(widths=(8, 16, 16, 32), depths=(0, 1, 1, 1), blocks=1, heads=4)
    for parameter in network.parameters():  # zero-initialised layers would hide mistakes
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return BuiltinModel(network, torch.device("cpu"), torch.float32)


def window() -> Window:
    slices = np.random.default_rng(1).uniform(0, 100, (3, 60, 80)).astype(np.float32)
    return Window(slices, (3.0, 1.0, 1.0), (0, 100), ("w",))


@pytest.mark.parametrize("sign", [1, -1])
def test_of_the_answers_to_a_point_the_best_rated_one_counts(model, monkeypatch, sign):
    """Whichever that is; with the sign turned round it is another one."""
    ratings, rated = requests.Answer.ratings, []

    def noted(answer):
        rated.append(answer)
        return sign * ratings(answer)

    monkeypatch.setattr(requests.Answer, "ratings", noted)
    (embedding,) = model.encode([window()])
    found = model.predict(embedding, WindowPrompt(points=((30.0, 20.0),), labels=(1,)))
    values = ratings(rated[-1])
    assert values.argmax() != values.argmin()
    best = rated[-1].quality[int((sign * values).argmax())]
    assert found.quality == pytest.approx(best.numpy())
    assert len({tuple(each) for each in rated[-1].quality.tolist()}) == len(values)


@torch.inference_mode()
def test_answers_that_stay_the_same_seen_closer_agree(model, monkeypatch):
    """By their Dice on the centre slice."""
    (embedding,) = model.encode([window()])
    request = Request(embedding, WindowPrompt(points=((30.0, 20.0),), labels=(1,)), False)
    answers, ask = [], model._ask
    monkeypatch.setattr(model, "_ask", lambda batch: answers.append(ask(batch)) or answers[-1])
    assert model._ask_sizes(request) is answers[1]

    def patches(answer):
        pasted = [
            paste_region(answer.logits[n, 0, 1], region, request.shape)
            for n, region in enumerate(answer.regions)
        ]
        return [Patch(corner, values.numpy()) for values, corner in pasted]

    first = [patch for patch in patches(answers[0]) if request.box_of(patch) is not None]
    expected = [dice(one, two) for one, two in zip(first, patches(answers[1]), strict=True)]
    assert answers[1].agreement.tolist() == pytest.approx(expected) and min(expected) > 0
    expected = [
        max(dice(one, two) for one in first[:n] + first[n + 1 :])
        for n, two in enumerate(patches(answers[1]))
    ]
    assert answers[1].seconded.tolist() == pytest.approx(expected) and min(expected) > 0


def test_what_several_sizes_of_region_show_is_believed_before_what_one_shows():
    """A lesion found on two of them, and all of the body, of which the largest is as sure."""
    size = requests.GRID
    places = [(60, 68), (56, 72), (32, 96)]  # of squares on the rasters of the regions
    logits = torch.full((3, 4, 3, size, size), -5.0)
    for n, (first, last) in enumerate(places):
        logits[n, :, :, first:last, first:last] = 5.0
    regions = [requests.Region(0.0, 0.0, side, side) for side in (128.0, 64.0, 256.0)]

    def best(seconded: list[float]) -> int:
        quality, presence = torch.tensor([[0.89], [0.88], [0.79]]), torch.ones(3, 3)
        agreement = torch.tensor([0.96, 0.96, 0.99])
        alike = (agreement, torch.tensor(seconded))
        return int(requests.Answer(regions, logits, quality, presence, *alike).ratings().argmax())

    assert best([0.97, 0.97, 0.02]) != 2
    assert best([0.0, 0.0, 0.0]) == 2


def test_the_rating_of_an_answer():
    """Of candidate 0 on the centre slice alone, whose size counts in voxels of the slice."""
    size = requests.GRID
    logits = torch.full((3, 4, 3, size, size), 5.0)
    logits[:, 0, 1] = -5.0
    logits[0, 0, 1, : size // 4], logits[1, 0, 1, :, : size // 2] = 5.0, 5.0
    regions = [
        requests.Region(3.0, 5.0, *sides) for sides in ((10.0, 40.0), (8.0, 4.0), (9.0, 9.0))
    ]
    quality = torch.tensor([[0.5, 0.9], [0.6, 0.1], [0.7, 0.1]])
    agreement, seconded = torch.tensor([0.25, 0.5, 0.0]), torch.tensor([0.5, 1.0, 0.0])
    answer = requests.Answer(regions, logits, quality, torch.ones(3, 3), agreement, seconded)
    expected = [0.875 + 0.03 * np.log(100), 1.35 + 0.03 * np.log(16), 0.7]
    assert answer.ratings().tolist() == pytest.approx(expected)


def test_the_first_candidate_is_the_fine_one(model, monkeypatch):
    (embedding,) = model.encode([window()])
    prompt = WindowPrompt(box=(20, 20, 50, 40))
    before, forward = model.predict(embedding, prompt), model._forward

    def finer(what, *tensors):
        logits, fine, *rest = forward(what, *tensors)
        return logits, fine + 1, *rest

    monkeypatch.setattr(model, "_forward", finer)
    after = model.predict(embedding, prompt)
    assert np.array_equal(after.logits[1], before.logits[1])
    assert after.logits[0].mean() == pytest.approx(before.logits[0].mean() + 1, abs=1e-3)


def test_after_the_first_point_every_further_one_costs_one_question(model, monkeypatch):
    """Its region and box are those of the first answer, the box not where a point denies it."""
    (embedding,) = model.encode([window()])
    points = ((5.0, 5.0), (60.0, 40.0))
    model.predict(embedding, WindowPrompt(points=points[:1], labels=(1,)))
    (box,) = embedding.first_boxes.values()
    asked, ask = [], model._ask
    monkeypatch.setattr(model, "_ask", lambda batch: asked.append(batch) or ask(batch))
    for labels in ((1, 1), (1, 0)):
        model.predict(embedding, WindowPrompt(points=points, labels=labels))
    assert [len(batch) for batch in asked] == [1, 1]
    boxes = [batch[0][0].box for batch in asked]
    assert boxes[0] is not None and boxes[1] is None
    assert box[2] < 60 and box[3] < 40  # grown to hold the second point
    assert boxes[0] == (*np.minimum(box[:2], points[1]), *np.maximum(box[2:], points[1]))
