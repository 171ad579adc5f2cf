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
