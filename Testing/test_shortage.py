"""Too little memory on a GPU, in all the words that CUDA has for it, and what is said then."""

from __future__ import annotations

import pytest
import torch

from SlideSAMLib import models, sam_model
from SlideSAMLib.errors import ModelError
from SlideSAMLib.memory import out_of_memory
from SlideSAMLib.sam_model import load_sam
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
