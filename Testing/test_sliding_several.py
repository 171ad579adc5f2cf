"""Several prompted slices: two fronts meet between them."""

import numpy as np
import pytest

from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding.front import Anchor, nearest_anchor
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Stop
from Testing.fakes import ThresholdModel, block_volume
from Testing.sliding_helpers import BOX, slide_all, through_block


def test_two_prompts_meet_in_the_middle():
    volume, truth = block_volume((25, 30, 34), slices=(2, 22))
    model = ThresholdModel()
    prompts = [SlicePrompt(4, box=BOX), SlicePrompt(20, box=BOX)]
    finished, mask, stops = slide_all(volume, prompts, model)
    assert np.array_equal(mask, truth)
    assert stops["4-20"] == Stop.MET_NEXT_PROMPT
    assert stops["backward"] == stops["forward"] == Stop.NOTHING_LEFT
    centres = [centre for centre, _ in model.predicted]
    twice = {centre for centre in centres if centres.count(centre) == 2}
    assert twice == {12, 13} or twice == {11, 12}  # the overlap, half way
    memories = {centre: prompt.memory for centre, prompt in model.predicted}
    assert memories[7] == ("memory of slice", 4)
    assert memories[18] == ("memory of slice", 20)
    assert [f.index for f in finished[:2]] == [4, 20]


class _Leaning(ThresholdModel):
    """Adds a column on the right for a front that moves forward, denies it for the other.

    It tells the fronts apart by the side on which the neighbour's mask is known.
    """

    def predict(self, embedding, prompt):
        found = super().predict(embedding, prompt)
        if prompt.known == (True, True, False):
            found.logits[:, 1, 8:20, 25] = 2.0
        if prompt.known == (False, True, True):
            found.logits[:, 1, 8:20, 25] = -4.0
        return found


def test_fronts_are_blended_by_distance():
    """With every slice predicted from both ends, the nearer prompt has the greater say."""
    volume, _ = block_volume((9, 30, 34), slices=(0, 8))
    settings = SlideSettings(meet_overlap=99, outer_weight=0.0, first_bonus=9.0)
    prompts = [SlicePrompt(0, box=BOX), SlicePrompt(8, box=BOX)]
    finished, _, _ = slide_all(volume, prompts, _Leaning(), settings=settings)
    newest = {f.index: f.probability[10, 25] for f in finished}
    for index in range(1, 8):
        logit = (2.0 * (8 - index) - 4.0 * index) / 8
        assert newest[index] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


def test_what_both_fronts_found_has_the_confidence_of_the_nearer_prompt():
    """Points alone may have meant something else, but not where a box is nearer."""
    volume, _ = through_block((9, 30, 34))
    settings = SlideSettings(meet_overlap=99)

    def told(first):
        finished, _, _ = slide_all(volume, [first, SlicePrompt(8, box=BOX)], settings=settings)
        return {f.index: f.confidence for f in finished}

    points, boxes = told(SlicePrompt(0, points=[(15, 12)])), told(SlicePrompt(0, box=BOX))
    cautious = {i: boxes[i] ** settings.point_caution if i <= 4 else boxes[i] for i in boxes}
    assert points == pytest.approx(cautious) and points != pytest.approx(boxes)


@pytest.mark.parametrize("pair", [(6, 7), (6, 8), (6, 9)])
def test_prompts_close_to_each_other(pair):
    volume, truth = block_volume()
    prompts = [SlicePrompt(index, box=BOX) for index in pair]
    _, mask, stops = slide_all(volume, prompts)
    assert np.array_equal(mask, truth)
    assert stops.get(f"{pair[0]}-{pair[1]}", Stop.MET_NEXT_PROMPT) == Stop.MET_NEXT_PROMPT


