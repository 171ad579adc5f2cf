"""Intensities: painting synthetic slabs from labels, and disturbing real ones.

Images and masks are tensors (S, H, W) and stay on their device; few numbers come back to the host.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .fields import blur, grown, interpolated, noise, shrunk, smooth_noise

FARTHEST = 9  # voxels that a shell can be thick
LEAST_CONTRAST = 0.025  # of an object: ten Hounsfield units in the window of an abdomen
EDGE_REACH = 6  # voxels from a body that its soft edge may cover: its blur reaches 5


def paint(
    labels: Tensor, target: Tensor, rng: np.random.Generator, families: np.ndarray | None = None
) -> Tensor:
    """A synthetic image (S, H, W) float32, roughly 0..1, for a slab of labels (int64).

    `target` (bool) is the object to be found: it differs from its surroundings by at least a
    little, since nobody can segment what cannot be seen. Labels of one family (label value ->
    number) look alike: what tells them apart is what lies between them.
    """
    count = int(labels.max()) + 1
    means = _means(count, rng)
    alike = families is not None and rng.random() < 0.8
    if alike:
        means = means[families[:count]]
    image = _table(means, labels)
    if rng.random() < 0.4:  # some labels are made of two tissues
        mixed = _table(rng.random(count) < 0.4, labels) > 0
        halves = smooth_noise(labels.shape, rng.uniform(8, 40), rng, labels.device)
        mixed &= halves > rng.uniform(-0.5, 0.8)
        image = image + mixed * rng.uniform(-0.25, 0.25)
    if rng.random() < 0.12:
        image = image + _level(labels, target, rng)
    if rng.random() < 0.3:
        image = image + _shells(labels, target, rng)
    relatives = target
    if alike and bool(target.any()):
        relatives = _table(np.isin(families[:count], families[_values(labels, target)]), labels) > 0
    image = _separate(image, target, relatives, rng)
    texture = _table(rng.uniform(0, 0.08, count), labels)
    if rng.random() < 0.7:
        image = image + texture * _grain(labels, rng)
    if rng.random() < 0.15:
        rim = grown(target, 1) & ~shrunk(target, 1)
        image = image + rng.choice([-1, 1]) * rng.uniform(0.1, 0.4) * rim
    return acquire(image, rng)


def implant(labels: Tensor, target: Tensor, canvas: Tensor, rng: np.random.Generator) -> Tensor:
    """Objects put into a real image (S, H, W), roughly 0..1: lesions, nodes, things never seen.

    `target` (bool) and now and then other bodies of `labels` take a grey of their own, and cover
    more or less of what was there.
    """
    image = canvas.float()
    room = 0.2 * target.numel()
    for value, size in enumerate(torch.bincount(labels.flatten()).tolist()):
        if 0 < size < room and rng.random() < 0.25:
            image = _covered(image, (labels == value) & ~target, rng)
    image = _covered(image, target, rng)
    parts = _values(labels, target)
    for value in parts if len(parts) > 1 else ():
        if rng.random() < 0.6:  # what it holds differs from its wall
            image = _covered(image, (labels == value) & target, rng)
    image = _separate(image, target, target, rng)
    return acquire(image, rng) if rng.random() < 0.5 else image


def _covered(image: Tensor, body: Tensor, rng: np.random.Generator) -> Tensor:
    """The image with a body of an even grey or a mottled one in it, its edge soft."""
    if not bool(body.any()):
        return image
    part = _around(body, EDGE_REACH)  # nothing changes beyond it
    here, inside = image[part], body[part]
    edge = rng.uniform(0.3, 1.2)
    cover = blur(inside.float(), (0, edge, edge)) * rng.uniform(0.6, 1.0)
    grain = rng.uniform(0, 0.08) * _grain(here, rng)
    if rng.random() < 0.5:
        cells = rng.uniform(8, 30) * max(inside.shape) / max(body.shape)
        mottles = smooth_noise(inside.shape, cells, rng, body.device)
        grain = grain + rng.uniform(0, 0.1) * mottles
    image = image.clone()
    image[part] = here + cover * (rng.uniform(0, 1) + grain - here)
    return image


def _around(body: Tensor, margin: int) -> tuple[slice, slice, slice]:
    """Where a bool body (S, H, W), which has voxels, lies; with a margin in the slices."""
    found = []
    for axis, reach in ((0, 0), (1, margin), (2, margin)):
        others = [other for other in range(3) if other != axis]
        places = torch.nonzero(body.any(others[1]).any(others[0]))
        first, last = int(places[0]), int(places[-1])
        found.append(slice(max(first - reach, 0), last + reach + 1))
    return tuple(found)


def alone(image: Tensor, labels: Tensor | None, target: Tensor, rng: np.random.Generator) -> Tensor:
    """The object (bool) on an even grey: brains without their skulls, stained cells, phantoms.

    Half of the time some of the other bodies of `labels`, where given, are left beside it.
    """
    kept = target
    if labels is not None and rng.random() < 0.5:
        beside = rng.random(int(labels.max()) + 1) < rng.uniform(0.1, 0.6)
        beside[0] = False  # what no body is
        kept = target | (_table(beside, labels) > 0)
    grey = 0.0 if rng.random() < 0.8 else rng.uniform(0, 1)
    level = float(image[target].mean())
    if abs(level - grey) < 0.1:
        grey = 0.0 if level > 0.5 else 1.0
    image = image.where(kept, torch.tensor(grey, dtype=image.dtype, device=image.device))
    return acquire(image, rng) if rng.random() < 0.4 else image


def vary(image: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
    """Real intensities as another scanner or sequence might show them, the object still visible."""
    if rng.random() < 0.25:
        other = _other_greys(image, rng)
        if _visible(other, target):
            image = other
    return acquire(image, rng) if rng.random() < 0.3 else image


def _other_greys(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Other greys for the same tissues: a random curve, mostly but not always a rising one."""
    knots = np.sort(rng.uniform(0, 1, int(rng.integers(3, 7))))
    values = rng.uniform(0, 1, len(knots))
    if rng.random() < 0.6:
        values = np.sort(values)
    return interpolated(image, knots, values)


