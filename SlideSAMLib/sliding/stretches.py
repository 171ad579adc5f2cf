"""Stretches of slices: what a run or a correction may change, and what it takes back. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..errors import InputError
from .stops import Stop

ALIKE = 0.5  # Dice from which on two masks of a slice show the same object
SIDES = {
    "both": ("backward", "forward"),
    "backward": ("backward",),
    "forward": ("forward",),
}


def run_stretch(prompts: Iterable[int], sides: Sequence[str]) -> range:
    """The slices that a run from prompted slices may write to."""
    order = sorted(prompts)
    low = 0 if "backward" in sides else order[0]
    high = order[-1] + 1
    return range(low, np.iinfo(np.int32).max if "forward" in sides else high)


def sides_of(direction: str) -> tuple[str, ...]:
    """The sides beyond the outermost prompts that a direction leads to; raises InputError."""
    if direction not in SIDES:
        raise InputError(f"The direction must be one of {', '.join(SIDES)}, not {direction!r}.")
    return SIDES[direction]


def gap_names(prompts: Iterable[int]) -> list[str]:
    """The names of the stretches between prompted slices that are not neighbours, in order."""
    return [f"{low}-{high}" for low, high in pairwise(sorted(prompts)) if high - low > 1]


def stretch_name(index: int, end: int | None, side: int) -> str:
    """The name of the stretch that leads from a prompted slice to the next one, or outwards.

    end : the next prompted slice, or None; side : +1 or -1.
    """
    if end is None:
        return "forward" if side > 0 else "backward"
    return f"{min(index, end)}-{max(index, end)}"


def between(slices: Iterable[int], index: int, end: int | None, side: int) -> set[int]:
    """Those of the slices that lie beyond `index`, and before `end` where there is one."""
    return {i for i in slices if (i - index) * side > 0 and (end is None or (end - i) * side > 0)}


def takes_back(
    stop: Stop | None,
    index: int,
    end: int | None,
    side: int,
    reached: set[int],
    earlier: Mapping[int, np.ndarray],
    now: Mapping[int, np.ndarray],
) -> bool:
    """Whether a corrected slide that ended takes back what an earlier one left beyond.

    Not where it was cancelled. Nor where it ended in doubt between two prompted slices, since the
    object surely goes on there, or with a last mask much like the one that was there: what had
    been found does not become wrong by a doubt.

    stop : of the stretch, or None where nothing was slid; index, end, side : as in `stretch_name`.
    reached : the slices of the new slide; earlier, now : slice index -> mask (H, W) before, after.
    """
    if stop is None or stop is Stop.CANCELLED:
        return False
    if stop is not Stop.LOW_QUALITY:
        return True
    last = max({index, *reached}, key=lambda i: i * side)
    return end is None and not _alike(earlier.get(last), now.get(last))


def _alike(earlier: np.ndarray | None, now: np.ndarray | None) -> bool:
    if earlier is None or now is None or not now.any():
        return False
    return 2 * int((earlier & now).sum()) >= ALIKE * (int(earlier.sum()) + int(now.sum()))
