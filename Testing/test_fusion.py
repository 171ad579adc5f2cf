"""Fusing the views of a slice, choosing a candidate, and the confidence."""

import numpy as np
import pytest

from SlideSAMLib.patches import BACKGROUND, Patch, patch_of_mask
from SlideSAMLib.protocol import WindowPrediction
from SlideSAMLib.sliding import candidates
from SlideSAMLib.sliding.candidates import best, rank
from SlideSAMLib.sliding.fusion import SliceRecord, View, blend, fuse
from SlideSAMLib.sliding.slide_types import SlideSettings


def _patch(corner, shape, value):
    return Patch(corner, np.full(shape, value, np.float32))


def test_fusing_is_the_weighted_mean_of_clipped_logits():
    views = [View(_patch((0, 0), (2, 2), 20.0), 1.0), View(_patch((0, 0), (2, 2), -4.0), 0.5)]
    assert np.allclose(fuse(views, 8.0).logits, (8.0 - 2.0) / 1.5)


def test_a_view_has_no_vote_where_it_did_not_look():
    views = [View(_patch((2, 3), (2, 2), 5.0), 1.0), View(_patch((3, 4), (3, 3), -1.0), 1.0)]
    fused = fuse(views, 8.0)
    assert fused.corner == (2, 3)
    assert fused.logits.shape == (4, 4)
    assert fused.logits[0, 0] == 5.0  # only the first looked
    assert fused.logits[1, 1] == 2.0  # both did
    assert fused.logits[3, 3] == -1.0  # only the second looked
    assert fused.logits[0, 3] < -10  # nobody looked


