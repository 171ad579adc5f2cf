"""Slabs: a few neighbouring slices of one object, cut, turned and scaled from a labelled volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..next_prompt import mask_box
from . import appearance

DEPTH = 20  # slices of a slab: one behind the start, the rest ahead


@dataclass
class Labelled:
    """A volume to cut slabs from.

    labels : unsigned (K, J, I); image : float16 in 0..1, same shape, or None (to be painted).
    spacing : mm (k, j, i); boxes : per label value - 1 the bounding box or None.
    targets : label values worth segmenting; whole : chance to take a label with all its pieces.
    families : label value -> number of its family, whose members look alike, or None.
    unlabelled : label value that marks slices which nobody has labelled, or None.
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
    unlabelled: int | None = None
    canvases: Sequence[Sequence[Labelled]] = ()
    key: int = 0


@dataclass
class Slab:
    """image float32 (S, H, W) in 0..1; mask bool (S, H, W); valid (S,): there is such a slice.

    The object is marked on slice 1; the slide goes towards higher slices.
    recipe : of a mixture, see `mixture.Mixture.again`; None for slabs from elsewhere.
    """

    image: np.ndarray
    mask: np.ndarray
    valid: np.ndarray
    recipe: tuple[int, int, int] | None = None


def labelled(labels, image, spacing, smallest=150, **rest) -> Labelled:
    """Make a Labelled; label values with fewer voxels than `smallest` are background only."""
    counts = np.bincount(labels.ravel())
    targets = [int(v) for v in np.flatnonzero(counts >= smallest) if v > 0]
    return Labelled(labels, image, spacing, ndimage.find_objects(labels), targets, **rest)


def cut(source: Labelled, rng: np.random.Generator, tries: int = 8) -> Slab | None:
    """A random slab, or None where no try gave an object that fits."""
    for _ in range(tries):
        axis = slide_axis(source, rng)
        seed = _seed(source, axis, rng)
        slab = None if seed is None else _cut_at(source, axis, seed, rng)
        if slab is not None:
            return slab
    return None


def slide_axis(source: Labelled, rng: np.random.Generator) -> int:
    """The coarsest axis of a volume where there is one, else a random one."""
    spacing = np.array(source.spacing)
    if spacing.max() > 1.8 * spacing.min():
        return int(np.argmax(spacing))
    return int(rng.integers(3))


def _seed(source: Labelled, axis: int, rng: np.random.Generator) -> np.ndarray | None:
    """A random voxel (k, j, i) of a random target, often close to one of its ends."""
    value = source.targets[rng.integers(len(source.targets))]
    box = list(source.boxes[value - 1])
    if rng.random() < 0.45:
        first, last = box[axis].start, box[axis].stop
        reach = min(6, last - first)
        box[axis] = slice(first, first + reach) if rng.random() < 0.5 else slice(last - reach, last)
    points = np.stack([rng.integers(s.start, s.stop, 400) for s in box], 1)
    hits = points[source.labels[tuple(points.T)] == value]
    if len(hits) == 0:
        inside = np.argwhere(source.labels[tuple(box)] == value)
        if len(inside) == 0:
            return None
        return inside[rng.integers(len(inside))] + [s.start for s in box]
    return hits[0]


def _cut_at(source, axis, seed, rng) -> Slab | None:
    labels = np.moveaxis(source.labels, axis, 0)  # slide axis to the front
    image = None if source.image is None else np.moveaxis(source.image, axis, 0)
    start, y, x = (int(v) for v in (seed[axis], *np.delete(seed, axis)))
    spacing = (source.spacing[axis], *np.delete(source.spacing, axis))
    value = int(labels[start, y, x])
    plane = labels[start] == value
    if rng.random() > source.whole:
        pieces, _ = ndimage.label(plane)
        plane = pieces == pieces[y, x]
    x0, y0, x1, y1 = mask_box(plane)
    size = np.array([y1 - y0 + 1, x1 - x0 + 1])
    if size.max() < 5 or plane.sum() < 20:
        return None
    centre = np.array([(y0 + y1) / 2, (x0 + x1) / 2])
    extent_mm = float((size * spacing[1:]).max())
    finest_mm = min(spacing[1:]) / (1.3 if source.image is not None else 1.8)
    pixels = float(np.exp(rng.uniform(np.log(10), np.log(110))))
    step_mm = max(extent_mm / pixels, finest_mm)
    view = int(np.clip(extent_mm / step_mm * rng.uniform(2.0, 3.4), 48, 208))
    gap = _gap(source, axis, step_mm, rng)
    steps = gap * (np.arange(DEPTH) - 1) * rng.choice([-1, 1])
    index = start + steps
    valid = (index >= 0) & (index < len(labels))
    coordinates = _coordinates(centre, step_mm / np.array(spacing[1:]), view, rng)
    index = index.clip(0, len(labels) - 1)
    if source.unlabelled is not None:
        valid &= ~np.array([(labels[k] == source.unlabelled).any() for k in index])
        if not valid[1]:
            return None
    cut_labels = _sample(labels, index, coordinates, 0)
    mask = _pieces(cut_labels == value, rng.random() < source.whole)
    if mask is None or mask[1].sum() < 15:
        return None
    if image is not None:
        pixels = _sample_image(image, index, gap, coordinates, step_mm / min(spacing[1:]), rng)
        pixels = appearance.vary(pixels, mask, rng)
    elif source.canvases:
        pixels = appearance.implant(cut_labels, mask, _canvas(source.canvases, view, rng), rng)
    else:
        pixels = appearance.paint(cut_labels, mask, rng, source.families)
    return Slab(appearance.disturb(pixels, rng), mask, valid)


