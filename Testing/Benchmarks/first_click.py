"""The first click of a process: with and without what is done while the user aims.

    python Testing/Benchmarks/first_click.py [--runs 5] [--models builtin vit-b]

Each run is a fresh process, in which the model is loaded already. A box, or a point, is marked on a
slice of 512 x 512 that is still unknown: at once ("cold"), or after the model has rehearsed and its
window has been encoded early, where that is worth it ("aimed"). The two take turns. ViT-B has
random weights, which cost the same. Prints one JSON object: median seconds.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("box", "point")


def first_click(name: str, prompt: str, aimed: bool) -> dict[str, float]:
    """Seconds of the first preview in this process, and of what was done before it."""
    sys.path.insert(0, str(ROOT))
    import SlideSAMLib
    from SlideSAMLib.benchmark.phantom import column
    from SlideSAMLib.benchmark.subjects import as_model, random_network
    from SlideSAMLib.compute.devices import choose_device, choose_precision
    from SlideSAMLib.rehearsal import rehearse
    from SlideSAMLib.sam.network import VIT_B
    from SlideSAMLib.window import WindowPredictor

    device = choose_device("auto")
    if name == "builtin":
        model = SlideSAMLib.load_model(name)
    else:
        precision = choose_precision("auto", device)
        model = as_model(random_network(VIT_B), name, device, precision)
    phantom = column((12, 512, 512), 8)
    marked = phantom.prompt()
    if prompt == "point":
        x0, y0, x1, y1 = marked.box
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        marked = SlideSAMLib.SlicePrompt(marked.index, points=[middle], labels=[1])
    session = SlideSAMLib.Session(SlideSAMLib.Stack(phantom.volume), model)
    start = time.perf_counter()
    if aimed:
        rehearse(model)
        predictor = WindowPredictor(session.stack, model, session.cache)
        predictor.prepare(marked.index, lambda: False)
    ready = time.perf_counter()
    session.set_prompt(marked)
    session.preview(marked.index)
    return {"aiming_s": ready - start, "click_s": time.perf_counter() - ready}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=("builtin", "vit-b"), default=["builtin"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, prompt, how = args.child
        print(json.dumps(first_click(name, prompt, how == "aimed")))
        return
    found: dict[str, dict] = {}
    for name in args.models:
        for prompt in PROMPTS:
            runs: dict[str, list[dict[str, float]]] = {"cold": [], "aimed": []}
            for _ in range(args.runs):
                for how, taken in runs.items():
                    command = [sys.executable, __file__, "--child", name, prompt, how]
                    taken.append(json.loads(subprocess.check_output(command, text=True)))
            medians = {
                f"{how}_s": round(statistics.median(run["click_s"] for run in taken), 4)
                for how, taken in runs.items()
            }
            aiming = statistics.median(run["aiming_s"] for run in runs["aimed"])
            share = medians["aimed_s"] / medians["cold_s"]
            found[f"{name}, {prompt}"] = {
                **medians,
                "aimed_over_cold": round(share, 3),
                "aiming_s": round(aiming, 3),
            }
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    machine["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps({"machine": machine, "runs": args.runs, **found}, indent=2))


if __name__ == "__main__":
    main()