def test_what_lies_beside_all_views_changes_no_mean():
    """To the last bit what each voxel's own views give."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        views = []
        for weight in (1.0, 0.25, 0.25):
            corner, shape = tuple(map(int, rng.integers(0, 6, 2))), rng.integers(1, 8, 2)
            views.append(View(Patch(corner, rng.normal(0, 8, shape).astype(np.float32)), weight))
        fused = fuse(views, 8.0)
        for place, found in np.ndenumerate(fused.logits):
            total, weights = np.float32(0), np.float32(0)
            for view in views:
                y, x = (place[n] + fused.corner[n] - view.patch.corner[n] for n in (0, 1))
                height, width = view.patch.logits.shape
                if 0 <= y < height and 0 <= x < width:
                    total += view.weight * np.clip(view.patch.logits[y, x], -8, 8)
                    weights += np.float32(view.weight)
            assert found == (total / weights if weights else BACKGROUND)


def test_views_without_weight_do_not_count():
    first, second = _patch((0, 0), (1, 1), 3.0), _patch((0, 0), (1, 1), -3.0)
    assert fuse([View(first, 1.0), View(second, 0.0)], 8.0) is first
    assert fuse([View(second, 0.0)], 8.0) is second


def test_confidence_is_the_geometric_mean_of_what_is_known():
    record = SliceRecord(SlideSettings(), quality=0.81)
    record.add(_patch((0, 0), (4, 4), 5.0), 1.0, central=True)
    assert record.confidence() == pytest.approx(0.9)  # stability 1, quality 0.81
    record.presence = 0.5
    assert record.confidence() == pytest.approx((0.81 * 0.5) ** (1 / 3))
    record.add(_patch((0, 0), (2, 4), 5.0), 0.0)  # Dice 2/3 with the central view
    assert record.confidence() == pytest.approx((0.81 * 0.5 * 2 / 3) ** (1 / 4))


def test_confidence_of_an_empty_mask_is_zero():
    record = SliceRecord(SlideSettings(), quality=0.9)
    record.add(_patch((0, 0), (4, 4), -5.0), 1.0, central=True)
    assert record.confidence() == 0.0


def test_doubt_is_carried_along_the_slide():
    settings = SlideSettings(carried_doubt=0.2)
    first = SliceRecord(settings, quality=0.49)
    first.add(patch_of_mask(np.ones((4, 4), bool), 8.0), 1.0, central=True)
    assert first.confidence() == pytest.approx(0.7)  # stability 1
    left = pytest.approx(1 - 0.2 * 0.3)
    assert first.inherited(0.1) == (left, left)  # nobody tells a presence
    second = SliceRecord(settings, list(first.views), quality=0.49, trust=0.94, hold=0.94)
    assert second.confidence() == second.lasting() == pytest.approx(0.7 * 0.94)
    assert second.inherited(0.1)[0] == pytest.approx(0.94**2)
    both = blend(first, second, 3, 1)
    assert both.trust == both.hold == pytest.approx(0.75 + 0.25 * 0.94)
    # Slices that lie closer than 3 % of the object's width share their doubt.
    assert first.inherited(0.03) == first.inherited(5.0) == first.inherited(0.1)
    assert first.inherited(0.01)[0] == pytest.approx(1 - 0.2 * 0.3 / 3)
    whole = SliceRecord(SlideSettings(carried_doubt=0.2, doubt_reach=0.0), list(first.views))
    whole.quality = first.quality
    assert whole.inherited(0.001)[0] == pytest.approx(1 - 0.2 * 0.3)
    careless = SliceRecord(SlideSettings(carried_doubt=0.0), list(first.views), quality=0.49)
    assert careless.inherited(0.1) == (1.0, 1.0)


def test_an_unsure_outline_does_not_end_the_way_of_an_object_that_is_there():
    def after(slices, presence):
        record = SliceRecord(SlideSettings(), quality=0.75, presence=presence)
        record.add(patch_of_mask(np.ones((4, 4), bool), 8.0), 1.0, central=True)
        for _ in range(slices):  # all alike
            record.trust, record.hold = record.inherited(0.1)
        return record

    vessel, lost = after(150, 0.97), after(12, 0.6)
    assert vessel.trust < 0.1 and vessel.hold > 0.7
    assert vessel.lasting() > 0.6 and 0.3 < vessel.confidence() < 0.4  # half of what holds
    assert lost.hold < 0.1 < lost.trust
    assert lost.lasting() < lost.confidence()


def test_blending_weighs_the_nearer_front_more():
    records = [SliceRecord(SlideSettings(), quality=q) for q in (0.9, 0.5)]
    for record, value in zip(records, (4.0, -2.0), strict=True):
        record.add(_patch((0, 0), (2, 2), value), 1.0, central=True)
    near_first = blend(*records, 3, 1)
    assert np.allclose(near_first.fused().logits, 2.5)
    assert near_first.quality == pytest.approx(0.8)
    assert near_first.presence is None
    records[1].presence = 0.4
    assert blend(*records, 3, 1).presence == pytest.approx(0.4)
    records[0].presence = 0.8
    assert blend(*records, 3, 1).presence == pytest.approx(0.7)
    assert np.allclose(blend(*records, 1, 3).fused().logits, -0.5)


def test_the_order_of_two_fronts_changes_no_confidence():
    """One of them knows a third window's mask of the slice, which is like its own."""
    lower, upper = SliceRecord(SlideSettings()), SliceRecord(SlideSettings())
    lower.add(_patch((0, 0), (4, 4), 4.0), 1.0, central=True)
    lower.add(_patch((0, 0), (4, 4), 4.0), 0.25)
    upper.add(_patch((0, 0), (4, 2), 4.0), 1.0, central=True)
    either_way = [blend(lower, upper, 1, 1), blend(upper, lower, 1, 1)]
    sure = [record.sureness() for record in either_way]
    assert sure[0] == pytest.approx(sure[1])
    # Dice: 1 with the third window, 2 / 3 between all others; every voxel is stable.
    assert sure[0] == pytest.approx(((1 + 3 * 2 / 3) / 4) ** 0.5)


def _prediction(masks, quality):
    logits = np.where(np.asarray(masks), 5.0, -5.0).astype(np.float32)
    return WindowPrediction(logits, (0, 0), np.array(quality, np.float32), logits.shape[-2:])


def _three(columns):
    """A window whose three masks fill the first columns of a 10 x 10 slice."""
    mask = np.zeros((3, 10, 10), bool)
    mask[:, :, :columns] = True
    return mask


def test_views_that_all_know_of_nothing_make_an_empty_slice():
    record = SliceRecord(SlideSettings())
    for corner in ((0, 0), (2, 3)):
        record.add(_patch(corner, (6, 6), -9.0), 1.0)
    assert record.fused().voxels == 0 and record.confidence() == 0.0
    assert not record.fused().mask((10, 12)).any()


def test_the_first_candidate_wins_between_equals():
    prediction = _prediction([_three(5)] * 3, [0.8, 0.8, 0.8])
    assert [choice.number for choice in rank(prediction, {}, SlideSettings())] == [0, 1, 2]