def _canvas(canvases, view: int, rng: np.random.Generator) -> np.ndarray:
    """A slab (DEPTH, view, view) from anywhere in a real volume; float32, roughly 0..1."""
    kind = canvases[rng.integers(len(canvases))]
    volume = kind[rng.integers(len(kind))]
    axis = slide_axis(volume, rng)
    image = np.moveaxis(volume.image, axis, 0)  # slide axis to the front
    spacing = np.delete(volume.spacing, axis)
    step_mm = min(spacing) * rng.uniform(0.5, 1.6)
    gap = _gap(volume, axis, step_mm, rng)
    index = rng.integers(len(image)) + gap * (np.arange(DEPTH) - 1) * rng.choice([-1, 1])
    centre = rng.uniform(0.25, 0.75, 2) * image.shape[1:]
    coordinates = _coordinates(centre, step_mm / spacing, view, rng)
    index = index.clip(0, len(image) - 1)
    return _sample_image(image, index, gap, coordinates, step_mm / min(spacing), rng)


def _gap(source, axis, step_mm, rng) -> int:
    """Distance of slices in voxels; up to about six times the pixel size for isotropic volumes."""
    spacing = source.spacing[axis]
    if spacing > 1.8 * min(source.spacing):
        return 1
    most = max(1, min(6, int(6 * step_mm / spacing)))
    return int(rng.integers(1, most + 1)) if rng.random() < 0.7 else 1


def _coordinates(centre, steps, view, rng) -> np.ndarray:
    """Voxel coordinates (2, S, view, view) of the slab's pixels: rows, columns."""
    angle = rng.choice([0, 90, 180, 270]) if rng.random() < 0.6 else rng.uniform(0, 360)
    angle = np.radians(angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.exp(rng.normal(0, 0.1, 2)) * rng.choice([-1, 1], 2)
    line = np.arange(view) - (view - 1) / 2
    grid = np.stack(np.meshgrid(line, line, indexing="ij")).astype(np.float32)
    if rng.random() < 0.4:  # elastic
        amount = rng.uniform(0, 0.04) * view
        grid = grid + amount * np.stack([smooth2(view, rng) for _ in range(2)])
    grid = np.tensordot(turn, grid * scale[:, None, None], 1) * np.asarray(steps)[:, None, None]
    offset = centre + rng.normal(0, 0.08, 2) * view * np.asarray(steps)
    drift = np.zeros((2, DEPTH))
    if rng.random() < 0.25:  # breathing, or a structure that moves in plane
        moves = rng.normal(0, rng.uniform(0, 0.02) * view, (2, DEPTH))
        moves = moves + rng.normal(0, rng.uniform(0, 0.025) * view, (2, 1))  # oblique: one way
        drift = np.cumsum(moves, 1)
        drift -= drift[:, 1:2]
    return (grid + offset[:, None, None])[:, None] + drift[:, :, None, None]


def smooth2(view: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth 2D noise (view, view) of unit deviation."""
    return appearance.smooth_noise((view, view), 4, rng)


def _sample(volume, index, coordinates, order) -> np.ndarray:
    return np.stack(
        [
            ndimage.map_coordinates(volume[k], coordinates[:, n], order=order, mode="nearest")
            for n, k in enumerate(index)
        ]
    )


def _sample_image(image, index, gap, coordinates, step, rng) -> np.ndarray:
    """The image's slices, averaged over thick slices and smoothed before they are shrunk."""
    thick = gap > 1 and rng.random() < 0.5
    planes = {}
    for k in set(int(i) for i in index):
        reach = gap // 2 if thick else 0
        plane = image[max(k - reach, 0) : k + reach + 1].astype(np.float32).mean(0)
        planes[k] = ndimage.gaussian_filter(plane, 0.4 * step) if step > 1.5 else plane
    return np.stack(
        [
            ndimage.map_coordinates(planes[int(k)], coordinates[:, n], order=1, mode="nearest")
            for n, k in enumerate(index)
        ]
    )


def _pieces(mask: np.ndarray, whole: bool) -> np.ndarray | None:
    """The mask itself, or the 3D piece of it that holds most of the middle of slice 1."""
    if whole:
        return mask
    pieces, count = ndimage.label(mask)
    if count == 0:
        return None
    middle = mask.shape[1] // 4
    sizes = np.bincount(pieces[1, middle:-middle, middle:-middle].ravel(), minlength=count + 1)
    sizes[0] = 0
    return pieces == sizes.argmax() if sizes.any() else None
