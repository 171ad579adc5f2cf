"""What the figures were measured on, without names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from ..compute.memory import physical_memory
from .clock import medians

_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # of the square matrices
ROUNDS = 5


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, memory, system, versions, and how busy the machine was in the last minute."""
    memory = physical_memory()
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": str(device),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
    return found


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """The best rate of the product of two square matrices in GFLOP/s, as measured now."""
    from ..sam.linears import linear

    side = side or _SIDE[device.type]
    layer = torch.nn.Linear(side, side, device=device, dtype=dtype)
    x = torch.randn(side, side, device=device, dtype=dtype)
    repeats = 10 if device.type == "cuda" else 1  # GPUs need some time to wake up

    def multiply() -> None:
        for _ in range(repeats):
            linear(x, layer)

    with torch.inference_mode():
        taken = medians({"product": multiply}, device, ROUNDS)["product"].clock
    return repeats * 2 * side**3 / taken / 1e9


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
