"""Too little memory, on a GPU or in the computer, in all its words, and what is said then."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib import models
from SlideSAMLib.compute.memory import host_shortage, out_of_memory
from SlideSAMLib.errors import ModelError
from SlideSAMLib.sam import model as sam_model
from SlideSAMLib.sam.model import load_sam
from Testing.cli_tools import BOX, assert_refused, noisy_ball, run_command, write_image
from Testing.fakes import ThresholdModel
from Testing.reference import named_weights, tensor_shapes

SHORTAGES = {
    "PyTorch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "without words": torch.OutOfMemoryError(),
    "CUDA": getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),
    "driver": RuntimeError("cuModuleLoadData: CUDA_ERROR_OUT_OF_MEMORY"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "Apple": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
}
OTHERS = [
    None,
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),  # no error of a device
]


@pytest.fixture(params=SHORTAGES)
def shortage(request) -> RuntimeError:
    return SHORTAGES[request.param]


def test_shortages_are_told_from_other_errors(shortage) -> None:
    assert out_of_memory(shortage)
    try:
        raise ModelError("The memory is too small.") from shortage
    except ModelError as error:
        assert out_of_memory(error)
    for other in OTHERS:
        assert not out_of_memory(other)


@pytest.mark.parametrize("where", ["fill_network", "SamModel"])
def test_a_model_that_does_not_fit_is_one_sentence(tmp_path, monkeypatch, shortage, where) -> None:
    torch.save(named_weights(tensor_shapes("mini")), tmp_path / "mini.pth")

    def fails(*_: object) -> None:
        raise shortage

    monkeypatch.setattr(sam_model, where, fails)
    with pytest.raises(ModelError, match=r"too small for 'mini\.pth'"):
        load_sam(tmp_path / "mini.pth", "cpu", "float32")
    other = RuntimeError("the driver has gone")
    monkeypatch.setattr(sam_model, where, lambda *_: (_ for _ in ()).throw(other))
    with pytest.raises(RuntimeError, match="the driver has gone"):
        load_sam(tmp_path / "mini.pth", "cpu", "float32")


@pytest.fixture
def failing(tmp_path, monkeypatch, capsys):
    """Segment with a model that does something else when it is asked, where there is a result."""

    def segment(instead):
        class Failing(ThresholdModel):
            def predict(self, embedding, prompt):
                instead()

        monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
        models.register_model("failing", lambda device, precision: Failing())
        image = write_image(tmp_path / "image.nii.gz", noisy_ball()[0])
        output = tmp_path / "out.nii.gz"
        output.write_text("old")
        try:
            return run_command(capsys, "segment", image, output, *BOX, "--model", "failing")
        finally:
            assert output.read_text() == "old"
            assert {path.name for path in tmp_path.iterdir()} == {image.name, output.name}

    return segment


def raising(error):
    def fails():
        raise error

    return fails


HOST_SHORTAGES = {  # what asks for too much, and what is told of it
    "NumPy": (lambda: np.empty((2**20, 2**20, 8)), "shape (1048576, 1048576, 8)"),
    "PyTorch": (lambda: torch.empty(2**50, dtype=torch.uint8), "allocate 1125899906842624 bytes"),
    "PyTorch on Windows": (
        raising(
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
        ),
        "you tried to allocate 9 bytes",
    ),
    "oneDNN": (raising(RuntimeError("could not create a primitive")), ""),
    "C++": (raising(RuntimeError("std::bad_alloc")), ""),
    "Python": (raising(MemoryError()), ""),
}


@pytest.mark.parametrize("kind", HOST_SHORTAGES)
def test_a_computer_with_too_little_memory_is_one_sentence(failing, kind) -> None:
    instead, told = HOST_SHORTAGES[kind]
    outcome = failing(instead)
    assert_refused(outcome, "The memory of this computer is too small", "smaller image", told)
    assert "()" not in outcome.err and "GPU" not in outcome.err


@pytest.mark.parametrize(
    "text",
    [
        "could not create a primitive descriptor for a convolution forward propagation primitive",
        "could not execute a primitive",
        "[enforce fail at alloc_cpu.cpp:127] alignment is wrong",
    ],
)
def test_other_errors_are_no_shortage(failing, text) -> None:
    assert host_shortage(ValueError("std::bad_alloc")) is None  # no error of a library
    with pytest.raises(RuntimeError, match=text.split("]")[-1]):
        failing(raising(RuntimeError(text)))


def test_the_command_line_says_so_in_one_sentence(tmp_path, monkeypatch, capsys, shortage) -> None:
    class Hungry(ThresholdModel):
        """Any model: this one says nothing of its own."""

        def predict(self, embedding, prompt):
            raise shortage

    monkeypatch.setattr(models, "_LOADERS", dict(models._LOADERS))
    models.register_model("hungry", lambda device, precision: Hungry())
    image = write_image(tmp_path / "image.nii.gz", noisy_ball()[0])
    outcome = run_command(
        capsys, "segment", image, tmp_path / "out.nii.gz", *BOX, "--model", "hungry"
    )
    assert_refused(outcome, "memory of the GPU is too small", "the device cpu")
    assert not (tmp_path / "out.nii.gz").exists()
