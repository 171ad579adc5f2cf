"""Losses of one window, and the figures that the training curve shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .rollouts import Step

ABSENT_WEIGHT = 6.0  # of slices without the object in the presence loss
SMOOTH = 20.0  # cells of the 64 x 64 output: what an empty mask is measured against


def window_loss(
    logits: torch.Tensor, quality: torch.Tensor, presence: torch.Tensor, step: Step
) -> torch.Tensor:
    """Mean loss of a batch.

    Per slice 2 x cross-entropy + (1 - Dice). Candidate 0 always learns; of the others only the
    best, with more weight where a single point leaves open what is meant. Predicted quality learns
    the IoU of its candidate, presence whether the object is on a slice at all.
    """
    target = step.target[:, None].expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    p = logits.sigmoid()
    both, either = (p * target).sum((-2, -1)), (p + target).sum((-2, -1))
    per_slice = 2 * cross + 1 - (2 * both + SMOOTH) / (either + SMOOTH)
    valid = step.valid[:, None]
    per_candidate = (per_slice * valid).sum(2) / valid.sum(2)
    open_ended = step.ambiguous.float()
    main = per_candidate[:, 0] * (1 - 0.4 * open_ended)
    best = per_candidate[:, 1:].min(1).values * (0.25 + 0.45 * open_ended)
    rating = F.mse_loss(quality.sigmoid(), iou(logits.detach(), step))
    there = (step.target.amax((-2, -1)) > 0.5).float()
    # Ends are rare: without the weight "always present" is the best answer for a long time.
    weight = step.valid * torch.where(there > 0, 1.0, ABSENT_WEIGHT)
    seen = F.binary_cross_entropy_with_logits(presence, there, weight=weight)
    return (main + best).mean() + 0.5 * rating + 0.3 * seen


def iou(logits: torch.Tensor, step: Step) -> torch.Tensor:
    """IoU of each candidate over the slices that exist: (B, C)."""
    exists = step.valid[:, None, :, None, None] > 0
    mask, truth = (logits > 0) & exists, (step.target[:, None] > 0.5) & exists
    both = (mask & truth).sum((2, 3, 4)).float()
    either = (mask | truth).sum((2, 3, 4)).float()
    return (both + 1) / (either + 1)


@torch.no_grad()
def figures(logits: torch.Tensor, presence: torch.Tensor, step: Step) -> dict[str, float]:
    """Mean Dice of candidate 0 by kind of prompt, and of the slice ahead; presence per class."""
    mask, truth = logits[:, 0] > 0, step.target > 0.5
    both = (mask & truth).sum((2, 3)).float()
    dice = (2 * both + 1) / (mask.sum((2, 3)) + truth.sum((2, 3)) + 1)
    groups = {
        "box": step.first & ~step.ambiguous,
        "point": step.ambiguous,
        "slide": ~step.first,
    }
    out = {}
    for name, chosen in groups.items():
        if chosen.any():
            out[f"{name}_centre"] = float(dice[chosen, 1].mean())
            out[f"{name}_ahead"] = float(dice[chosen, 2].mean())
    there = truth.any(-1).any(-1)
    right = (presence > 0) == there
    for name, chosen in (("present", there), ("absent", ~there)):
        if chosen.any():
            out[f"presence_{name}"] = float(right[chosen].float().mean())
    return out
