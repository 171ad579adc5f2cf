"""A picture of a training run's curve."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

LINES = {
    "box_centre": "box, prompted slice",
    "point_centre": "points, prompted slice",
    "slide_centre": "slide, centre",
    "slide_ahead": "slide, slice ahead",
    "centre": "middle slice",
    "outer": "outer slices",
    "best_centre": "middle slice, best candidate",
}
VOLUMES = "volume_dice"  # of `selection`: few values, of whole volumes
SMOOTHED = 9  # rows of the log that are averaged


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """The columns of a run's curve.csv; missing values are NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = rows[0] if rows else {}
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def draw_curve(path: Path, picture: Path) -> None:
    """Draw loss and Dice of the training windows over the steps into a PNG, atomically.

    The Dice of whole volumes, where some were evaluated on the way, is drawn as points.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = read_curve(path)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    left.plot(columns["step"], smoothed(columns["loss"]), color="black")
    left.set(xlabel="step", ylabel="loss", title="Loss of the training windows")
    for name, label in LINES.items():
        if name in columns:
            right.plot(columns["step"], smoothed(columns[name]), label=label)
    title = "Dice of the training windows"
    if VOLUMES in columns:
        there = ~np.isnan(columns[VOLUMES])
        steps, dice = columns["step"][there], columns[VOLUMES][there]
        right.plot(steps, dice, "o-", color="black", markersize=4, label="whole volumes")
        title += " and of whole volumes"
    right.set(xlabel="step", ylabel="Dice", title=title, ylim=(0, 1))
    right.legend(loc="lower right", fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    part = picture.with_suffix(".part")
    figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
    part.replace(picture)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean that passes over missing values; same length."""
    half = SMOOTHED // 2
    windows = [values[max(n - half, 0) : n + half + 1] for n in range(len(values))]
    return np.array([w[~np.isnan(w)].mean() if (~np.isnan(w)).any() else np.nan for w in windows])
