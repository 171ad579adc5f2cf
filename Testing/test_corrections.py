"""Clicks that a network does not follow are followed all the same."""

from __future__ import annotations

import numpy as np
import pytest

from SlideSAMLib.boxes import mask_box
from SlideSAMLib.patches import Patch, patch_of_mask
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding.corrections import (
    SURE,
    Points,
    box_beside,
    corrected,
    is_elsewhere,
    obeying,
    rejected,
)

SHAPE = (60, 80)
EVEN = np.zeros(SHAPE, np.float32)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def disc(x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def click(mask: np.ndarray, *points: tuple[int, int, int], box=None) -> SlicePrompt:
    """A correction of a mask: points are x, y, label."""
    return SlicePrompt(3, box=box, points=[p[:2] for p in points], labels=[p[2] for p in points],
                       mask=mask)  # fmt: skip


def test_what_the_network_did_right_stays():
    mask = disc(30, 30, 12)
    prompt = click(mask, (30, 30, 1), (60, 30, 0))
    assert np.array_equal(obeying(mask, prompt, EVEN, (1.0, 1.0)), mask)


@pytest.mark.parametrize("others", [(), ((70, 50, 1),)], ids=["alone", "in two pieces"])
def test_a_leak_is_cut_at_the_edge_of_the_image(others):
    body, leak = disc(25, 30, 14), rectangle(38, 26, 66, 34)
    image = np.where(body, 100.0, 40.0).astype(np.float32)
    mask = body | leak
    for x, y, _ in others:  # a piece of its own, with a point that is obeyed
        mask |= disc(x, y, 4)
    out = obeying(mask, click(mask, (58, 30, 0), *others), image, (1.0, 1.0))
    assert not out[30, 58]
    assert (out & body).sum() > 0.97 * body.sum()
    assert (out & leak & ~body).sum() < 0.15 * leak.sum()


def test_a_missing_part_is_added_up_to_the_edge_of_the_image():
    body = rectangle(20, 20, 59, 39)
    image = np.where(body, 100.0, 40.0).astype(np.float32)
    mask = rectangle(20, 20, 39, 39)
    out = obeying(mask, click(mask, (50, 30, 1)), image, (1.0, 1.0))
    assert out[30, 50]
    assert (out & body).sum() > 0.9 * body.sum()
    assert (out & ~body).sum() < 0.1 * body.sum()


@pytest.mark.parametrize("mm", [1.0, 0.2])
def test_an_added_part_is_not_much_larger_than_the_mask(mm):
    """Where no edge of the image says how large it is."""
    mask = disc(15, 30, 4)
    out = obeying(mask, click(mask, (62, 30, 1)), EVEN, (mm, mm))
    assert out[30, 62]
    assert not (out & ~mask & ~disc(62, 30, 12)).any()


@pytest.mark.parametrize("flip", [1, -1], ids=["to the right", "to the left"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0)])
def test_where_the_image_is_even_a_cut_is_halfway_to_what_is_kept(flip, spacing):
    """As in lungs, whose values the intensity window makes one."""

    def cut(mask, *points):
        there = [((x if flip > 0 else 79 - x), y, label) for x, y, label in points]
        return obeying(mask[:, ::flip], click(mask[:, ::flip], *there), EVEN, spacing)[:, ::flip]

    lungs = rectangle(10, 20, 69, 39)
    assert np.array_equal(cut(lungs, (20, 30, 1), (59, 30, 0)), rectangle(10, 20, 39, 39))
    body, leak = disc(25, 30, 14), rectangle(38, 26, 66, 34)
    out = cut(body | leak, (58, 30, 0))  # what lies deepest is kept
    assert out[body].all() and not out[:, 55:].any()


def test_halfway_is_meant_in_mm():
    lungs = rectangle(10, 20, 69, 39)
    out = obeying(lungs, click(lungs, (20, 22, 1), (50, 37, 0)), EVEN, (3.0, 1.0))
    assert out[23, 46] and not out[36, 24]


