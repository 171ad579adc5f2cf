"""Patches of slices: what is counted in a part of them is what is on the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from SlideSAMLib.boxes import _is_plainly_one
from SlideSAMLib.patches import (
    BACKGROUND,
    REMOTE,
    KnownMasks,
    Patch,
    dice,
    extent_of,
    overlap,
    patch_of_mask,
    stability,
)
from SlideSAMLib.protocol import WindowPrompt
from SlideSAMLib.sam.candidates import _extents
from SlideSAMLib.sam.prompts import framed, kind_of
from SlideSAMLib.sliding.fusion import SliceRecord, View, fuse
from SlideSAMLib.sliding.outline import held
from SlideSAMLib.sliding.slide_types import SlideSettings

SHAPE = (30, 36)


def _patch(corner, shape, value):
    return Patch(corner, np.full(shape, value, np.float32))


def blob(rng: np.random.Generator, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Smooth logits about a random place, mostly far below 0 elsewhere."""
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2.5)
    rows, columns = np.indices(shape)
    away = np.hypot(rows - rng.uniform(8, 22), columns - rng.uniform(8, 28))
    return (6 - away + 12 * smooth).astype(np.float32)


def test_overlap_of_patches_in_different_places():
    first, second = _patch((0, 0), (4, 4), 1.0), _patch((2, 2), (4, 4), 1.0)
    assert overlap(first, second) == (16, 16, 4)
    assert dice(first, second) == pytest.approx(0.25)
    assert dice(first, _patch((9, 9), (2, 2), 1.0)) == 0.0
    empty = _patch((0, 0), (2, 2), -1.0)
    assert dice(empty, empty) == 1.0
    assert dice(first, empty) == 0.0


@pytest.mark.parametrize("shape", [SHAPE, (3, 700), (700, 300)])
def test_the_middle_of_a_mask_is_the_mean_of_its_voxels(shape):
    rng = np.random.default_rng(0)
    full = Patch((0, 0), np.full(shape, 1.0, np.float32))
    assert full.middle == ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    for corner in ((0, 0), (7, -4)):
        patch = Patch(corner, blob(rng, (40, 50)))
        rows, columns = np.nonzero(patch.filled)
        top, left = patch.start
        sums = float(rows.sum()), float(columns.sum())
        assert patch.middle == (top + sums[0] / len(rows), left + sums[1] / len(rows))  # to the bit


def test_patches_spread_over_the_slice():
    patch = _patch((1, 2), (2, 3), 2.0)
    mask = patch.mask((5, 6))
    assert mask.sum() == patch.voxels == 6
    assert mask[1:3, 2:5].all()
    assert patch.probability((5, 6))[1, 2] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert patch.probability((5, 6)).dtype == np.float32
    assert np.array_equal(patch_of_mask(mask, 8.0).mask((5, 6)), mask)


def test_stability_compares_sure_with_possible_area():
    logits = np.array([[3.0, 0.1, -0.1, -3.0]], np.float32)
    assert stability(Patch((0, 0), logits)) == pytest.approx(1 / 3)
    assert stability(Patch((0, 0), -np.abs(logits) - 3)) == 0.0


def test_the_extent_holds_all_that_is_near():
    logits = np.full((6, 8), -9.0, np.float32)
    assert extent_of(logits) == (0, 0, 0, 0)
    logits[2, 3], logits[4, 6] = -REMOTE + 0.5, 3.0
    logits[0, 0] = -REMOTE
    assert extent_of(logits) == (2, 3, 5, 7)
    assert Patch((10, 20), logits).start == (12, 23)


def test_a_device_finds_the_same_extents():
    rng = np.random.default_rng(2)
    logits = np.stack([[blob(rng), np.full(SHAPE, -REMOTE, np.float32)] for _ in range(3)])
    found = _extents(torch.from_numpy(logits)).numpy()
    expected = [[extent_of(values) for values in pair] for pair in logits]
    assert found.shape == (3, 2, 4)
    for ours, theirs in zip(found.reshape(-1, 4), np.reshape(expected, (-1, 4)), strict=True):
        empty = theirs[0] == theirs[2]
        assert (ours[0] == ours[2] and ours[1] == ours[3]) if empty else (ours == theirs).all()


