"""Choosing where and how precisely a network computes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import InputError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# The chips TU116 and TU117: their convolutions in float16 are known to give no numbers.
_WITHOUT_HALF = re.compile(r"\b(GTX 16\d\d|T[456]00|T550|T1[02]00|T2000|MX[45]50|30HX)\b")


def choose_device(device: str = "auto") -> torch.device:
    """The device for 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.

    'auto' is CUDA's current GPU, or else the first one that this PyTorch can compute on; where
    there is none, the CPU. A GPU is returned with its number: which one is the current one is a
    matter of the thread, and may change while a model is used.

    Raises
    ------
    InputError
        The name is unknown, this computer has no such device, or PyTorch was built without it.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        numbers = (torch.cuda.current_device(), *range(torch.cuda.device_count()))
        gpus = (torch.device("cuda", number) for number in numbers)
        return next(filter(_has_kernels_for, gpus), torch.device("cpu"))
    kind, _, number = str(device).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise InputError(f"The device '{device}' is unknown: use auto, cpu, cuda or mps.")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                "There is no usable CUDA GPU here (or PyTorch was installed without CUDA): use "
                "the device auto or cpu."
            )
        if number and int(number) >= torch.cuda.device_count():
            raise InputError(
                f"There is no GPU number {number} here: use 0 to {torch.cuda.device_count() - 1}."
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("There is no Apple GPU (mps) here: use the device auto or cpu.")
    if kind == "cuda" and not number:
        number = str(torch.cuda.current_device())
    chosen = torch.device(kind, int(number)) if number else torch.device(kind)
    if kind == "cuda" and not _has_kernels_for(chosen):
        raise InputError(
            f"This PyTorch was built for other GPUs than the {torch.cuda.get_device_name(chosen)}: "
            f"install {_version_for(chosen)} PyTorch that knows it, or use the device auto or cpu."
        )
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The number type for 'auto', 'float32', 'bfloat16' or 'float16' on a device.

    'auto' takes half precision where the hardware multiplies in it: bfloat16 on CUDA from compute
    capability 8.0 and on CPUs with AMX or AVX512-BF16, float16 on older CUDA, else float32. The
    GTX 16 cards, and others with their chips, get float32, too: see `_WITHOUT_HALF`.

    Raises
    ------
    InputError
        The name is unknown.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise InputError(
                f"The precision '{precision}' is unknown: use auto, {', '.join(PRECISIONS)}."
            )
        return PRECISIONS[precision]
    if device.type == "cuda":
        if _WITHOUT_HALF.search(torch.cuda.get_device_name(device)):
            return torch.float32
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """'float32', 'bfloat16' or 'float16'."""
    return str(dtype).removeprefix("torch.")


def check_antialiasing(device: torch.device) -> None:
    """Raise InputError where PyTorch cannot resize with antialiasing on a device, as SAM needs.

    Older versions cannot on Apple GPUs. It is tried, since users can let the CPU do what is missing
    there (PYTORCH_ENABLE_MPS_FALLBACK).
    """
    if device.type != "mps":
        return
    image = torch.zeros((1, 1, 2, 2), dtype=torch.float32, device=device)
    try:
        F.interpolate(image, (3, 3), mode="bilinear", antialias=True)
    except NotImplementedError as error:
        raise InputError(
            "This PyTorch cannot resize images on Apple GPUs (mps) as SAM's networks need it: "
            "install a newer PyTorch, or use the device auto or cpu."
        ) from error


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a CUDA GPU, with what PyTorch keeps unused; None on other devices."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def on_device(values: np.ndarray | Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Numbers as float32 on a device; several arrays of one shape become one tensor.

    The host does not wait for a CUDA GPU to have them.
    """
    if device.type != "cuda":
        array = values
        if not isinstance(values, np.ndarray):
            array = np.stack(values) if len(values) > 1 else values[0][None]  # without a copy
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)
    if isinstance(values, np.ndarray):
        return on_device([values], device)[0]
    shape = (len(values), *values[0].shape)
    pinned = torch.empty(shape, dtype=torch.float32, pin_memory=True)
    for own, array in zip(pinned.numpy(), values, strict=True):
        own[...] = array
    return pinned.to(device, non_blocking=True)  # PyTorch keeps the host's copy as long as needed


def on_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """The values of tensors of one device; the host waits once for all of them.

    From a CUDA GPU they come through pinned memory, which PyTorch keeps for the next time.
    """
    if not tensors or tensors[0].device.type != "cuda":
        return [tensor.cpu().numpy() for tensor in tensors]
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()  # not the stream that encodes ahead
    return [copy.numpy() for copy in copies]


def _has_kernels_for(device: torch.device) -> bool:
    """Whether PyTorch was built for a CUDA GPU like this one.

    It does not ask itself: on a GPU that is too old for it, the first kernel of all fails. Kernels
    run on later GPUs of the same major number, those compiled on the way on all later ones.
    """
    own = torch.cuda.get_device_capability(device)
    built = _built_for()
    if not built:  # AMD's have names of another kind
        return True
    return any(arch <= own and (kind == "compute" or arch[0] == own[0]) for kind, arch in built)


def _version_for(device: torch.device) -> str:
    """Which other PyTorch may know a GPU that this one was not built for."""
    own = torch.cuda.get_device_capability(device)
    known = [arch for _, arch in _built_for()]
    return "an older" if own < min(known) else "a newer" if own > max(known) else "another"


def _built_for() -> list[tuple[str, tuple[int, int]]]:
    """What PyTorch was built for: kernels ("sm") of a capability, or their source ("compute")."""
    names = (name.rstrip("abcdef").partition("_") for name in torch.cuda.get_arch_list())
    return [
        (kind, divmod(int(number), 10))
        for kind, _, number in names
        if kind in ("sm", "compute") and number.isdigit()
    ]


def _cpu_multiplies_bfloat16() -> bool:
    # Older PyTorch lacks these questions; then the answer is no.
    questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in questions)
