"""Why a slide ends, and the rules that decide it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .slide_types import SlideSettings


class Stop(StrEnum):
    """Why a direction ended."""

    NOTHING_LEFT = "nothing left"
    TOO_SMALL = "too small"
    LOW_QUALITY = "low quality"
    DISAGREEMENT = "disagreement"
    SUDDEN_GROWTH = "sudden growth"
    LIMIT_REACHED = "limit reached"
    END_OF_VOLUME = "end of volume"
    MET_NEXT_PROMPT = "met the next prompt"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Findings:
    """What is known about a slice when it is judged.

    voxels : size of its mask.
    presence : probability that the object is on it, 0..1, or None.
    quality, stability, agreement : 0..1 of its own window, or None before that was predicted.
    voxels_before, voxels_prompted : sizes on the slice before and on the nearest prompted slice.
    """

    voxels: int
    presence: float | None = None
    quality: float | None = None
    stability: float | None = None
    agreement: float | None = None
    voxels_before: int | None = None
    voxels_prompted: int | None = None


def judge(found: Findings, voxel_area: float, settings: SlideSettings) -> Stop | None:
    """The reason why a slice is not sound, or None where it is.

    `voxel_area` in mm2. Rules whose finding is None do not apply.
    """
    if found.voxels == 0 or _below(found.presence, settings.min_presence):
        return Stop.NOTHING_LEFT
    smallest = max(settings.min_area_mm2 / voxel_area, settings.min_area_voxels)
    if found.voxels < smallest:
        return Stop.TOO_SMALL
    if _below(found.quality, settings.min_quality):
        return Stop.LOW_QUALITY
    if _below(found.stability, settings.min_stability):
        return Stop.LOW_QUALITY
    if _below(found.agreement, settings.min_agreement):
        return Stop.DISAGREEMENT
    if found.voxels * voxel_area >= settings.growth_floor_mm2 and (
        _grown(found.voxels, found.voxels_before, settings.max_growth)
        or _grown(found.voxels, found.voxels_prompted, settings.max_growth_total)
    ):
        return Stop.SUDDEN_GROWTH
    return None


def _below(value: float | None, threshold: float) -> bool:
    return value is not None and value < threshold


def _grown(voxels: int, reference: int | None, ratio: float) -> bool:
    return bool(reference) and voxels > ratio * reference
