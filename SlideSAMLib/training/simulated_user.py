"""What users mark and where they click, simulated from the truth: boxes, points, rough masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

JITTER = 0.08  # of the length of the side that moves


def jittered(box, shape, rng: np.random.Generator) -> tuple:
    """Each side moved by up to JITTER of its length, inwards or outwards, kept in the slice."""
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    moves = rng.uniform(-JITTER, JITTER, 4) * [width, height, width, height]
    x0, y0, x1, y1 = np.asarray(box) + moves
    return _clamped((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), shape)


def grown(box, shape, share: float) -> tuple:
    """The box enlarged on each side by a share of its length, kept in the slice."""
    dx, dy = share * (box[2] - box[0] + 1), share * (box[3] - box[1] + 1)
    return _clamped((box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy), shape)


def _clamped(box, shape) -> tuple:
    x0, y0, x1, y1 = (float(side) for side in box)
    return max(x0, 0.0), max(y0, 0.0), min(x1, shape[1] - 1.0), min(y1, shape[0] - 1.0)


def user_points(mask: np.ndarray, rng: np.random.Generator) -> tuple[tuple, tuple]:
    """1-3 points inside, the first well inside, and now and then some outside."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    points, signs = [], []
    for n in range(1 + int(rng.random() < 0.3) + int(rng.random() < 0.15)):
        inner = depth >= (rng.uniform(0.5, 1.0) if n == 0 else 0.2) * depth.max()
        points.append(_pick(inner, rng))
        signs.append(1)
    if rng.random() < 0.3:
        outside = ndimage.distance_transform_edt(~mask)
        ring = (outside > 2) & (outside < 0.6 * max(depth.max(), 5) + 4)
        for _ in range(int(rng.integers(1, 3))):
            if ring.any():
                points.append(_pick(ring, rng))
                signs.append(0)
    return tuple(points), tuple(signs)


def largest_error(
    mask: np.ndarray, truth: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, int] | None:
    """Where a user would click next: x, y inside a large error, and 1 or 0; None where none is.

    The largest connected error, or now and then another one, near its innermost place.
    """
    wrong, count = ndimage.label(mask != truth)
    if count == 0:
        return None
    sizes = np.bincount(wrong.ravel()).astype(float)
    sizes[0] = 0
    if sizes.max() < max(6, 0.004 * truth.sum()):
        return None
    pick = sizes.argmax() if rng.random() < 0.8 else rng.choice(len(sizes), p=sizes / sizes.sum())
    depth = ndimage.distance_transform_edt(np.pad(wrong == pick, 1))[1:-1, 1:-1]
    x, y = _pick(depth >= rng.uniform(0.6, 1.0) * depth.max(), rng)
    return x, y, int(truth[int(y), int(x)])


def _pick(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    n = rng.integers(len(rows))
    return float(columns[n]), float(rows[n])


def rough(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as a hand or a neighbouring slice would give it: shifted, grown, ragged; 0..1."""
    reach = float(np.sqrt(mask.sum()))
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), max(reach / 8, 1))
    noise /= max(float(noise.std()), 1e-6)
    signed = signed + rng.normal(0, 0.05) * reach + rng.uniform(0, 0.06) * reach * noise
    signed = ndimage.shift(signed, rng.normal(0, 0.04, 2) * reach, order=1, mode="nearest")
    soft = 1 / (1 + np.exp(-np.clip(2 * signed, -20, 20)))
    return (soft if rng.random() < 0.5 else soft > 0.5).astype(np.float32)
