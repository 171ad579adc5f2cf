"""Losses of one window, and the figures that the training curve shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .fields import UNLABELLED, only_labelled
from .rollouts import Step

ABSENT_WEIGHT = 6.0  # of slices without the object in the presence loss
SMOOTH = 0.005  # share of the region: what an empty mask is measured against


def window_loss(
    logits: torch.Tensor,
    fine: torch.Tensor,
    quality: torch.Tensor,
    presence: torch.Tensor,
    step: Step,
) -> torch.Tensor:
    """Mean loss of a batch; the tensors are the network's four outputs.

    Pixels that nobody has labelled count in none of its parts.

    Candidate 0 always learns, on the fine raster; of the others only the best, with more weight
    where points alone leave open what is meant. Predicted quality learns the IoU of its
    candidate, presence whether the object is on a slice at all.
    """
    open_ended = step.ambiguous.float()
    main = slice_loss(fine[:, None], step.target, step.valid)[:, 0] * (1 - 0.4 * open_ended)
    coarse = _coarser(step.target, fine.shape[-1] // logits.shape[-1])
    others = slice_loss(logits[:, 1:], coarse, step.valid)
    best = others.min(1).values * (0.25 + 0.45 * open_ended)
    rating = F.mse_loss(quality.sigmoid(), iou(logits.detach(), coarse, step.valid))
    there = (step.target.amax((-2, -1)) > 0.5).float()
    # Ends are rare: without the weight "always present" is the best answer for a long time.
    weight = step.valid * torch.where(there > 0, 1.0, ABSENT_WEIGHT)
    weight = weight * decided(step.target)
    seen = F.binary_cross_entropy_with_logits(presence, there, weight=weight)
    return (main + best).mean() + 0.5 * rating + 0.3 * seen


def slice_loss(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """2 x cross-entropy + (1 - Dice), mean over the slices that exist: (B, C).

    logits (B, C, 3, g, g), target (B, 3, g, g) soft or UNLABELLED, valid (B, 3).
    """
    known, target = labelled_part(target[:, None].expand_as(logits))
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross = mean_labelled(cross, known)
    p = logits.sigmoid().masked_fill(~known, 0)
    both, either = (p * target).sum((-2, -1)), (p + target).sum((-2, -1))
    smooth = SMOOTH * logits.shape[-1] ** 2
    per_slice = 2 * cross + 1 - (2 * both + smooth) / (either + smooth)
    valid = valid[:, None]
    return (per_slice * valid).sum(2) / valid.sum(2).clamp(min=1)


def labelled_part(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a target is labelled, bool, and the target with 0 in all other places."""
    return target != UNLABELLED, target.clamp(min=0)


def mean_labelled(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The mean of each slice (..., g, g) over its labelled pixels; 0 where it has none."""
    count = known.sum((-2, -1)).clamp(min=1)
    return values.masked_fill(~known, 0).sum((-2, -1)) / count


def decided(target: torch.Tensor) -> torch.Tensor:
    """Whether it is known of each slice (..., g, g) if the object is on it: bool (...)."""
    return (target.amax((-2, -1)) > 0.5) | (target.amin((-2, -1)) != UNLABELLED)


def _coarser(target: torch.Tensor, factor: int) -> torch.Tensor:
    known, target = labelled_part(target)
    return only_labelled(F.avg_pool2d(target, factor), F.avg_pool2d(known.float(), factor))


def iou(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """IoU of each candidate over the labelled pixels of the slices that exist: (B, C)."""
    exists = (valid[:, :, None, None] > 0) & (target != UNLABELLED)
    exists = exists[:, None]
    mask, truth = (logits > 0) & exists, (target[:, None] > 0.5) & exists
    both = (mask & truth).sum((2, 3, 4)).float()
    either = (mask | truth).sum((2, 3, 4)).float()
    return (both + 1) / (either + 1)


@torch.no_grad()
def figures(fine: torch.Tensor, presence: torch.Tensor, step: Step) -> dict[str, float]:
    """Mean Dice of candidate 0 by kind of prompt, and of the slice ahead; presence per class."""
    mask, truth = (fine > 0) & (step.target != UNLABELLED), step.target > 0.5
    both = (mask & truth).sum((2, 3)).float()
    dice = (2 * both + 1) / (mask.sum((2, 3)) + truth.sum((2, 3)) + 1)
    seen, sure = (step.target != UNLABELLED).any(-1).any(-1), decided(step.target)
    groups = {
        "box": step.first & ~step.ambiguous,
        "point": step.ambiguous,
        "slide": ~step.first,
    }
    there = truth.any(-1).any(-1)
    right = ((presence > 0) == there).float()
    sums = {}
    for name, chosen in groups.items():
        sums[f"{name}_centre"] = dice[:, 1], chosen & seen[:, 1]
        sums[f"{name}_ahead"] = dice[:, 2], chosen & seen[:, 2]
    sums |= {"presence_present": (right, there), "presence_absent": (right, ~there & sure)}
    pairs = [torch.stack([(v * c).sum(), c.sum()]) for v, c in sums.values()]
    found = torch.stack(pairs).tolist()  # the host waits for the device once
    return {name: s / n for name, (s, n) in zip(sums, found, strict=True) if n}
