"""A run's curve on disk: curve.csv, its picture, and TensorBoard's file where that is wanted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.whole_files import replacing
from .curve import draw_curve

# Columns of every curve. data_share : of the time, for making windows or waiting for them.
COMMON = ("step", "minutes", "windows_per_second", "data_share", "rate", "loss")
FORMS = {
    "step": "d",
    "minutes": ".2f",
    "windows_per_second": ".1f",
    "data_share": ".3f",
    "rate": ".2e",
}


class CurveLog:
    """Appends rows of numbers. figures : names of the columns after `COMMON`."""

    def __init__(self, folder: Path, figures: Sequence[str], tensorboard: bool) -> None:
        self.path = folder / "curve.csv"
        self._columns = (*COMMON, *figures)
        self._tensorboard = tensorboard
        self._events: Any = None
        self._from: int | None = None  # first step that TensorBoard is to show anew

    def cut_back(self, step: int) -> None:
        """Forget what came after a step: rows of a run that was killed before its next checkpoint.

        Rows that were cut off on the way to the disk go, too. 0 forgets everything.
        """
        self._from = step + 1
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if _reaches(row, step)]
        if not rows:
            self.path.unlink()
            return
        with replacing(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def write(self, numbers: dict[str, float]) -> None:
        """Add a row, with `step`; what is missing stays empty. Prints it as well."""
        row = {name: format(value, FORMS.get(name, ".4f")) for name, value in numbers.items()}
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        self._write_events(numbers)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)

    def draw(self) -> None:
        """Draw the picture, if there is a row."""
        if self.path.exists():
            draw_curve(self.path, self.path.with_name("curve.png"))

    def _write_events(self, numbers: dict[str, float]) -> None:
        if not self._tensorboard:
            return
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.path.parent), purge_step=self._from)
        for name, value in numbers.items():
            if name != "step":
                self._events.add_scalar(name, value, int(numbers["step"]))
        self._events.flush()


def _reaches(row: dict[str, str | None], step: int) -> bool:
    """Whether a row is whole and not beyond a step."""
    whole = None not in row and None not in row.values()
    return whole and (row.get("step") or "").isdecimal() and int(row["step"]) <= step
