"""Our reader of safetensors files against the package that writes them, and damaged files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from SlideSAMLib.files.safetensors_files import read_safetensors, save, write_safetensors

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")


def tensors() -> dict[str, torch.Tensor]:
    made = {name: torch.arange(24).reshape(2, 3, 4).to(getattr(torch, name)) for name in DTYPES}
    made["bool"] = torch.tensor([True, False, True])
    made["scalar"] = torch.tensor(7.5)
    made["empty"] = torch.empty(0, 5)
    return made


def test_reads_what_the_package_writes(tmp_path):
    path = tmp_path / "all.safetensors"
    save_file(tensors(), path, metadata={"format": "test", "note": "ä"})
    found, metadata = read_safetensors(path)
    assert metadata == {"format": "test", "note": "ä"}
    assert set(found) == set(tensors())
    for name, expected in tensors().items():
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("name", [*DTYPES, "bool", "scalar", "empty"])
def test_the_package_reads_what_is_written(tmp_path, name):
    path, note = tmp_path / "one.safetensors", {"format": "test", "note": "ä", "more": "\\"}
    tensor = tensors()[name]
    both = {"a": tensor.clone(), "ä": tensor}
    save(both, path, note)
    found = load_file(path)
    assert set(found) == set(both)
    assert all(torch.equal(found[key], value) for key, value in both.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == note


def test_equal_tensors_and_notes_make_equal_files(tmp_path):
    """Adapters know their base by its hash, also where it is converted or trained once more."""
    note = {f"note {n}": str(n) for n in range(8)}
    written = set()
    for number, order in enumerate((1, -1, 1, 1)):
        path = tmp_path / f"{number}.safetensors"
        write_safetensors({"a": torch.ones(3, 2)}, path, dict(list(note.items())[::order]))
        written.add(path.read_bytes())
    assert len(written) == 1


def test_changing_a_tensor_leaves_the_file_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(5)}, path)
    before = path.read_bytes()
    found, metadata = read_safetensors(path)
    found["a"] += 1
    assert metadata == {} and path.read_bytes() == before


def file_of(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: object, offsets: object, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        (2**62).to_bytes(8, "little") + b"{}",
        file_of(b"{broken", b""),
        file_of([1, 2], b""),
        file_of({"a": entry([2], [0, 8])}, b"1234"),  # cut off
        file_of({"a": entry([2], [0, 8])}, bytes(12)),  # too long
        file_of({"a": entry([2], [4, 12])}, bytes(12)),  # a gap
        file_of({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),  # overlap
        file_of({"a": entry([3], [0, 8])}, bytes(8)),  # another size than its shape
        file_of({"a": entry([-2], [0, -8])}, b""),
        file_of({"a": entry([2.0], [0, 8])}, bytes(8)),
        file_of({"a": entry([2], [0, 8], "COMPLEX")}, bytes(8)),
        file_of({"a": "nonsense"}, b""),
        file_of({"__metadata__": 3}, b""),
        file_of({"a": entry(None, [0, 4])}, bytes(4)),
        file_of({"a": entry("", [0, 4])}, bytes(4)),
        file_of({"a": entry([0, 2**70], [0, 0])}, b""),
        file_of({"a": entry([2**40, 2**40, 0], [0, 0])}, b""),
        file_of(b'{"a":' + b"[" * 200_000, b""),
    ],
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_safetensors(path)


def test_the_builtin_model_needs_torch_and_what_slicer_brings_only():
    """The packages of the command line are hidden, as they are missing in Slicer."""
    code = """
import sys
for name in ("safetensors", "segment_anything", "torchvision", "tqdm", "monai", "matplotlib"):
    sys.modules[name] = None
import numpy as np
import SlideSAMLib
volume = np.zeros((9, 40, 40), np.int16)
volume[2:7, 10:30, 12:28] = 400
prompt = SlideSAMLib.SlicePrompt(index=4, box=(11, 9, 28, 30))
result = SlideSAMLib.segment(volume, [prompt], model=SlideSAMLib.load_model("builtin", "cpu"))
assert result.mask.sum() > 100
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
