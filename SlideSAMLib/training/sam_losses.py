"""The loss of a three-slice SAM network on one batch of windows, and the figures of the curve.

As published for Slide-SAM: 20 x focal loss + Dice loss on the slices that have a label, of the best
of the three candidates, and the error of the predicted IoU. Here the single-mask token learns as
well, so that a clear prompt gets its answer without a choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import UNLABELLED
from .losses import iou, labelled_part, mean_labelled

FOCAL = 20.0  # weight of the focal loss
GAMMA, ALPHA = 2.0, 0.25  # of the focal loss, Lin et al. 2017


def sam_loss(logits: Tensor, quality: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """Mean loss of a batch.

    logits (B, 4, 3, g, g), axes (window, token, slice, row, column); quality (B, 4); target
    (B, 3, g, g) soft masks, 0..1, or UNLABELLED; labelled (B, 3), 1 where a slice has a label.
    """
    logits, quality = logits.float(), quality.float()
    each = candidate_loss(logits, target, labelled)
    best = each[:, 1:].min(1).values
    rated = F.mse_loss(quality, iou(logits.detach(), target, labelled))
    return (best + each[:, 0]).mean() + rated


def candidate_loss(logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """20 x focal + Dice, mean over the labelled slices: (B, tokens)."""
    known, target = labelled_part(target[:, None].expand_as(logits))
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid().masked_fill(~known, 0)
    miss = p + target - 2 * p * target  # 1 - the probability of the truth
    balance = ALPHA * target + (1 - ALPHA) * (1 - target)
    focal = mean_labelled(balance * miss**GAMMA * cross, known)
    both, either = (p * target).sum((-2, -1)), (p + target).sum((-2, -1))
    per_slice = FOCAL * focal + 1 - (2 * both + 1) / (either + 1)
    weight = labelled[:, None]
    return (per_slice * weight).sum(2) / weight.sum(2).clamp(min=1)


@torch.no_grad()
def sam_figures(logits: Tensor, target: Tensor, labelled: Tensor) -> dict[str, float]:
    """Mean Dice of the single-mask token, and of the best candidate on the middle slice."""
    mask, truth = (logits > 0) & (target != UNLABELLED)[:, None], target[:, None] > 0.5
    both = (mask & truth).sum((3, 4)).float()
    dice = (2 * both + 1) / (mask.sum((3, 4)) + truth.sum((3, 4)) + 1)  # (B, 4, 3)
    outer = labelled[:, [0, 2]]
    found = {
        "centre": float(dice[:, 0, 1].mean()),
        "best_centre": float(dice[:, 1:, 1].max(1).values.mean()),
    }
    if outer.any():
        found["outer"] = float((dice[:, 0][:, [0, 2]] * outer).sum() / outer.sum())
    return found
