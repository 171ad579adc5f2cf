"""Synthetic label maps: bodies full of organs, vessels, bones and sheets that touch and branch."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .fields import smooth_noise

SHAPE = (80, 128, 128)  # K, J, I


def _noise(shape: tuple[int, ...], cells: float, rng: np.random.Generator) -> np.ndarray:
    return smooth_noise(shape, cells, rng).numpy()


class _Canvas:
    """A label map being painted, with one smooth warp for everything in it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.labels = np.zeros(SHAPE, np.uint8)
        self.used = 0
        self.families = np.arange(256, dtype=np.int16)  # label -> first label of its kin
        self.groups: list[tuple[int, ...]] = []  # labels that are one object together
        grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SHAPE), indexing="ij")
        warp = rng.uniform(0, 5)
        self.grid = [g + warp * _noise(SHAPE, 5, rng) for g in grid]
        self.bumps = _noise(SHAPE, rng.uniform(6, 16), rng)

    def new_label(self, kin: int | None = None) -> int:
        """The next free value; `kin` is an earlier label that it looks like."""
        self.used = min(self.used + 1, 250)
        if kin is not None:
            self.families[self.used] = self.families[kin]
        return self.used

    def join(self, *labels: int) -> None:
        """What somebody may mean as one object: a wall with what it holds."""
        self.groups.append(labels)

    def box(self, centre: np.ndarray, reach: float) -> tuple[slice, ...]:
        reach += 8  # the warp moves surfaces
        return tuple(
            slice(max(int(c - reach), 0), max(min(int(c + reach) + 1, n), 0))
            for c, n in zip(centre, SHAPE, strict=True)
        )

    def local(self, centre: np.ndarray, where: tuple[slice, ...]) -> np.ndarray:
        return np.stack([g[where] - c for g, c in zip(self.grid, centre, strict=True)])

    def paint(self, where: tuple[slice, ...], mask: np.ndarray, label: int) -> None:
        self.labels[where][mask] = label


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.diag(r))


def _centre(rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.uniform(0.05, 0.95) * n for n in SHAPE])


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def _implicit(canvas, centre, radii, rotation, power, bump=0.0):
    """Where a warped superellipsoid is, and its implicit function (< 1 inside)."""
    where = canvas.box(centre, float(max(radii)) * 1.5)
    local = canvas.local(centre, where)
    turned = np.tensordot(rotation, local, 1) / np.asarray(radii, np.float32)[:, None, None, None]
    value = (np.abs(turned) ** power).sum(0)
    return where, value + bump * canvas.bumps[where]


def ellipsoid(canvas: _Canvas) -> None:
    """A bumpy ellipsoid or rounded box, sometimes a wall around a lumen."""
    rng = canvas.rng
    size = _log_uniform(rng, 4, 28)
    radii = size * np.exp(rng.normal(0, 0.3, 3))
    power = rng.choice([2.0, 2.0, 3.0, 5.0])
    where, value = _implicit(
        canvas, _centre(rng), radii, _rotation(rng), power, rng.uniform(0, 0.35)
    )
    whole = canvas.new_label()
    canvas.paint(where, value < 1, whole)
    if rng.random() < 0.3:
        canvas.paint(where, value < rng.uniform(0.3, 0.75), canvas.new_label())
        canvas.join(whole, canvas.used)


def crescent(canvas: _Canvas) -> None:
    """An ellipsoid without a shifted copy of itself: sheets and crescents along a boundary."""
    rng = canvas.rng
    radii = _log_uniform(rng, 8, 32) * np.exp(rng.normal(0, 0.25, 3))
    rotation, centre = _rotation(rng), _centre(rng)
    where, value = _implicit(canvas, centre, radii, rotation, 2.0, 0.1)
    shift = rng.standard_normal(3)
    shift *= rng.uniform(0.15, 0.6) * radii.min() / np.linalg.norm(shift)
    local = np.tensordot(rotation, canvas.local(centre + shift, where), 1)
    cut = ((local / radii.astype(np.float32)[:, None, None, None]) ** 2).sum(0)
    canvas.paint(where, (value < 1) & (cut > rng.uniform(0.8, 1.0)), canvas.new_label())


