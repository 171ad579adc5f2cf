"""One picture of what fails and what is usual: the worst structures and some typical ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import overlays, protocols
from .cases import Case, Structure
from .results import StructureResult
from .runner import MODEL, Plan, Worker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "gallery.png"
TYPICAL = 3  # structures about the median
COLUMNS = 5
PANEL = 1.55  # width of one slice, inches
CAPTION = 0.30  # height of the two lines above a row, inches
GAP = 0.12  # below a row, inches
HEADING = 0.25  # inches
SHORT, LONG = 0.6, 0.9  # height over width of a row's panels, so that no row is much taller


def pick(
    results: Sequence[StructureResult], worst: int, typical: int = TYPICAL
) -> tuple[list[StructureResult], list[StructureResult]]:
    """The model's structures with the lowest Dice, worst first, and those nearest the median.

    Of the protocols that were run the first of full, extent and clicks counts. No structure is
    picked twice.
    """
    own = [result for result in results if result.method == MODEL]
    order = (protocols.FULL, protocols.EXTENT, protocols.CLICKS)
    protocol = next((p for p in order if any(r.protocol == p for r in own)), None)
    own = sorted((r for r in own if r.protocol == protocol), key=lambda r: (r.dice, r.key))
    middle = float(np.median([r.dice for r in own])) if own else 0.0
    near = sorted(own[worst:], key=lambda r: (abs(r.dice - middle), r.key))[:typical]
    return own[:worst], sorted(near, key=lambda r: (r.dice, r.key))


def draw_gallery(
    results: Sequence[StructureResult], cases: Sequence[Case], plan: Plan, worst: int, path: Path
) -> None:
    """Write the picture as PNG; the chosen structures are segmented once more for it.

    plan : that of the results. A row shows slices from the first to the last one that is either
    true or marked, the prompted one among them.
    """
    low, typical = pick(results, worst)
    headings = {0: f"The {len(low)} structures with the lowest Dice"}
    if typical:
        headings[len(low)] = "Typical structures, about the median"
    worker = Worker(plan)
    by_id = {case.id: case for case in cases}
    rows = [_Row(worker, by_id[result.case], result) for result in (*low, *typical)]
    heights = [
        row.height + (HEADING if number in headings else 0.0) for number, row in enumerate(rows)
    ]
    figure = overlays.new_figure((PANEL * COLUMNS, sum(heights) + HEADING))
    top = sum(heights) + HEADING
    total = top
    figure.text(0.01, 1 - 0.05 / total, overlays.COLOURS, fontsize=8, va="top")
    top -= HEADING
    for number, row in enumerate(rows):
        if number in headings:
            figure.text(0.01, top / total, headings[number], fontsize=10, va="top", weight="bold")
            top -= HEADING
        row.draw(figure, top, total)
        top -= row.height
    overlays.save(figure, path)


class _Row:
    """One structure of the gallery."""

    def __init__(self, worker: Worker, case: Case, result: StructureResult) -> None:
        structure = Structure(result.value, result.structure, result.voxels)
        self.result = result
        self.subject = worker.subject(case, structure)
        self.mask = worker.segment(self.subject, result.protocol).mask
        used = np.flatnonzero((self.mask | self.subject.truth).any(axis=(1, 2)))
        slices = overlays.strip(int(used[0]), result.index, int(used[-1]))
        self.frame = overlays.Frame(self.subject, self.mask, slices)
        self.panels = float(np.clip(self.frame.ratio, SHORT, LONG)) * PANEL  # their height, inches
        self.height = CAPTION + self.panels + GAP

    def draw(self, figure: Figure, top: float, total: float) -> None:
        """Draw the row below `top`, inches from the lower edge of a figure `total` inches high."""
        figure.text(0.01, top / total, self._caption(), fontsize=7.5, va="top", linespacing=1.1)
        height = self.panels
        bottom = top - CAPTION - height
        gap = 0.02  # inches, on every side of a panel
        width = PANEL * COLUMNS
        panels = []
        for column, index in enumerate(self.frame.slices):
            place = (
                (column * PANEL + gap) / width,
                (bottom + gap) / total,
                (PANEL - 2 * gap) / width,
                (height - 2 * gap) / total,
            )
            panel = figure.add_axes(place)
            mark = " (prompt)" if index == self.result.index else ""
            panel.text(
                0.03, 0.97, f"{index}{mark}", transform=panel.transAxes, fontsize=7, va="top",
                color="white", bbox={"color": "black", "pad": 1.0, "linewidth": 0},
            )  # fmt: skip
            panels.append(panel)
        self.frame.draw(panels, self.mask, self.result)

    def _caption(self) -> str:
        r = self.result
        name = f"{r.case}: {r.structure}, {r.prompt}, {r.protocol}: Dice {r.dice:.2f}"
        stops = (
            f"stopped before: {r.stops.get('backward', '-')}, after: {r.stops.get('forward', '-')}"
        )
        slices = f"{r.leaked_before} + {r.leaked_after} slices too many, {r.missed} missed"
        return f"{name}\n{stops}; {slices}"
