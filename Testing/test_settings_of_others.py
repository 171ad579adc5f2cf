"""What other code of the same process has set for all of it changes no answer of a model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.weights import write_weights
from SlideSAMLib.models import load_model
from SlideSAMLib.protocol import SliceModel, Window, WindowPrompt
from Testing.builtin_models import SMALL

PRECISIONS = ("float32", "bfloat16")
BOX = WindowPrompt(box=(20, 30, 70, 60))
POINTS = WindowPrompt(points=((40, 40), (60, 50), (5, 5)), labels=(1, 1, 0))


@contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SETTINGS: dict[str, Callable[[], AbstractContextManager]] = {
    "default dtype": default_dtype,
    "default device": default_device,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "NumPy's errors": lambda: np.errstate(all="raise"),
    "warnings": warnings_are_errors,
}


@dataclass(frozen=True)
class Subject:
    """A model that was loaded while nothing was set, and what it answered then."""

    file: Path
    precision: str
    model: SliceModel
    expected: list[np.ndarray]


@pytest.fixture(
    scope="module",
    params=[(name, precision) for name in ("builtin", "sam") for precision in PRECISIONS],
    ids="-".join,
)
def subject(request, mini_file, small_file) -> Subject:
    name, precision = request.param
    file = small_file if name == "builtin" else mini_file
    model = load_model(file, "cpu", precision)
    return Subject(file, precision, model, answers(model))


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of the built-in kind."""
    torch.manual_seed(0)
    network = BuiltinNetwork(**SMALL)
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    write_weights(network.state_dict(), network.config, path)
    return path


def forget_what_is_kept() -> None:
    """Tables that were made before other settings would hide what these do to them."""
    for name, module in list(sys.modules.items()):
        if name.startswith("SlideSAMLib."):
            for value in vars(module).values():
                getattr(value, "cache_clear", lambda: None)()


def answers(model: SliceModel) -> list[np.ndarray]:
    """Everything that a slide may ask of a model."""
    forget_what_is_kept()
    rng = np.random.default_rng(3)
    slices = rng.uniform(0, 100, (3, 90, 100)).astype(np.float32)
    slices[:, 30:60, 20:70] += 100
    (embedding,) = model.encode([Window(slices, (3.0, 1.0, 1.0), (0, 200), ("w",))])
    mask = np.zeros(slices.shape, np.float32)
    mask[:2, 32:58, 22:66] = 1
    memory = model.remember(embedding, mask[1] > 0)
    known = WindowPrompt(masks=mask, known=(True, True, False), memory=memory, distance=2)
    found = []
    for prompt in (BOX, POINTS, WindowPrompt(points=((40, 40),), labels=(1,)), known):
        answer = model.predict(embedding, prompt)
        found += [answer.quality, np.asarray(answer.logits)]
        found += [] if answer.presence is None else [answer.presence]
        found += [] if answer.extents is None else [np.asarray(answer.extents)]
    return found


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_answers_of_a_model_are_the_same(subject, setting) -> None:
    with SETTINGS[setting]():
        loaded = answers(load_model(subject.file, "cpu", subject.precision))
        earlier = answers(subject.model)
    for before, own, later in zip(subject.expected, loaded, earlier, strict=True):
        assert before.dtype == own.dtype == later.dtype
        assert np.array_equal(before, own) and np.array_equal(before, later)


def test_what_others_have_set_is_there_afterwards(subject) -> None:
    """Their random numbers, too."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with default_dtype(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        answers(load_model(subject.file, "cpu", subject.precision))
        assert torch.get_default_dtype() == torch.float64
        assert torch.empty(0).device.type == "meta"
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        one = torch.ones(2, 2, device="cpu", dtype=torch.float32)
        assert (one @ one).dtype == torch.bfloat16
    assert torch.equal(torch.get_rng_state(), state)
