"""The two protocols: what a run is told about a structure's ends, and where it is judged.

full : the run is told nothing and must stop by itself; the Dice is taken over the whole volume.
extent : the run is given the structure's first and last slice as its limits; the Dice is taken
    over those slices (the published protocol).

The two are separate runs. An extent run is not a full run cut off at the limits, because the
windows at the limits are fused differently and a full run may stop early.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .metrics import extent

FULL, EXTENT = "full", "extent"
CHOICES = (FULL, EXTENT, "both")


def chosen(protocol: str) -> tuple[str, ...]:
    """The protocols that a choice stands for: "full", "extent" or "both"."""
    if protocol not in CHOICES:
        raise InputError(f"The protocol must be one of {', '.join(CHOICES)}, not {protocol!r}.")
    return (FULL, EXTENT) if protocol == "both" else (protocol,)


def limits(protocol: str, truth: np.ndarray) -> tuple[int | None, int | None]:
    """What a run is told: its first and last slice, or None for no limit."""
    return extent(truth) if protocol == EXTENT else (None, None)


def judged(protocol: str, truth: np.ndarray) -> slice:
    """The slices of the stack over which the metrics are taken."""
    if protocol == FULL:
        return slice(None)
    first, last = extent(truth)
    return slice(first, last + 1)
