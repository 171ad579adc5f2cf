"""The protocols: what a run is told about a structure's ends, and where it is judged.

full : the run is told nothing and must stop by itself; the Dice is taken over the whole volume.
extent : the run is given the structure's first and last slice as its limits; the Dice is taken
    over those slices (the published protocol).

clicks : as full, then a simulated user corrects until the Dice is high enough, see `clicks`.

They are separate runs. An extent run is not a full run cut off at the limits, because the
windows at the limits are fused differently and a full run may stop early.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .metrics import extent

FULL, EXTENT, CLICKS = "full", "extent", "clicks"
SETS = {"both": (FULL, EXTENT), "all": (FULL, EXTENT, CLICKS)}
CHOICES = (FULL, EXTENT, CLICKS, *SETS)


def chosen(protocol: str) -> tuple[str, ...]:
    """The protocols that a choice stands for: one, "both" (full and extent) or "all"."""
    if protocol not in CHOICES:
        raise InputError(f"The protocol must be one of {', '.join(CHOICES)}, not {protocol!r}.")
    return SETS.get(protocol, (protocol,))


def limits(protocol: str, truth: np.ndarray) -> tuple[int | None, int | None]:
    """What a run is told: its first and last slice, or None for no limit."""
    return extent(truth) if protocol == EXTENT else (None, None)


def judged(protocol: str, truth: np.ndarray) -> slice:
    """The slices of the stack over which the metrics are taken."""
    if protocol != EXTENT:
        return slice(None)
    first, last = extent(truth)
    return slice(first, last + 1)
