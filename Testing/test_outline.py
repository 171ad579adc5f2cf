"""How far an outline may move from one slice to the next."""

import numpy as np
import pytest
from scipy import ndimage

from SlideSAMLib.patches import BACKGROUND, Patch
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding import outline
from SlideSAMLib.sliding.outline import (
    MOST_AWAY,
    MOST_BACK,
    STEEPNESS,
    SURE,
    held,
    moved_on,
    reach_mm,
)
from SlideSAMLib.sliding.slide_types import SlideSettings

from .fakes import LOGIT, ThresholdModel
from .sliding_helpers import slide_all

SHAPE = (40, 44)
SQUARE = (1.0, 1.0)


def disc(radius: float, centre=(20, 22), logit=LOGIT) -> Patch:
    rows, columns = np.indices(SHAPE)
    inside = np.hypot(rows - centre[0], columns - centre[1]) <= radius
    return Patch((0, 0), np.where(inside, logit, -logit).astype(np.float32))


def cut(patch: Patch, top: int, left: int, bottom: int, right: int) -> Patch:
    return Patch((top, left), patch.logits[top:bottom, left:right])


def radius(patch: Patch) -> float:
    return float(np.sqrt(patch.voxels / np.pi))


def test_reach():
    assert reach_mm((5.0, 0.8, 0.9), 1.0, 1.0) == pytest.approx(5.8)
    assert reach_mm((1.0, 1.0, 1.0), 0.0, 2.0) == pytest.approx(2.0)


@pytest.mark.parametrize("after", [7.0, 9.0])
def test_what_moves_within_the_reach_stays(after):
    kept = held(disc(after), disc(8), SQUARE, 2.0)
    assert np.array_equal(kept.mask(SHAPE), disc(after).mask(SHAPE))


def test_a_leak_is_held_to_the_reach():
    leak = held(disc(16, logit=1.0), disc(8), SQUARE, 2.0)
    assert radius(leak) == pytest.approx(10.2, abs=0.4)


def test_the_surer_the_network_the_farther_it_gets():
    found = [radius(held(disc(16, logit=sure), disc(8), SQUARE, 2.0)) for sure in (1.0, 4.0, 6.0)]
    assert found[0] < found[1] - 0.5 < 13.0
    assert found[2] == radius(disc(16))


def test_a_loss_in_doubt_comes_back_and_a_sure_one_does_not():
    doubtful = held(disc(4, logit=0.3), disc(12), SQUARE, 2.0)
    assert 9.5 < radius(doubtful) < 10.5  # 12 less the reach, and less what counts for too little
    assert held(disc(4), disc(12), SQUARE, 2.0).voxels == disc(4).voxels


def test_what_comes_up_in_the_middle_is_left_out_though_the_network_is_not_sure():
    """As the wall behind a chamber of the heart: filled once, it would be part of what is known."""
    wall = disc(6).mask(SHAPE)
    chamber = disc(14)
    chamber.logits[wall] = -1.5  # p = 0.18
    assert not held(chamber, disc(14), SQUARE, 1.5).mask(SHAPE)[wall].any()


def test_distances_are_in_mm():
    # 2 mm are one row but four columns.
    tall = held(disc(12, logit=1.0), disc(6), (2.0, 0.5), 2.0)
    rows, columns = np.nonzero(tall.mask(SHAPE))
    assert np.ptp(rows) == 12 + 2
    assert np.ptp(columns) > 12 + 6


def plainly_held(patch: Patch, before: Patch, spacing, reach: float) -> np.ndarray:
    """The logits that `held` gives, with the distance of every voxel of the slice, step by step."""
    shape, most = SHAPE, reach + MOST_AWAY / STEEPNESS * min(spacing)
    outline, logits = before.mask(shape), np.full(shape, BACKGROUND, np.float32)
    y, x = patch.corner
    height, width = patch.logits.shape
    part = np.s_[y : y + height, x : x + width]
    logits[part] = patch.logits
    # Beyond the slice nothing is inside: the rim of the slice is an edge of the object.
    wide, inner = np.pad(outline, 1), np.s_[1:-1, 1:-1]
    doubtful = ((logits > -SURE) & ~outline, (logits < SURE) & outline)
    won, lost = (
        np.maximum(by_steps(origin, spacing, most)[inner] - reach, 0) * voxels
        for origin, voxels in zip((wide, ~wide), doubtful, strict=True)
    )
    logits -= np.minimum(STEEPNESS * won / min(spacing), MOST_AWAY)
    logits += np.minimum(STEEPNESS * lost / min(spacing), MOST_BACK)
    return logits[part]