def test_an_added_part_is_as_wide_in_mm_as_it_is_high():
    mask = disc(15, 30, 4)
    added = obeying(mask, click(mask, (55, 30, 1)), EVEN, (3.0, 1.0)) & ~mask
    x0, y0, x1, y1 = mask_box(added)
    assert x1 - x0 + 1 == pytest.approx(3 * (y1 - y0 + 1), rel=0.2)


def test_it_is_the_same_wherever_on_the_slice():
    mask, points = disc(12, 10, 4), [(12, 10, 1), (15, 10, 0), (12, 17, 1), (19, 8, 0)]
    out = obeying(mask, click(mask, *points), EVEN, (1.0, 1.0))
    moved = [(x + 50, y + 35, label) for x, y, label in points]
    mask = np.roll(mask, (35, 50), (0, 1))
    out_there = obeying(mask, click(mask, *moved), EVEN, (1.0, 1.0))
    assert out[17, 12] and np.array_equal(out_there, np.roll(out, (35, 50), (0, 1)))


def test_each_of_several_points_counts():
    """Those that the mask obeys say nothing about the others."""
    mask = disc(30, 30, 14)
    out = obeying(mask, click(mask, (30, 30, 1), (60, 30, 0), (40, 30, 0)), EVEN, (1.0, 1.0))
    assert out[30, 30] and not out[30, 40]


@pytest.mark.parametrize("hole", [None, 5], ids=["ignored", "followed a little"])
def test_a_click_into_the_core_rejects_the_whole_piece(hole):
    one, other = disc(20, 30, 14), disc(55, 30, 9)
    grown = disc(20, 30, 15) | other  # what the network made of it
    if hole is not None:
        grown &= ~disc(20, 30, hole)
    out = obeying(grown, click(one | other, (21, 30, 0)), EVEN, (1.0, 1.0))
    assert np.array_equal(out, other)


def test_a_click_far_from_the_mask_rejects_nothing():
    mask, grown = disc(20, 30, 6), disc(20, 30, 8)
    out = obeying(grown, click(mask, (54, 30, 0)), EVEN, (1.0, 1.0))
    assert np.array_equal(out, grown)


def test_a_click_into_the_core_takes_that_piece_only():
    """Where the user has marked another one."""
    one, other = disc(15, 30, 9), disc(50, 30, 14)
    prompt = click(one | other, (15, 30, 1), (51, 30, 0))
    assert np.array_equal(obeying(one | other, prompt, EVEN, (1.0, 1.0)), one)


def test_a_click_close_to_the_core_takes_more_than_its_voxel():
    mask = disc(30, 30, 14)
    out = obeying(mask, click(mask, (34, 30, 0), box=(16, 16, 44, 44)), EVEN, (1.0, 1.0))
    assert out.any() and (mask & ~out).sum() > 40


def test_where_the_image_ends_a_piece_ends():
    """What lies on its border is not its core."""
    mask = rectangle(0, 20, 19, 39)
    assert not obeying(mask, click(mask, (10, 30, 0)), EVEN, (1.0, 1.0)).any()
    assert obeying(mask, click(mask, (2, 30, 0)), EVEN, (1.0, 1.0)).any()


def test_the_core_is_that_of_the_object_and_not_of_its_voxels():
    """Of 10 rows of 5 mm and 40 columns of 1 mm: near its left end."""
    mask = rectangle(20, 20, 59, 29)
    out = obeying(mask, click(mask, (27, 25, 0)), EVEN, (5.0, 1.0))
    assert out[25, 40] and not out[25, 27]


