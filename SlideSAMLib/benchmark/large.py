"""Memory of `segment` on a large volume, measured in a process of its own.

    python -m SlideSAMLib.benchmark.large CHECKPOINT K J I SLICES DEVICE PRECISION

prints one JSON object. The volume is of the full size; only so many slices are slid over.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .apart import figures

SHAPE = (1000, 512, 512)
SLICES = 9


def measure(
    size: str,
    device: str,
    precision: str = "auto",
    shape: Sequence[int] = SHAPE,
    slices: int = SLICES,
) -> dict[str, Any]:
    """Peak memory of loading a checkpoint of `size` (such as vit-b) and segmenting with it."""
    from safetensors.torch import save_file

    from .subjects import SIZES, random_network

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{size}.safetensors"
        save_file(random_network(SIZES[size]).state_dict(), str(path))
        return run_apart(path, device, precision, shape, slices)


def run_apart(
    path: Path, device: str, precision: str, shape: Sequence[int], slices: int
) -> dict[str, Any]:
    """`segment_large` in a fresh process."""
    words = [path, *shape, slices, device, precision]
    return figures(["-m", __name__, *map(str, words)])


def segment_large(
    path: str, shape: tuple[int, int, int], slices: int, device: str, precision: str
) -> dict[str, Any]:
    """Segment `slices` slices with a checkpoint's network, and say what it took.

    `host_peak_mib` is all of the process, PyTorch and the volume included. A longer slide adds its
    embeddings, 2 MiB a slice, until the cache has reached `cache_limit_mib`.
    """
    import torch

    from ..api import segment
    from ..compute.memory import cache_bytes
    from ..models import load_model
    from .peak import process_mib
    from .phantom import LedModel, column

    phantom = column(shape, slices)
    before = process_mib("VmRSS")
    model = LedModel(load_model(path, device, precision), phantom)
    result = segment(phantom.volume, phantom.prompt(), model=model)
    gpu_peak = None
    if model.device.startswith("cuda"):  # perhaps not the current one
        gpu_peak = round(torch.cuda.max_memory_reserved(model.device) / 2**20)
    host = process_mib("VmHWM")
    return {
        "shape": list(shape),
        "precision": model.precision,
        "device": model.device,
        "slices": sum(count > 0 for count in result.voxels.values()),
        "cache_limit_mib": round(cache_bytes(model.device) / 2**20),
        "volume_mib": round(phantom.volume.nbytes / 2**20),
        "before_mib": None if before is None else round(before),
        "host_peak_mib": None if host is None else round(host),
        "gpu_peak_mib": gpu_peak,
    }


def main(words: Sequence[str]) -> None:
    """Print what `segment_large` finds."""
    path, depth, height, width, slices, device, precision = words
    shape = (int(depth), int(height), int(width))
    print(json.dumps(segment_large(path, shape, int(slices), device, precision)))


if __name__ == "__main__":
    main(sys.argv[1:])
