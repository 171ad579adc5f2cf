"""Time from a mouse event to the drawn preview, in the Slide-SAM effect on the stand-in host.

    python Testing/Benchmarks/effect_latency.py [--model builtin] [--runs 9] [--shape 60 512 512]

Real events go into real slice views (three of 480 x 480 pixels); the clock runs from the press of
a click, or the release of a drag, until the preview is there and all views are drawn. The image
is a bright ellipsoid in noise, int16. "new" windows have not been encoded, "cached" ones have: a
cached prompt comes on a slice that has one already. "writing" is what it takes to bring one
finished slice of a slide into the preview, without the model and without drawing. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BARS = {"new": 0.5, "writing": 0.005}  # seconds; 0.1 for everything else


class Latency:
    """One volume, marked on slice after slice."""

    def __init__(self, shape: tuple[int, int, int], model: str) -> None:
        import numpy as np

        from Testing.Benchmarks.segment_cost import ellipsoid
        from Testing.host.showcase import Showcase

        self.shape = shape
        depth, height, width = shape
        self.centre = (width // 2, height // 2, depth // 2)
        spacing = np.diag([0.8, 0.8, 2.5, 1.0])
        names = ("Axial", "Sagittal", "Coronal")
        self.case = Showcase(ellipsoid(shape), spacing, self.centre, model, names)
        self.case.drawn()  # loads the model
        self.seconds: dict[str, list[float]] = {}

    def measure(self, runs: int) -> None:
        """Mark `runs` slices, after one that warms up."""
        for run in range(runs + 1):
            self._box_first(run)
            self._point_first(run)
            if run == 0:
                self.seconds.clear()
        self._slide(runs)

    def _box_first(self, run: int) -> None:
        x, y, k = *self.centre[:2], self._slice(run)
        a, b = (
            (0.22 * self.shape[2], 0.22 * self.shape[1], k),
            (0.78 * self.shape[2], 0.77 * self.shape[1], k),
        )
        self._begin(k)
        self._timed("new box", lambda: self._drag(a, b))
        self._timed("cached box, click added", lambda: self._click((x + 9, y - 5, k)))
        outside = (a[0] + 4, a[1] + 4, k)
        self._timed("cached box, Ctrl+click added", lambda: self._click(outside, ctrl=1))
        self._timed("cached box drawn anew", lambda: self._drag((a[0] - 3, a[1] - 2, k), b))
        self._timed("next candidate", lambda: self.case.views[0].press_key("c"))

    def _point_first(self, run: int) -> None:
        x, y, k = *self.centre[:2], self._slice(run)
        self._begin(k)
        self.case.python.interaction.jobs.shelf.cache().clear()  # the box has encoded this window
        self._timed("new point", lambda: self._click((x, y, k)))
        self._timed("cached point, click added", lambda: self._click((x + 40, y - 20, k)))
        outside = (0.1 * self.shape[2], 0.1 * self.shape[1], k)
        self._timed("cached point, Ctrl+click added", lambda: self._click(outside, ctrl=1))

    def _slide(self, runs: int) -> None:
        """Slide over some slices, and time each writing into the preview."""
        x, y, k = self.centre
        self._begin(k)
        self._drag((0.24 * self.shape[2], 0.24 * self.shape[1], k), (1.5 * x, 1.5 * y, k))
        self.case.drawn()
        interaction = self.case.python.interaction
        refresh = interaction.refresh

        def timed(only: Sequence[int] | None = None) -> None:
            start = time.perf_counter()
            refresh(only)
            if only is not None:
                taken.append(time.perf_counter() - start)

        taken = self.seconds.setdefault("writing a finished slice", [])
        interaction.refresh = timed
        self.case.effect.setParameter("LimitSlices", 1)
        self.case.effect.setParameter("FirstSlice", k - runs)
        self.case.effect.setParameter("LastSlice", k + runs)
        self.case.python.onSegment()
        self.case.drawn()
        interaction.refresh = refresh
        if len(taken) < runs:
            raise RuntimeError(f"Only {len(taken)} slices were written: {self.case.message}")

    def _slice(self, run: int) -> int:
        return self.centre[2] + 2 * (run // 2 if run % 2 else -(run // 2) - 1)

    def _begin(self, k: int) -> None:
        self.case.python.onClear()
        self.case.scroll_to((*self.centre[:2], k))
        self.case.drawn()

    def _click(self, ijk: tuple[float, float, int], **modifiers: int) -> None:
        self.case.views[0].click(self.case.xy(ijk), **modifiers)

    def _drag(self, a: tuple[float, ...], b: tuple[float, ...]) -> None:
        view, start, end = self.case.views[0], self.case.xy(a), self.case.xy(b)
        view.event("LeftButtonPressEvent", start)
        view.event("MouseMoveEvent", end)
        self._began = time.perf_counter()
        view.event("LeftButtonReleaseEvent", end)

    def _timed(self, what: str, action: Callable[[], None]) -> None:
        self._began = time.perf_counter()
        action()
        self.case.drawn()
        self.seconds.setdefault(what, []).append(time.perf_counter() - self._began)
        if not self.case.python.interaction.preview.shown or self.case.editor.errors:
            raise RuntimeError(f"{what}: no preview; {self.case.message} {self.case.editor.errors}")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[60, 512, 512], metavar=("K", "J", "I")
    )
    args = parser.parse_args()
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    load = round(os.getloadavg()[0], 1)  # others' work on these cores, in the minute before
    latency = Latency(tuple(args.shape), args.model)
    latency.measure(args.runs)
    bar = {what: BARS.get(what.split()[0], 0.1) for what in latency.seconds}
    results = {
        what: {
            "median_s": round(statistics.median(times), 4),
            "worst_s": round(max(times), 4),
            "bar_s": bar[what],
            "within": statistics.median(times) < bar[what],
        }
        for what, times in latency.seconds.items()
    }
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    machine["load"] = load
    whole = {"machine": machine, "model": args.model, "shape": args.shape, "runs": args.runs}
    print(json.dumps({**whole, "results": results}, indent=2))


if __name__ == "__main__":
    main()
