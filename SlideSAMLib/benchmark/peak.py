"""Peak memory of a piece of work: of the process on CPUs, of PyTorch's pool on CUDA GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def process_mib(what: str) -> float | None:
    """VmRSS (now) or VmHWM (the peak) of this process in MiB; None where Linux does not say.

    `getrusage` would not do: it counts the parent's memory at the fork, too.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{what}:")]
    return int(found[0]) / 2**10 if found else None


def peak_beyond(work: Callable[[], object], device: torch.device) -> float | None:
    """How many MiB the work takes at its peak beyond what is there before it.

    None where it cannot be measured: on CPUs outside Linux, and on Apple's GPUs.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu" or not _reset_peak():
        return None
    before = process_mib("VmRSS")
    work()
    after = process_mib("VmHWM")
    return None if before is None or after is None else max(0.0, after - before)


def _reset_peak() -> bool:
    """Give freed memory back, and let the peak start from what is held now."""
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
        _RESET.write_text("5")
    except (OSError, TypeError):  # no such file; and no CDLL(None) on Windows
        return False
    return True
