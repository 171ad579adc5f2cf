"""What goes to a GPU and comes back while a slide moves on, and who waits for it.

Tensors of the device "meta", which has no values, stand for those of a GPU.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from SlideSAMLib.api import segment
from SlideSAMLib.benchmark import phantom, subjects
from SlideSAMLib.builtin import features, regions, requests
from SlideSAMLib.builtin import model as builtin_model
from SlideSAMLib.builtin.features import Batch
from SlideSAMLib.builtin.model import BuiltinModel
from SlideSAMLib.builtin.requests import Request
from SlideSAMLib.compute import devices
from SlideSAMLib.compute.own_settings import own_settings
from SlideSAMLib.patches import KnownMasks, Patch
from SlideSAMLib.protocol import WindowPrompt
from SlideSAMLib.sam import candidates, encoding, prompts
from SlideSAMLib.sam import model as sam_model
from SlideSAMLib.stack import Stack
from Testing.builtin_models import small_network
from Testing.reference import MINI

META, CPU = torch.device("meta"), torch.device("cpu")


class Waited(TorchDispatchMode):
    """Counts the copies between host and device that PyTorch is asked for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function._schema.name in ("aten::to", "aten::_to_copy", "aten::copy_"):
            source = args[1] if function._schema.name == "aten::copy_" else args[0]
            self.count += source.device != found.device
        return found


