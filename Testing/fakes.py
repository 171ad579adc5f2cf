"""Models without weights, for tests of everything that is built on `SliceModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from SlideSAMLib.protocol import ModelTraits, Window, WindowPrediction, WindowPrompt

LOGIT = 6.0


@dataclass(frozen=True, eq=False)
class FakeEmbedding:
    """The window itself, which is all that a threshold needs."""

    window: Window

    @property
    def nbytes(self) -> int:
        return self.window.slices.nbytes


class ThresholdModel:
    """Segments bright connected parts: in the box, at the points, or where the masks were.

    Candidate 0 is the exact answer (quality 0.95), candidate 1 is smaller by one voxel all
    round (0.85), candidate 2 larger by one (0.75).

    Parameters
    ----------
    threshold : in image units; None takes the middle of the window's intensity range.
    margin : by how many voxels the object may leave the box on the three slices.
    region : "slice" answers for whole slices, "crop" only around the prompt.
    presence : whether the prediction tells on which slices the object is.
    prompts : what the model claims to know.

    Attributes
    ----------
    encoded : centres of the windows, one list per call of `encode`
    predicted : (centre, WindowPrompt) of every call of `predict`; masks of large slices add up,
        so `keep_prompts` can be turned off
    remembered : (centre, number of voxels) of every call of `remember`
    """

    def __init__(
        self,
        threshold: float | None = None,
        margin: float = 3.0,
        region: str = "slice",
        presence: bool = False,
        prompts: Sequence[str] = ("box", "point", "negative", "mask"),
        name: str = "threshold",
    ) -> None:
        self.traits = ModelTraits(
            name=name,
            licence="Apache-2.0",
            input_size=0,
            region=region,
            resize="nearest",
            intensity="as given",
            prompts=frozenset(prompts),
            candidates=3,
        )
        self.device = "cpu"
        self.precision = "float32"
        self.threshold = threshold
        self.margin = margin
        self.presence = presence
        self.keep_prompts = True
        self.encoded: list[list[int]] = []
        self.predicted: list[tuple[int, WindowPrompt]] = []
        self.remembered: list[tuple[int, int]] = []

    def encode(self, windows: Sequence[Window]) -> list[FakeEmbedding]:
        self.encoded.append([window.key[-1] for window in windows])
        return [FakeEmbedding(window) for window in windows]

    def predict(self, embedding: FakeEmbedding, prompt: WindowPrompt) -> WindowPrediction:
        window = embedding.window
        if self.keep_prompts:
            self.predicted.append((window.key[-1], prompt))
        exact = self._masks(window, prompt)
        candidates = np.stack([exact, _each(exact, ndimage.binary_erosion), _grown(exact)])
        top, left, bottom, right = self._region(window.slices.shape[1:], prompt, exact)
        logits = np.where(candidates, LOGIT, -LOGIT).astype(np.float32)
        return WindowPrediction(
            logits=logits[:, :, top:bottom, left:right],
            corner=(top, left),
            quality=self.quality(window, exact),
            shape=window.slices.shape[1:],
            presence=exact.any(axis=(1, 2)).astype(np.float32) if self.presence else None,
        )

    def quality(self, window: Window, exact: np.ndarray) -> np.ndarray:
        """Predicted IoU of the three candidates; tests override it."""
        return np.array([0.95, 0.85, 0.75], np.float32)

    def remember(self, embedding: FakeEmbedding, mask: np.ndarray) -> Any:
        centre = embedding.window.key[-1]
        self.remembered.append((centre, int(mask.sum())))
        return ("memory of slice", centre)

    def _masks(self, window: Window, prompt: WindowPrompt) -> np.ndarray:
        """The exact masks of the three slices: bool (3, H, W)."""
        threshold = sum(window.intensity) / 2 if self.threshold is None else self.threshold
        bright = window.slices > threshold
        if prompt.box is not None:
            bright &= _inside(prompt.box, self.margin, bright.shape[1:])
        centre = _picked(bright[1], prompt)
        outer = [_touching(bright[place], centre) for place in (0, 2)]
        return np.stack([outer[0], centre, outer[1]])

    def _region(
        self, shape: tuple[int, int], prompt: WindowPrompt, exact: np.ndarray
    ) -> tuple[int, int, int, int]:
        """Rows and columns that are answered for: (top, left, bottom, right)."""
        if self.traits.region == "slice":
            return (0, 0, *shape)
        seen = exact.any(axis=0)
        if prompt.box is not None:
            seen = seen | _inside(prompt.box, self.margin + 1, shape)
        for x, y in prompt.points:
            seen[round(y), round(x)] = True
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _inside(box: Sequence[float], margin: float, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    x0, y0, x1, y1 = box
    return (
        (columns >= x0 - margin)
        & (columns <= x1 + margin)
        & (rows >= y0 - margin)
        & (rows <= y1 + margin)
    )


def _picked(bright: np.ndarray, prompt: WindowPrompt) -> np.ndarray:
    """The connected parts of one slice that the prompt picks; all of them for a bare box."""
    parts, _ = ndimage.label(bright)
    chosen = {1: set(), 0: set()}
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        chosen[label].add(int(parts[round(y), round(x)]))
    if chosen[1]:
        return np.isin(parts, list(chosen[1] - chosen[0] - {0}))
    return bright & ~np.isin(parts, list(chosen[0] - {0}))


def _touching(bright: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The connected parts of an outer slice that overlap with the centre's mask."""
    parts, _ = ndimage.label(bright)
    return np.isin(parts, np.setdiff1d(np.unique(parts[centre]), [0]))


def _each(masks: np.ndarray, change: Any) -> np.ndarray:
    return np.stack([change(mask) for mask in masks])


def _grown(masks: np.ndarray) -> np.ndarray:
    return _each(masks, ndimage.binary_dilation)


def ball_volume(
    shape: tuple[int, int, int] = (21, 40, 44),
    centre: tuple[float, float, float] = (10, 20, 22),
    radii: tuple[float, float, float] = (6, 9, 9),
    inside: float = 100.0,
    outside: float = 0.0,
    dtype: Any = np.int16,
) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid on a dark ground: (volume, bool mask), both (K, J, I)."""
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
    mask = distance <= 1.0
    return np.where(mask, inside, outside).astype(dtype), mask


def block_volume(
    shape: tuple[int, int, int] = (15, 30, 34),
    slices: tuple[int, int] = (3, 11),
    rows: tuple[int, int] = (8, 19),
    columns: tuple[int, int] = (10, 24),
    dtype: Any = np.int16,
) -> tuple[np.ndarray, np.ndarray]:
    """A bright block (100) on a dark ground (0): (volume, bool mask), both (K, J, I).

    First and last slice, row and column of the block, inclusive.
    """
    mask = np.zeros(shape, bool)
    ranges = (slices, rows, columns)
    mask[tuple(slice(low, high + 1) for low, high in ranges)] = True
    return np.where(mask, 100, 0).astype(dtype), mask