@pytest.mark.parametrize(
    "prompt",
    [
        click(disc(30, 30, 12), (31, 30, 0), box=(18, 18, 42, 42)),
        click(disc(30, 30, 12), (31, 30, 0), (23, 30, 1)),
    ],
)
def test_but_not_where_the_user_has_marked_the_object(prompt):
    mask = disc(30, 30, 12)
    mask[28:33, 28:35] = False  # the network has followed the click
    assert np.array_equal(obeying(mask, prompt, EVEN, (1.0, 1.0)), mask)


def test_a_voxel_with_both_points_is_inside():
    mask = disc(30, 30, 14)
    both = click(mask, (30, 30, 1), (30, 30, 0))
    assert np.array_equal(obeying(mask, both, EVEN, (1.0, 1.0)), mask)
    both = click(mask, (60, 30, 1), (60, 30, 0))
    assert obeying(mask, both, EVEN, (1.0, 1.0))[30, 60]


def test_a_cut_adds_nothing_at_points_that_are_obeyed():
    mask = disc(30, 30, 14)
    out = obeying(mask, click(mask, (18, 30, 0), (43, 30, 1)), EVEN, (1.0, 1.0))
    assert not out[30, 18] and not (out & ~mask).any()


def test_points_of_both_kinds_close_together_in_a_mask_are_obeyed():
    mask = disc(30, 30, 14)
    out = obeying(mask, click(mask, (30, 30, 1), (33, 30, 0)), EVEN, (1.0, 1.0))
    assert out[30, 30] and not out[30, 33]


def test_what_is_added_has_no_holes_about_the_click():
    mask = disc(20, 30, 6)
    image = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    out = obeying(mask, click(mask, (40, 30, 1)), image, (1.0, 1.0))
    assert out[disc(40, 30, 4)].all()


def test_every_point_is_on_its_right_side():
    rng = np.random.default_rng(0)
    for _ in range(40):
        mask = disc(*rng.integers(15, 45, 2), rng.uniform(4, 14))
        places = np.unique(rng.integers(0, 60, (5, 2)), axis=0)
        points = [(int(x), int(y), int(rng.integers(2))) for x, y in places]
        if not any(label for *_, label in points):
            continue
        image = rng.normal(0, 1, SHAPE).astype(np.float32)
        out = obeying(mask, click(mask, *points), image, (0.8, 1.3))
        assert all(out[y, x] == label for x, y, label in points)


def test_a_negative_point_close_to_a_positive_one_stays_outside():
    mask = rectangle(5, 20, 14, 29)
    image = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    out = obeying(mask, click(mask, (40, 25, 1), (44, 25, 0)), image, (1.0, 1.0))
    assert out[25, 40] and not out[25, 44]


def test_later_additions_do_not_take_back_what_was_cut():
    mask = disc(30, 30, 14)
    prompt = click(mask, (40, 30, 0), (58, 30, 1), (24, 30, 1))
    out = obeying(mask, prompt, EVEN, (1.0, 1.0))
    assert not out[30, 40] and out[30, 58] and out[30, 24]


def test_points_count_for_the_voxel_that_they_lie_in():
    inside, outside = [(-0.5, 3.4), (79.5, 2.6)], [(4.5, -0.5), (3.6, 59.5)]
    prompt = SlicePrompt(3, points=[*inside, *outside], labels=[1, 1, 0, 0])
    points = Points.of(prompt, SHAPE)
    assert points == Points([(0, 3), (79, 3)], [(5, 0), (4, 59)])


def test_points_on_the_rim_and_masks_that_are_empty():
    empty = np.zeros(SHAPE, bool)
    for spacing in ((1.0, 1.0), (0.1, 0.1), (5.0, 1.0)):
        out = obeying(empty, click(disc(30, 30, 5), (79.4, 59.4, 1)), EVEN, spacing)
        assert out[59, 79] and out.sum() < 20
    out = obeying(empty, click(disc(30, 30, 5), (2, 2, 0)), EVEN, (1.0, 1.0))
    assert not out.any()


