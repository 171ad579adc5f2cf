"""Time of the first mask, time per slice, and peak memory of `segment`.

    python Testing/Benchmarks/segment_cost.py [--model builtin] [--shape 200 512 512] [--runs 5]

Each volume is measured in a process of its own, since peak memory belongs to a process. The
volume is a bright ellipsoid in noise, int16. Prints one JSON object. Times depend on the machine
and its load; peak memory does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def ellipsoid(shape: tuple[int, int, int]):
    """An int16 volume (K, J, I) with a bright ellipsoid in the middle, made slice by slice."""
    import numpy as np

    rng = np.random.default_rng(0)
    volume = np.empty(shape, np.int16)
    depth, height, width = shape
    y = (np.arange(height)[:, None] - height / 2) / (0.25 * height)
    x = (np.arange(width)[None] - width / 2) / (0.25 * width)
    for k in range(depth):
        z = (k - depth / 2) / (0.4 * depth)
        inside = x**2 + y**2 + z**2 < 1
        volume[k] = np.where(inside, 700, 300) + 60 * rng.standard_normal((height, width))
    return volume


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count the parent's memory at the fork, too
        line = next(li for li in status.read_text().splitlines() if li.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def measure(shape: tuple[int, int, int], model_name: str, device: str, runs: int) -> dict:
    """Load the model, time first masks from cold caches, then one whole run."""
    volume = ellipsoid(shape)
    before = peak_mib()

    import SlideSAMLib
    from SlideSAMLib.session import Session

    start = time.perf_counter()
    model = SlideSAMLib.load_model(model_name, device=device)
    loading = time.perf_counter() - start
    depth, height, width = shape
    box = (0.24 * width, 0.24 * height, 0.76 * width, 0.76 * height)
    middle = depth // 2
    marks = {"box": {"box": box}, "point": {"points": [(width / 2, height / 2)]}}
    firsts: dict[str, list[float]] = {}
    for kind, mark in marks.items():
        for n in range(runs):
            session = Session(SlideSAMLib.Stack(volume, axis=0, spacing=(1, 1, 1)), model)
            prompt = SlideSAMLib.SlicePrompt(index=middle - n, **mark)
            start = time.perf_counter()
            session.set_prompt(prompt)
            session.preview(prompt.index)
            firsts.setdefault(kind, []).append(time.perf_counter() - start)
    start = time.perf_counter()
    result = SlideSAMLib.segment(
        volume, [SlideSAMLib.SlicePrompt(index=middle, box=box)], model=model
    )
    seconds = time.perf_counter() - start
    return {
        "shape": list(shape),
        "model": model.traits.name,
        "device": model.device,
        "precision": model.precision,
        "load_s": round(loading, 3),
        "first_mask_s": {
            kind: {"first": round(times[0], 3), "median": round(statistics.median(times), 3)}
            for kind, times in firsts.items()
        },
        "slices": len(result.confidence),
        "seconds_per_slice": round(seconds / max(len(result.confidence), 1), 4),
        "volume_mib": round(volume.nbytes / 2**20, 1),
        "peak_before_model_mib": round(before, 1),
        "peak_mib": round(peak_mib(), 1),
    }


def main() -> None:
    """Measure every shape in a process of its own and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("K", "J", "I"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shapes = [tuple(s) for s in args.shape or [(60, 128, 128), (200, 512, 512)]]
    if args.child:
        print(json.dumps(measure(shapes[0], args.model, args.device, args.runs)))
        return
    results = []
    for shape in shapes:
        command = [sys.executable, __file__, "--child", "--model", args.model]
        command += ["--device", args.device, "--runs", str(args.runs)]
        command += ["--shape", *(str(n) for n in shape)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    print(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
