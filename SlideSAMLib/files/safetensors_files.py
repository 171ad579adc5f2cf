"""Reading safetensors files with torch alone, and writing them with the safetensors package.

Slicer does not bring the package, and the built-in model has to run there with torch and nothing
else. What the package writes is another file each time, for its notes come in any order, but models
are told apart by the hash of their file: so the notes are sorted afterwards.

Format, https://github.com/huggingface/safetensors: eight bytes with the length of the header
(little endian), the header as JSON (name -> dtype, shape, first and last byte), the tensors.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .whole_files import make_ordinary, replacing

_LONGEST_HEADER = 100_000_000  # bytes, as in the package
_LARGEST = 2**63 - 1  # what torch can count
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file in its order, mapped from disk, and its metadata.

    The tensors may be changed; the file stays as it is.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no safetensors file, or a damaged or incomplete one.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError("the file is too short")
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LONGEST_HEADER, size - 8):
            raise ValueError("the header is longer than the file")
        header = _header(file.read(length))
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("the metadata are no table")
    start, end = 8 + length, size
    _check_spans(header, end - start)
    tensors = {name: _tensor(content, start, entry) for name, entry in header.items()}
    return tensors, {str(k): str(v) for k, v in metadata.items()}


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no table")
    return header


def _check_spans(header: dict[str, Any], size: int) -> None:
    """Make sure that the tensors follow each other without gap or overlap, to the last byte."""
    reached = 0
    for first, last in sorted(_span(entry) for entry in header.values()):
        if first != reached or last < first:
            raise ValueError("the tensors overlap or leave gaps")
        reached = last
    if reached != size:
        raise ValueError("the file does not end with its last tensor")


def _span(entry: Any) -> tuple[int, int]:
    """First and last byte of a tensor, which must be as many as its shape and type need."""
    try:
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        first, last = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the header has an entry that makes no sense: {entry!r}") from error
    fitting = isinstance(shape, list) and all(
        type(n) is int and 0 <= n <= _LARGEST for n in (first, last, *shape)
    )
    if not fitting:
        raise ValueError(f"the header has an entry that makes no sense: {entry!r}")
    if math.prod(n or 1 for n in shape) > _LARGEST:  # torch counts so even where one is 0
        raise ValueError(f"a tensor has an impossible shape: {entry!r}")
    if last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor has another size than its shape: {entry!r}")
    return first, last


def _tensor(content: mmap.mmap, start: int, entry: dict[str, Any]) -> Tensor:
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    count = math.prod(shape)
    if count == 0:
        return torch.empty(0, dtype=dtype).reshape(shape)
    offset = start + entry["data_offsets"][0]
    return torch.frombuffer(content, dtype=dtype, count=count, offset=offset).reshape(shape)


def save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as they are: the same ones and notes make the same bytes.

    Raises OSError where the disk does not take it.
    """
    from safetensors import SafetensorError  # not in Slicer, where nothing is written
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error).rstrip(".")) from None
    _order_notes(path)
    make_ordinary(path)


def _order_notes(path: Path) -> None:
    """Sort the notes of a file that the package has written: it writes them in any order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # always, as long as the package writes no spaces either
            file.seek(8)
            file.write(text.ljust(size))


def write_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors in float16, atomically: the file appears complete or not at all.

    Raises OSError where the disk does not take it.
    """
    small = {name: value.detach().half().cpu().contiguous() for name, value in tensors.items()}
    try:
        with replacing(path) as part:
            save(small, part, metadata)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}.") from None