def test_what_is_cut_is_cut_beside_the_slice_too():
    mask = disc(30, 30, 10)
    before = patch_of_mask(disc(30, 30, 9), 8.0)
    centre = Patch((15, 12), np.where(mask[15:46, 12:46], 8.0, -8.0).astype(np.float32))
    prompt = click(mask, (30, 30, 0))
    patches = corrected((before, centre, before), prompt, EVEN, (1.0, 1.0))
    assert [patch.voxels for patch in patches] == [0, 0, 0]
    assert patches[1].logits.max() == -SURE


def test_what_a_correction_emptied_is_what_the_object_is_not():
    mask = disc(30, 30, 10)
    prompt = click(mask, (30, 30, 0))
    assert np.array_equal(rejected(prompt, Patch((0, 0), EVEN - 8)).mask(SHAPE), mask)
    assert rejected(prompt, patch_of_mask(disc(30, 30, 2), 8.0)) is None


def test_what_is_added_is_added_to_the_slice_alone():
    mask = disc(20, 30, 6)
    patches = [patch_of_mask(mask, 2.0)] * 3
    before, centre, after = corrected(patches, click(mask, (40, 30, 1)), EVEN, (1.0, 1.0))
    assert centre.mask(SHAPE)[30, 40] and (centre.mask(SHAPE) & mask).sum() == mask.sum()
    assert centre.logits[30, 20] == 2.0 and centre.logits[30, 40] == SURE
    assert np.array_equal(before.mask(SHAPE), mask) and np.array_equal(after.mask(SHAPE), mask)


def test_prompts_that_correct_nothing_change_nothing():
    patches = tuple(patch_of_mask(disc(30, 30, r), 8.0) for r in (5, 6, 7))
    for prompt in (
        SlicePrompt(3, points=[(5, 5)], labels=[1]),
        SlicePrompt(3, mask=disc(30, 30, 6)),
        click(disc(30, 30, 6), (30, 30, 1), (50, 30, 0)),  # as the network did already
    ):
        found = corrected(patches, prompt, EVEN, (1.0, 1.0))
        assert all(one is other for one, other in zip(found, patches, strict=True))


def test_far_means_farther_than_the_mask_is_wide():
    mask = disc(20, 30, 5)
    assert not is_elsewhere(mask, [(33, 30)], (1.0, 1.0))
    assert is_elsewhere(mask, [(38, 30)], (1.0, 1.0))
    assert is_elsewhere(mask, [(33, 30)], (0.5, 1.0))  # it is less wide, the point as far away
    assert not is_elsewhere(mask, [], (1.0, 1.0))


def test_a_box_beside_comes_from_another_slice():
    masks = {2: rectangle(10, 10, 19, 29), 7: rectangle(40, 10, 44, 14), 8: np.zeros(SHAPE, bool)}
    assert box_beside(masks, 4, [(12, 12)]) == (10, 10, 19, 29)
    assert box_beside(masks, 7, [(25, 12)]) == (16, 10, 25, 29)
    assert box_beside(masks, 6, [(42, 12)]) == (40, 10, 44, 14)  # of the nearest slice
    assert box_beside(masks, 4, [(5, 40), (8, 38)]) == (5, 21, 14, 40)  # not larger
    assert box_beside(masks, 7, []) is None
    assert box_beside({7: masks[7]}, 7, [(1, 1)]) is None


def test_a_box_beside_a_mask_of_one_column_marks_more_than_a_line():
    masks = {2: rectangle(10, 10, 10, 29), 7: rectangle(40, 10, 40, 10)}
    assert box_beside(masks, 3, [(10, 12)]) == (9.5, 10, 10.5, 29)
    assert box_beside(masks, 3, [(12.3, 12)]) == pytest.approx((11.8, 10, 12.8, 29))
    x0, y0, x1, y1 = box_beside(masks, 6, [(40.2, 9.7)])
    assert (x1 - x0, y1 - y0) == pytest.approx((1, 1)) and x0 < 40.2 < x1 and y0 < 9.7 < y1
