"""The built-in model behind the sliding's protocol, with random weights."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from SlideSAMLib.api import segment
from SlideSAMLib.benchmark.phantom import column
from SlideSAMLib.builtin import model as builtin_model
from SlideSAMLib.builtin import requests
from SlideSAMLib.builtin.model import BuiltinModel, load_builtin
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.regions import GRID
from SlideSAMLib.builtin.requests import BuiltinSettings, Request
from SlideSAMLib.builtin.weights import FORMAT, read_network, write_weights
from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files.safetensors_files import write_safetensors
from SlideSAMLib.models import load_model
from SlideSAMLib.protocol import SliceModel, Window, WindowPrompt
from SlideSAMLib.stack import Stack
from Testing.builtin_models import small_network, window


@pytest.fixture(scope="module")
def network() -> BuiltinNetwork:
    return small_network()


@pytest.fixture(scope="module")
def model(network) -> BuiltinModel:
    return BuiltinModel(network, torch.device("cpu"), torch.float32)


def test_it_keeps_the_protocol(model):
    assert isinstance(model, SliceModel)
    (embedding,) = model.encode([window()])
    assert embedding.nbytes == 3 * 60 * 80 * 2
    answer = model.predict(embedding, WindowPrompt(box=(20, 20, 50, 40)))
    assert answer.logits.shape[:2] == (model.traits.candidates, 3)
    assert answer.quality.shape == (4,)
    assert answer.presence.shape == (3,)
    assert answer.full(0).shape == (3, 60, 80)
    assert (answer.quality >= 0).all() and (answer.quality <= 1).all()


def test_windows_side_by_side_share_what_was_made_of_a_slice(model):
    volume = np.random.default_rng(2).uniform(0, 100, (5, 20, 30)).astype(np.float32)
    stack = Stack(volume, window=(10, 90))
    one, two, last = (model.encode([stack.window(centre)])[0] for centre in (1, 2, 4))
    assert one.slices[1] is two.slices[0] and one.slices[2] is two.slices[1]
    assert last.slices[0] is two.slices[2] and last.slices[1] is last.slices[2]
    for place in range(3):
        expected = (np.clip(volume[1 + place], 10, 90) - 10) / 80
        assert np.allclose(two.slices[place].numpy(), expected, atol=1e-3)


def test_other_voxels_windows_and_models_share_nothing(model, network):
    volume = np.random.default_rng(2).uniform(0, 100, (3, 20, 30)).astype(np.float32)
    other = BuiltinModel(network, torch.device("cpu"), torch.float32)
    (own,) = model.encode([Stack(volume, key="a").window(1)])
    asked = [
        (model, Stack(volume, key="b")),
        (model, Stack(volume, key="a", window=(5, 50))),
        (model, Stack(volume)),
        (other, Stack(volume, key="a")),
    ]
    for asking, stack in asked:
        (found,) = asking.encode([stack.window(1)])
        assert not {id(one) for one in found.slices} & {id(one) for one in own.slices}


def test_slices_that_no_window_holds_are_forgotten(model):
    volume = np.random.default_rng(2).uniform(0, 100, (3, 20, 30)).astype(np.float32)
    (found,) = model.encode([Stack(volume).window(1)])
    held = weakref.ref(found.slices[1])
    assert held() is not None
    del found
    gc.collect()
    assert held() is None


def test_the_range_of_the_intensities_may_be_tiny(model):
    """Diffusion in square metres per second, for one."""
    first = window()
    tiny = Window(first.slices * np.float32(1e-12), first.spacing, (0, 1e-10), ("t",))
    one, two = model.encode([first, tiny])
    for a, b in zip(one.slices, two.slices, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_of_many_points_the_newest_of_each_sign_are_seen(model):
    (embedding,) = model.encode([window()])
    inside = [(float(x), 20.0) for x in range(20, 40)]
    outside = [(float(x), 50.0) for x in range(20, 32)]

    def seen(positive, negative):
        points = (*inside[:positive], *outside[:negative])
        labels = (1,) * positive + (0,) * negative
        return Request(embedding, WindowPrompt(points=points, labels=labels), False)._seen_points()

    for positive, negative, shown in ((20, 1, (15, 1)), (20, 12, (8, 8)), (3, 12, (3, 12))):
        found = seen(positive, negative)
        assert [label for _, label in found] == [1] * shown[0] + [0] * shown[1]
        assert found[shown[0] - 1][0] == inside[positive - 1]
        assert found[-1][0] == outside[negative - 1]
    assert [p for p, _ in seen(20, 0)] == inside[4:]


def test_both_directions_are_treated_alike(model):
    """What is known after the centre is the mirror image of what is known before it."""
    forward = window()
    backward = Window(forward.slices[::-1].copy(), forward.spacing, forward.intensity, ("b",))
    masks = np.zeros((3, 60, 80), np.float32)
    masks[0, 20:40, 20:50] = masks[1, 22:40, 20:50] = 1
    one, two = model.encode([forward, backward])
    box = (20.0, 22.0, 49.0, 39.0)
    there = model.predict(one, WindowPrompt(box=box, masks=masks, known=(True, True, False)))
    back = model.predict(
        two, WindowPrompt(box=box, masks=masks[::-1].copy(), known=(False, True, True))
    )
    assert np.allclose(there.logits, back.logits[:, ::-1], atol=1e-4)
    assert np.allclose(there.presence, back.presence[::-1], atol=1e-5)


def test_slices_are_not_mixed_up(model):
    """Shifting the image and the prompt shifts the answer: voxels land where they belong."""
    first = window(shape=(90, 90))
    slices = np.roll(first.slices, (7, 11), axis=(1, 2))
    one, two = model.encode([first, Window(slices, first.spacing, first.intensity, ("s",))])
    a = model.predict(one, WindowPrompt(box=(30, 30, 45, 45)))
    b = model.predict(two, WindowPrompt(box=(41, 37, 56, 52)))
    assert (b.corner[0] - a.corner[0], b.corner[1] - a.corner[1]) == (7, 11)
    assert np.allclose(a.logits, b.logits, atol=1e-3)


@pytest.mark.parametrize(
    "prompt",
    [
        WindowPrompt(points=((30.0, 20.0),), labels=(1,)),
        WindowPrompt(points=((30.0, 20.0), (70.0, 50.0)), labels=(1, 0)),
        WindowPrompt(box=(0, 0, 79, 59), points=((0.0, 0.0),), labels=(1,)),
        WindowPrompt(box=(79, 59, 79.4, 59.4)),
    ],
)
def test_every_kind_of_prompt_gives_an_answer(model, prompt):
    (embedding,) = model.encode([window()])
    answer = model.predict(embedding, prompt)
    assert np.isfinite(answer.logits).all()
    row, column = answer.corner
    assert row + answer.logits.shape[2] <= 60
    assert column + answer.logits.shape[3] <= 80


def test_a_mask_alone_is_a_prompt(model):
    masks = np.zeros((3, 60, 80), np.float32)
    masks[1, 10:30, 10:30] = 1
    (embedding,) = model.encode([window()])
    answer = model.predict(embedding, WindowPrompt(masks=masks, known=(False, True, False)))
    row, column = answer.corner
    assert row <= 10 and column <= 10


def test_several_windows_are_answered_like_each_alone(model, network):
    """Boxes, masks, memory and points, in any order; those that say where to look in one batch."""
    rng = np.random.default_rng(2)
    first, second = window(), window(shape=(70, 50), spacing=(3.0, 0.8, 1.2))
    masks = np.zeros((3, 60, 80), np.float32)
    masks[:2, 20:40, 20:50] = rng.uniform(0, 1, (2, 20, 30))
    box = (20.0, 20.0, 50.0, 40.0)
    one, two = model.encode([first, second])
    memory = model.remember(one, masks[0] > 0.5)
    asked = [
        (one, WindowPrompt(box=box, masks=masks, known=(True, True, False), memory=memory)),
        (two, WindowPrompt(points=((20.0, 30.0), (40.0, 50.0)), labels=(1, 0))),
        (one, WindowPrompt(box, masks=masks[::-1].copy(), known=(False, True, True))),
        (two, WindowPrompt(box=(3.0, 5.0, 30.0, 60.0), points=((9.0, 9.0),), labels=(0,))),
        (two, WindowPrompt(points=((25.0, 35.0),), labels=(1,))),
    ]
    alone = [model.predict(*each) for each in asked]
    sizes = []
    hook = network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = model.predict_many(*zip(*asked, strict=True))
    hook.remove()
    assert sizes[0] == 3
    assert model.prompts_at_once() > 1 and model.predict_many([], []) == []
    for found, expected in zip(together, alone, strict=True):
        assert found.corner == expected.corner and found.shape == expected.shape
        assert np.allclose(found.logits, expected.logits, atol=1e-3)
        assert np.allclose(found.quality, expected.quality, atol=1e-4)
        assert np.allclose(found.presence, expected.presence, atol=1e-4)


def test_weights_survive_a_file(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    write_weights(network.state_dict(), network.config, path)
    again = read_network(path)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    assert load_builtin(path, "cpu", "float32").precision == "float32"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_do_not_fit_are_named(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    values = network.state_dict()
    values["stem.weight"] = values["stem.weight"][:, :5]
    write_weights(values, network.config, path)
    with pytest.raises(ModelError, match=r"stem\.weight"):
        read_network(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match="cannot be read"):
        read_network(path)
    with pytest.raises(InputError):
        load_builtin(path, device="gpu")


@pytest.mark.parametrize(
    "sizes",
    ['{"foo": 1}', "[1]", '{"widths": [8, 16]}', '{"widths": "ab"}', "[" * 100_000],
)
def test_files_of_impossible_networks_are_refused(tmp_path, sizes):
    path = tmp_path / "foreign.safetensors"
    metadata = {"format": FORMAT, "version": "2", "config": sizes}
    write_safetensors({"x": torch.zeros(1)}, path, metadata)
    with pytest.raises(ModelError, match="cannot be read"):
        read_network(path)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_hardly_changes_the_masks(precision):
    made = column((9, 64, 64), 5)
    masks = [
        segment(made.volume, made.prompt(), model=load_model("builtin", "cpu", name)).mask
        for name in ("float32", precision)
    ]
    both, sizes = np.count_nonzero(masks[0] & masks[1]), [mask.sum() for mask in masks]
    assert sizes[0] > 100 and 2 * both > 0.995 * sum(sizes)


def test_weights_are_converted_once_and_the_answer_is_that_of_autocast(network):
    """Nothing else may change, and the network that was given stays as it is."""
    half = BuiltinModel(network, torch.device("cpu"), torch.bfloat16)
    assert half._network.stem.weight.dtype == torch.bfloat16
    assert half._network.stages[1][0].norm1.weight.dtype == torch.float32
    assert half.with_settings(BuiltinSettings(factor=2.0))._network is half._network
    inputs = torch.rand(2, 24, GRID, GRID, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, found = network(inputs), half._network(inputs)
    assert network.stem.weight.dtype == torch.float32
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_precision_that_auto_means(network, tmp_path, monkeypatch):
    """On CUDA float16, which loses less than bfloat16, but where a card cannot compute in it."""
    path = tmp_path / "w.safetensors"
    write_weights(network.state_dict(), network.config, path)
    monkeypatch.setattr(builtin_model, "choose_device", torch.device)
    monkeypatch.setattr(builtin_model, "BuiltinModel", lambda network, where, dtype, traits: dtype)
    for suits in (torch.bfloat16, torch.float16, torch.float32):
        monkeypatch.setattr(builtin_model, "choose_precision", lambda name, where, s=suits: s)
        assert load_builtin(path, "cpu") == suits
        on_cuda = torch.float32 if suits == torch.float32 else torch.float16
        assert load_builtin(path, "cuda") == on_cuda


def test_settings_change_what_the_network_sees(model):
    wide = model.with_settings(BuiltinSettings(factor=3.2))
    whole = model.with_settings(BuiltinSettings(factor=float("inf")))
    box = WindowPrompt(box=(30, 20, 45, 35))
    sides = []
    for each in (model, wide, whole):
        (embedding,) = each.encode([window(spacing=(3.0, 1.0, 1.0))])
        sides.append(each.predict(embedding, box).logits.shape[-2:])
    assert sides[0][1] == pytest.approx(1.6 * 16, abs=1)
    assert sides[1][1] == pytest.approx(3.2 * 16, abs=1)
    assert sides[2][0] == 60  # every row; the region is centred on the box


def test_the_share_of_the_memory_is_a_setting(model):
    mask = np.zeros((60, 80), bool)
    mask[20:35, 30:45] = True
    answers = []
    for share in (0.0, 0.2, 1.0):
        each = model.with_settings(BuiltinSettings(memory_share=share))
        (embedding,) = each.encode([window()])
        memory = each.remember(embedding, mask)
        other = replace(memory, histograms=memory.histograms.flip(-1))  # another look
        prompts = [WindowPrompt(box=(30, 20, 45, 35), memory=m) for m in (memory, other)]
        found = each.predict_many([embedding] * 2, prompts)
        answers.append(found[1].logits)
        assert (share == 0) == np.array_equal(found[0].logits, found[1].logits)
    assert not np.array_equal(answers[1], answers[2])


@pytest.mark.parametrize("wrong", [{"factor": 0.5}, {"factor": float("nan")}, {"memory_share": 2}])
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        BuiltinSettings(**wrong)


def test_candidates_are_put_on_the_slice_when_they_are_asked_for(model, monkeypatch):
    made, paste = [], requests.paste_region
    monkeypatch.setattr(requests, "paste_region", lambda *args: made.append(args) or paste(*args))
    (embedding,) = model.encode([window()])
    for known in ((True, True, False), (False, True, True)):  # one of them is turned around
        masks = np.zeros((3, 60, 80), np.float32)
        masks[list(known), 20:40, 20:50] = 1
        answer = model.predict(embedding, WindowPrompt(masks=masks, known=known))
        assert answer.logits[0, 1].shape == answer.logits.shape[2:]
        assert len(made) == 1
        assert np.array_equal(answer.logits[-1], np.asarray(answer.logits)[3])
        assert len(made) == 4  # each once
        assert np.array_equal(answer.logits[1:, :, 3], np.asarray(answer.logits)[1:, :, 3])
        assert not np.allclose(answer.logits[0], answer.logits[2])
        with pytest.raises(IndexError):
            answer.logits[4]
        made.clear()


def test_candidates_that_a_full_gpu_has_no_room_for_are_made_on_the_host(model, monkeypatch):
    (embedding,) = model.encode([window()])
    prompt = WindowPrompt(box=(20, 15, 50, 40))
    expected = np.asarray(model.predict(embedding, prompt).logits)
    answer, paste, full = model.predict(embedding, prompt), requests.paste_region, []

    def without_room(*args):
        if not full:
            full.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return paste(*args)

    monkeypatch.setattr(requests, "paste_region", without_room)
    assert np.array_equal(answer.logits[2], expected[2]) and full
    monkeypatch.setattr(requests, "paste_region", lambda *args: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        answer.logits[3]  # any other error is told


def test_what_lies_where_nothing_is_known_does_not_matter(model):
    (embedding,) = model.encode([window()])
    masks = np.zeros((3, 60, 80), np.float32)
    masks[:2, 20:40, 20:50] = 1
    plain, other = (
        model.predict(embedding, WindowPrompt(masks=each, known=(True, True, False)))
        for each in (masks, np.concatenate([masks[:2], 1 - masks[2:]]))
    )
    assert np.array_equal(plain.logits, other.logits)


def test_float32_needs_no_autocast(model, monkeypatch):
    """Older PyTorch knows none on Apple GPUs, not even one that is switched off."""

    def unknown(*_, **__):
        raise RuntimeError("User specified an unsupported autocast device_type 'mps'")

    (embedding,) = model.encode([window()])
    monkeypatch.setattr(torch, "autocast", unknown)
    assert model.precision == "float32"
    assert model.predict(embedding, WindowPrompt(box=(20, 15, 50, 40))).logits.shape[0] == 4
