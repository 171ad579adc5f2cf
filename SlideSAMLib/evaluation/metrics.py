"""What is measured on one structure. All masks are bool stacks (S, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .surfaces import hausdorff_95, surface_dice

# prediction, truth, (gap, row, column) in mm -> one number
Metric = Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], float]


@dataclass(frozen=True)
class SliceCounts:
    """Whole slices that are wrong.

    leaked_before, leaked_after : predicted slices before the first and after the last slice of
        the structure. missed : slices of the structure where nothing is predicted.
    """

    leaked_before: int
    leaked_after: int
    missed: int


def dice(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)
) -> float:
    """Dice coefficient, 0..1; two empty masks agree: 1."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    both = int(np.count_nonzero(prediction & truth))
    return 2.0 * both / total if total else 1.0


def extent(truth: np.ndarray) -> tuple[int, int]:
    """First and last slice where a structure, which must not be empty, has voxels."""
    used = np.flatnonzero(truth.any(axis=(1, 2)))
    return int(used[0]), int(used[-1])


def count_slices(prediction: np.ndarray, truth: np.ndarray) -> SliceCounts:
    """Slices leaked into at either end of the structure, and slices of it that were missed."""
    predicted, real = prediction.any(axis=(1, 2)), truth.any(axis=(1, 2))
    first, last = extent(truth)
    return SliceCounts(
        leaked_before=int(np.count_nonzero(predicted[:first])),
        leaked_after=int(np.count_nonzero(predicted[last + 1 :])),
        missed=int(np.count_nonzero(real & ~predicted)),
    )


METRICS: dict[str, Metric] = {"dice": dice}
SURFACE_METRICS: dict[str, Metric] = {"surface dice": surface_dice, "HD95 mm": hausdorff_95}


def register_metric(name: str, metric: Metric) -> None:
    """Add a number that is computed for every structure and reported beside the Dice.

    metric : called with the bool stacks of prediction and truth, cut to the slices that the
    protocol judges, and the spacing (gap, row, column) in mm; it returns one number.
    """
    METRICS[name] = metric


def measure(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: tuple[float, float, float],
    chosen: dict[str, Metric] | None = None,
) -> dict[str, float]:
    """The registered metrics (or the `chosen` ones) of a prediction, "dice" among them."""
    wanted = METRICS if chosen is None else chosen
    return {name: float(metric(prediction, truth, spacing)) for name, metric in wanted.items()}