def _curve(rng: np.random.Generator, start: np.ndarray, length: float) -> np.ndarray:
    """Points one voxel apart along a smooth random walk (N, 3)."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    turn, points = rng.uniform(0.02, 0.16), [start]
    drift = rng.standard_normal(3)
    for _ in range(int(length)):
        drift = 0.92 * drift + 0.4 * rng.standard_normal(3)
        direction = direction + turn * drift
        direction /= np.linalg.norm(direction)
        points.append(points[-1] + direction)
    return np.array(points)


def _paint_tube(canvas, points, radii, label) -> None:
    step = max(1, int(min(radii) / 2))
    for point, radius in zip(points[::step], radii[::step], strict=True):
        if not all(-8 < c < n + 8 for c, n in zip(point, SHAPE, strict=True)):
            continue
        where = canvas.box(point, radius)
        if all(s.stop > s.start for s in where):
            canvas.paint(where, (canvas.local(point, where) ** 2).sum(0) < radius**2, label)


def tube(canvas: _Canvas) -> None:
    """A vessel, bowel or cord: a tube of changing radius, sometimes branching or with a wall."""
    rng = canvas.rng
    radius = _log_uniform(rng, 2, 11)
    points = _curve(rng, _centre(rng), rng.uniform(30, 130))
    radii = radius * np.exp(0.25 * np.sin(np.linspace(0, rng.uniform(1, 9), len(points))))
    label = canvas.new_label()
    _paint_tube(canvas, points, radii, label)
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 4)):
            start = points[rng.integers(len(points))]
            branch = _curve(rng, start, rng.uniform(15, 60))
            thin = np.full(len(branch), max(radius * rng.uniform(0.4, 0.8), 1.5))
            _paint_tube(canvas, branch, thin, label)
    elif rng.random() < 0.25 and radius > 4:
        _paint_tube(canvas, points, radii * rng.uniform(0.5, 0.8), canvas.new_label())
        canvas.join(label, canvas.used)


def column(canvas: _Canvas) -> None:
    """A row of alike bodies that nearly touch: vertebrae, teeth, ribs, lobules."""
    rng = canvas.rng
    size = _log_uniform(rng, 5, 14)
    radii = size * np.array([rng.uniform(0.5, 1.0), 1.0, rng.uniform(0.8, 1.3)])
    count = int(rng.integers(3, 8))
    step = 2 * radii[0] * rng.uniform(1.0, 1.25)
    centre, rotation = _centre(rng), _rotation(rng)
    if rng.random() < 0.6:
        rotation = np.eye(3)
    axis = rotation[0]  # rows of the rotation are the body's own directions
    bend = rng.normal(0, 0.12, 3)
    disc = canvas.new_label() if rng.random() < 0.5 else 0
    kin = None
    for n in range(count):
        axis = axis + bend
        axis = axis / np.linalg.norm(axis)
        if disc and n:
            between = centre - axis * step / 2
            thin = radii * np.array([0.3, 0.9, 0.9])
            where, value = _implicit(canvas, between, thin, rotation, 3.0)
            canvas.paint(where, value < 1, disc)
        where, value = _implicit(canvas, centre, radii, rotation, 4.0, 0.15)
        kin = canvas.new_label(kin)
        canvas.paint(where, value < 1, kin)
        centre = centre + axis * step


def spine(canvas: _Canvas) -> None:
    """Vertebrae: alike bodies with an arch and processes, thin discs between them."""
    rng = canvas.rng
    half = _log_uniform(rng, 6, 18)  # of a body's width
    height, depth = half * rng.uniform([0.35, 0.55], [0.9, 0.95])  # half of each, too
    step = 2 * height * (1 + rng.uniform(0.08, 0.45))
    rotation = _rotation(rng)  # its rows point along the column, sidewards and backwards
    if rng.random() < 0.75:
        straight = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], (3, 1))
        q, r = np.linalg.qr((straight + rng.normal(0, 0.1, (3, 3))).T)
        rotation = (q * np.sign(np.diag(r))).T
    count = int(np.clip(np.abs(rotation[0]) @ SHAPE / step, 3, 9))
    centre = rng.uniform(0.25, 0.75, 3) * SHAPE - rotation[0] * step * (count - 1) / 2
    bend, disc = rng.uniform(-0.12, 0.12), canvas.new_label() if rng.random() < 0.7 else 0
    parts = rng.uniform(
        [0.25, 0.12, 0.4, 0.5, 1.1, 0.0], [0.45, 0.25, 0.9, 1.2, 1.7, 0.8]
    )  # of a vertebra, see `_vertebra`
    kin, made = None, []
    for n in range(count):
        if disc and n:
            thin = (step / 2 - height + 1.5, 0.95 * half, 0.95 * depth)
            between = centre - rotation[0] * step / 2
            where, value = _implicit(canvas, between, thin, rotation, 3.0)
            canvas.paint(where, (value < 1) & ~np.isin(canvas.labels[where], made), disc)
        where = canvas.box(centre, 2.8 * half)
        if all(s.stop > s.start for s in where):
            local = np.tensordot(rotation, canvas.local(centre, where), 1)
            found = _vertebra(local, canvas.bumps[where], (height, half, depth), parts)
            kin = canvas.new_label(kin)
            canvas.paint(where, found & ~np.isin(canvas.labels[where], made), kin)
            made.append(kin)
        turn = np.array([[np.cos(bend), np.sin(bend)], [-np.sin(bend), np.cos(bend)]])
        rotation[[0, 2]] = turn @ rotation[[0, 2]]
        centre = centre + rotation[0] * step


def _vertebra(
    local: np.ndarray, bumps: np.ndarray, size: tuple[float, float, float], parts: np.ndarray
) -> np.ndarray:
    """Where a vertebra is; local (3, ...): along the column, sidewards, backwards from its middle.

    size : half its height, width and depth; parts : shares of its width (canal, thickness of the
    arch), of its height (half the arch), of its width again (length of the process behind, reach
    of those beside), and how steeply the one behind hangs down.
    """
    (up, side, back), (height, half, depth) = local, size
    canal, wall, arch, behind, beside, droop = parts * [half, half, height, half, half, 1]
    body = np.abs(up / height) ** 4 + np.abs(side / half) ** 2.5 + np.abs(back / depth) ** 2.5
    found = body + 0.15 * bumps < 1
    up, back = up - 0.2 * height, back - depth - 0.8 * canal  # from the middle of the canal
    ring = np.abs(np.hypot(side, back) - canal - wall / 2) < wall / 2
    found |= ring & (np.abs(up) < arch)
    along = back - canal
    hanging = np.abs(up + droop * along) < 0.7 * arch
    found |= hanging & (np.abs(side) < 0.7 * wall) & (along > 0) & (along < behind)
    wings = (np.abs(side) > canal) & (np.abs(side) < beside)
    return found | wings & (np.abs(up) < 0.5 * arch) & (np.abs(back) < 0.8 * wall)


def blob(canvas: _Canvas) -> None:
    """An irregular lesion: thresholded noise inside a ball."""
    rng = canvas.rng
    centre, radius = _centre(rng), _log_uniform(rng, 6, 24)
    where = canvas.box(centre, radius)
    shape = tuple(s.stop - s.start for s in where)
    if min(shape) < 3:
        return
    distance = (canvas.local(centre, where) ** 2).sum(0) / radius**2
    noise = _noise(shape, rng.uniform(3, 8), rng)
    canvas.paint(where, noise * rng.uniform(0.2, 0.6) + distance < 0.9, canvas.new_label())


def cells(canvas: _Canvas) -> None:
    """A heap of alike bodies pressed together, each in a thin wall: cells, nuclei, lobules."""
    rng = canvas.rng
    size = _log_uniform(rng, 4, 11)
    middle, spread = _centre(rng), size * rng.uniform(1.5, 3.5)
    wall, kin = canvas.new_label(), None
    for _ in range(int(rng.integers(5, 25))):
        radii = size * np.exp(rng.normal(0, 0.2, 3))
        centre = middle + rng.normal(0, 1, 3) * spread
        if not all(0 <= c < n for c, n in zip(centre, SHAPE, strict=True)):
            continue
        where, value = _implicit(canvas, centre, radii, _rotation(rng), 2.0, 0.15)
        taken = np.isin(canvas.labels[where], [] if kin is None else _kin(canvas, kin))
        kin = canvas.new_label(kin)
        canvas.paint(where, (value < (1 + 1.6 / size) ** 2) & ~taken, wall)
        canvas.paint(where, (value < 1) & ~taken, kin)


def bundles(canvas: _Canvas) -> None:
    """A body split into alike pieces by thin walls: muscles in fat, lobes, segments, tissue."""
    rng = canvas.rng
    centre, size = _centre(rng), _log_uniform(rng, 12, 34)
    rotation = _rotation(rng) if rng.random() < 0.5 else np.eye(3)
    radii = size * np.exp(rng.normal(0, 0.3, 3))
    where, value = _implicit(canvas, centre, radii, rotation, rng.choice([2.0, 3.0]), 0.2)
    if value.size == 0:
        return
    seeds = rng.uniform(-0.9, 0.9, (int(rng.integers(3, 12)), 3)) * radii
    stretch = np.array([rng.uniform(0.15, 1.0), 1.0, 1.0])  # long pieces along the first direction
    inside = value < 1
    local = rotation @ canvas.local(centre, where)[:, inside]  # (3, N)
    offsets = (local - seeds[:, :, None]) * stretch[:, None]
    distances = np.sqrt((offsets**2).sum(1))  # (pieces, N)
    piece = np.zeros(value.shape, np.int16)
    piece[inside] = distances.argmin(0)
    two = np.partition(distances, 1, axis=0)[:2]
    inside[inside] = two[1] - two[0] > rng.uniform(0.4, 3.0)
    inner = inside & (value < rng.uniform(0.8, 1.0))
    body = [canvas.new_label()]
    canvas.paint(where, value < 1, body[0])
    kin = None
    for n in range(len(seeds)):
        kin = canvas.new_label(kin)
        body.append(kin)
        canvas.paint(where, inner & (piece == n), kin)
    canvas.join(*body)


def folds(canvas: _Canvas) -> None:
    """A folded sheet, or the spongy mass between its folds: cortex, bowel walls, trabeculae."""
    rng = canvas.rng
    radii = _log_uniform(rng, 16, 45) * np.exp(rng.normal(0, 0.25, 3))
    where, value = _implicit(canvas, _centre(rng), radii, _rotation(rng), 2.0, 0.15)
    if min(value.shape) < 3:
        return
    field = _noise(value.shape, max(value.shape) / rng.uniform(7, 16), rng)
    bounds = np.quantile(field, rng.uniform([0.15, 0.55], [0.4, 0.75]))
    inside = (value < 1) & (field > bounds[0])
    sheet = inside & (field < bounds[1])
    label = canvas.new_label()
    if rng.random() < 0.5:  # the other side of the sheet is a body of its own
        canvas.paint(where, inside & ~sheet, canvas.new_label())
        canvas.join(label, canvas.used)
    canvas.paint(where, sheet, label)


def tissue(canvas: _Canvas) -> None:
    """Everything full of alike cells, with thin walls between them, now and then with nuclei."""
    rng = canvas.rng
    size = _log_uniform(rng, 8, 22)
    count = int(np.clip(np.prod(SHAPE) / size**3, 8, 120))
    centres = rng.uniform(0, 1, (count, 3)) * SHAPE
    stretch = np.exp(rng.normal(0, 0.25, 3))
    every = np.stack(canvas.grid).reshape(3, -1).T * stretch
    two, nearest = cKDTree(centres * stretch).query(every, k=2)
    wall = (two[:, 1] - two[:, 0] < rng.uniform(0.8, 3.0)).reshape(SHAPE)
    cell = nearest[:, 0].reshape(SHAPE)
    missing = rng.random(count) < rng.choice([0.0, 0.3])
    nuclei = rng.random() < 0.4
    core = (two[:, 0] < size * rng.uniform(0.25, 0.4)).reshape(SHAPE)
    canvas.labels[:] = canvas.new_label()
    kin = inner = None
    values = np.zeros(count, np.uint8)
    cores = np.zeros(count, np.uint8)
    for n in np.flatnonzero(~missing)[: (240 - canvas.used) // (1 + nuclei)]:
        kin = values[n] = canvas.new_label(kin)
        if nuclei:
            inner = cores[n] = canvas.new_label(inner)
            canvas.join(kin, inner)
    there = ~wall & (values[cell] > 0)
    canvas.labels[there] = values[cell[there]]
    if nuclei:
        there &= core
        canvas.labels[there] = cores[cell[there]]


def _kin(canvas: _Canvas, label: int) -> np.ndarray:
    return np.flatnonzero(canvas.families == canvas.families[label])


PAINTERS = (
    *(ellipsoid, ellipsoid, ellipsoid, crescent, tube, tube),
    *(column, spine, spine, blob, cells, bundles, bundles, folds),
)


def label_map(seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """A label map (K, J, I) uint8 of 1 mm voxels, and the family of each value, int16 (256,).

    And groups of values that are one object together. The same for the same seed.
    """
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng)
    regions = int(rng.integers(1, 6))
    if regions > 1:
        levels = np.sort(rng.uniform(-1.2, 1.2, regions - 1))
        background = _noise(SHAPE, rng.uniform(2, 7), rng)
        canvas.labels[:] = np.digitize(background, levels).astype(np.uint8)
    canvas.used = regions
    if rng.random() < 0.6:  # a body in air
        centre = np.array(SHAPE) / 2 + rng.normal(0, 5, 3)
        radii = np.array([200, rng.uniform(35, 75), rng.uniform(45, 80)])
        _, value = _implicit(canvas, centre, radii, np.eye(3), 2.5, 0.1)
        where = canvas.box(centre, float(radii.max()) * 1.5)
        outside = value > 1
        canvas.labels[where][outside] = 0
        skin = canvas.new_label()
        canvas.paint(where, (value <= 1) & (value > rng.uniform(0.75, 0.95)), skin)
    filled = rng.random() < 0.12
    if filled:
        tissue(canvas)
    for _ in range(int(rng.integers(0, 6) if filled else rng.integers(10, 38))):
        PAINTERS[rng.integers(len(PAINTERS))](canvas)
    return canvas.labels, canvas.families, canvas.groups
