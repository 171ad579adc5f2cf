"""What one window said about a part of a slice, and how two such masks compare. No torch here.

A slice of 512 x 512 voxels is a megabyte of logits, most of them far from the object. So a patch
knows a part of itself outside of which nothing counts, and all that is counted or compared, is
counted there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

BACKGROUND = -20.0  # logit where no view looked
REMOTE = 4.0  # logits of -REMOTE or less, p < 0.02, are far from every mask
SURE_LOGIT = float(np.log(0.7 / 0.3))  # p > 0.7, or p > 0.3 with the sign turned

Extent = tuple[int, int, int, int]  # top, left, bottom, right, the last two exclusive


@dataclass(frozen=True, eq=False)
class Patch:
    """Logits (h, w) of the part of a slice that starts at corner (row, column), > 0 inside.

    extent : a part of the logits outside of which all are -REMOTE or less, in their own rows and
        columns; None where nobody knows one: then the smallest is looked for once it is needed.
    """

    corner: tuple[int, int]
    logits: np.ndarray
    extent: Extent | None = None

    @cached_property
    def part(self) -> tuple[slice, slice]:
        """The extent as an index into the logits."""
        top, left, bottom, right = extent_of(self.logits) if self.extent is None else self.extent
        return np.s_[top:bottom, left:right]

    @cached_property
    def filled(self) -> np.ndarray:
        """Where the logits are above 0 within the extent: bool; asked for again and again."""
        return self.logits[self.part] > 0

    @cached_property
    def voxels(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.filled))

    @property
    def start(self) -> tuple[int, int]:
        """Row and column in the slice where the extent starts."""
        rows, columns = self.part
        return self.corner[0] + rows.start, self.corner[1] + columns.start

    @cached_property
    def middle(self) -> tuple[float, float]:
        """(row, column) of the centre of a mask with at least one voxel, in voxels of the slice."""
        inside, (top, left) = self.filled.view(np.uint8), self.start  # booleans are counted slower
        rows, columns = inside.sum(axis=1, dtype=np.int32), inside.sum(axis=0, dtype=np.int32)
        return (
            top + float(rows @ np.arange(len(rows))) / self.voxels,
            left + float(columns @ np.arange(len(columns))) / self.voxels,
        )

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """The mask on the whole slice: bool (H, W)."""
        return _spread(self.filled, self.start, shape)

    def probability(self, shape: tuple[int, int]) -> np.ndarray:
        """Probabilities on the whole slice: float32 (H, W)."""
        values = self.local_probability()
        return values if values.shape == shape else _spread(values, self.corner, shape)

    def local_probability(self) -> np.ndarray:
        """Probabilities of the logits' part of the slice: float32 (h, w)."""
        # In place: a slice of 512 x 512 is a megabyte, and new memory costs more than the sums.
        values = np.clip(self.logits, BACKGROUND, -BACKGROUND, dtype=np.float32)
        np.negative(values, out=values)
        np.exp(values, out=values)
        values += 1
        return np.reciprocal(values, out=values)


class KnownMasks:
    """What is known of the slices of a window, for its prompt: probabilities once they are needed.

    known : place in the window (0 before, 1 centre, 2 after) -> patch; shape : (H, W) of a slice.
    To be used like an array, float32 (3, H, W) in 0..1, with 0 where nothing is known.
    """

    def __init__(self, known: Mapping[int, Patch], shape: tuple[int, int]) -> None:
        self.known = dict(known)
        self.shape = (3, *shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._probabilities, dtype) if copy or dtype else self._probabilities

    def __getitem__(self, where: Any) -> np.ndarray:
        return self._probabilities[where]

    def logits(self, place: int) -> np.ndarray:
        """What is known of one slice, as logits on the whole of it: float32 (H, W)."""
        patch = self.known[place]
        if patch.logits.shape == self.shape[1:]:
            return patch.logits
        out = np.full(self.shape[1:], BACKGROUND, np.float32)
        y, x = patch.corner
        out[y : y + patch.logits.shape[0], x : x + patch.logits.shape[1]] = patch.logits
        return out

    @cached_property
    def _probabilities(self) -> np.ndarray:
        out = np.zeros(self.shape, np.float32)
        for place, patch in self.known.items():
            y, x = patch.corner
            height, width = patch.logits.shape
            out[place, y : y + height, x : x + width] = patch.local_probability()
        return out


def extent_of(logits: np.ndarray) -> Extent:
    """The smallest part of logits (h, w) outside of which all are -REMOTE or less."""
    near = logits > -REMOTE
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if not rows.size:
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def patch_of_mask(mask: np.ndarray, logit: float) -> Patch:
    """A mask, bool (H, W), as a patch with logits of +-logit."""
    return Patch((0, 0), np.where(mask, logit, -logit).astype(np.float32))


def common_extent(patches: Sequence[Patch], corner: tuple[int, int]) -> Extent:
    """The smallest part around the patches' extents, in rows and columns that start at `corner`."""
    edges = []
    for patch in patches:
        rows, columns = patch.part
        if rows.stop > rows.start and columns.stop > columns.start:
            y, x = patch.corner[0] - corner[0], patch.corner[1] - corner[1]
            edges.append((rows.start + y, columns.start + x, rows.stop + y, columns.stop + x))
    if not edges:
        return (0, 0, 0, 0)
    tops, lefts, bottoms, rights = zip(*edges, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def union(patches: Sequence[Patch]) -> Extent:
    """The smallest part of the slice around patches."""
    top = min(patch.corner[0] for patch in patches)
    left = min(patch.corner[1] for patch in patches)
    bottom = max(patch.corner[0] + patch.logits.shape[0] for patch in patches)
    right = max(patch.corner[1] + patch.logits.shape[1] for patch in patches)
    return top, left, bottom, right


def overlap(first: Patch, second: Patch) -> tuple[int, int, int]:
    """Voxels inside the first patch, inside the second, and inside both."""
    starts, shapes = (first.start, second.start), (first.filled.shape, second.filled.shape)
    top, left = (max(starts[0][axis], starts[1][axis]) for axis in (0, 1))
    bottom, right = (min(starts[n][axis] + shapes[n][axis] for n in (0, 1)) for axis in (0, 1))
    both = 0
    if bottom > top and right > left:
        pieces = [
            patch.filled[top - y : bottom - y, left - x : right - x]
            for patch, (y, x) in zip((first, second), starts, strict=True)
        ]
        both = int(np.count_nonzero(pieces[0] & pieces[1]))
    return first.voxels, second.voxels, both


def dice(first: Patch, second: Patch) -> float:
    """Dice of the two masks, 0..1; two empty masks agree (1)."""
    a, b, both = overlap(first, second)
    return 2.0 * both / (a + b) if a + b else 1.0


def stability(patch: Patch) -> float:
    """Area where p > 0.7 over area where p > 0.3, 0..1; 0 for an empty mask."""
    logits = patch.logits[patch.part]
    loose = np.count_nonzero(logits > -SURE_LOGIT)
    return float(np.count_nonzero(logits > SURE_LOGIT) / loose) if loose else 0.0


def _spread(values: np.ndarray, start: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, values.dtype)
    y, x = start
    out[y : y + values.shape[0], x : x + values.shape[1]] = values
    return out