@pytest.fixture
def sent(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of what is sent by `on_device`, for which the host does not wait."""
    shapes = []

    def send(values, device):
        shapes.append(values.shape)
        return torch.empty(values.shape, dtype=torch.float32, device=device)

    for module in (features, regions):
        monkeypatch.setattr(module, "on_device", send)
    return shapes


def _prompt(memory, shift: int) -> WindowPrompt:
    """As a slide asks: two masks, and a slice that is remembered."""
    logits = np.where(np.hypot(*np.indices((60, 60)) - 29.5) < 22, 6, -6).astype(np.float32)
    known = KnownMasks({0: Patch((20, 30), logits), 1: Patch((20, 30 + shift), logits)}, (96, 128))
    box = (38.0 + shift, 28.0, 81.0 + shift, 71.0)
    return WindowPrompt(box=box, masks=known, known=(True, True, False), memory=memory, distance=2)


def test_a_gpu_is_not_waited_for_before_its_answer(sent):
    regions.resampling_matrix.cache_clear()
    model = BuiltinModel(small_network(), META, torch.float32)
    volume = np.random.default_rng(0).normal(size=(9, 96, 128)).astype(np.float32)
    windows = model.encode(Stack(volume).windows([3, 5]))
    memory = model.remember(windows[0], volume[3] > 0)
    del sent[:]
    with Waited() as waited, own_settings():
        asked = [Request(each, _prompt(memory, n), False) for n, each in enumerate(windows)]
        answer = model._ask([(request, request.region()) for request in asked])
        for place, request in enumerate(asked):
            assert all(part.is_meta for part in request.on_slice(answer, place)[1:])
    regions.resampling_matrix.cache_clear()  # those without values
    assert waited.count == 0
    assert sum(len(shape) == 1 for shape in sent) == 1  # the few numbers of both windows
    assert sum(len(shape) == 3 for shape in sent) == 2  # the masks of each, as far as they are seen


def test_nor_for_what_sam_encodes_and_decodes(monkeypatch):
    shapes = []

    def send(values, device):
        sent = values if isinstance(values, np.ndarray) else np.stack(values)
        shapes.append(sent.shape)
        return torch.empty(sent.shape, dtype=torch.float32, device=device)

    for module in (encoding, prompts):
        monkeypatch.setattr(module, "on_device", send)
    model = subjects.as_model(subjects.random_network(MINI), "mini", META, torch.float32)
    volume = np.random.default_rng(0).normal(size=(9, 96, 128)).astype(np.float32)
    asked = [_prompt(None, 0), _prompt(None, 1)]
    with Waited() as waited, own_settings():
        embeddings = model.encode(Stack(volume).windows([3, 5]))
        answer = model._decode(embeddings, asked, prompts.kind_of(asked[0], (96, 128)))
    assert all(part.is_meta for part in answer)
    assert waited.count == 0
    # Each window, then the masks of both prompts, and their few numbers.
    assert shapes == [(1, 3, 96, 128)] * 2 + [(4, 96, 128), (14,)]


def test_the_numbers_of_a_batch_arrive_where_they_belong(monkeypatch):
    batch = Batch.empty(3)
    for number, tensor in enumerate(batch.tensors()):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + 1000 * number)
    calls = []

    def send(values, device):
        calls.append(device)
        return torch.from_numpy(values.copy())

    monkeypatch.setattr(features, "on_device", send)
    gpu = SimpleNamespace(type="a GPU")
    for found, own in zip(batch.to(gpu).tensors(), batch.tensors(), strict=True):
        assert torch.equal(found, own) and found.data_ptr() != own.data_ptr()
    assert calls == [gpu]
    here = batch.to(CPU).tensors()
    assert all(found is own for found, own in zip(here, batch.tensors(), strict=True))


def test_what_goes_to_a_gpu_is_pinned_and_not_waited_for(monkeypatch):
    empty, asked = torch.empty, []

    def pinned(*shape, pin_memory=False, **kinds):
        asked.append(("pinned", pin_memory))
        return empty(*shape, **kinds)

    def to(tensor, device, non_blocking=False):
        asked.append((device, non_blocking))
        return tensor

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    found = devices.on_device(values, torch.device("cuda", 0))
    assert found.dtype == torch.float32 and np.array_equal(found.numpy(), values)
    assert asked == [("pinned", True), (torch.device("cuda", 0), True)]


def _small(kind: str):
    if kind == "builtin":
        return BuiltinModel(small_network(), CPU, torch.float32)
    return subjects.as_model(subjects.random_network(MINI), "mini", CPU, torch.float32)


@pytest.fixture
def waits(monkeypatch) -> list[int]:
    """How many tensors `on_host` has waited for, each time."""
    found = []

    def fetch(*tensors):
        found.append(len(tensors))
        return devices.on_host(*tensors)

    for module in (builtin_model, requests, sam_model, candidates):
        monkeypatch.setattr(module, "on_host", fetch)
    return found


def test_the_sizes_of_a_first_point_are_waited_for_together(waits, monkeypatch):
    fetched, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: fetched.append(1) or cpu(tensor))
    model = _small("builtin")
    (embedding,) = model.encode(Stack(phantom.column((3, 96, 128), 3).volume).windows([1]))
    model.predict(embedding, WindowPrompt(points=((64.0, 48.0),), labels=(1,)))
    sizes = len(requests.POINT_SIDES)
    # All sizes, each as seen closer where it found something, the best one's box, the answer.
    assert waits[0] == sizes and 0 < waits[1] <= sizes and waits[2:] == [1, 3]
    assert len(fetched) == sum(waits)


@pytest.mark.parametrize("kind", ["builtin", "sam"])
@pytest.mark.parametrize("together", [1, 8])
def test_a_slide_waits_for_masks_once_a_call(kind, together, waits, monkeypatch):
    """However many windows of both directions it predicts."""
    calls = []
    made, model = phantom.column((16, 48, 48), 9), _small(kind)
    asked = model.predict_many
    monkeypatch.setattr(model, "prompts_at_once", lambda: together)
    monkeypatch.setattr(
        model, "predict_many", lambda *parts: calls.append(len(parts[1])) or asked(*parts)
    )
    result = segment(made.volume, made.prompt(), model=phantom.LedModel(model, made))
    assert sum(count > 0 for count in result.voxels.values()) == 9
    assert calls == ([1] * 9 if together == 1 else [1, 2, 2, 2, 2])
    assert len(waits) == len(calls)