def test_a_gap_is_completed_by_the_other_front():
    """Seen from below the object ends (a step too large), seen from above it goes on."""
    volume, truth = block_volume((20, 30, 34), slices=(2, 9))
    wide = np.zeros_like(truth)
    wide[10:18, 2:28, 2:32] = True
    volume[wide] = 100
    prompts = [SlicePrompt(4, box=BOX), SlicePrompt(15, box=(2, 2, 31, 27))]
    settings = SlideSettings(max_growth=1.5, growth_floor_mm2=0)
    model = ThresholdModel(margin=40)
    _, mask, stops = slide_all(volume, prompts, model, settings=settings)
    assert stops["4-15"] == Stop.MET_NEXT_PROMPT
    assert np.array_equal(mask, truth | wide)


def test_a_front_is_as_large_as_where_it_comes_from():
    """Near a prompted slice on which little is left it still is no larger than on its own."""
    volume, truth = block_volume((20, 30, 34), slices=(2, 9))
    small = block_volume((20, 30, 34), (10, 13), (8, 11), (10, 13))[1]
    volume[small] = 100
    prompts = [SlicePrompt(4, box=BOX), SlicePrompt(10, box=(10, 8, 13, 11))]
    _, mask, stops = slide_all(volume, prompts)
    assert stops["4-10"] == Stop.MET_NEXT_PROMPT
    assert np.array_equal(mask, truth | small)


def test_a_gap_that_neither_front_closes_says_why():
    volume, truth = block_volume((20, 30, 34), slices=(2, 6))
    other = block_volume((20, 30, 34), slices=(12, 17))[1]
    volume[other] = 100
    prompts = [SlicePrompt(4, box=BOX), SlicePrompt(15, box=BOX)]
    _, mask, stops = slide_all(volume, prompts)
    assert stops["4-15"] == Stop.NOTHING_LEFT
    assert np.array_equal(mask, truth | other)


def test_a_gap_is_cancelled_though_one_front_had_ended():
    volume, _ = block_volume((20, 30, 34), slices=(2, 6))
    volume[block_volume((20, 30, 34), slices=(9, 17))[1]] = 100
    calls = iter(range(100))
    prompts = [SlicePrompt(5, box=BOX), SlicePrompt(16, box=BOX)]
    finished, _, stops = slide_all(volume, prompts, cancelled=lambda: next(calls) >= 13)
    assert {7, 8}.isdisjoint(f.index for f in finished)
    assert stops["5-16"] == Stop.CANCELLED and stops["forward"] == Stop.NOTHING_LEFT


def test_three_prompts_have_two_gaps():
    volume, truth = block_volume((25, 30, 34), slices=(2, 22))
    prompts = [SlicePrompt(index, box=BOX) for index in (20, 4, 12)]
    finished, mask, stops = slide_all(volume, prompts)
    assert set(stops) == {"backward", "forward", "4-12", "12-20"}
    assert np.array_equal(mask, truth)
    assert [f.index for f in finished[:3]] == [20, 4, 12]


def test_memory_is_that_of_the_nearest_prompt():
    """The front from below gives up at once; the one from above goes all the way down."""

    class OneWay(ThresholdModel):
        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            if prompt.known == (True, True, False):
                found.quality[:] = 0.1
            return found

    volume, truth = through_block((20, 30, 34))
    model = OneWay()
    prompts = [SlicePrompt(4, box=BOX), SlicePrompt(15, box=BOX)]
    _, mask, stops = slide_all(volume, prompts, model, first=4, last=15)
    assert stops["4-15"] == Stop.MET_NEXT_PROMPT
    assert np.array_equal(mask[4:16], truth[4:16])
    from_above = {c: p.memory[1] for c, p in model.predicted if p.known == (False, True, True)}
    assert from_above == {c: 4 if c < 10 else 15 for c in range(5, 15)}


def test_an_emptied_slice_tells_nothing_about_the_object():
    anchors = {i: Anchor(i, None, {}, voxels, None) for i, voxels in ((2, 50), (9, 0), (20, 60))}
    nearest = nearest_anchor(anchors)
    assert [nearest(i).index for i in (0, 8, 10, 12, 19)] == [2, 2, 2, 20, 20]
    assert nearest_anchor({9: anchors[9]})(3).index == 9
