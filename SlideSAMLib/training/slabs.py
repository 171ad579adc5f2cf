"""Slabs: a few neighbouring slices of one object, cut, turned and scaled from a labelled volume.

Volumes lie in the host's memory. The part of them that a slab shows is taken to the device of the
training, where it is resampled and gets its intensities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ..boxes import mask_box
from . import appearance
from .fields import Device, blur, grown, shrunk, smooth_noise

DEPTH = 20  # slices of a slab: one behind the start, the rest ahead
TOGETHER = 0.35  # chance that a label of a group means the group
SMALLEST = 20  # voxels of an object on the slice where it is marked
LEAST_MARKED = 15  # pixels of it on that slice once it is resampled
AT_END, AT_WIDEST = 0.35, 0.25  # chances to be marked near an end, and where the object is widest
ALONE = 0.1  # share of the objects of which nothing is around
HABIT = 0.15  # share of the painted objects whose label leaves the edge that can be seen
FARTHEST_HABIT = 4  # pixels that it leaves it by, and a share of the object's width
HABIT_SHARE = 0.08
MARGIN = 8  # voxels around what a slab shows, for the blur


@dataclass
class Labelled:
    """A volume to cut slabs from.

    labels : unsigned (K, J, I); image : float16 in 0..1, same shape, or None (to be painted).
    spacing : mm (k, j, i); boxes : per label value - 1 the bounding box or None.
    targets : label values worth segmenting; whole : chance to take a label with all its pieces.
    families : label value -> number of its family, whose members look alike, or None.
    groups : label values that are one object together: a wall with what it holds, a tumour with its
        core. A label may be in several. grouped : a label of a group always means the group.
    filled : chance that an object means all that it encloses in its slices as well.
    unlabelled : label value of voxels that nobody has labelled, or None.
    canvases : kinds of real volumes into which objects of this one are put instead of being painted
        with all that surrounds them; empty to paint everything.
    key : by which its source finds it again.
    """

    labels: np.ndarray
    image: np.ndarray | None
    spacing: tuple[float, float, float]
    boxes: list
    targets: list[int]
    whole: float = 0.35
    families: np.ndarray | None = None
    groups: Sequence[Sequence[int]] = ()
    grouped: bool = False
    filled: float = 0.0
    unlabelled: int | None = None
    canvases: Sequence[Sequence[Labelled]] = ()
    key: int = 0


@dataclass
class Slab:
    """image float32 (S, H, W) in 0..1; mask bool (S, H, W); valid bool (S,): there is such a slice.

    The object is marked on slice 1; the slide goes towards higher slices.
    known : bool (S, H, W), False where nobody has labelled; None where that is nowhere.
    habit : the mask leaves the edge that can be seen, alike on all slices: only a mask tells that.
    recipe : of a mixture, see `mixture.Mixture.again`; None for slabs from elsewhere.
    """

    image: Tensor
    mask: Tensor
    valid: np.ndarray
    habit: bool = False
    recipe: tuple[int, ...] | None = None
    known: Tensor | None = None

    def another(self, rng: np.random.Generator) -> Slab:
        """The same object mirrored or turned in the slice, in other greys; for another slide."""
        turns, mirrored = divmod(int(rng.integers(1, 8)), 2)

        def moved(stack: Tensor) -> Tensor:
            stack = stack.rot90(turns, (1, 2))
            return (stack.flip(2) if mirrored else stack).contiguous()

        image = appearance.disturb(moved(self.image), rng)
        known = None if self.known is None else moved(self.known)
        return Slab(image, moved(self.mask), self.valid, self.habit, known=known)


def labelled(labels, image, spacing, smallest=150, **rest) -> Labelled:
    """Make a Labelled; label values with fewer voxels than `smallest` are background only."""
    counts = np.bincount(labels.ravel())
    targets = [int(v) for v in np.flatnonzero(counts >= smallest) if v > 0]
    return Labelled(labels, image, spacing, ndimage.find_objects(labels), targets, **rest)


def largest_section(source: Labelled, value: int) -> int:
    """Voxels of a label value on the slice that shows most of it, of those that can be marked."""
    there = source.labels[source.boxes[value - 1]] == value
    return max(int(there.sum(tuple({0, 1, 2} - {axis})).max()) for axis in _slide_axes(source))


def cut(
    source: Labelled, rng: np.random.Generator, device: Device = "cpu", tries: int = 8
) -> Slab | None:
    """A random slab on a device, or None where no try gave an object that fits."""
    for _ in range(tries):
        axis = slide_axis(source, rng)
        seed = _seed(source, axis, rng)
        slab = None if seed is None else _cut_at(source, axis, seed, rng, device)
        if slab is not None:
            return slab
    return None


def slide_axis(source: Labelled, rng: np.random.Generator) -> int:
    """The coarsest axis of a volume where there is one, else a random one."""
    axes = _slide_axes(source)
    return axes[0] if len(axes) == 1 else int(rng.integers(3))


def _slide_axes(source: Labelled) -> list[int]:
    spacing = np.array(source.spacing)
    return [int(np.argmax(spacing))] if spacing.max() > 1.8 * spacing.min() else [0, 1, 2]


def _seed(source: Labelled, axis: int, rng: np.random.Generator) -> np.ndarray | None:
    """A random voxel (k, j, i) of a random target, often near one of its ends or at its widest."""
    value = _target(source, axis, rng)
    box = list(source.boxes[value - 1])
    kind = rng.random()
    if kind < AT_END:
        first, last = box[axis].start, box[axis].stop
        reach = min(6, last - first)
        box[axis] = slice(first, first + reach) if rng.random() < 0.5 else slice(last - reach, last)
    elif kind < AT_END + AT_WIDEST:
        there = source.labels[tuple(box)] == value
        widest = box[axis].start + int(there.sum(tuple({0, 1, 2} - {axis})).argmax())
        box[axis] = slice(widest, widest + 1)
    points = np.stack([rng.integers(s.start, s.stop, 400) for s in box], 1)
    hits = points[source.labels[tuple(points.T)] == value]
    if len(hits) == 0:
        inside = np.argwhere(source.labels[tuple(box)] == value)
        if len(inside) == 0:
            return None
        return inside[rng.integers(len(inside))] + [s.start for s in box]
    return hits[0]


def _target(source: Labelled, axis: int, rng: np.random.Generator) -> int:
    """A random target: each alike, or the wider the likelier.

    Small structures are many, so that alike chances alone would show few large ones with the
    detail that they have.
    """
    targets = source.targets
    if rng.random() < 0.4:
        return targets[rng.integers(len(targets))]
    boxes = (source.boxes[value - 1] for value in targets)
    sizes = np.array([[s.stop - s.start for s in box] for box in boxes]) * source.spacing
    widths = np.delete(sizes, axis, 1).max(1)
    return targets[rng.choice(len(targets), p=widths / widths.sum())]


def _cut_at(source, axis, seed, rng, device) -> Slab | None:
    labels = np.moveaxis(source.labels, axis, 0)  # slide axis to the front
    image = None if source.image is None else np.moveaxis(source.image, axis, 0)
    start, y, x = (int(v) for v in (seed[axis], *np.delete(seed, axis)))
    spacing = (source.spacing[axis], *np.delete(source.spacing, axis))
    value = int(labels[start, y, x])
    values = meant(source, value, rng)
    plane = np.isin(labels[start], values)
    if rng.random() > source.whole:
        pieces, _ = ndimage.label(plane)
        plane = pieces == pieces[y, x]
    x0, y0, x1, y1 = mask_box(plane)
    size = np.array([y1 - y0 + 1, x1 - x0 + 1])
    if size.max() < 5 or plane.sum() < SMALLEST:
        return None
    centre = np.array([(y0 + y1) / 2, (x0 + x1) / 2])
    extent_mm = float((size * spacing[1:]).max())
    finest_mm = min(spacing[1:]) / (1.3 if source.image is not None else 1.8)
    pixels = float(np.exp(rng.uniform(np.log(12), np.log(150))))
    step_mm = max(extent_mm / pixels, finest_mm)
    view = int(np.clip(extent_mm / step_mm * rng.uniform(2.0, 3.4), 48, 208))
    gap = _gap(source, axis, min(6 * step_mm, extent_mm / 6), rng)
    steps = gap * (np.arange(DEPTH) - 1) * rng.choice([-1, 1])
    index = start + steps
    valid = (index >= 0) & (index < len(labels))
    coordinates = _coordinates(centre, step_mm / np.array(spacing[1:]), view, rng, device)
    index = index.clip(0, len(labels) - 1)
    cut_labels = _sample(*_cropped([labels[k] for k in index], coordinates), "nearest").long()
    known = None if source.unlabelled is None else cut_labels != source.unlabelled
    if known is not None:
        valid &= known.any(-1).any(-1).cpu().numpy()
    members = torch.isin(cut_labels, torch.from_numpy(values).to(device))
    mask = _pieces(members, rng.random() < source.whole)
    if mask is None or mask[1].sum() < LEAST_MARKED:
        return None
    if rng.random() < source.filled:
        mask = _filled(mask)
    if image is not None:
        pixels = _sample_image(image, index, gap, coordinates, step_mm / min(spacing[1:]), rng)
        pixels = appearance.vary(pixels, mask, rng)
    elif source.canvases:
        pixels = appearance.implant(
            cut_labels, mask, _canvas(source.canvases, view, rng, device), rng
        )
    else:
        pixels = appearance.paint(cut_labels, mask, rng, source.families)
    other = None
    # Where there are no labels the object itself would be taken away.
    if source.unlabelled is None and rng.random() < ALONE:
        pixels = appearance.alone(pixels, None if source.canvases else cut_labels, mask, rng)
    elif image is None and rng.random() < HABIT:
        other = _by_habit(mask, extent_mm / step_mm, rng)
    pixels = appearance.disturb(pixels, rng)
    mask = mask if other is None else other
    return Slab(pixels, mask, valid, habit=other is not None, known=known)


def _by_habit(mask: Tensor, width: float, rng: np.random.Generator) -> Tensor | None:
    """The mask (S, H, W) as somebody draws it who stays inside of the edge or outside of it.

    width : of the object on slice 1, in pixels. None where less than half of that would be left.
    """
    most = min(max(round(HABIT_SHARE * width), 1), FARTHEST_HABIT)
    steps = int(rng.integers(1, most + 1))
    other = grown(mask, steps) if rng.random() < 0.5 else shrunk(mask, steps)
    least = max(LEAST_MARKED, int(mask[1].sum()) // 2)
    return other if other[1].sum() >= least else None


def meant(source: Labelled, value: int, rng: np.random.Generator) -> np.ndarray:
    """The label values of the object that a voxel of `value` is marked for, int64."""
    groups = [group for group in source.groups if value in group]
    if not groups or not (source.grouped or rng.random() < TOGETHER):
        return np.array([value])
    return np.array(groups[rng.integers(len(groups))], np.int64)


def _canvas(canvases, view: int, rng: np.random.Generator, device: Device) -> Tensor:
    """A slab (DEPTH, view, view) from anywhere in a real volume; float32, roughly 0..1."""
    kind = canvases[rng.integers(len(canvases))]
    volume = kind[rng.integers(len(kind))]
    axis = slide_axis(volume, rng)
    image = np.moveaxis(volume.image, axis, 0)  # slide axis to the front
    spacing = np.delete(volume.spacing, axis)
    step_mm = min(spacing) * rng.uniform(0.5, 1.6)
    gap = _gap(volume, axis, 6 * step_mm, rng)
    index = rng.integers(len(image)) + gap * (np.arange(DEPTH) - 1) * rng.choice([-1, 1])
    centre = rng.uniform(0.25, 0.75, 2) * image.shape[1:]
    coordinates = _coordinates(centre, step_mm / spacing, view, rng, device)
    index = index.clip(0, len(image) - 1)
    return _sample_image(image, index, gap, coordinates, step_mm / min(spacing), rng)


def _gap(source: Labelled, axis: int, most_mm: float, rng: np.random.Generator) -> int:
    """Distance of slices in voxels; of nearly isotropic volumes up to `most_mm`.

    Half of them lie as close as the voxels: from slice to slice real structures change slowly.
    """
    spacing = source.spacing[axis]
    if spacing > 1.8 * min(source.spacing) or rng.random() < 0.45:
        return 1
    return int(rng.integers(1, np.clip(int(most_mm / spacing), 1, 6) + 1))


def _coordinates(centre, steps, view, rng, device) -> Tensor:
    """Voxel coordinates (2, S, view, view) of the slab's pixels, float32: rows, columns."""
    angle = rng.choice([0, 90, 180, 270]) if rng.random() < 0.6 else rng.uniform(0, 360)
    angle = np.radians(angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.normal(0, 0.1, 2)) * rng.choice([-1, 1], 2)
    line = torch.arange(view, device=device) - (view - 1) / 2
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    if rng.random() < 0.4:  # elastic
        amount = rng.uniform(0, 0.04) * view
        grid = grid + amount * torch.stack(
            [smooth_noise((view, view), 4, rng, device) for _ in range(2)]
        )
    matrix = np.asarray(steps)[:, None] * turn * scale  # stretched, turned, in voxels
    grid = torch.tensordot(_to(matrix, device), grid, 1)
    offset = centre + rng.normal(0, 0.08, 2) * view * np.asarray(steps)
    drift = np.zeros((2, DEPTH))
    if rng.random() < 0.25:  # breathing, or a structure that moves in plane
        moves = rng.normal(0, rng.uniform(0, 0.02) * view, (2, DEPTH))
        moves = moves + rng.normal(0, rng.uniform(0, 0.025) * view, (2, 1))  # oblique: one way
        drift = np.cumsum(moves, 1)
        drift -= drift[:, 1:2]
    return grid[:, None] + _to(offset[:, None] + drift, device)[:, :, None, None]


