"""Prompts for windows: from what the user marked, and from the masks of earlier windows.

No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..boxes import Box, around, grown, mask_box
from ..errors import InputError
from ..patches import KnownMasks, Patch
from ..prompts import SlicePrompt, check_kind
from ..protocol import WindowPrompt
from .slide_types import SlideSettings


def merge_prompts(prompts: Iterable[SlicePrompt]) -> dict[int, SlicePrompt]:
    """One prompt per slice, in the order in which the slices first appear.

    On one slice the boxes become the box around them all (a window takes one box), the points
    are put together, and the masks are united.

    Raises InputError where there is no prompt, or one that is not a SlicePrompt.
    """
    merged: dict[int, SlicePrompt] = {}
    if not isinstance(prompts, Iterable):
        raise InputError(f"Prompts must be a list of SlicePrompt objects, not {prompts!r}.")
    for prompt in prompts:
        check_kind(prompt)
        earlier = merged.get(prompt.index)
        merged[prompt.index] = prompt if earlier is None else _merge_two(earlier, prompt)
    if not merged:
        raise InputError("There is no prompt: mark the object on at least one slice.")
    return merged


def _merge_two(first: SlicePrompt, second: SlicePrompt) -> SlicePrompt:
    boxes = [prompt.box for prompt in (first, second) if prompt.box is not None]
    masks = [prompt.mask for prompt in (first, second) if prompt.mask is not None]
    if len(masks) == 2 and masks[0].shape != masks[1].shape:
        raise InputError(
            f"The two mask prompts on slice {first.index} have different shapes: "
            f"{masks[0].shape} and {masks[1].shape}."
        )
    return SlicePrompt(
        index=first.index,
        box=around(boxes) if boxes else None,
        points=(*first.points, *second.points),
        labels=(*first.labels, *second.labels),
        mask=np.logical_or.reduce(masks) if masks else None,
    )


def first_prompt(
    prompt: SlicePrompt,
    shape: tuple[int, int],
    settings: SlideSettings,
    knows_masks: bool,
    memory: Any = None,
    distance: int = 0,
) -> WindowPrompt:
    """The window prompt of a slice that the user marked; `shape` is (H, W).

    A mask stands for the known centre mask (for models that know masks); without a box of its
    own its enlarged bounding box becomes the box.

    memory : what the model remembers of another slice with the object, where one is known;
        distance : slices to there.
    """
    box = prompt.clamped_box(*shape)
    masks, known = None, (False, False, False)
    if prompt.mask is not None:
        if box is None:
            box = enlarged(mask_box(prompt.mask), shape, settings)
        if knows_masks and settings.use_masks:
            masks = np.zeros((3, *shape), np.float32)
            masks[1] = prompt.mask
            known = (False, True, False)
    return WindowPrompt(
        box=box,
        points=prompt.points,
        labels=prompt.labels,
        masks=masks,
        known=known,
        memory=memory if settings.use_memory else None,
        distance=distance,
    )


def following_prompt(
    known: Mapping[int, Patch],
    shape: tuple[int, int],
    settings: SlideSettings,
    knows_masks: bool,
    memory: Any = None,
    distance: int = 0,
) -> WindowPrompt:
    """The window prompt that comes from earlier windows.

    known : place in the window (0 before, 1 centre, 2 after) -> newest logits; the centre is
        always there and not empty, since its bounding box is the box.
    memory : what the model remembers of the nearest prompted slice; distance : slices to there.
    """
    centre = known[1]
    y, x = centre.start
    x0, y0, x1, y1 = mask_box(centre.filled, settings.box_ignore_fraction)
    box = enlarged((x0 + x, y0 + y, x1 + x, y1 + y), shape, settings)
    masks, flags = None, (False, False, False)
    if knows_masks and settings.use_masks:
        masks = KnownMasks(known, shape)
        flags = (0 in known, 1 in known, 2 in known)
    return WindowPrompt(
        box=box,
        masks=masks,
        known=flags,
        memory=memory if settings.use_memory else None,
        distance=distance,
    )


def enlarged(box: Box, shape: tuple[int, int], settings: SlideSettings) -> Box:
    """The box, larger on every side by a share of its size plus a margin, cut to the slice."""
    x0, y0, x1, y1 = box
    dx = settings.enlarge_fraction * (x1 - x0 + 1) + settings.enlarge_voxels
    dy = settings.enlarge_fraction * (y1 - y0 + 1) + settings.enlarge_voxels
    return grown(box, dx, dy, shape)
