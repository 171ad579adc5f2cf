"""A picture of a training run's curve."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..files.whole_files import replacing

# Label, colour and style: colours that people who see red and green alike can tell apart.
LINES = {
    "box_centre": ("box, prompted slice", "#0072b2", "-"),
    "point_centre": ("points, prompted slice", "#e69f00", "-"),
    "slide_centre": ("slide, centre", "#56b4e9", "--"),
    "slide_ahead": ("slide, slice ahead", "#d55e00", "--"),
    "centre": ("middle slice", "#0072b2", "-"),
    "outer": ("outer slices", "#d55e00", "--"),
    "best_centre": ("middle slice, best candidate", "#56b4e9", "-"),
}
VOLUMES = "volume_dice"  # of `selection`: few values, of whole volumes
SMOOTHED = 9  # rows of the log that are averaged at most, and a fifth of all at most


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
    left.plot(*_line(columns, "loss"), color="black")
    left.set(xlabel="step", ylabel="loss", title="Loss of the training windows")
    for name, (label, colour, style) in LINES.items():
        if name in columns:
            right.plot(*_line(columns, name), label=label, color=colour, linestyle=style)
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
    with replacing(picture) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)


def _line(columns: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a column, without the rows that lack it."""
    there = ~np.isnan(columns[name])
    return columns["step"][there], smoothed(columns[name][there])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean, of the same length; over fewer values where there are not many."""
    half = min(SMOOTHED // 2, len(values) // 10)
    return np.array([values[max(n - half, 0) : n + half + 1].mean() for n in range(len(values))])
