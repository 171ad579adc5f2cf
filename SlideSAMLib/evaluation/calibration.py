"""Does the confidence of a slice mean something? Confidence beside the Dice of the same slice.

A calibrated confidence is the Dice that is to be expected: of the slices with a confidence of 0.8,
the mean Dice is 0.8. Slices without a mask claim nothing and are left out; a mask where the
structure is absent has the Dice 0. Slices of one structure are alike, and long structures have
many, so every structure has the same weight, shared by its slices. The rank correlation alone
counts every slice alike.

The expected calibration error is that of Naeini et al. 2015 (AAAI, 2901-2907) with the Dice in the
place of the accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .baselines import BASELINES
from .protocols import CLICKS
from .results import StructureResult
from .tables import table

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The slices with a confidence from `low` up to `high`; share : of all, by weight."""

    low: float
    high: float
    slices: int
    share: float
    confidence: float
    dice: float


@dataclass(frozen=True)
class Reliability:
    """How far confidence and Dice agree over the slices of many structures.

    error : expected calibration error, the mean distance of the two over the bins, 0..1.
    bias : mean confidence minus mean Dice; above 0 the model thinks too well of itself.
    rank : Spearman's rank correlation over the slices, -1..1, or None where there is none.
    """

    slices: int
    structures: int
    error: float
    bias: float
    rank: float | None
    bins: tuple[Bin, ...]


def pooled(
    results: Sequence[StructureResult], protocol: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, Dice, weight) of every slice; the weights of a structure sum to 1."""
    rows = [
        (sure, dice, 1.0 / len(result.scores))
        for result in results
        if result.protocol == protocol and result.method not in BASELINES
        for _, sure, dice in result.scores
    ]
    confidence, dice, weight = np.array(rows, float).reshape(-1, 3).T
    return confidence, dice, weight


def reliability(confidence: np.ndarray, dice: np.ndarray, weight: np.ndarray) -> Reliability:
    """Compare confidence and Dice, arrays (N,) with N at least 1, in bins of equal width."""
    from scipy.stats import spearmanr

    total = weight.sum()
    places = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    bins = []
    for place in np.unique(places):
        chosen = places == place
        share = weight[chosen] / weight[chosen].sum()
        bins.append(
            Bin(
                low=place / BINS,
                high=(place + 1) / BINS,
                slices=int(chosen.sum()),
                share=float(weight[chosen].sum() / total),
                confidence=float(share @ confidence[chosen]),
                dice=float(share @ dice[chosen]),
            )
        )
    varied = np.ptp(confidence) > 0 and np.ptp(dice) > 0
    return Reliability(
        slices=len(confidence),
        structures=round(float(total)),
        error=float(sum(b.share * abs(b.confidence - b.dice) for b in bins)),
        bias=float(weight @ (confidence - dice) / total),
        rank=float(spearmanr(confidence, dice).statistic) if varied else None,
        bins=tuple(bins),
    )


def summarise_confidence(results: Sequence[StructureResult]) -> dict[str, Reliability]:
    """Protocol -> how far confidence and Dice agree; clicked results are left out."""
    found = {}
    for protocol in dict.fromkeys(r.protocol for r in results if r.protocol != CLICKS):
        columns = pooled(results, protocol)
        if len(columns[0]):
            found[protocol] = reliability(*columns)
    return found


def confidence_tables(results: Sequence[StructureResult]) -> str:
    """Markdown: the figures and one reliability table; empty where nothing states a confidence."""
    summaries = summarise_confidence(results)
    if not summaries:
        return ""
    header = (
        "protocol",
        "structures",
        "slices",
        "calibration error",
        "confidence minus Dice",
        "rank correlation",
    )
    overall = [
        (
            protocol,
            s.structures,
            s.slices,
            f"**{s.error:.3f}**",
            f"{s.bias:+.3f}",
            "-" if s.rank is None else f"{s.rank:.2f}",
        )
        for protocol, s in summaries.items()
    ]
    rows = [
        (
            protocol,
            f"{b.low:.1f} to {b.high:.1f}",
            b.slices,
            f"{b.share:.0%}",
            f"{b.confidence:.2f}",
            f"{b.dice:.2f}",
        )
        for protocol, s in summaries.items()
        for b in s.bins
    ]
    note = (
        "Confidence of each slice that has a mask beside the Dice of this slice alone (0 where the "
        "structure is absent). Every structure has the same weight; only in the rank correlation "
        "(Spearman) every slice has. Calibration error: mean distance between confidence and Dice "
        "over the rows of the second table, by their shares."
    )
    bins = ("protocol", "confidence", "slices", "share", "mean confidence", "mean Dice")
    return "\n\n".join(["## Confidence", note, table(header, overall), table(bins, rows)])
