"""Several views of one slice made into one mask, and how sure that mask is. No torch here.

A *view* is what one window said about a slice: logits on the part of the slice that the window
looked at. A slice has up to three: from the window centred on it and from the two beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..patches import BACKGROUND, REMOTE, Extent, Patch, common_extent, dice, stability, union
from .slide_types import SlideSettings

WINDOWS = 3  # that see a slice, at most
ABSENCE = 0.3  # probability that the object is not there, from which on a slice is all in doubt
LEAST_TRUST = 0.5  # of the hold: as long as the object is there, outlines are not worse and worse


@dataclass(frozen=True, eq=False)
class View:
    """One window's word on a slice; `central` where the window was centred on the slice."""

    patch: Patch
    weight: float
    central: bool = False


def fuse(views: Sequence[View], limit: float) -> Patch:
    """The weighted mean of the views' logits, clipped to +-limit first.

    A voxel outside a view's part of the slice is no vote of that view: there the others decide
    alone. Views of weight 0 are left out, unless all weights are 0: then the first view counts.
    Where one view counts, its patch is returned as it is, unclipped.
    """
    counted = [view for view in views if view.weight > 0] or [View(views[0].patch, 1.0)]
    if len(counted) == 1:
        return counted[0].patch
    top, left, bottom, right = union([view.patch for view in counted])
    total = np.zeros((bottom - top, right - left), np.float32)
    weights = np.zeros_like(total)
    for view in counted:
        logits = view.patch.logits
        y, x = view.patch.corner[0] - top, view.patch.corner[1] - left
        part = np.s_[y : y + logits.shape[0], x : x + logits.shape[1]]
        total[part] += view.weight * np.clip(logits, -limit, limit)
        weights[part] += view.weight
    unseen = weights == 0
    if unseen.any():  # at most some corners; they become BACKGROUND / 1
        np.copyto(total, BACKGROUND, where=unseen)
        weights[unseen] = 1
    np.divide(total, weights, out=total)
    return Patch((top, left), total, _extent(counted, (top, left), limit))


def _extent(counted: Sequence[View], corner: tuple[int, int], limit: float) -> Extent | None:
    """Around the views' extents, in rows and columns from a corner: a mean above -REMOTE needs a
    view above it. None where views are clipped to less."""
    if limit < REMOTE:
        return None
    return common_extent([view.patch for view in counted], corner)


