"""Slices that a correction adds to a result: which, what they go by, and what stays. No torch here.

A prompt on a slice on which nothing was found, or something else, tells where the object is there
and hardly what it looks like. That is seen on other slices. It also says little against what was
found on these, so a slide from it fills the slices without a mask and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from ..prompts import SlicePrompt
from .corrections import is_elsewhere
from .slide_types import Reference
from .stretches import between, stretch_name


def adds_slice(
    prompt: SlicePrompt, masks: Mapping[int, np.ndarray], spacing: tuple[float, float]
) -> bool:
    """Whether a prompt adds its slice to a result: nothing was found on it, or something else.

    masks : slice index -> bool (H, W), the result so far; spacing : (row, column) in mm.
    """
    if prompt.mask is not None:
        return False
    mask = masks.get(prompt.index)
    if mask is None or not mask.any():
        return True
    return is_elsewhere(mask, _inside(prompt), spacing)


def reference_for(
    prompt: SlicePrompt,
    masks: Mapping[int, np.ndarray],
    prompted: Collection[int],
    changed: Collection[int],
    spacing: tuple[float, float],
) -> Reference | None:
    """The slice that shows best what is sought where a prompt adds its slice; None without one.

    It is the nearest prompted one with a mask: a user has seen to that. Where no prompted one has
    a mask it is the nearest one that has; where the mask of the slice itself lies elsewhere, not
    one that does so, too.

    masks : slice index -> bool (H, W), the result so far; spacing : (row, column) in mm.
    prompted : the prompted slices; changed : those whose prompt or candidate was not run yet. The
    result may be of another object than these mean, so none of it but other prompted slices counts.
    """
    index, found = prompt.index, {i for i, mask in masks.items() if mask.any()}
    others = set(prompted) - {index}
    usable = found & others.difference(changed)
    if not usable and others.isdisjoint(changed):
        usable = found
        if index in found:
            usable = {i for i in usable if not is_elsewhere(masks[i], _inside(prompt), spacing)}
    if not usable:
        return None
    nearest = min(usable, key=lambda i: (abs(i - index), i))
    return Reference(nearest, masks[nearest])


def staying(
    masks: Mapping[int, np.ndarray],
    prompt: SlicePrompt,
    beside: tuple[int | None, int | None],
    changed: Collection[int],
    spacing: tuple[float, float],
) -> set[int]:
    """The slices that stay as they are where a correction adds the slice of its prompt.

    They are those with a mask, up to the next prompted slices, except for two kinds. Where the mask
    of the slice itself lies elsewhere, so may those next to it: they are slid again up to the first
    one that the points do not speak against. And towards a prompted slice that changed, what was
    found goes back to a prompt that no longer is.

    masks : slice index -> bool (H, W), the result before; beside : the prompted slices before and
    after, or None; changed : those whose prompt or candidate was not run yet; spacing : (row,
    column) in mm.
    """
    found = {i for i, mask in masks.items() if mask.any()}
    stays: set[int] = set()
    for side, end in zip((-1, 1), beside, strict=True):
        if end in changed:
            continue
        these = between(found, prompt.index, end, side)
        if prompt.index in found:
            following = prompt.index + side
            while following in these and is_elsewhere(masks[following], _inside(prompt), spacing):
                these.remove(following)
                following += side
        stays |= these
    return stays


def whole_stretches(index: int, ends: Iterable[int], kept: Collection[int]) -> dict[str, int]:
    """The stretches from a prompted slice to the next ones in which nothing is to be filled.

    Returns the name -> the next prompted slice; kept : the slices that stay as they are.
    """
    return {
        stretch_name(index, end, 0): end
        for end in ends
        if end in kept and all(i in kept for i in range(min(index, end) + 1, max(index, end)))
    }


def _inside(prompt: SlicePrompt) -> list[tuple[float, float]]:
    return [p for p, label in zip(prompt.points, prompt.labels, strict=True) if label]
