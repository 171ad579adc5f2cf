"""What Slicer's start-up pays for the SlideSAM module, on the stand-in host.

    python Testing/Benchmarks/module_import.py [--runs 5]

Each run is a fresh process in which numpy, VTK, Qt and Slicer's own Python modules are there
already, as in Slicer. The clock runs while the module's file is executed, with all that it imports,
and its class made; "completed" is what comes once start-up is completed: the effect and the sample
data are registered. The first run, which compiles, does not count. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SlideSAM" / "SlideSAM.py"
BAR = 0.05  # seconds


def load() -> dict[str, Any]:
    """Load the module in this process: times, and which of the heavy packages it loaded."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(ROOT))
    sys.path.append(str(MODULE.parent))
    from Testing.host import headless, module_host, pythonqt_host

    pythonqt_host.install()
    headless.start()
    for name in [name for name in sys.modules if name.startswith("SlideSAM")]:
        del sys.modules[name]  # the host uses a part of our bridge, which Slicer would not know
    before = set(sys.modules)
    start = time.perf_counter(), time.process_time()
    _, instance = module_host.load(MODULE)
    found: dict[str, Any] = {
        "import_s": time.perf_counter() - start[0],
        "import_processor_s": time.process_time() - start[1],
    }
    start = time.perf_counter(), time.process_time()
    instance.registerEditorEffect()
    instance.registerSampleData()
    found["completed_s"] = time.perf_counter() - start[0]
    found["completed_processor_s"] = time.process_time() - start[1]
    heavy = {"torch", "scipy", "SimpleITK", "segment_anything", "matplotlib"}
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    return {**found, "heavy": sorted(heavy & new), "torch": "torch" in sys.modules}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(load()))
        return
    command = [sys.executable, __file__, "--child"]
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        settings.pop("PYTHONDONTWRITEBYTECODE", None)
        runs = [
            json.loads(subprocess.check_output(command, env=settings, text=True))
            for _ in range(args.runs + 1)
        ][1:]
    medians = {
        name: round(statistics.median(run[name] for run in runs), 4)
        for name in runs[0]
        if name.endswith("_s")
    }
    found = {
        **medians,
        "bar_s": BAR,
        "within": medians["import_s"] < BAR,
        "torch": any(run["torch"] for run in runs),
        "heavy": sorted({name for run in runs for name in run["heavy"]}),
    }
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    machine["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps({"machine": machine, **found}, indent=2))


if __name__ == "__main__":
    main()
