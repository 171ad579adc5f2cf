"""Prompts made from labels, as a person would give them: one box or some points on one slice.

All arrays here are stacks or slices of a stack: the slide axis comes first.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ..errors import InputError
from ..prompts import SlicePrompt

PROMPTS = ("box", "point", "points")
POINTS = 3  # of the prompt "points"
JITTER = 0.05  # of the length of the side that moves


def largest_slice(truth: np.ndarray) -> int:
    """Index of the slice of a bool stack (S, H, W) with the most voxels, the first of equals."""
    return int(truth.sum(axis=(1, 2)).argmax())


def true_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box (x0, y0, x1, y1) of a bool slice (H, W), corners inclusive."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def jittered_box(
    mask: np.ndarray, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """The true box of a slice as a hand would draw it.

    Each side moves in or out by a uniform share, at most JITTER, of the box's width (left,
    right) or height (top, bottom) in voxels. The box stays inside the slice. A box that is only
    one voxel wide is first widened by half a voxel on both sides, since an empty box is no box.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = true_box(mask)
    (left, right), (top, bottom) = _wide(x0, x1), _wide(y0, y1)
    moves = random.uniform(-JITTER, JITTER, 4)
    across, down = x1 - x0 + 1, y1 - y0 + 1
    return (
        max(left + moves[0] * across, 0.0),
        max(top + moves[1] * down, 0.0),
        min(right + moves[2] * across, width - 1.0),
        min(bottom + moves[3] * down, height - 1.0),
    )


def innermost_point(mask: np.ndarray, spacing: tuple[float, float]) -> tuple[int, int]:
    """(x, y) of the voxel of the largest piece of a bool slice that is farthest from its outside.

    spacing : (row, column) in mm, so that the distance is a true one. What lies beyond the edge of
    the slice counts as outside. The first of equals is taken.
    """
    return inner_points(mask, spacing, 1)[0]


def inner_points(
    mask: np.ndarray, spacing: tuple[float, float], count: int
) -> list[tuple[int, int]]:
    """`count` different (x, y) inside a bool slice: the innermost one, then some spread about.

    Each further point is the voxel, of any piece, that is farthest from the outside and from half
    way to the points before it. A slice with fewer voxels gives all of them.
    """
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    pieces, number = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=2)
    sizes[0] = 0
    score = np.where(pieces == sizes.argmax(), depth, 0.0) if number > 1 else depth
    rows, columns = np.indices(mask.shape)
    near = np.full(mask.shape, np.inf)
    found: list[tuple[int, int]] = []
    for _ in range(min(count, int(mask.sum()))):
        row, column = np.unravel_index(int(score.argmax()), mask.shape)
        found.append((int(column), int(row)))
        away = np.hypot((rows - row) * spacing[0], (columns - column) * spacing[1])
        near = np.minimum(near, away / 2)
        score = np.minimum(depth, near)
    return found


def generator(case: str, value: int, seed: int = 0) -> np.random.Generator:
    """The random numbers of one structure: the same in every run, order and machine."""
    digest = hashlib.sha256(f"{seed}/{case}/{value}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def make_prompt(
    truth: np.ndarray,
    kind: str,
    spacing: tuple[float, float, float],
    random: np.random.Generator,
) -> SlicePrompt:
    """The one prompt of a structure, one of `PROMPTS`, on its largest slice.

    "points" are three positive ones.

    truth : bool stack (S, H, W); spacing : (gap, row, column) in mm.
    """
    index = largest_slice(truth)
    if kind == "box":
        return SlicePrompt(index, box=jittered_box(truth[index], random))
    if kind == "point":
        return SlicePrompt(index, points=[innermost_point(truth[index], spacing[1:])], labels=[1])
    if kind == "points":
        points = inner_points(truth[index], spacing[1:], POINTS)
        return SlicePrompt(index, points=points, labels=[1] * len(points))
    raise InputError(f"The prompt must be one of {', '.join(PROMPTS)}, not {kind!r}.")


def _wide(low: int, high: int) -> tuple[float, float]:
    return (low - 0.5, high + 0.5) if low == high else (float(low), float(high))
