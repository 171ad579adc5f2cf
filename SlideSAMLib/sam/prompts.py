"""Prompts of windows as what a SAM network takes: tensors in its S x S frame.

A slice of H x W voxels is stretched to the S x S pixels of the network without keeping its aspect
ratio, so column x covers S / W pixels. Voxel centres are integers, and SAM adds half a pixel to
every coordinate by itself. Hence a point at x lies at (x + 0.5) S / W - 0.5. A box marks whole
voxels, so it is given as the first and the last pixel that its voxels cover: x0 S / W and
(x1 + 1) S / W - 1; that is the box one would read off the stretched mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..boxes import Box
from ..compute.devices import on_device
from ..errors import InputError
from ..patches import KnownMasks
from ..protocol import WindowPrompt

# A mask prompt is a logit in SAM. Probabilities are kept this far from 0 and 1: logits to +-9.2.
_MARGIN = 1e-4


class Kind(NamedTuple):
    """What prompts must have in common to be decoded in one batch.

    shape : (H, W) of the slice. points : how many. box, masks : whether there are any.
    """

    shape: tuple[int, int]
    points: int
    box: bool
    masks: bool

    @property
    def clear(self) -> bool:
        """Whether the prompt says what is meant; a single point may stand for several objects."""
        return self.box or self.points != 1


def kind_of(prompt: WindowPrompt, shape: tuple[int, int]) -> Kind:
    """The kind of a prompt on a slice (H, W). Raises InputError where the prompt is empty."""
    masks = prompt.masks is not None and any(prompt.known)
    if not prompt.points and prompt.box is None and not masks:
        raise InputError("There is no prompt for this window: give a box or a point.")
    return Kind(shape, len(prompt.points), prompt.box is not None, masks)


class FramedPrompts(NamedTuple):
    """B prompts of one kind, float32 on a device; None where the kind has none.

    coordinates (B, N, 2), labels (B, N) and boxes (B, 4) in the frame; known (B, 3) and masks
    (B, 3, H, W) in 0..1 at the size of the slice, see `mask_logits`.
    """

    coordinates: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    known: Tensor | None
    masks: Tensor | None


def framed(
    prompts: Sequence[WindowPrompt], kind: Kind, size: int, device: torch.device
) -> FramedPrompts:
    """Prompts of one kind in the frame of `size` pixels a side, on a device.

    The host waits for nothing.
    """
    numbers: dict[str, np.ndarray] = {}
    if kind.points:
        points = [points_to_frame(np.array(p.points), *kind.shape, size) for p in prompts]
        numbers["coordinates"] = np.stack(points)
        numbers["labels"] = np.array([p.labels for p in prompts])
    if kind.box:
        numbers["boxes"] = np.stack([box_to_frame(p.box, *kind.shape, size) for p in prompts])
    masks = None
    if kind.masks:
        numbers["known"] = np.array([p.known for p in prompts])
        masks = _masks(prompts, device)
    # One copy to the device for all of the few numbers.
    flat = on_device(np.concatenate([n.ravel() for n in numbers.values()]), device)
    parts = flat.split([each.size for each in numbers.values()])
    found = {
        name: part.view(each.shape)
        for (name, each), part in zip(numbers.items(), parts, strict=True)
    }
    names = ("coordinates", "labels", "boxes", "known")
    return FramedPrompts(*(found.get(name) for name in names), masks)


def _masks(prompts: Sequence[WindowPrompt], device: torch.device) -> Tensor:
    """The masks of the prompts, float32 (B, 3, H, W) in 0..1, on a device."""
    if not all(isinstance(p.masks, KnownMasks) for p in prompts):
        return on_device([np.asarray(p.masks) for p in prompts], device)
    # Logits of what is known are sent; the device itself makes probabilities of them.
    pairs = [(n, place) for n, p in enumerate(prompts) for place in p.masks.known]
    logits = on_device([prompts[n].masks.logits(place) for n, place in pairs], device)
    out = logits.new_zeros(len(prompts), *prompts[0].masks.shape)
    for (n, place), values in zip(pairs, logits, strict=True):
        torch.sigmoid(values, out=out[n, place])
    return out


def points_to_frame(points: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    """Points (N, 2), (x, y) in voxels of the slice, in pixels of the S x S frame."""
    return (np.asarray(points, np.float64) + 0.5) * (size / width, size / height) - 0.5


def box_to_frame(box: Box, height: int, width: int, size: int) -> np.ndarray:
    """A box in voxels, corners inclusive, as first and last pixels in the S x S frame."""
    x0, y0, x1, y1 = box
    scale = np.array([size / width, size / height])
    first = np.array([x0, y0]) * scale
    last = (np.array([x1, y1]) + 1) * scale - 1
    return np.concatenate([first, np.maximum(last, first)])


def mask_logits(probability: Tensor, known: Tensor, side: int) -> Tensor:
    """Masks (B, 3, H, W) in 0..1 as a mask prompt (B, 3, side, side): logits, 0 where unknown.

    known : (B, 3), 1 where a mask means something, else 0.
    """
    small = F.interpolate(probability, (side, side), mode="bilinear", antialias=True)
    return torch.logit(small, eps=_MARGIN) * known[:, :, None, None]
