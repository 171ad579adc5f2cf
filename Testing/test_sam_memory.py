"""How many windows a SAM network encodes at once, and what it does where memory is short."""

import pytest
import torch

from SlideSAMLib.errors import ModelError
from SlideSAMLib.sam.model import SamModel, load_sam
from Testing.reference import sam_window, values


@pytest.fixture
def model(mini_file):
    return load_sam(mini_file, "cpu", "float32")


@pytest.fixture(scope="module")
def reference():
    return values("mini_model")


def _with_memory_for(
    model: SamModel, monkeypatch, windows: int, error: Exception | None = None
) -> None:
    encode = model._encoder._encode

    def limited(images):
        if len(images) > windows:
            raise error or torch.cuda.OutOfMemoryError("out of memory")
        return encode(images)

    monkeypatch.setattr(model._encoder, "_encode", limited)


def _counting(model: SamModel, monkeypatch) -> list[int]:
    """The sizes of the batches that the network gets from now on."""
    encode, sizes = model._encoder._encode, []

    def counted(images):
        sizes.append(len(images))
        return encode(images)

    monkeypatch.setattr(model._encoder, "_encode", counted)
    return sizes


def test_a_cpu_encodes_one_window_at_a_time(model, reference, monkeypatch):
    sizes = _counting(model, monkeypatch)
    model.encode([sam_window(reference["window"], i) for i in range(3)])
    assert sizes == [1, 1, 1]
    assert model.windows_at_once() == 1 and not model.encodes_in_background


def test_too_little_memory_halves_the_batch_for_good(model, reference, monkeypatch):
    windows = [sam_window(reference["window"], i) for i in range(11)]
    expected = model.encode(windows)
    monkeypatch.setattr(model._encoder, "_most", 8)  # as on a GPU
    _with_memory_for(model, monkeypatch, 3)
    sizes = _counting(model, monkeypatch)
    for found, wanted in zip(model.encode(windows), expected, strict=True):
        assert torch.allclose(found.tensor, wanted.tensor, atol=2e-3)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    sizes.clear()
    model.encode(windows[:3])
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    ("free", "idle", "expected"), [(0, 0, 1), (0.9, 0, 1), (5, 0, 2), (4, 3, 3), (100, 0, 8)]
)
def test_the_batch_follows_the_free_memory(model, monkeypatch, free, idle, expected):
    """`free` and `idle` (kept by PyTorch, but unused) in windows."""
    window = model._encoder._window_bytes()
    monkeypatch.setattr(model._encoder, "_device", torch.device("cuda", 0))
    monkeypatch.setattr(model._encoder, "_most", 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * window), 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: int((idle + 1) * window))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: window)
    assert model.windows_at_once() == expected


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ],
)
def test_too_little_memory_is_one_sentence(model, reference, monkeypatch, error):
    _with_memory_for(model, monkeypatch, 0, error)
    with pytest.raises(ModelError, match="too small"):
        model.encode([sam_window(reference["window"])])


def test_another_error_while_encoding_is_told_as_it_is(model, reference, monkeypatch):
    _with_memory_for(model, monkeypatch, 0, RuntimeError("the driver has gone"))
    with pytest.raises(RuntimeError, match="the driver has gone"):
        model.encode([sam_window(reference["window"])])


def test_slices_of_several_sizes_are_several_batches(model, reference, monkeypatch):
    windows = [sam_window(reference["window"][:, :n], i) for i, n in enumerate((96, 96, 40, 96))]
    expected = model.encode(windows)
    monkeypatch.setattr(model._encoder, "_most", 8)  # as on a GPU
    sizes = _counting(model, monkeypatch)
    for found, wanted in zip(model.encode(windows), expected, strict=True):
        assert found.shape == wanted.shape
        assert torch.allclose(found.tensor, wanted.tensor, atol=2e-3)
    assert sizes == [2, 1, 1]