@pytest.mark.parametrize("seed", range(12))
def test_a_wider_extent_changes_nothing(seed):
    """The smallest one, one that is too wide, and the whole of the logits give the same."""
    rng = np.random.default_rng(seed)
    first, second = blob(rng), blob(rng)
    stories = []
    for spare in (0, 3, 99):
        corners = ((0, 0), (2, 1))
        one, other = (
            Patch(corner, logits, _wider(extent_of(logits), spare))
            for corner, logits in zip(corners, (first, second), strict=True)
        )
        kept = held(other, one, (1.0, 0.7), 2.0)
        fused = fuse([View(one, 1.0), View(kept, 0.25)], 8.0)
        stories.append(
            (
                overlap(one, other),
                (stability(one), stability(kept), stability(fused), dice(fused, other)),
                kept.logits.tobytes() + fused.logits.tobytes(),
                b"".join(patch.mask((40, 40)).tobytes() for patch in (one, kept, fused)),
            )
        )
        for patch in (one, kept, fused):
            height, width = patch.logits.shape
            placed = np.zeros((40, 40), bool)
            y, x = patch.corner
            placed[y : y + height, x : x + width] = patch.logits > 0
            assert np.array_equal(patch.mask((40, 40)), placed)
            rest = patch.logits.copy()
            rest[patch.part] = BACKGROUND
            assert rest.max() <= -REMOTE
    assert stories[0] == stories[1] == stories[2]


def _wider(extent, spare):
    top, left, bottom, right = extent
    return (
        max(top - spare, 0),
        max(left - spare, 0),
        min(bottom + spare, SHAPE[0]),
        min(right + spare, SHAPE[1]),
    )


@pytest.mark.parametrize("limit", [0.5, 8.0])
def test_fused_slices_know_what_is_near(limit):
    """Views that are clipped to less than REMOTE are near everywhere."""
    rng = np.random.default_rng(4)
    record = SliceRecord(SlideSettings(logit_limit=limit))
    for _ in range(3):
        record.add(Patch((0, 0), blob(rng)), 1.0)
        fused = record.fused()
        assert stability(fused) == stability(Patch((0, 0), fused.logits))
        assert np.array_equal(fused.mask(SHAPE), fused.logits > 0)
        rest = fused.logits.copy()
        rest[fused.part] = BACKGROUND
        assert rest.max() <= -REMOTE


def test_known_masks_are_probabilities_once_they_are_asked_for():
    rng = np.random.default_rng(6)
    known = {0: Patch((0, 0), blob(rng)), 1: Patch((4, 5), blob(rng, (10, 12)))}
    masks = KnownMasks(known, SHAPE)
    expected = np.stack(
        [known[0].probability(SHAPE), known[1].probability(SHAPE), np.zeros(SHAPE, np.float32)]
    )
    assert np.array_equal(np.asarray(masks), expected)
    assert np.array_equal(masks[1], expected[1])


def test_networks_get_the_same_masks_from_logits():
    rng = np.random.default_rng(7)
    known = {1: Patch((0, 0), blob(rng)), 2: Patch((4, 5), blob(rng, (10, 12)))}
    masks = KnownMasks(known, SHAPE)
    given = [
        WindowPrompt(masks=form, known=(False, True, True))
        for form in (masks, np.asarray(masks), masks)
    ]
    kind = kind_of(given[0], SHAPE)
    direct = framed([given[0], given[2]], kind, 64, torch.device("cpu")).masks
    plain = framed([given[1], given[1]], kind, 64, torch.device("cpu")).masks
    torch.testing.assert_close(direct, plain, atol=1e-6, rtol=1e-5)
    mixed = framed(given, kind, 64, torch.device("cpu")).masks
    torch.testing.assert_close(mixed[:2], plain, atol=1e-6, rtol=1e-5)


def test_what_looks_like_one_part_is_one():
    rng = np.random.default_rng(8)
    seen = 0
    for _ in range(60):
        mask = blob(rng) > rng.uniform(-2, 2)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size:
            continue
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if _is_plainly_one(mask):
            seen += 1
            assert ndimage.label(mask)[1] == 1
    assert seen > 10
    assert not _is_plainly_one(np.eye(3, dtype=bool))  # they touch by their corners only
    assert not _is_plainly_one(np.array([[1], [0], [1]], bool))
    assert not _is_plainly_one(np.array([[1, 0], [1, 0], [0, 1]], bool))
