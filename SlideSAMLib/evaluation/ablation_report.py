"""An ablation in one table: every variant beside the default, on the same structures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .report import case_means, settings_table
from .results import StructureResult
from .tables import table
from .variants import DEFAULT, Variant

CHANGED = 0.01  # a structure whose Dice moved by less counts as unchanged


@dataclass(frozen=True)
class Comparison:
    """One variant under one protocol, over the structures that it and the default could do.

    mean : Dice, mean over cases. difference : minus that of the default on the same structures.
    better, worse : structures whose Dice moved by at least 0.01. lower_cases : lower quartile of
    the cases' means. leaked_before, leaked_after, missed : mean slices per structure.
    seconds : mean per structure.
    """

    variant: str
    protocol: str
    cases: int
    structures: int
    mean: float
    difference: float
    better: int
    worse: int
    lower_cases: float
    leaked_before: float
    leaked_after: float
    missed: float
    seconds: float


def compare(
    name: str, results: Sequence[StructureResult], default: Sequence[StructureResult]
) -> list[Comparison]:
    """One comparison per protocol, in the default's order; none where nothing was done."""
    reference = {result.key: result for result in default}
    found = []
    for protocol in dict.fromkeys(result.protocol for result in default):
        own = [r for r in results if r.protocol == protocol and r.key in reference]
        if not own:
            continue
        same = [reference[result.key] for result in own]
        moves = np.array([a.dice - b.dice for a, b in zip(own, same, strict=True)])
        cases = list(case_means(own).values())
        found.append(
            Comparison(
                variant=name,
                protocol=protocol,
                cases=len(cases),
                structures=len(own),
                mean=float(np.mean(cases)),
                difference=float(np.mean(cases) - np.mean(list(case_means(same).values()))),
                better=int((moves >= CHANGED).sum()),
                worse=int((moves <= -CHANGED).sum()),
                lower_cases=float(np.percentile(cases, 25)),
                leaked_before=float(np.mean([r.leaked_before for r in own])),
                leaked_after=float(np.mean([r.leaked_after for r in own])),
                missed=float(np.mean([r.missed for r in own])),
                seconds=float(np.mean([r.seconds for r in own])),
            )
        )
    return found


def compare_all(results: Mapping[str, Sequence[StructureResult]]) -> list[Comparison]:
    """Comparisons of every variant; results : by the variant's name, the default among them."""
    return [line for name, own in results.items() for line in compare(name, own, results[DEFAULT])]


def as_markdown(comparisons: Sequence[Comparison], settings: Mapping[str, Any]) -> str:
    """The report that a person reads."""
    return "\n\n".join(
        [
            "# SlideSAM ablation",
            settings_table(settings),
            "## Variants",
            _table(comparisons),
            _notes(comparisons),
        ]
    )


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One line per variant and protocol."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(Comparison)], lineterminator="\n")
    writer.writeheader()
    for line in comparisons:
        row = asdict(line)
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue()


def as_json(
    variants: Sequence[Variant],
    results: Mapping[str, Sequence[StructureResult]],
    settings: Mapping[str, Any],
) -> str:
    """Settings, variants, comparisons and the Dice of every structure as one JSON document."""
    content = {
        "settings": dict(settings),
        "variants": [asdict(variant) for variant in variants],
        "comparisons": [asdict(line) for line in compare_all(results)],
        "dice": {
            name: [
                {"case": r.case, "value": r.value, "protocol": r.protocol, "dice": r.dice}
                for r in own
            ]
            for name, own in results.items()
        },
    }
    return json.dumps(content, indent=1) + "\n"


def summary_line(line: Comparison) -> str:
    """One line of plain text for the terminal."""
    return (
        f"{line.variant + ', ' + line.protocol:44} Dice {line.mean:.3f} ({line.difference:+.3f}; "
        f"{line.better} better, {line.worse} worse of {line.structures})"
    )


def _table(comparisons: Sequence[Comparison]) -> str:
    protocols = list(dict.fromkeys(line.protocol for line in comparisons))
    header = ["variant", "structures"]
    for protocol in protocols:
        header += [f"Dice, {protocol}", "difference", "better / worse"]
    header += [f"leaked before / after, {protocols[0]}", f"missed, {protocols[0]}", "seconds"]
    rows = []
    for name in dict.fromkeys(line.variant for line in comparisons):
        own = {line.protocol: line for line in comparisons if line.variant == name}
        first = next(iter(own.values()))
        row: list[Any] = [name, first.structures]
        for protocol in protocols:
            line = own.get(protocol)
            row += ["-"] if line is None else [f"**{line.mean:.3f}**"]
            row += (
                ["-", "-"]
                if name == DEFAULT or line is None
                else [f"{line.difference:+.3f}", f"{line.better} / {line.worse}"]
            )
        row += [f"{first.leaked_before:.1f} / {first.leaked_after:.1f}", f"{first.missed:.1f}"]
        rows.append([*row, f"{first.seconds:.2f}"])
    return table(header, rows)


def _notes(comparisons: Sequence[Comparison]) -> str:
    lines = [
        "Every variant is the default with the settings of its name changed, run with the same "
        "prompts. Dice: mean over cases. Difference: to the default on the same structures. "
        f"Better and worse: structures whose Dice moved by {CHANGED:g} or more.",
        "Network and weights are those of the default: a variant tells what the slide does "
        "without a part, not what a network trained without it would do.",
    ]
    most = max(line.structures for line in comparisons)
    fewer = dict.fromkeys(line.variant for line in comparisons if line.structures < most)
    if fewer:
        lines.append(
            f"Structures that a variant refuses are left out of its line: {', '.join(fewer)}. The "
            "published scheme cannot start on the first or last slice of a volume."
        )
    return "\n".join(f"- {line}" for line in lines) + "\n"