@dataclass(eq=False)
class SliceRecord:
    """All that windows said about one slice.

    views : the central view (if any) and the outer ones, in the order in which they came.
    quality : predicted IoU of the window centred on the slice, or None.
    presence : probability that the object is on the slice, or None.
    trust : 0..1, what the doubt about the slices on the way from the prompt leaves for this one.
    hold : 0..1, what the doubt that the object is on them leaves, see `inherited`.
    """

    settings: SlideSettings
    views: list[View] = field(default_factory=list)
    quality: float | None = None
    presence: float | None = None
    trust: float = 1.0
    hold: float = 1.0
    _fused: Patch | None = field(default=None, init=False, repr=False)
    _sum: np.ndarray | None = field(default=None, init=False, repr=False)
    _summed: int = field(default=0, init=False, repr=False)
    _sureness: tuple[tuple, float] | None = field(default=None, init=False, repr=False)

    def add(self, patch: Patch, weight: float, central: bool = False) -> None:
        """Add what one more window said; the patch's logits must not change afterwards."""
        self.views.append(View(patch, weight, central))
        self._fused = None

    def fused(self) -> Patch:
        """The weighted mean of the views."""
        if self._fused is None:
            self._fused = self._fused_alike() or fuse(self.views, self.settings.logit_limit)
        return self._fused

    def _fused_alike(self) -> Patch | None:
        """`fuse` where all views are of one part of the slice; None where they are not.

        Every view is added to the sum once: a slice is fused again with each view that comes.
        """
        counted = [view for view in self.views if view.weight > 0]
        places = {(view.patch.corner, view.patch.logits.shape) for view in counted}
        if len(counted) < 2 or len(places) > 1:
            return None
        limit = self.settings.logit_limit
        total, known = self._sum, 0 if self._sum is None else self._summed
        for view in counted[known:]:
            votes = np.clip(view.patch.logits, -limit, limit, dtype=np.float32)
            votes *= view.weight
            total = votes if total is None else np.add(total, votes, out=total)
        weights = sum(view.weight for view in counted)
        complete = len(counted) == WINDOWS  # no more will come: the sum itself can become the mean
        mean = np.divide(total, weights, out=total if complete else None)
        self._sum, self._summed = (None, 0) if complete else (total, len(counted))
        corner = counted[0].patch.corner
        return Patch(corner, mean, _extent(counted, corner, limit))

    def joined(
        self, patch: Patch, weight: float, quality: float, presence: float | None
    ) -> SliceRecord:
        """The record with the window that is centred on the slice; this one stays as it is."""
        views = [*self.views, View(patch, weight, central=True)]
        return SliceRecord(self.settings, views, quality, presence, self.trust, self.hold)

    def confidence(self) -> float:
        """How sure the slice is, 0..1: by itself, times the trust in the way that led to it."""
        return max(self.trust, LEAST_TRUST * self.hold) * self.sureness()

    def lasting(self) -> float:
        """What of the confidence says whether the slide still is on the object, 0..1."""
        return self.hold * self.sureness()

    def inherited(self, step: float) -> tuple[float, float]:
        """Trust and hold for the next slice on the way: a share of this one's doubt is taken off.

        From the trust that is all doubt, from the hold the doubt that the object is there, where
        the model tells a presence. An outline that is not sure, as every one of a few voxels, may
        still be that of the object: a slide along a vessel would end after some dozens of slices.

        step : how far it is to that slice, as a share of the object's width.
        """
        reach = self.settings.doubt_reach
        share = self.settings.carried_doubt * (min(step / reach, 1.0) if reach else 1.0)
        doubt = absent = 1.0 - self.sureness()
        if self.presence is not None:
            absent = min(((1.0 - self.presence) / ABSENCE) ** 2, 1.0)
        return self.trust * (1.0 - share * doubt), self.hold * (1.0 - share * absent)

    def sureness(self) -> float:
        """How sure the slice is by itself, 0..1: the geometric mean of what is known of

        - the predicted IoU of the candidate chosen in the window centred on the slice,
        - the presence that this window gave,
        - the mean Dice between this window's mask and those of the neighbouring windows, or of
          both windows centred there with all others where two fronts met,
        - the stability of the fused mask: area(p > 0.7) / area(p > 0.3).

        An empty mask has the confidence 0.
        """
        known = (len(self.views), self.quality, self.presence)
        if self._sureness is None or self._sureness[0] != known:
            self._sureness = known, self._how_sure()
        return self._sureness[1]

    def _how_sure(self) -> float:
        fused = self.fused()
        if fused.voxels == 0:
            return 0.0
        factors = [stability(fused)]
        factors += [value for value in (self.quality, self.presence) if value is not None]
        compared = [
            dice(one.patch, other.patch)
            for one in self.views
            if one.central
            for other in self.views
            if other is not one
        ]
        if compared:
            factors.append(float(np.mean(compared)))
        clipped = np.clip(factors, 0.0, 1.0)
        return float(np.prod(clipped) ** (1.0 / len(clipped)))


def blend(
    first: SliceRecord, second: SliceRecord, first_weight: float, second_weight: float
) -> SliceRecord:
    """One record of a slice that two fronts predicted; the weights need not sum to 1."""
    total = first_weight + second_weight
    shares = (first_weight / total, second_weight / total)
    pairs = list(zip((first, second), shares, strict=True))
    views = [
        View(view.patch, view.weight * share, view.central)
        for record, share in pairs
        for view in record.views
    ]
    return SliceRecord(
        settings=first.settings,
        views=views,
        quality=_weighted([(record.quality, share) for record, share in pairs]),
        presence=_weighted([(record.presence, share) for record, share in pairs]),
        trust=sum(record.trust * share for record, share in pairs),
        hold=sum(record.hold * share for record, share in pairs),
    )


def _weighted(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in pairs if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
