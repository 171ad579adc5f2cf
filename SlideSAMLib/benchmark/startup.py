"""What it costs to start: each figure from fresh processes."""

from __future__ import annotations

import statistics
from typing import Any

from .apart import figures

ROUNDS = 3

_CODE = """
import json, sys, time
def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
found = {}
found["import_slidesamlib_s"] = timed(lambda: __import__("SlideSAMLib"))
found["imports_torch"] = "torch" in sys.modules
import SlideSAMLib
found["import_torch_s"] = timed(lambda: __import__("torch"))
made = []
found["load_builtin_s"] = timed(
    lambda: made.append(SlideSAMLib.load_model("builtin", device=sys.argv[1])))
print(json.dumps(found))
"""


def measure(device: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians in seconds: importing SlideSAMLib, importing PyTorch, loading the built-in model.

    `imports_torch` says whether the first of these loads PyTorch; it must not.
    """
    found = [figures(["-c", _CODE, device]) for _ in range(rounds + 1)]
    del found[0]  # it fills the file cache
    medians = {
        name: round(statistics.median(run[name] for run in found), 4)
        for name in found[0]
        if name.endswith("_s")
    }
    return {**medians, "imports_torch": any(run["imports_torch"] for run in found)}
