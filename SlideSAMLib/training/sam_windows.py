"""Windows of whole slices for the three-slice SAM networks, with a prompt on the middle slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..evaluation.prompting import true_box
from ..sam_encoding import prepare
from ..sam_prompts import box_to_frame, mask_logits, points_to_frame
from . import appearance
from .rollouts import jittered, rough, user_points
from .slabs import Labelled, slide_axis

SMALLEST = 12  # voxels of an object on its slice
WHOLE = 0.6  # share of the windows whose object is a label with all its pieces
NEAR_AN_END = 0.25  # share of the windows close to where the object ends
ZOOMED = 0.5  # share of the windows that show a part of the slice around the object


@dataclass(frozen=True)
class WindowSample:
    """One window and its prompt, in the S x S frame of the network.

    image : (3, S, S), normalised; slices before, centre, after.
    target : (3, g, g) soft masks on the network's output raster, 0..1.
    labelled : (3,) 1 where somebody has labelled the slice, else 0: only such slices teach.
    points : (N, 2) and signs (N,), or None; box : (4,) or None; masks : logits (3, g, g) or None.
    """

    image: Tensor
    target: Tensor
    labelled: Tensor
    points: tuple[Tensor, Tensor] | None
    box: Tensor | None
    masks: Tensor | None

    def to(self, device: torch.device) -> WindowSample:
        """The same on a device."""
        points = self.points
        return WindowSample(
            self.image.to(device),
            self.target.to(device),
            self.labelled.to(device),
            None if points is None else (points[0].to(device), points[1].to(device)),
            None if self.box is None else self.box.to(device),
            None if self.masks is None else self.masks.to(device),
        )


@dataclass(frozen=True)
class Frame:
    """What the network wants: side S of its input, side g of its output, and how slices enter."""

    size: int
    raster: int
    resize: str
    scaling: str


class SamWindows:
    """Draws windows from labelled volumes. volume : gives a random `slabs.Labelled`."""

    def __init__(
        self,
        volume: Callable[[np.random.Generator], Labelled],
        frame: Frame,
        rng: np.random.Generator,
    ) -> None:
        self._volume, self._frame, self._rng = volume, frame, rng

    def draw(self) -> WindowSample:
        """A random window; volumes that give none are passed over."""
        while True:
            found = self._cut(self._volume(self._rng))
            if found is not None:
                return self._sample(*found)

    def _cut(self, source: Labelled) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """(image (3, H, W), mask (3, H, W), labelled (3,)) of one object, or None."""
        rng = self._rng
        axis = slide_axis(source, rng)
        # (K, J, I) to (slice, row, column)
        labels, image = (np.moveaxis(v, axis, 0) for v in (source.labels, source.image))
        value = source.targets[rng.integers(len(source.targets))]
        extent = source.boxes[value - 1][axis]
        centre = int(rng.integers(extent.start, extent.stop))
        if rng.random() < NEAR_AN_END:
            centre = int(rng.choice([extent.start, extent.stop - 1]))
        window = np.clip([centre - 1, centre, centre + 1], 0, len(labels) - 1)
        mask = labels[window] == value
        if rng.random() > WHOLE:
            mask = _one_piece(mask, rng)
        if mask[1].sum() < SMALLEST:
            return None
        known = np.ones(3, np.float32)
        if source.unlabelled is not None:
            known = (~(labels[window] == source.unlabelled).any((1, 2))).astype(np.float32)
        if not known[1]:
            return None
        pixels = image[window].astype(np.float32)
        if rng.random() < ZOOMED:
            pixels, mask = _zoom(pixels, mask, rng)
        pixels = appearance.disturb(pixels, rng)
        back = slice(None, None, -1) if rng.random() < 0.5 else slice(None)  # either direction
        return (*_turned(pixels[back], mask[back], rng), known[back].copy())

    def _sample(self, image: np.ndarray, mask: np.ndarray, known: np.ndarray) -> WindowSample:
        frame = self._frame
        target = F.interpolate(
            torch.from_numpy(mask[None].astype(np.float32)),
            (frame.raster, frame.raster),
            mode="bilinear",
            antialias=True,
        )[0].clamp(0, 1)
        return WindowSample(
            prepare(torch.from_numpy(image), frame.size, frame.resize, frame.scaling),
            target,
            torch.from_numpy(known),
            *self._prompt(mask),
        )

    def _prompt(self, mask: np.ndarray) -> tuple:
        """(points, box, masks): a box, points, both, or what a neighbouring window would say."""
        rng, frame = self._rng, self._frame
        height, width = mask.shape[1:]
        kind = rng.random()
        points = box = masks = None
        if kind < 0.55 or kind > 0.85:
            corners = jittered(true_box(mask[1]), (height, width), rng, 0.08)
            box = torch.tensor(box_to_frame(corners, height, width, frame.size)).float()
        if 0.45 < kind < 0.85:
            places, signs = user_points(mask[1], rng)
            placed = points_to_frame(np.array(places), height, width, frame.size)
            points = (torch.tensor(placed).float(), torch.tensor(signs).float())
        if kind > 0.8:
            before = int(rng.choice([0, 2]))  # the side that the slide comes from
            seen = [place for place in (before, 1) if mask[place].any()]
            guesses = np.zeros(mask.shape, np.float32)
            for place in seen:
                guesses[place] = rough(mask[place], rng)
            known = torch.tensor([place in seen for place in range(3)])
            masks = mask_logits(torch.from_numpy(guesses), known, frame.raster)
        return points, box, masks


def _one_piece(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piece of the middle slice, with what hangs together with it."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    there = np.unique(pieces[1][pieces[1] > 0])
    return pieces == rng.choice(there) if len(there) else mask & False


def _zoom(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle around the object, so that the network meets objects of all sizes."""
    x0, y0, x1, y1 = true_box(mask[1])
    height, width = mask.shape[1:]
    side = max(x1 - x0, y1 - y0) + 1
    margins = (side * rng.uniform(0.3, 3.0, 4)).astype(int) + 4
    rows = slice(max(y0 - margins[0], 0), min(y1 + margins[1] + 1, height))
    columns = slice(max(x0 - margins[2], 0), min(x1 + margins[3] + 1, width))
    return image[:, rows, columns], mask[:, rows, columns]


def _turned(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Quarter turns and mirror images."""
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    out = []
    for stack in (image, mask):
        stack = np.rot90(stack, turns, (1, 2))
        out.append(np.ascontiguousarray(stack[:, :, ::-1] if flip else stack))
    return out[0], out[1]
