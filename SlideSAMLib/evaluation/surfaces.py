"""How far apart two surfaces are, by MONAI: surface Dice and the 95 % Hausdorff distance.

Both are described in Nikolov et al. 2021 (J Med Internet Res 23(7):e26151) and in Maier-Hein et al.
2024 (Nature Methods 21:195-212). All masks are bool stacks (S, H, W); MONAI comes with the extra
`evaluate`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Spacing = tuple[float, float, float]


def surface_dice(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Share of both surfaces that lies near the other one, 0..1; two empty masks agree: 1.

    Near is within the longest side of a voxel: closer than that nobody can draw. spacing : (gap,
    row, column) in mm.
    """
    from monai.metrics import compute_surface_dice

    if not prediction.any() or not truth.any():
        return float(prediction.any() == truth.any())
    pair = _tensors(prediction, truth)
    with _without_monais_warnings():
        found = compute_surface_dice(*pair, [max(spacing)], True, spacing=list(spacing))
    return float(found)


def hausdorff_95(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """95th percentile of the distances from one surface to the other, in mm; the larger way counts.

    Where one of the masks is empty there is no distance: the diagonal of the stack stands for it,
    so that finding nothing is the worst result and means stay finite. Two empty masks: 0.
    """
    from monai.metrics import compute_hausdorff_distance

    if not prediction.any() or not truth.any():
        diagonal = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
        return diagonal if prediction.any() != truth.any() else 0.0
    pair = _tensors(prediction, truth)
    with _without_monais_warnings():
        found = compute_hausdorff_distance(*pair, True, percentile=95, spacing=list(spacing))
    return float(found)


@contextmanager
def _without_monais_warnings() -> Iterator[None]:
    """MONAI 1.5 calls an option of its own that it deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _tensors(prediction: np.ndarray, truth: np.ndarray) -> tuple[Any, Any]:
    """Both as MONAI wants them, (1, 1, S, H, W), cut to where there is something."""
    import torch
    from scipy import ndimage

    (used,) = ndimage.find_objects((prediction | truth).view(np.uint8))
    return tuple(torch.from_numpy(mask[used][None, None].copy()) for mask in (prediction, truth))
