"""Invented label maps: what their bodies look like, and which belong together."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from SlideSAMLib.training import shapes


def test_label_maps_depend_on_their_seed_alone():
    (one, families, groups), (again, *same), (other, *_) = map(shapes.label_map, (5, 5, 6))
    assert np.array_equal(families, same[0]) and groups == same[1]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == shapes.SHAPE
    assert len(np.unique(one)) > 8


def test_bundles_are_alike_pieces_with_walls_between_them():
    canvas = shapes._Canvas(np.random.default_rng(7))
    shapes.bundles(canvas)
    pieces = [v for v in np.unique(canvas.labels) if v > 1]  # 1 is the wall
    assert len(pieces) >= 2
    assert len({int(canvas.families[v]) for v in pieces}) == 1
    assert canvas.families[1] not in {canvas.families[v] for v in pieces}
    for n, piece in enumerate(pieces):
        grown = ndimage.binary_dilation(canvas.labels == piece)
        others = [v for m, v in enumerate(pieces) if m != n]
        touching = np.isin(canvas.labels[grown], others).sum()
        assert touching < 0.3 * grown.sum()


def test_folds_lie_beside_each_other_in_one_body():
    bodies = set()
    for seed in range(6):
        canvas = shapes._Canvas(np.random.default_rng(seed))
        shapes.folds(canvas)
        sheet = canvas.labels == 1
        rows = np.diff(sheet.astype(np.int8), axis=1) == 1  # where a column enters the sheet
        assert rows.sum(1).max() >= 2  # more than once: it is folded
        bodies.add(canvas.used)
    assert bodies == {1, 2}  # with and without what lies beyond the sheet


def test_tissue_is_full_of_alike_cells_with_walls_between_them():
    with_nuclei = 0
    for seed in range(6):
        canvas = shapes._Canvas(np.random.default_rng(seed))
        shapes.tissue(canvas)
        wall, *bodies = np.unique(canvas.labels)
        assert wall == 1
        kinds = {int(canvas.families[v]) for v in bodies}
        assert len(bodies) >= 5 and len(kinds) in (1, 2) and 1 not in kinds
        with_nuclei += len(kinds) == 2
        largest = bodies[np.argmax([(canvas.labels == v).sum() for v in bodies])]
        cell = ndimage.binary_fill_holes(canvas.labels == largest)
        rim = ndimage.binary_dilation(cell) & ~cell
        assert (canvas.labels[rim] == wall).mean() > 0.7
    assert 1 <= with_nuclei <= 5


def test_a_wall_and_what_it_holds_are_one_object_together():
    """What is joined lies side by side."""
    joined = 0
    for painter in (shapes.ellipsoid, shapes.tube, shapes.bundles, shapes.folds, shapes.tissue):
        for seed in range(8):
            canvas = shapes._Canvas(np.random.default_rng(seed))
            painter(canvas)
            for group in canvas.groups:
                masks = [canvas.labels == value for value in group]
                masks = [mask for mask in masks if mask.sum() > 50]
                if len(masks) < 2:
                    continue
                joined += 1
                for n, mask in enumerate(masks):
                    others = np.logical_or.reduce(masks[:n] + masks[n + 1 :])
                    assert (ndimage.binary_dilation(mask, iterations=4) & others).any()
    assert joined > 10


def test_a_vertebra_has_an_arch_about_a_canal_and_processes():
    lines = [np.arange(-n, n + 1, dtype=np.float32) for n in (14, 30, 40)]
    local = np.stack(np.meshgrid(*lines, indexing="ij"))  # up, side, back
    parts = np.array([0.4, 0.2, 0.6, 0.8, 1.4, 0.3])
    found = shapes._vertebra(local, np.zeros(local.shape[1:]), (8, 15, 12), parts)
    assert np.array_equal(found, found[:, ::-1])
    assert found[14, 30, 40] and not found[0, 30, 40]
    holes = ndimage.binary_fill_holes(found[16]) & ~found[16]
    assert 60 < holes.sum() < 200  # the canal, of radius 6
    ring = np.argwhere(holes)[:, 1]
    assert ring.min() > 40  # behind the body
    sides, backs = np.nonzero(found.any(0))
    assert np.ptp(sides) > 2 * 15 + 6 and backs.max() > 40 + 12 + 2 * 6 + 6


def test_vertebrae_look_alike_and_hardly_touch():
    counts = []
    for seed in range(8):
        canvas = shapes._Canvas(np.random.default_rng(seed))
        shapes.spine(canvas)
        family = canvas.families[canvas.used]
        bones = [v for v in np.unique(canvas.labels) if v and canvas.families[v] == family]
        counts.append(len(bones))
        for bone in bones:
            grown = ndimage.binary_dilation(canvas.labels == bone)
            others = np.setdiff1d(bones, [bone])
            assert np.isin(canvas.labels[grown], others).sum() < 0.15 * grown.sum()
    assert np.mean(counts) >= 4