def _to(values: np.ndarray, device: Device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)


def _cropped(planes: Sequence[np.ndarray], coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the planes (H, W) that the coordinates lie in, and the coordinates in it."""
    height, width = planes[0].shape
    r0, c0 = (int(low) for low in coordinates.amin((1, 2, 3)).floor())
    r1, c1 = (int(high) for high in coordinates.amax((1, 2, 3)).ceil())
    r0, c0 = min(max(r0 - MARGIN, 0), height - 1), min(max(c0 - MARGIN, 0), width - 1)
    r1, c1 = max(r1 + MARGIN, r0) + 1, max(c1 + MARGIN, c0) + 1
    part = np.stack([plane[r0:r1, c0:c1] for plane in planes])
    start = torch.tensor([r0, c0], device=coordinates.device, dtype=torch.float32)
    return _to(part, coordinates.device), coordinates - start[:, None, None, None]


def _sample(planes: Tensor, coordinates: Tensor, mode: str) -> Tensor:
    """Plane n (H, W) of a stack at its coordinates (2, n, h, w); beyond, its edge repeats."""
    last = torch.tensor(planes.shape[1:], device=planes.device) - 1
    places = 2 * coordinates / last.clamp(min=1)[:, None, None, None] - 1
    grid = places.flip(0).permute(1, 2, 3, 0)  # (row, column) first to (column, row) last
    kind = {"mode": mode, "padding_mode": "border", "align_corners": True}
    return F.grid_sample(planes[:, None], grid, **kind)[:, 0]


def _sample_image(image, index, gap, coordinates, step, rng) -> Tensor:
    """The image's slices, averaged over thick slices and smoothed before they are shrunk."""
    thick = gap > 1 and rng.random() < 0.5
    reach = gap // 2 if thick else 0
    means = [image[max(k - reach, 0) : k + reach + 1].mean(0, np.float32) for k in index]
    planes, coordinates = _cropped(means, coordinates)
    if step > 1.5:
        planes = blur(planes, (0, 0.4 * step, 0.4 * step))
    return _sample(planes, coordinates, "bilinear")


def _pieces(mask: Tensor, whole: bool) -> Tensor | None:
    """The mask itself, or the 3D piece of it that holds most of the middle of slice 1."""
    if whole:
        return mask
    pieces, count = ndimage.label(mask.cpu().numpy())
    if count == 0:
        return None
    middle = mask.shape[1] // 4
    sizes = np.bincount(pieces[1, middle:-middle, middle:-middle].ravel(), minlength=count + 1)
    sizes[0] = 0
    return torch.from_numpy(pieces == sizes.argmax()).to(mask.device) if sizes.any() else None


def _filled(mask: Tensor) -> Tensor:
    """The mask (S, H, W) with what it encloses in each of its slices."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    pieces, _ = ndimage.label(~mask.cpu().numpy(), in_plane)
    edges = pieces[:, [0, -1]].ravel(), pieces[:, :, [0, -1]].ravel()
    outside = np.isin(pieces, np.unique(np.concatenate(edges)))
    return torch.from_numpy(~outside | mask.cpu().numpy()).to(mask.device)
