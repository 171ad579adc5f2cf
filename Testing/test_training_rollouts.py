"""Rollouts: slabs are slid over with masks, corrected, and given up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib.training import rollouts
from SlideSAMLib.training.rollouts import Pool
from SlideSAMLib.training.simulated_user import jittered, largest_error, user_points
from SlideSAMLib.training.slabs import DEPTH, Slab


def ball_slab(radius: float = 14.0, last: int = DEPTH - 1) -> Slab:
    """A bright cylinder on dark ground that ends behind slice `last`."""
    line = np.arange(64) - 32
    disc = line[:, None] ** 2 + line[None] ** 2 < radius**2
    mask = np.repeat(disc[None], DEPTH, 0)
    mask[last + 1 :] = False
    mask = torch.from_numpy(mask)
    return Slab(torch.where(mask, 0.8, 0.2), mask, np.ones(DEPTH, bool))


@pytest.fixture
def patient(monkeypatch) -> None:
    """No slide is given up, no slice corrected, no point asked again."""
    monkeypatch.setattr(rollouts, "LEFT", 0.0)
    monkeypatch.setattr(rollouts, "ASKED_AGAIN", 0.0)
    monkeypatch.setattr(rollouts, "CORRECTED", 0.0)


def test_a_rollout_walks_on_with_the_networks_own_masks(patient):
    pool = Pool(1, ball_slab, np.random.default_rng(0))
    centres = []
    for _ in range(DEPTH - 2):
        step = pool.step()
        centres.append(pool.places[0].centre)
        assert bool(step.first[0]) == (centres[-1] == 1)
        pool.advance(step.target)
    assert centres == list(range(1, DEPTH - 1))
    pool.step()
    pool.advance(torch.zeros_like(step.target))  # nothing found: a fresh slab
    assert pool.places[0].centre == 1


def test_what_a_mask_alone_can_tell_is_mostly_begun_from_that_mask(patient):
    def drawn() -> Slab:
        slab = ball_slab()
        return Slab(slab.image, slab.mask, slab.valid, habit=True)

    places = Pool(60, drawn, np.random.default_rng(0)).places
    given = [place for place in places if place.known_flags == (0, 1, 0)]
    exact = [p for p in given if torch.equal(p.known[1], p.mask[1]) and p.box is None]
    assert 30 < len(exact) < 56
    assert not any(place.known[0].any() or place.known[2].any() for place in exact)
    assert any(place.box is not None for place in places)


@pytest.mark.parametrize(("beyond", "highest"), [(0.0, 4), (1.0, DEPTH - 2)])
def test_a_rollout_ends_behind_the_object(patient, monkeypatch, beyond, highest):
    """Or goes on with what the network still finds, so that it learns to let go of it."""
    monkeypatch.setattr(rollouts, "BEYOND", beyond)
    pool = Pool(1, lambda: ball_slab(last=3), np.random.default_rng(4))
    centres = set()
    for _ in range(150):
        step, place = pool.step(), pool.places[0]
        centres.add(place.centre)
        assert step.target[0, 1].any() == (place.centre <= 3)
        pool.advance(torch.ones_like(step.target))  # never stops by itself
    assert max(centres) == highest


def test_a_slice_behind_the_object_is_not_remembered(monkeypatch):
    """What was found and corrected there is not the object."""
    monkeypatch.setattr(rollouts, "BEYOND", 1.0)
    pool = Pool(1, lambda: ball_slab(last=3), np.random.default_rng(4))
    place = pool.places[0]
    everything = torch.ones_like(place.mask[:3], dtype=torch.float32)
    pool._remember(place, place.mask[1].float())
    memory, place.centre, place.corrections = place.memory, 4, 1
    assert pool._move(place, everything)
    assert (place.centre, place.corrections) == (5, 0) and place.memory is memory


def test_later_windows_get_masks_memory_and_a_box(patient):
    pool = Pool(8, ball_slab, np.random.default_rng(0))
    step = pool.step()
    pool.advance(step.target)
    batch = pool.step().batch
    assert batch.has_memory.all()
    assert batch.known[:, 2].sum() == 0  # the slice ahead is never known
    assert batch.known[:, 1].sum() >= 4
    assert batch.has_box.sum() >= 4


@pytest.mark.parametrize(("share", "remembered"), [(0.0, 1), (1.0, 3)])
def test_a_good_slide_may_remember_a_newer_slice(patient, monkeypatch, share, remembered):
    monkeypatch.setattr(rollouts, "RENEWED", share)
    monkeypatch.setattr(rollouts, "REFERRED", 1.0)
    pool = Pool(1, ball_slab, np.random.default_rng(0))
    for _ in range(3):
        pool.advance(pool.step().target)
    assert (pool.places[0].centre, pool.places[0].remembered) == (4, remembered)
    pool.advance(torch.zeros_like(pool.step().target) + 0.4)  # found nothing: nothing to remember
    assert pool.places[0].remembered != 4


def test_targets_lie_where_the_image_shows_the_object():
    pool = Pool(4, ball_slab, np.random.default_rng(0))
    step = pool.step()
    image = step.batch.image
    assert image[step.target > 0.95].min() > image[step.target < 0.05].max()


def test_a_correction_is_a_point_inside_the_largest_error():
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    mask = truth.copy()
    mask[10:30, 22:30] = False  # missed
    mask[2:6, 2:6] = True  # too much, but smaller
    rng = np.random.default_rng(0)
    picked = [largest_error(mask, truth, rng) for _ in range(20)]
    assert all(
        (mask[int(y), int(x)], truth[int(y), int(x)]) == (not sign, sign) for x, y, sign in picked
    )
    assert sum(sign for *_, sign in picked) > 10
    assert largest_error(truth, truth, rng) is None


def test_a_corrected_place_stays_and_knows_its_mask():
    pool = Pool(1, ball_slab, np.random.default_rng(4))
    step = pool.step()
    place = pool.places[0]
    half = step.target.clone()
    half[..., : half.shape[-1] // 2] = 0
    assert pool._correct(place, pool._on_slices(place, half[0]))
    assert (place.centre, place.corrections, place.known_flags) == (1, 1, (0, 1, 0))
    x, y = place.points[-1]
    assert place.signs[-1] == 1 and place.mask[1, int(y), int(x)] == 1
    pool.step()
    assert pool._move(place, place.mask[0:3])
    assert (place.centre, place.corrections) == (2, 0) and place.memory is not None


def test_a_point_is_asked_again_with_the_box_of_its_answer(monkeypatch):
    """The region has the size of the answer; then the slide goes on as from any other prompt."""
    monkeypatch.setattr(rollouts, "ASKED_AGAIN", 1.0)
    monkeypatch.setattr(rollouts, "CORRECTED", 0.0)
    monkeypatch.setattr(rollouts, "LEFT", 0.0)
    pool = Pool(30, ball_slab, np.random.default_rng(0))
    step = pool.step()
    pointed = np.flatnonzero(step.ambiguous.numpy())
    before = [pool.places[n].points for n in pointed]
    assert len(pointed) >= 4
    half = step.target.clone()
    half[..., : half.shape[-1] // 2] = 0  # half of the object
    pool.advance(half)
    for n, points in zip(pointed, before, strict=True):
        place = pool.places[n]
        if place.box is None:  # that half was empty, or a fresh slab took the place
            continue
        assert place.points == points and place.centre == 1
        assert place.box[2] - place.box[0] < 0.8 * (place.box[3] - place.box[1])
    step = pool.step()
    assert sum(bool(step.batch.has_box[n]) for n in pointed) >= 3
    pool.advance(step.target)
    assert sum(pool.places[n].centre == 2 for n in pointed) >= 3


def test_hand_drawn_boxes_stay_within_their_jitter():
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = jittered((20.0, 30.0, 59.0, 49.0), (100, 100), rng)
        assert np.all(np.abs(np.subtract(box, (20, 30, 59, 49))) <= [3.2, 1.6, 3.2, 1.6])


def test_points_lie_where_they_say():
    mask = ball_slab().mask[1].numpy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        points, signs = user_points(mask, rng)
        assert signs[0] == 1
        for (x, y), sign in zip(points, signs, strict=True):
            assert mask[int(y), int(x)] == bool(sign)
