"""Tables of results for people and programs: Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .baselines import BASELINES
from .calibration import confidence_tables, summarise_confidence
from .click_report import click_tables, summarise_clicks
from .overlays import file_name
from .protocols import CLICKS
from .results import StructureResult
from .tables import table

AXES = "kji"


@dataclass(frozen=True)
class Summary:
    """One method under one protocol over all its structures.

    mean : mean over the cases of the case's mean over its structures (Dice, 0..1).
    lower_cases, lower_structures : lower quartiles of the cases' means and of all structures.
    structures_mean : plain mean over the structures. leaked_before, leaked_after, missed : mean
    slices per structure. seconds : mean per structure. metrics : means over cases of the others.
    """

    method: str
    protocol: str
    cases: int
    structures: int
    mean: float
    lower_cases: float
    lower_structures: float
    structures_mean: float
    leaked_before: float
    leaked_after: float
    missed: float
    seconds: float
    metrics: dict[str, float]


def summarise(results: Iterable[StructureResult]) -> list[Summary]:
    """One summary per method and protocol, in the order in which they first appear."""
    groups: dict[tuple[str, str], list[StructureResult]] = {}
    for result in results:
        groups.setdefault((result.method, result.protocol), []).append(result)
    return [_summary(method, protocol, group) for (method, protocol), group in groups.items()]


def _summary(method: str, protocol: str, results: list[StructureResult]) -> Summary:
    dice = [result.dice for result in results]
    cases = list(case_means(results).values())
    others = [name for name in results[0].metrics if name != "dice"]
    return Summary(
        method=method,
        protocol=protocol,
        cases=len(cases),
        structures=len(results),
        mean=float(np.mean(cases)),
        lower_cases=float(np.percentile(cases, 25)),
        lower_structures=float(np.percentile(dice, 25)),
        structures_mean=float(np.mean(dice)),
        leaked_before=float(np.mean([r.leaked_before for r in results])),
        leaked_after=float(np.mean([r.leaked_after for r in results])),
        missed=float(np.mean([r.missed for r in results])),
        seconds=float(np.mean([r.seconds for r in results])),
        metrics={name: float(np.mean(list(case_means(results, name).values()))) for name in others},
    )


def case_means(results: Iterable[StructureResult], metric: str = "dice") -> dict[str, float]:
    """Mean of a metric over the structures of each case."""
    values: dict[str, list[float]] = {}
    for result in results:
        values.setdefault(result.case, []).append(result.metrics[metric])
    return {case: float(np.mean(numbers)) for case, numbers in values.items()}


def as_json(results: Sequence[StructureResult], settings: dict[str, Any]) -> str:
    """Settings, summary and every result as one JSON document."""
    clicks = summarise_clicks(results)
    content = {
        "settings": settings,
        "summary": [asdict(summary) for summary in summarise(results)],
        "clicks": None if clicks is None else asdict(clicks),
        "confidence": {p: asdict(found) for p, found in summarise_confidence(results).items()},
        "results": [asdict(result) for result in results],
    }
    return json.dumps(content, indent=1, allow_nan=True) + "\n"


def as_csv(results: Sequence[StructureResult]) -> str:
    """One line per result; box and points as `x y` numbers, metrics as columns of their own."""
    rows = [_flat(result) for result in results]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_markdown(
    results: Sequence[StructureResult], settings: dict[str, Any], pictures: Path | None = None
) -> str:
    """The report that a person reads.

    pictures : folder of the overlays, beside the report; those that are there are shown.
    """
    parts = [
        "# SlideSAM evaluation",
        settings_table(settings),
        "## Summary",
        _summary_table(results),
        _verdict(results),
        click_tables(results),
        confidence_tables(results),
        "## Cases",
        _case_table(results),
        "## Structures",
        _structure_table(results),
        _pictures(results, pictures),
        _notes(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_line(summary: Summary) -> str:
    """One line of plain text for the terminal."""
    return (
        f"{_title(summary.method, summary.protocol):32} Dice {summary.mean:.3f} over "
        f"{summary.cases} cases (lower quartile {summary.lower_cases:.3f}; structures "
        f"{summary.structures}, lower quartile {summary.lower_structures:.3f})"
    )


def settings_table(settings: Mapping[str, Any]) -> str:
    """What a report was made with, as a Markdown table."""
    return table(
        ("setting", "value"),
        [(key, "-" if value is None else f"`{value}`") for key, value in settings.items()],
    )


def _summary_table(results: Sequence[StructureResult]) -> str:
    summaries = summarise(results)
    others = list(summaries[0].metrics)
    header = (
        "method",
        "cases",
        "structures",
        "Dice, mean over cases",
        "lower quartile of cases",
        "lower quartile of structures",
        "mean of structures",
        *others,
        "slices leaked before / after",
        "slices missed",
        "seconds",
    )
    rows = [
        (
            _title(s.method, s.protocol),
            s.cases,
            s.structures,
            f"**{s.mean:.3f}**",
            f"{s.lower_cases:.3f}",
            f"{s.lower_structures:.3f}",
            f"{s.structures_mean:.3f}",
            *(f"{s.metrics[name]:.3f}" for name in others),
            f"{s.leaked_before:.1f} / {s.leaked_after:.1f}",
            f"{s.missed:.1f}",
            f"{s.seconds:.2f}",
        )
        for s in summaries
    ]
    return table(header, rows)


def _verdict(results: Sequence[StructureResult]) -> str:
    """Say plainly whether the model is better than what needs no network."""
    summaries = summarise(results)
    baselines = {s.method: s.mean for s in summaries if s.method in BASELINES}
    # Clicks on what is still wrong are told far more than one prompt: no fair comparison.
    alone = [s for s in summaries if s.method not in BASELINES and s.protocol != CLICKS]
    models = {s.protocol: s.mean for s in alone}
    if not baselines or not models:
        return ""
    best = max(baselines, key=lambda name: baselines[name])
    lines = []
    for protocol, mean in models.items():
        word = "above" if mean > baselines[best] else "NOT above"
        lines.append(
            f"Under the protocol {protocol} the model ({mean:.3f}) is {word} the best baseline "
            f"({best}, {baselines[best]:.3f}, which is told the extent). "
            f"{_below(results, protocol)}"
        )
    return "\n".join(lines)


def _below(results: Sequence[StructureResult], protocol: str) -> str:
    """On which cases the model is not above every baseline."""
    own = case_means(r for r in results if r.method not in BASELINES and r.protocol == protocol)
    others = [case_means(r for r in results if r.method == name) for name in BASELINES]
    below = [case for case, mean in own.items() if mean <= max(o.get(case, 0.0) for o in others)]
    if not below:
        return "It is above all of them on every case's mean."
    return f"It is not above all of them on {len(below)} of {len(own)} cases: {', '.join(below)}."


def _case_table(results: Sequence[StructureResult]) -> str:
    columns = list(dict.fromkeys((r.method, r.protocol) for r in results))
    means = {
        column: case_means(r for r in results if (r.method, r.protocol) == column)
        for column in columns
    }
    counts = {r.case: 0 for r in results}
    for case, _ in {(r.case, r.value) for r in results}:
        counts[case] += 1
    rows = [
        (case, count, *(f"{means[column][case]:.3f}" for column in columns))
        for case, count in counts.items()
    ]
    return table(("case", "structures", *(_title(*column) for column in columns)), rows)


def _structure_table(results: Sequence[StructureResult]) -> str:
    header = (
        "case",
        "structure",
        "voxels",
        "pieces",
        "slice",
        "method",
        "Dice",
        *list(results[0].metrics)[1:],
        "leaked before / after",
        "missed",
        "confidence",
        "stopped before / after",
        "seconds",
    )
    rows = [
        (
            r.case,
            f"{r.structure} ({r.value})",
            r.voxels,
            r.pieces,
            f"{AXES[r.axis]} = {r.index} of {r.first}..{r.last}",
            _title(r.method, r.protocol),
            *(f"{value:.3f}" for value in r.metrics.values()),
            f"{r.leaked_before} / {r.leaked_after}",
            r.missed,
            "-" if r.confidence is None else f"{r.confidence:.2f}",
            f"{r.stops.get('backward', '-')} / {r.stops.get('forward', '-')}",
            f"{r.seconds:.2f}",
        )
        for r in results
    ]
    return table(header, rows)


def _pictures(results: Sequence[StructureResult], folder: Path | None) -> str:
    """The overlays of a folder, each with a line above it; empty where there are none."""
    if folder is None:
        return ""
    lines = [
        f"{r.case}: {r.structure}, {r.protocol}, Dice {r.dice:.3f}\n\n"
        f"![{r.case}, {r.structure}]({folder.name}/{file_name(r)})"
        for r in results
        if r.method not in BASELINES and (folder / file_name(r)).is_file()
    ]
    return "\n\n".join(["## Pictures", *lines]) if lines else ""


def _notes(results: Sequence[StructureResult]) -> str:
    lines = [
        "A structure is one label value as it stands in the file, in one piece or several. It gets "
        "one prompt, on the slice where it is largest along the slide axis: the coarsest axis, or "
        "k as stored where no axis is more than 10 % coarser.",
        "`full`: no limits are given, Dice over the whole volume. `extent`: the structure's first "
        "and last slice are given, Dice over these slices. The baselines are given the extent; "
        "their Dice is the same under both.",
        "Dice, `surface dice` and `HD95 mm` are means over cases of the means over the structures "
        "of each case; slices, seconds and the mean of structures are means over structures. "
        "Lower quartile: the 25th percentile, interpolated linearly between two ranks.",
        "`surface dice`: share of the border voxels of both masks that lie within one voxel (its "
        "longest side) of the other's border. `HD95 mm`: 95th percentile of the distances from "
        "the border voxels of one mask to those of the other, the larger one of both ways; the "
        "diagonal of the judged slices where nothing was found.",
        "Seconds are those of the whole call for one structure. Windows that were encoded before "
        "for the same case are not encoded again.",
    ]
    pieces = sum(count > 1 for count in {(r.case, r.value): r.pieces for r in results}.values())
    if pieces:
        lines.append(
            f"Structures in several pieces: {pieces}; one prompt may not reach all of them."
        )
    return "## Notes\n\n" + "\n".join(f"- {line}" for line in lines)


def _title(method: str, protocol: str) -> str:
    return f"{method} (extent given)" if method in BASELINES else f"{method}, {protocol}"


def _flat(result: StructureResult) -> dict[str, Any]:
    row = asdict(result)
    numbers = row.pop("metrics")
    stops = row.pop("stops")
    row.pop("scores")
    row["clicks"] = len(result.clicks) or ""
    row["box"] = "" if result.box is None else " ".join(f"{v:.3f}" for v in result.box)
    row["points"] = "; ".join(f"{x:g} {y:g}" for x, y in result.points)
    row["seconds"] = f"{result.seconds:.3f}"
    row["confidence"] = "" if result.confidence is None else f"{result.confidence:.4f}"
    row["stopped_backward"] = stops.get("backward", "")
    row["stopped_forward"] = stops.get("forward", "")
    return {**row, **{name: f"{value:.6f}" for name, value in numbers.items()}}
