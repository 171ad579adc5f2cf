"""What goes into a slide (its settings) and what comes out (finished slices). No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from ..patches import Patch

SCHEMES = ("default", "reference")


@dataclass(frozen=True)
class SlideSettings:
    """Every decision of the sliding, as a number.

    The reference scheme uses `scheme`, `shift_box` and `encode_batch` only; its own figures are
    constants of `reference_scheme`, since they are what was published.

    Raises InputError where a value is out of its range.
    """

    scheme: str = "default"  # "default", or "reference": the published scheme, for comparison

    shift_box: bool = True  # reference scheme: its "enlarged" box moves, as published, or grows

    # The next window's prompt; models that look beyond a box get it as it is (`box_margin`)
    enlarge_fraction: float = 0.06  # of the box's side, added on each side
    enlarge_voxels: float = 0.5  # added on each side as well
    box_ignore_fraction: float = 0.05  # parts smaller than this share of the largest: not boxed
    use_masks: bool = True  # give models that know mask prompts the masks of shared slices
    use_memory: bool = True  # carry what the model remembers of the user's slice
    keep_mask_prompts: bool = True  # a slice prompted by a mask alone keeps exactly that mask

    # The choice among the candidates of a window: the greatest weighted sum wins
    quality_weight: float = 1.0  # of the predicted IoU, 0..1
    agreement_weight: float = 0.5  # of the Dice with the previous window on shared slices, 0..1
    stability_weight: float = 0.25  # of area(p > 0.7) / area(p > 0.3) on the centre slice, 0..1
    first_bonus: float = 0.1  # added to candidate 0, the model's single best answer

    # The fusion of the up to three views of a slice
    centre_weight: float = 1.0  # the view of the window centred on the slice
    outer_weight: float = 0.25  # the views of the two neighbouring windows
    prompted_outer_weight: float = 0.0  # the neighbours' views of a slice that the user prompted
    logit_limit: float = 8.0  # logits are clipped to +- this before they are averaged
    carried_doubt: float = 0.2  # share of a slice's doubt that the slices after it inherit
    doubt_reach: float = 0.03  # of the object's width: where slices lie closer, less is inherited
    point_caution: float = 1.4  # power of the confidence after points alone, see `front`
    meet_overlap: int = 2  # slices that both fronts predict where they meet between two prompts

    # How far an outline may move from one slice to the next (`outline`); inf for no limit
    outline_slope: float = 0.5  # mm per mm along the slide, plus ...
    outline_voxels: float = 1.0  # ... voxels of the slice

    # Stops; a threshold of 0 (or inf for growth) switches its rule off
    min_area_mm2: float = 5.0  # smallest mask of a slice, mm2 (less on small objects: `stops`) ...
    min_area_voxels: int = 4  # ... and in voxels; the stricter one counts
    min_presence: float = 0.25  # probability that the object is on the slice, 0..1
    min_quality: float = 0.25  # predicted IoU of the chosen candidate, 0..1
    min_stability: float = 0.15  # area(p > 0.7) / area(p > 0.3) on the centre slice, 0..1
    min_confidence: float = 0.3  # with the doubt of the way, where no limit is given, 0..1
    min_agreement: float = 0.3  # mean IoU with the previous window on shared slices, 0..1
    max_growth: float = 2.5  # area over the area on the slice before, ratio
    max_growth_total: float = 8.0  # area over the area on the nearest prompted slice, ratio
    growth_floor_mm2: float = 100.0  # no smaller area counts as grown, mm2 (see min_area_mm2)

    encode_batch: int = 0  # windows encoded at once, the needed one included; 0: the model knows

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InputError(
                f"The sliding scheme must be one of {', '.join(SCHEMES)}, not {self.scheme!r}."
            )
        shares = (
            "box_ignore_fraction",
            "carried_doubt",
            "doubt_reach",
            "min_presence",
            "min_quality",
            "min_stability",
            "min_confidence",
            "min_agreement",
        )
        for name in shares:
            self._check(name, 0.0 <= getattr(self, name) <= 1.0, "between 0 and 1")
        at_least_zero = (
            "enlarge_fraction",
            "enlarge_voxels",
            "quality_weight",
            "agreement_weight",
            "stability_weight",
            "first_bonus",
            "outer_weight",
            "prompted_outer_weight",
            "min_area_mm2",
            "min_area_voxels",
            "growth_floor_mm2",
        )
        for name in at_least_zero:
            self._check(name, 0.0 <= getattr(self, name) < np.inf, "0 or greater and finite")
        for name in ("centre_weight", "point_caution"):
            self._check(name, 0.0 < getattr(self, name) < np.inf, "greater than 0 and finite")
        for name in ("logit_limit", "max_growth", "max_growth_total"):
            self._check(name, getattr(self, name) > 0.0, "greater than 0")
        for name in ("outline_slope", "outline_voxels"):
            self._check(name, getattr(self, name) >= 0.0, "0 or greater")
        for name in ("meet_overlap", "encode_batch"):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer)
            self._check(name, whole and value >= 0, "a whole number, 0 or greater")

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            value = getattr(self, name)
            raise InputError(f"The sliding setting {name} must be {wanted}, not {value!r}.")


@dataclass(frozen=True, eq=False)
class Reference:
    """A slice whose mask is trusted: what is sought on another slice looks like this.

    index : slice index along the slide axis; mask : bool (H, W).
    """

    index: int
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class FinishedSlice:
    """One slice of the result, as known now.

    index : slice index along the slide axis.
    mask : bool (H, W); of a Session it is read-only, as its result shares it.
    probability : float32 (H, W) in 0..1, or None where the scheme has none; made once it is asked
        for.
    confidence : 0..1, see `fusion.SliceRecord.confidence` and, after points alone, `front`.
    direction : 0 for a prompted slice, +1 or -1 for the way that the slide was going.
    done : number of different slices finished so far.
    total : number of slices that will be done at most, or None where nobody can know.
    patch : the logits on the part of the slice that was looked at, or None where `probability` is.
    """

    index: int
    mask: np.ndarray
    confidence: float
    direction: int
    done: int
    total: int | None
    patch: Patch | None = field(default=None, repr=False)

    @cached_property
    def probability(self) -> np.ndarray | None:
        return None if self.patch is None else self.patch.probability(self.mask.shape)
