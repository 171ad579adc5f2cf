"""Slabs of whole slices for the three-slice SAM networks, their windows, and users' prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ..evaluation.prompting import true_box
from ..sam.encoding import prepare
from ..sam.prompts import box_to_frame, mask_logits, points_to_frame
from . import appearance
from .fields import only_labelled
from .simulated_user import jittered, rough, user_points
from .slabs import Labelled, meant, slide_axis

DEPTH = 9  # slices of a slab: one behind the start, the rest ahead
SMALLEST = 12  # voxels of an object on its slice
WHOLE = 0.6  # share of the slabs whose object is a label with all its pieces
NEAR_AN_END = 0.25  # share of the slabs that start close to where the object ends
ZOOMED = 0.5  # share of the slabs that show a part of the slices around the object


@dataclass(frozen=True)
class WindowSample:
    """One window and its prompt, in the S x S frame of the network.

    image : (3, S, S), normalised; slices before, centre, after.
    target : (3, g, g) soft masks on the network's output raster, 0..1, or UNLABELLED.
    labelled : (3,) 1 where there is such a slice and somebody has labelled it, else 0: only such
        slices teach.
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


class Windows:
    """A batch of windows, as the network is given it.

    Fabric converts the tensors of what it can look into, and bfloat16 would move points and boxes
    by pixels. It does not look into this.
    """

    def __init__(self, samples: list[WindowSample]) -> None:
        self.samples = samples


@dataclass(frozen=True)
class Frame:
    """What the network wants: side S of its input, side g of its output, and how slices enter."""

    size: int
    raster: int
    resize: str
    scaling: str


@dataclass
class SamSlab:
    """image float32 (S, H, W) in 0..1; mask bool (S, H, W); the object is marked on slice 1.

    labelled : (S,) 1 where there is such a slice and somebody has labelled some of it.
    slices : how many lie in the volume; the last one of them is repeated behind it.
    recipe : of the task, see `SamTask._again`.
    known : bool (S, H, W), False where nobody has labelled; None where that is nowhere.
    """

    image: np.ndarray
    mask: np.ndarray
    labelled: np.ndarray
    slices: int
    recipe: tuple[int, int, int] = (0, 0, 0)
    known: np.ndarray | None = None


def cut_slab(source: Labelled, rng: np.random.Generator) -> SamSlab | None:
    """One object of a volume and a random way through it, or None where that gives nothing."""
    axis = slide_axis(source, rng)
    # (K, J, I) to (slice, row, column)
    labels, image = (np.moveaxis(v, axis, 0) for v in (source.labels, source.image))
    value = source.targets[rng.integers(len(source.targets))]
    extent = source.boxes[value - 1][axis]
    start = int(rng.integers(extent.start, extent.stop))
    if rng.random() < NEAR_AN_END:
        start = int(rng.choice([extent.start, extent.stop - 1]))
    way = start + rng.choice([-1, 1]) * (np.arange(DEPTH) - 1)
    exists = (way >= 0) & (way < len(labels))
    way = way.clip(0, len(labels) - 1)
    mask = np.isin(labels[way], meant(source, value, rng))
    if rng.random() > WHOLE:
        mask = _one_piece(mask, rng)
    if mask[1].sum() < SMALLEST:
        return None
    known = np.ones((DEPTH, 1, 1), bool)
    if source.unlabelled is not None:
        known = labels[way] != source.unlabelled
    # A repeated slice is seen, as a slide sees it at the end of a volume, but is no second truth.
    there = (known.any((1, 2)) & exists).astype(np.float32)
    stacks = [image[way].astype(np.float32), mask, np.broadcast_to(known, mask.shape)]
    if rng.random() < ZOOMED:
        stacks = _zoom(stacks, mask, rng)
    stacks[0] = appearance.disturb(torch.from_numpy(stacks[0]), rng).numpy()
    pixels, mask, known = _turned(stacks, rng)
    slices = 1 + int(exists[1:].sum())
    return SamSlab(pixels, mask, there, slices, known=None if source.unlabelled is None else known)


def window(slab: SamSlab, centre: int, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """(image, target, labelled) of a `WindowSample` about a slice of the slab."""
    places = slice(centre - 1, centre + 2)
    target = _on_raster(slab.mask[places], frame.raster)
    if slab.known is not None:
        target = only_labelled(target, _on_raster(slab.known[places], frame.raster))
    image = torch.from_numpy(slab.image[places])[None]
    image = prepare(image, frame.size, frame.resize, frame.scaling)[0]
    return image, target, torch.from_numpy(slab.labelled[places].copy())


def _on_raster(mask: np.ndarray, raster: int) -> Tensor:
    """A bool stack (S, H, W) as shares of the pixels of a raster, (S, raster, raster), 0..1."""
    values = torch.from_numpy(mask[None].astype(np.float32))
    found = F.interpolate(values, (raster, raster), mode="bilinear", antialias=True)
    return found[0].clamp(0, 1)


def user_prompt(mask: np.ndarray, frame: Frame, rng: np.random.Generator) -> tuple:
    """(points, box, masks) of a `WindowSample`: what a user gives on a slice with this mask (H, W).

    A box, points, both, or a rough mask and its box.
    """
    height, width = mask.shape
    kind = rng.random()
    points = box = masks = None
    if kind < 0.55 or kind > 0.9:
        corners = jittered(true_box(mask), (height, width), rng)
        box = torch.tensor(box_to_frame(corners, height, width, frame.size)).float()
    if 0.45 < kind < 0.9:
        places, signs = user_points(mask, rng)
        placed = points_to_frame(np.array(places), height, width, frame.size)
        points = (torch.tensor(placed).float(), torch.tensor(signs).float())
    if kind > 0.9:
        guesses = np.zeros((1, 3, height, width), np.float32)
        guesses[0, 1] = rough(mask, rng)
        known = torch.tensor([[False, True, False]])
        masks = mask_logits(torch.from_numpy(guesses), known, frame.raster)[0]
    return points, box, masks


def _one_piece(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piece of the marked slice, with what hangs together with it."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    there = np.unique(pieces[1][pieces[1] > 0])
    return pieces == rng.choice(there) if len(there) else mask & False


def _zoom(stacks: list[np.ndarray], mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """A rectangle of stacks around the object, so that the network meets objects of all sizes."""
    x0, y0, x1, y1 = true_box(mask.any(0))
    height, width = mask.shape[1:]
    side = max(x1 - x0, y1 - y0) + 1
    margins = (side * rng.uniform(0.3, 3.0, 4)).astype(int) + 4
    rows = slice(max(y0 - margins[0], 0), min(y1 + margins[1] + 1, height))
    columns = slice(max(x0 - margins[2], 0), min(x1 + margins[3] + 1, width))
    return [stack[:, rows, columns] for stack in stacks]


def _turned(stacks: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Quarter turns and mirror images, of all stacks alike."""
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    turned = (np.rot90(stack, turns, (1, 2)) for stack in stacks)
    return [np.ascontiguousarray(stack[:, :, ::-1] if flip else stack) for stack in turned]
