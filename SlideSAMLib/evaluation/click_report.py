"""What the simulated user's clicks say, in numbers and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .protocols import CLICKS
from .results import StructureResult
from .tables import table

TARGET = 0.9  # Dice at which the user is content
MOST = 20  # clicks after which the user gives up, the first prompt included
AFTER = (1, 3, 5, 10, 20)


@dataclass(frozen=True)
class ClickSummary:
    """How quickly a user gets there. The first prompt counts as one click.

    reached : structures whose Dice came to the target. clicks : mean over those, or None.
    dice_after : clicks -> mean Dice over cases; who is content earlier keeps the last Dice.
    worsened : share of the corrections after which the Dice was lower by more than 0.005.
    seconds : mean per correction.
    """

    structures: int
    reached: int
    clicks: float | None
    dice_after: dict[int, float]
    worsened: float
    seconds: float


def clicked(results: Iterable[StructureResult]) -> list[StructureResult]:
    """Those results that a user clicked for."""
    return [r for r in results if r.protocol == CLICKS and r.clicks]


def clicks_needed(result: StructureResult) -> int | None:
    """Clicks until the target was reached; None where it was not."""
    return len(result.clicks) if result.clicks[-1].dice >= TARGET else None


def dice_after(result: StructureResult, clicks: int) -> float:
    """Dice after so many clicks, or after the last one where there were fewer."""
    return result.clicks[min(clicks, len(result.clicks)) - 1].dice


def summarise_clicks(results: Iterable[StructureResult]) -> ClickSummary | None:
    """The summary, or None where nobody clicked."""
    chosen = clicked(results)
    if not chosen:
        return None
    needed = [count for count in map(clicks_needed, chosen) if count is not None]
    by_case: dict[str, list[StructureResult]] = {}
    for result in chosen:
        by_case.setdefault(result.case, []).append(result)
    pairs = [p for r in chosen for p in zip(r.clicks, r.clicks[1:], strict=False)]
    return ClickSummary(
        structures=len(chosen),
        reached=len(needed),
        clicks=float(np.mean(needed)) if needed else None,
        dice_after={
            n: float(np.mean([np.mean([dice_after(r, n) for r in c]) for c in by_case.values()]))
            for n in AFTER
        },
        worsened=float(np.mean([b.dice < a.dice - 0.005 for a, b in pairs])) if pairs else 0.0,
        seconds=float(np.mean([b.seconds for _, b in pairs])) if pairs else 0.0,
    )


def summary_line(summary: ClickSummary) -> str:
    """One line of plain text for the terminal."""
    mean = "-" if summary.clicks is None else f"{summary.clicks:.1f}"
    dice = ", ".join(f"{n}: {value:.3f}" for n, value in summary.dice_after.items())
    return (
        f"clicks to Dice {TARGET:g}: {summary.reached} of {summary.structures} structures reach "
        f"it, with {mean} clicks on average; Dice after clicks {dice}"
    )


def click_tables(results: Sequence[StructureResult]) -> str:
    """Markdown: the summary and one line for each structure; empty where nobody clicked."""
    summary = summarise_clicks(results)
    if summary is None:
        return ""
    mean = "-" if summary.clicks is None else f"{summary.clicks:.1f}"
    overall = table(
        (
            f"reach Dice {TARGET:g}",
            "clicks of those, mean",
            *(f"Dice after {n}" for n in AFTER),
            "corrections that made it worse",
            "seconds per correction",
        ),
        [
            (
                f"**{summary.reached} of {summary.structures}** "
                f"({summary.reached / summary.structures:.0%})",
                f"**{mean}**",
                *(f"{value:.3f}" for value in summary.dice_after.values()),
                f"{summary.worsened:.0%}",
                f"{summary.seconds:.2f}",
            )
        ],
    )
    rows = [
        (
            r.case,
            f"{r.structure} ({r.value})",
            clicks_needed(r) or f"not in {len(r.clicks)}",
            *(f"{dice_after(r, n):.3f}" for n in AFTER),
            f"{r.seconds:.1f}",
        )
        for r in clicked(results)
    ]
    header = ("case", "structure", "clicks", *(f"Dice after {n}" for n in AFTER), "seconds")
    note = (
        f"The first prompt counts as one click. A simulated user then clicks into the middle of "
        f"the largest error of the worst slice, until the Dice over the whole volume is {TARGET:g} "
        f"or {MOST} clicks are spent; who is content earlier keeps that Dice in the columns after."
    )
    return "\n\n".join(["## Clicks", note, overall, table(header, rows)])


def clicks_as_csv(results: Sequence[StructureResult]) -> str:
    """One line per click."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    place = ("case", "value", "structure", "prompt")
    writer.writerow((*place, "click", "slice", "x", "y", "label", "dice", "slices", "seconds"))
    for r in clicked(results):
        for number, c in enumerate(r.clicks, 1):
            x, y = ("", "") if c.x is None else (f"{c.x:g}", f"{c.y:g}")
            found = (f"{c.dice:.6f}", c.slices, f"{c.seconds:.3f}")
            place = (r.case, r.value, r.structure, r.prompt)
            writer.writerow((*place, number, c.index, x, y, c.label, *found))
    return stream.getvalue()