def by_steps(origin: np.ndarray, spacing, most: float) -> np.ndarray:
    """Distance of every voxel from the nearest one of `origin`, mm, at most `most`."""
    squares = np.where(origin, np.float32(0), np.float32(most**2))
    for axis, size in enumerate(spacing):
        along = np.moveaxis(squares, axis, 0)
        start = along.copy()
        for steps in range(1, min(int(most / size) + 1, len(start))):
            moved = start + np.float32((steps * size) ** 2)
            np.minimum(along[steps:], moved[:-steps], out=along[steps:])
            np.minimum(along[:-steps], moved[steps:], out=along[:-steps])
    return np.sqrt(squares)


def cloud(rng: np.random.Generator) -> Patch:
    """Blurred noise on a random part of the slice: empty, full or in pieces, sure or not."""
    top, left = (int(rng.integers(0, size - 3)) for size in SHAPE)
    ends = zip((top, left), SHAPE, strict=True)
    bottom, right = (int(rng.integers(a + 2, n + 1)) for a, n in ends)
    noise = ndimage.gaussian_filter(
        rng.normal(size=(bottom - top, right - left)), rng.uniform(0, 4)
    )
    noise = noise / max(noise.std(), 1e-6) * rng.uniform(1, 8) + rng.uniform(-12, 6)
    return Patch((top, left), noise.astype(np.float32))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.0), (3.0, 0.4)])
@pytest.mark.parametrize("reach", [0.3, 1.5, 4.0])
def test_what_changes_is_what_changes_on_the_whole_slice(spacing, reach):
    """To the last bit, though distances are looked for where they matter only."""
    rng, changed = np.random.default_rng(8), 0
    for _ in range(60):
        patch, before = cloud(rng), cloud(rng)
        found = held(patch, before, spacing, reach).logits
        if patch.voxels and before.voxels:
            assert np.array_equal(found, plainly_held(patch, before, spacing, reach))
        changed += not np.array_equal(found, patch.logits)
    assert changed > 10


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.0), (0.05, 0.02)])
def test_distances_far_away_are_those_of_many_steps(spacing):
    """Slices far apart for their pixels: the many steps give way to a full transform."""
    origin = np.random.default_rng(6).random((90, 80)) < 0.002
    most = 60.0 * min(spacing)
    stepped = by_steps(origin, spacing, most)
    assert np.mean(stepped == np.float32(most)) < 0.9
    assert np.allclose(outline._transformed(origin, spacing, most), stepped, rtol=1e-5, atol=1e-6)
    nothing = np.zeros((90, 80), bool)
    assert np.all(outline._transformed(nothing, spacing, 60.0) == 60.0)


@pytest.mark.parametrize("spacing", [(0.02, 8.0), (8.0, 0.02)])
@pytest.mark.parametrize("reach", [9.0, 20.0])
def test_more_steps_than_a_part_has_voxels(spacing, reach):
    """And more than a byte can count."""
    part = (18, 12, 24, 22)
    patch, before = cut(disc(14, logit=1.0), *part), cut(disc(5), *part)
    found = held(patch, before, spacing, reach).logits
    assert np.array_equal(found, plainly_held(patch, before, spacing, reach))


def test_the_work_of_a_slice_does_not_grow_with_the_distance_of_slices(monkeypatch):
    steps: list[float] = []
    by_steps = outline._Steps

    def counted(origin, spacing, most):
        steps.append(most)
        return by_steps(origin, spacing, most)

    monkeypatch.setattr(outline, "_Steps", counted)
    near, far = (reach_mm((gap, 1.0, 1.0), 0.5, 1.0) for gap in (5.0, 100.0))
    held(disc(16, logit=1.0), disc(8), SQUARE, near)
    assert steps
    steps.clear()
    held(disc(16, logit=1.0), disc(8), SQUARE, far)
    assert not steps


def test_parts_of_the_slice():
    whole = held(disc(16), disc(8), SQUARE, 2.0)
    part = held(cut(disc(16), 6, 10, 38, 44), cut(disc(8), 10, 12, 32, 34), SQUARE, 2.0)
    assert part.corner == (6, 10)
    assert np.allclose(part.logits, whole.logits[6:38, 10:44])


def test_an_object_at_the_rim_of_the_slice():
    leaking, before = disc(12, (0, 0), 1.0), disc(6, (0, 0))
    held_patch = held(leaking, before, SQUARE, 2.0)
    assert before.voxels < held_patch.voxels < leaking.voxels


