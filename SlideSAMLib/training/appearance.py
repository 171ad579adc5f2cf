"""Intensities: painting synthetic slabs from labels, and disturbing real ones."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .shapes import smooth_noise


def paint(
    labels: np.ndarray,
    target: np.ndarray,
    rng: np.random.Generator,
    families: np.ndarray | None = None,
) -> np.ndarray:
    """A synthetic image (S, H, W) float32, roughly 0..1, for a slab of labels.

    `target` (bool) is the object to be found: it differs from its surroundings by at least a
    little, since nobody can segment what cannot be seen. Labels of one family (label value ->
    number) look alike: what tells them apart is what lies between them.
    """
    count = int(labels.max()) + 1
    means = _means(count, rng)
    alike = families is not None and rng.random() < 0.8
    if alike:
        means = means[families[:count]]
    image = means[labels]
    if rng.random() < 0.4:  # some labels are made of two tissues
        mixed = rng.random(count) < 0.4
        halves = smooth_noise(labels.shape, rng.uniform(8, 40), rng) > rng.uniform(-0.5, 0.8)
        image = image + (mixed[labels] & halves) * rng.uniform(-0.25, 0.25)
    if rng.random() < 0.3:
        image = image + _shells(labels, target, rng)
    relatives = families[labels] == _family(labels, target, families) if alike else target
    image = _separate(image, target, relatives, rng)
    texture = rng.uniform(0, 0.08, count).astype(np.float32)[labels]
    if rng.random() < 0.7:
        image = image + texture * _grain(labels.shape, rng)
    if rng.random() < 0.15:
        image = image + rng.choice([-1, 1]) * rng.uniform(0.1, 0.4) * _rim(target)
    return acquire(image.astype(np.float32), rng)


def implant(
    labels: np.ndarray, target: np.ndarray, canvas: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Objects put into a real image (S, H, W), roughly 0..1: lesions, nodes, things never seen.

    `target` (bool) and now and then other bodies of `labels` take a grey of their own, and cover
    more or less of what was there.
    """
    image = canvas.astype(np.float32)
    room = 0.2 * target[0].size * len(labels)
    for value, size in enumerate(np.bincount(labels.ravel())):
        if 0 < size < room and rng.random() < 0.25:
            image = _covered(image, (labels == value) & ~target, rng)
    image = _covered(image, target, rng)
    image = _separate(image, target, target, rng)
    return acquire(image, rng) if rng.random() < 0.5 else image


def _covered(image: np.ndarray, body: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not body.any():
        return image
    edge = rng.uniform(0.3, 1.2)
    cover = ndimage.gaussian_filter(body.astype(np.float32), (0, edge, edge))
    cover *= rng.uniform(0.6, 1.0)
    grain = rng.uniform(0, 0.08) * _grain(body.shape, rng)
    if rng.random() < 0.5:
        mottles = smooth_noise(body.shape, rng.uniform(8, 30), rng)
        grain = grain + rng.uniform(0, 0.1) * mottles
    return image + cover * (rng.uniform(0, 1) + grain - image)


def vary(image: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Real intensities as another scanner or sequence might show them, the object still visible."""
    if rng.random() < 0.25:
        other = _other_greys(image, rng)
        if _visible(other, target):
            image = other
    return acquire(image, rng) if rng.random() < 0.3 else image


def _other_greys(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other greys for the same tissues: a random curve, mostly but not always a rising one."""
    knots = np.sort(rng.uniform(0, 1, int(rng.integers(3, 7))))
    values = rng.uniform(0, 1, len(knots))
    if rng.random() < 0.6:
        values = np.sort(values)
    return np.interp(image, knots, values).astype(np.float32)


def _visible(image: np.ndarray, target: np.ndarray) -> bool:
    ring = ndimage.binary_dilation(target, iterations=3) & ~target
    return bool(ring.any()) and abs(float(image[target].mean() - image[ring].mean())) > 0.06


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


def _family(labels: np.ndarray, target: np.ndarray, families: np.ndarray) -> int:
    return int(families[int(np.median(labels[target]))]) if target.any() else -1


def _separate(image, target, relatives, rng: np.random.Generator) -> np.ndarray:
    """Move the object and its relatives away from what else lies around the object."""
    ring = ndimage.binary_dilation(target, iterations=3) & ~target & ~relatives
    if not ring.any() or not target.any():
        return image
    gap = float(image[target].mean() - image[ring].mean())
    least = rng.uniform(0.06, 0.15)
    if abs(gap) < least:
        shift = rng.uniform(least, 0.35) * (1 if gap >= 0 else -1) - gap
        image = image + shift * (target | relatives)
    return image


def _shells(labels: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What to add where bodies have a shell of another grey: bones, kidneys, rims of lesions.

    The shells follow the outlines on each slice; they belong to the bodies.
    """
    count = int(labels.max()) + 1
    shelled = rng.random(count) < 0.25
    if target.any() and rng.random() < 0.7:
        shelled[int(np.median(labels[target]))] = True
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    near = np.stack(
        [ndimage.distance_transform_edt(~edge) if edge.any() else edge for edge in edges]
    )
    reach = np.exp(rng.uniform(np.log(1), np.log(9), count))
    change = rng.choice([-1, 1], count) * rng.uniform(0.08, 0.5, count) * shelled
    return (change[labels] * (near < reach[labels])).astype(np.float32)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = rng.choice([0.0, 0.7, 1.2, 2.0])
    if sigma:
        noise = ndimage.gaussian_filter(noise, (0, sigma, sigma))
        noise /= max(float(noise.std()), 1e-6)
    return noise


def _rim(target: np.ndarray) -> np.ndarray:
    near = np.ones((1, 3, 3), bool)
    return ndimage.binary_dilation(target, near, 1) & ~ndimage.binary_erosion(target, near, 1)


def acquire(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a scanner does: blur, bias, noise, gain that jumps between slices; float32."""
    if rng.random() < 0.75:
        sigma = rng.uniform(0.3, 1.3)
        across = rng.uniform(0.3, 0.9) if rng.random() < 0.25 else 0  # thick slices, out of focus
        image = ndimage.gaussian_filter(image, (across, sigma, sigma))
    if rng.random() < 0.35:
        image = image * np.exp(rng.uniform(0, 0.35) * smooth_noise(image.shape, 2, rng))
    if rng.random() < 0.08:  # speckle: the brighter the noisier
        image = image * np.exp(rng.uniform(0.05, 0.35) * _grain(image.shape, rng))
    if rng.random() < 0.8:
        image = image + rng.uniform(0, 0.08) * _grain(image.shape, rng)
    return image.astype(np.float32, copy=False)


def disturb(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes that leave an image (real or synthetic) plausible: contrast, gain, inversion."""
    if rng.random() < 0.15:
        gain = 1 + rng.normal(0, 0.06, (len(image), 1, 1))
        image = image * gain
    image = np.clip(image, 0, 1)
    if rng.random() < 0.35:
        image = image ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.15:
        image = 1 - image
    if rng.random() < 0.5:
        low, high = rng.uniform(0, 0.12), rng.uniform(0.85, 1)
        image = low + (high - low) * image
    if rng.random() < 0.3:
        image = image + rng.uniform(0, 0.04) * _grain(image.shape, rng)
    return np.clip(image, 0, 1).astype(np.float32)