def test_quality_decides_without_history_and_agreement_with_it():
    prediction = _prediction([_three(2), _three(9), _three(4)], [0.5, 0.9, 0.8])
    settings = SlideSettings(first_bonus=0.0)
    assert rank(prediction, {}, settings)[0].number == 1
    known = {0: Patch((0, 0), np.where(_three(4)[0], 5.0, -5.0).astype(np.float32))}
    first = rank(prediction, known, settings)[0]
    assert first.number == 2
    assert first.agreement == pytest.approx(1.0)
    others = {choice.number: choice.agreement for choice in rank(prediction, known, settings)}
    assert others[1] == pytest.approx(4 / 9)


def test_what_a_network_predicts_beyond_a_perfect_iou_counts_as_one():
    prediction = _prediction([_three(5)] * 3, [0.9, 1.1, 1.3])
    choices = rank(prediction, {}, SlideSettings(first_bonus=0.0))
    assert [(choice.number, choice.quality) for choice in choices[:2]] == [(1, 1.0), (2, 1.0)]


def test_a_stable_mask_on_the_centre_slice_wins():
    prediction = _prediction([_three(5)] * 3, [0.8, 0.8, 0.8])
    for number, place in ((0, 1), (1, 0), (1, 2)):  # candidate 2 is stable everywhere
        prediction.logits[number, place, :, :2] = 0.5
    choices = rank(prediction, {}, SlideSettings(first_bonus=0.0))
    assert [choice.number for choice in choices] == [1, 2, 0]


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("bonus", [0.0, 0.1])
def test_the_best_one_is_the_first_of_all(history, bonus):
    """Also where the candidates are nearly, or exactly, equally good."""
    rng = np.random.default_rng(3)
    settings, winners = SlideSettings(first_bonus=bonus), set()
    for _ in range(200):
        masks = [_three(int(rng.integers(0, 7))) for _ in range(4)]
        prediction = _prediction(masks, rng.choice([0.6, 0.7, 0.75, 0.8, 1.2], 4))
        prediction.logits[...] += rng.choice([0, -4.5, 4.5], (4, 3, 10, 1))  # not all are stable
        known = {0: Patch((0, 0), np.where(_three(4)[0], 5.0, -5.0).astype(np.float32))}
        known = known if history else {}
        first, found = rank(prediction, known, settings)[0], best(prediction, known, settings)
        assert (found.number, found.score) == (first.number, first.score)
        winners.add(found.number)
    assert winners == {0, 1, 2, 3}


def test_candidates_that_cannot_win_are_not_looked_at(monkeypatch):
    looked = []
    monkeypatch.setattr(candidates, "stability", lambda patch: looked.append(patch) or 1.0)
    known = {0: Patch((0, 0), np.where(_three(4)[0], 5.0, -5.0).astype(np.float32))}
    prediction = _prediction([_three(4)] * 4, [0.9, 0.9, 0.95, 0.99])
    best(prediction, known, SlideSettings())
    assert len(looked) == 1
    best(prediction, known, SlideSettings(first_bonus=0.0))
    assert len(looked) == 1 + 3


def test_detached_choices_own_their_logits():
    prediction = _prediction([_three(5)] * 2, [0.8, 0.7])
    choice = rank(prediction, {}, SlideSettings())[0].detached()
    assert not any(np.shares_memory(p.logits, prediction.logits) for p in choice.patches)


def test_views_that_come_one_by_one_are_fused_as_all_at_once():
    rng = np.random.default_rng(0)
    settings = SlideSettings()
    record, views, kept = SliceRecord(settings), [], []
    for weight in (0.5, 0.0, 1.0, 0.3, 0.7):
        patch = Patch((2, 3), rng.normal(0, 8, (5, 6)).astype(np.float32))
        before = patch.logits.copy()
        record.add(patch, weight)
        views.append(View(patch, weight))
        kept.append((record.fused(), fuse(views, settings.logit_limit)))
        assert np.array_equal(patch.logits, before)
    for found, expected in kept:  # what was fused later has changed no earlier answer
        assert found.corner == expected.corner
        assert np.allclose(found.logits, expected.logits, atol=1e-5)
    joined = record.joined(views[0].patch, 1.0, 0.8, None)
    assert len(record.views) == 5 and len(joined.views) == 6 and joined.views[-1].central
    elsewhere = Patch((0, 0), np.full((4, 4), 3.0, np.float32))
    record.add(elsewhere, 1.0)
    together = fuse([*views, View(elsewhere, 1.0)], settings.logit_limit)
    assert np.allclose(record.fused().logits, together.logits, atol=1e-5)