def test_empty_masks_and_no_limit():
    nothing = disc(-1)
    assert held(nothing, disc(8), SQUARE, 2.0) is nothing
    big = disc(16)
    assert held(big, nothing, SQUARE, 2.0) is big
    assert held(big, disc(8), SQUARE, np.inf) is big


def test_the_patch_itself_is_not_changed():
    big = disc(16)
    held(big, disc(8), SQUARE, 2.0)
    assert np.array_equal(big.logits, disc(16).logits)


def test_settings_are_checked():
    from SlideSAMLib.errors import InputError

    SlideSettings(outline_slope=np.inf)
    with pytest.raises(InputError, match="outline_voxels must be 0 or greater"):
        SlideSettings(outline_voxels=-1.0)


def test_an_outline_at_the_edge_of_what_is_near_is_held_as_in_the_middle():
    logits = np.full(SHAPE, -9.0, np.float32)
    logits[10:30, 12:32] = LOGIT
    before = Patch((0, 0), logits.copy())
    logits[10:30, 12:32] = -0.3  # a loss in doubt, without a rim
    logits[18:23, 20:25] = 1.0
    tight, wide = Patch((0, 0), logits), Patch((0, 0), logits, (0, 0, *SHAPE))
    kept = held(tight, before, SQUARE, 2.0)
    assert kept.voxels > tight.voxels
    assert np.array_equal(kept.logits, held(wide, before, SQUARE, 2.0).logits)


def along(*centres, radii=(5, 5, 5)) -> list[Patch]:
    """Discs at centres, the newest first."""
    return [disc(r, centre) for r, centre in zip(radii, centres, strict=True)]


def test_what_moves_the_same_way_twice_is_expected_to_move_on():
    past = along((20, 30), (20, 26), (20, 21))
    expected = moved_on(past, SQUARE, 2.0)
    both = past[0].mask(SHAPE) | disc(5, (20, 34)).mask(SHAPE)  # by the shorter of 4 and 5
    assert np.array_equal(expected.mask(SHAPE), both)


def test_movements_are_in_mm_and_back_in_voxels():
    past = along((26, 22), (23, 22), (20, 22))
    assert moved_on(past, (0.5, 1.0), 1.6) is past[0]
    both = past[0].mask(SHAPE) | disc(5, (29, 22)).mask(SHAPE)
    assert np.array_equal(moved_on(past, (0.5, 1.0), 1.4).mask(SHAPE), both)


@pytest.mark.parametrize(
    "past",
    [
        along((20, 30), (20, 26), radii=(5, 5)),
        along((20, 30), (20, 22), (20, 22)),  # once: it may have jumped to something else
        along((20, 23), (20, 22), (20, 21)),  # within the reach
        along((24, 26), (20, 26), (20, 22)),  # another way
        along((20, 22), (20, 26), (20, 22)),  # back
        along((20, 30), (20, 26), (20, 22), radii=(6, 5, 5)),  # a leak
        [disc(5, (20, 30)), disc(5, (20, 26)), disc(-1)],  # nothing there
    ],
)
def test_anything_else_is_expected_where_it_is(past):
    assert moved_on(past, SQUARE, 2.0) is past[0]


def test_a_moved_mask_may_leave_the_slice():
    expected = moved_on(along((20, 4), (20, 9), (20, 14)), SQUARE, 2.0)
    after = disc(5, (20, -1), logit=1.0)
    inside = after.mask(SHAPE)
    assert held(after, expected, SQUARE, 0.5).mask(SHAPE)[inside].all()
    assert not held(after, disc(5, (20, 4)), SQUARE, 0.5).mask(SHAPE)[inside].all()


@pytest.mark.parametrize("overlap", [0, 2])
def test_a_vessel_at_a_flat_angle_is_followed(overlap):
    """The network is not sure enough of it to be believed a jump on every slice."""

    class Unsure(ThresholdModel):
        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            found.logits[:] *= 0.8
            return found

    rows, columns = np.indices((40, 100))
    truth = np.stack([np.hypot(rows - 20, columns - 12 - 4 * s) < 6 for s in range(18)])
    prompt = SlicePrompt(0, box=(7, 15, 17, 25))
    settings = SlideSettings(meet_overlap=overlap)
    volume = np.where(truth, 100, 0).astype(np.int16)
    _, mask, _ = slide_all(volume, [prompt], Unsure(margin=8), settings=settings)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