def _visible(image: Tensor, target: Tensor) -> bool:
    gap = _gap(image, target, target)
    return gap is not None and abs(gap) > 0.06


def _gap(image: Tensor, target: Tensor, relatives: Tensor) -> float | None:
    """How much brighter the object's rim is than what lies around it; None where one is missing."""
    ring = grown(target, 3, slices=3) & ~target & ~relatives
    if not bool(ring.any()) or not bool(target.any()):
        return None
    rim = target & ~shrunk(target, 3)  # what it holds says nothing about its edge
    return float(image[rim].mean() - image[ring].mean())


def _means(count: int, rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.4:
        means = rng.uniform(0, 1, count)
    elif kind < 0.7:  # few tissues, many organs
        centres = rng.uniform(0, 1, rng.integers(3, 7))
        means = rng.choice(centres, count) + rng.normal(0, 0.04, count)
    else:  # CT: air, fat, soft tissues close together, contrast, bone
        centres = np.array([0.0, 0.17, 0.4, 0.45, 0.5, 0.58, 0.9])
        means = rng.choice(centres, count, p=[0.08, 0.17, 0.2, 0.2, 0.15, 0.1, 0.1])
        means = means + rng.normal(0, 0.02, count)
    if rng.random() < 0.6:
        means[0] = rng.choice([0.0, rng.uniform(0, 1)])
    return means.astype(np.float32)


def _table(values: np.ndarray, labels: Tensor) -> Tensor:
    """The value of each voxel's label, float32."""
    return torch.from_numpy(np.asarray(values, np.float32)).to(labels.device)[labels]


def _values(labels: Tensor, target: Tensor) -> np.ndarray:
    """The labels of the object, which may be several; at least one of its voxels is there."""
    return torch.unique(labels[target]).cpu().numpy()


def _separate(image: Tensor, target: Tensor, relatives: Tensor, rng: np.random.Generator) -> Tensor:
    """Move the object and its relatives away from what else lies around the object."""
    gap = _gap(image, target, relatives)
    if gap is None:
        return image
    least = float(np.exp(rng.uniform(*np.log([LEAST_CONTRAST, 0.15]))))
    if abs(gap) < least:
        contrast = float(np.exp(rng.uniform(*np.log([least, 0.35]))))
        shift = contrast * (1 if gap >= 0 else -1) - gap
        image = image + shift * (target | relatives)
    return image


def _level(labels: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
    """What to add where bodies hold two things, one above the other: gas over fluid in a bowel.

    The same line on each slice; some labels have it, the object's mostly.
    """
    count = int(labels.max()) + 1
    holding = rng.random(count) < 0.15
    if bool(target.any()) and rng.random() < 0.8:
        holding[_values(labels, target)] = True
    height, width = labels.shape[1:]
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[:height, :width]
    slope = np.sin(angle) * rows + np.cos(angle) * columns
    line = torch.from_numpy(slope.astype(np.float32)).to(labels.device)
    middle = line.expand(labels.shape)[target]
    at = float(middle.quantile(rng.uniform(0.1, 0.9))) if len(middle) else float(line.mean())
    return (line > at) * _table(holding * rng.choice([-1, 1]) * rng.uniform(0.1, 0.7), labels)


def _shells(labels: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
    """What to add where bodies have a shell of another grey: bones, kidneys, rims of lesions.

    The shells follow the outlines on each slice; they belong to the bodies.
    """
    count = int(labels.max()) + 1
    shelled = rng.random(count) < 0.25
    if bool(target.any()) and rng.random() < 0.7:
        shelled[rng.choice(_values(labels, target))] = True
    edges = torch.zeros_like(labels, dtype=torch.bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    reach = _table(np.exp(rng.uniform(np.log(1), np.log(FARTHEST), count)), labels)
    change = rng.choice([-1, 1], count) * rng.uniform(0.08, 0.5, count) * shelled
    return _table(change, labels) * (_distance(edges) < reach)


def _distance(edges: Tensor) -> Tensor:
    """In-plane distance to the next edge in voxels, up to FARTHEST; uint8."""
    distance = torch.zeros(edges.shape, dtype=torch.uint8, device=edges.device)
    near = edges
    for _ in range(FARTHEST):  # how many steps the growing edge has not come here
        distance += ~near
        near = grown(near, 1)
    return distance


def _grain(like: Tensor, rng: np.random.Generator) -> Tensor:
    grain = noise(like.shape, rng, like.device)
    sigma = rng.choice([0.0, 0.7, 1.2, 2.0])
    if sigma:
        grain = blur(grain, (0, sigma, sigma))
        grain = grain / grain.std().clamp(min=1e-6)
    return grain


def acquire(image: Tensor, rng: np.random.Generator) -> Tensor:
    """What a scanner does: blur, bias, noise, gain that jumps between slices; float32."""
    if rng.random() < 0.75:
        sigma = rng.uniform(0.3, 1.3)
        across = rng.uniform(0.3, 0.9) if rng.random() < 0.25 else 0  # thick slices, out of focus
        image = blur(image, (across, sigma, sigma))
    if rng.random() < 0.35:
        bias = smooth_noise(image.shape, 2, rng, image.device)
        image = image * torch.exp(rng.uniform(0, 0.35) * bias)
    if rng.random() < 0.08:  # speckle: the brighter the noisier
        image = image * torch.exp(rng.uniform(0.05, 0.35) * _grain(image, rng))
    if rng.random() < 0.8:
        image = image + rng.uniform(0, 0.08) * _grain(image, rng)
    return image


def disturb(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Changes that leave an image (real or synthetic) plausible: contrast, gain, inversion."""
    if rng.random() < 0.15:
        gain = 1 + rng.normal(0, 0.06, (len(image), 1, 1))
        image = image * torch.from_numpy(gain.astype(np.float32)).to(image.device)
    image = image.clamp(0, 1)
    if rng.random() < 0.35:
        image = image ** float(np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.15:
        image = 1 - image
    if rng.random() < 0.5:
        low, high = rng.uniform(0, 0.12), rng.uniform(0.85, 1)
        image = low + (high - low) * image
    if rng.random() < 0.3:
        image = image + rng.uniform(0, 0.04) * _grain(image, rng)
    return image.clamp(0, 1)
