"""What the built-in model remembers of a slice, and what it makes of that."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from SlideSAMLib.builtin.features import CHANNELS
from SlideSAMLib.builtin.model import BuiltinModel
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.regions import GRID
from SlideSAMLib.builtin.requests import BuiltinSettings
from SlideSAMLib.builtin.weights import FORMAT, read_network, with_reference, write_weights
from SlideSAMLib.files.safetensors_files import write_safetensors
from SlideSAMLib.protocol import WindowPrompt
from Testing.builtin_models import SMALL, small_network, window


@pytest.fixture(scope="module")
def network() -> BuiltinNetwork:
    return small_network()


@pytest.fixture(scope="module")
def model(network) -> BuiltinModel:
    return BuiltinModel(network, torch.device("cpu"), torch.float32)


def test_the_centre_slice_is_remembered(model):
    """What lies beside it is not looked at."""
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    one = window()
    slices = [one.slices.copy(), one.slices.copy()]
    slices[0][[0, 2]] = 50
    slices[1][1] = 50
    beside, centre = (replace(one, planes=each) for each in slices)
    known, same, other = (
        model.remember(embedding, mask) for embedding in model.encode([one, beside, centre])
    )
    for what in ("histograms", "slice"):
        assert torch.equal(getattr(known, what), getattr(same, what))
        assert not torch.equal(getattr(known, what), getattr(other, what))


def test_the_memory_of_nothing_is_none(model):
    (embedding,) = model.encode([window()])
    assert model.remember(embedding, np.zeros((60, 80), bool)) is None
    mask = np.zeros((60, 80), bool)
    mask[20:30, 20:30] = True
    memory = model.remember(embedding, mask)
    box = (20.0, 20.0, 29.0, 29.0)
    plain = model.predict(embedding, WindowPrompt(box=box))
    anchored = model.predict(embedding, WindowPrompt(box=box, memory=memory))
    assert not np.allclose(plain.logits, anchored.logits)


def test_the_remembered_slice_itself_is_seen_the_more_the_nearer_it_is(model, network):
    mask = np.zeros((60, 80), bool)
    mask[20:30, 20:30] = True
    (embedding,) = model.encode([window()])
    memory = model.remember(embedding, mask)
    seen = []
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, -3:]))
    for distance in (1, 9):
        box = (20.0, 20.0, 29.0, 29.0)
        model.predict(embedding, WindowPrompt(box=box, memory=memory, distance=distance))
        hidden = model.with_settings(BuiltinSettings(reference=False))
        (blind,) = hidden.encode([window()])
        hidden.predict(blind, WindowPrompt(box=box, memory=memory, distance=distance))
    hook.remove()
    near, none, far, _ = seen
    assert torch.equal(near[:2], far[:2]) and not none.any()
    assert (near[1] > 0).float().mean() == pytest.approx((10 / 24) ** 2, abs=0.02)
    assert near[2].min() > far[2].max() > 0


def test_networks_that_do_not_know_the_remembered_slice_can_learn_it(tmp_path):
    """Files of the format before; once widened they give the same answers."""
    old = BuiltinNetwork(**SMALL, reference=False)
    metadata = {k: v for k, v in old.config.items() if k != "reference"}
    values = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    note = {"format": FORMAT, "version": "1", "config": json.dumps(metadata)}
    write_safetensors(values, tmp_path / "old.safetensors", note)
    read = read_network(tmp_path / "old.safetensors")
    wider = with_reference(read)
    assert with_reference(wider) is wider
    inputs = torch.randn(2, CHANNELS, GRID, GRID)
    with torch.no_grad():
        for one, two in zip(read(inputs), wider(inputs), strict=True):
            assert torch.allclose(one, two, atol=1e-5)
    write_weights(wider.state_dict(), wider.config, tmp_path / "new.safetensors")
    assert read_network(tmp_path / "new.safetensors").config["reference"]


def test_a_memory_changes_the_answer_to_points_and_to_nothing_else(model):
    """Neither the box that is kept of a first point nor what is asked later without it."""
    one, two = model.encode([window()])[0], model.encode([window()])[0]
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:50] = True
    memory = model.remember(one, mask)
    first = WindowPrompt(points=((30.0, 25.0),), labels=(1,))
    both = WindowPrompt(points=((30.0, 25.0), (40.0, 30.0)), labels=(1, 1))
    remembering = [replace(prompt, memory=memory, distance=3) for prompt in (first, both)]
    fresh = [np.asarray(model.predict(two, prompt).logits) for prompt in (first, both)]
    alone = [np.asarray(model.predict(two, prompt).logits) for prompt in remembering]
    assert not one.first_boxes
    found = [np.asarray(model.predict(one, prompt).logits) for prompt in remembering]
    assert not one.first_boxes
    again = [np.asarray(model.predict(one, prompt).logits) for prompt in (first, both)]
    for a, b in zip(alone + fresh, found + again, strict=True):
        assert a.shape == b.shape and np.allclose(a, b, atol=1e-4)
    assert fresh[0].shape != alone[0].shape or not np.allclose(fresh[0], alone[0], atol=1e-2)


def test_a_mask_that_nobody_may_write_to_is_remembered_without_a_warning(model, recwarn):
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:50] = True
    mask.setflags(write=False)
    assert model.remember(model.encode([window()])[0], mask) is not None
    assert not recwarn.list
