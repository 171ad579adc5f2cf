"""Sliding on the CPU while something else keeps a core busy: long and short waits of threads.

    python Testing/Benchmarks/busy_machine.py [--runs 5] [--slices 20]

Each run is a fresh process that slides the built-in model over a phantom, once to warm up and three
times for the clock. Threads wait as OpenMP would have it, or as `SlideSAMLib.compute.waiting` says;
the settings take turns, on the machine as it is and beside a process that never sleeps. Prints one
JSON object: median seconds per slice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USUAL = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}  # OpenMP's own
BUSY = "while True: pass"


def slide(slices: int) -> float:
    """Seconds per slice in this process, the median of three slides."""
    sys.path.insert(0, str(ROOT))
    import SlideSAMLib
    from SlideSAMLib.benchmark.phantom import column

    model = SlideSAMLib.load_model("builtin", "cpu")
    phantom = column((slices + 10, 256, 256), slices)
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        result = SlideSAMLib.segment(phantom.volume, [phantom.prompt()], model=model)
        taken.append((time.perf_counter() - start) / max(len(result.confidence), 1))
    return statistics.median(taken[1:])


@contextmanager
def beside(work: bool) -> Iterator[None]:
    """With a process that never sleeps, or without."""
    other = subprocess.Popen([sys.executable, "-c", BUSY]) if work else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(slide(args.slices))
        return
    command = [sys.executable, __file__, "--child", "--slices", str(args.slices)]
    said = {*USUAL, "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
    unsaid = {name: value for name, value in os.environ.items() if name not in said}
    found: dict[str, dict[str, float]] = {}
    for place, work in (("idle", False), ("one core busy", True)):
        runs: dict[str, list[float]] = {"long waits": [], "short waits": []}
        with beside(work):
            for _ in range(args.runs):
                for waits, settings in zip(runs, (USUAL, {}), strict=True):
                    said_now = {**unsaid, **settings}
                    answer = subprocess.check_output(command, env=said_now, text=True)
                    runs[waits].append(float(answer))
        found[place] = {f"{waits}_s": round(statistics.median(s), 4) for waits, s in runs.items()}
        share = found[place]["short waits_s"] / found[place]["long waits_s"]
        found[place]["short_over_long"] = round(share, 2)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    print(json.dumps({"machine": machine, "slices": args.slices, **found}, indent=2))


if __name__ == "__main__":
    main()
