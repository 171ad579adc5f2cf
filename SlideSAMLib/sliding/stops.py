"""Why a slide ends, and the rules that decide it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .slide_types import SlideSettings

# Of the area on the prompted slice: the most that `min_area_mm2` may ask for. A vessel is prompted
# where it runs along the slice, and is a fiftieth as large where it crosses it.
SMALLEST_SHARE = 0.02
FLOOR_SHARE = 2.0  # of the area on the prompted slice: the most for `growth_floor_mm2`


class Stop(StrEnum):
    """Why a direction, or the stretch between two prompts, ended; a text as well.

    The rules are those of `judge`, the thresholds those of `SlideSettings`.
    """

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
    voxels_prompted : size on the nearest prompted slice.
    voxels_start : size on the prompted slice that the front comes from, which may be another one.
    presence : probability that the object is on it, 0..1, or None where nobody tells or the object
        surely goes on: within limits that a user has set, and between two prompts.
    quality, stability, agreement : 0..1 of its own window, or None before that was predicted.
    voxels_before : size on the slice before, or None before its own window was predicted.
    confidence : 0..1 with the doubt that the object was there on the way (`SliceRecord.lasting`),
        or None where the object surely goes on.
    """

    voxels: int
    voxels_prompted: int
    voxels_start: int = 0
    presence: float | None = None
    quality: float | None = None
    stability: float | None = None
    agreement: float | None = None
    voxels_before: int | None = None
    confidence: float | None = None


def judge(found: Findings, voxel_area: float, settings: SlideSettings) -> Stop | None:
    """The reason why a slice is not sound, or None where it is.

    `voxel_area` in mm2. Rules whose finding is None do not apply. The areas in mm2 are meant for
    organs: on objects that are themselves as small (cells, vessels, small animals) shares of the
    prompted slice take their place.
    """
    if found.voxels == 0 or _below(found.presence, settings.min_presence):
        return Stop.NOTHING_LEFT
    smallest = min(settings.min_area_mm2 / voxel_area, SMALLEST_SHARE * found.voxels_prompted)
    if found.voxels < max(smallest, settings.min_area_voxels):
        return Stop.TOO_SMALL
    if _below(found.quality, settings.min_quality):
        return Stop.LOW_QUALITY
    if _below(found.stability, settings.min_stability):
        return Stop.LOW_QUALITY
    if _below(found.confidence, settings.min_confidence):
        return Stop.LOW_QUALITY
    if _below(found.agreement, settings.min_agreement):
        return Stop.DISAGREEMENT
    # On the nearest one a correction may have left little.
    prompted = max(found.voxels_prompted, found.voxels_start)
    floor = min(settings.growth_floor_mm2 / voxel_area, FLOOR_SHARE * prompted)
    if (
        found.voxels_before is not None
        and found.voxels >= floor
        and (
            _grown(found.voxels, found.voxels_before, settings.max_growth)
            or _grown(found.voxels, prompted, settings.max_growth_total)
        )
    ):
        return Stop.SUDDEN_GROWTH
    return None


def _below(value: float | None, threshold: float) -> bool:
    return value is not None and value < threshold


def _grown(voxels: int, reference: int | None, ratio: float) -> bool:
    return bool(reference) and voxels > ratio * reference
