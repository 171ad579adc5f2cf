"""The published sliding scheme, fact by fact."""

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.protocol import WindowPrediction
from SlideSAMLib.sliding.reference_scheme import (
    enlarged_box,
    logit_stability,
    opened,
    shifted_box,
    targets,
)
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Stop
from Testing.fakes import ThresholdModel, block_volume
from Testing.sliding_helpers import BOX, slide_all, through_block

REFERENCE = SlideSettings(scheme="reference")


def _run(volume, prompts, model=None, **options):
    return slide_all(volume, prompts, model, settings=REFERENCE, **options)


def test_the_box_is_shifted_not_enlarged():
    assert shifted_box((100, 200, 140, 220), (512, 512)) == pytest.approx((98, 198, 139, 219))
    x0, y0, x1, y1 = shifted_box((100, 100, 120, 200), (512, 512))
    assert (x0, y0) == (99, 99)  # margin of the width on both near sides
    assert (x1, y1) == (115, 195)  # margin of the height, taken off both far sides


def test_the_shifted_box_stays_on_the_slice():
    assert shifted_box((0, 0, 40, 20), (50, 50)) == pytest.approx((0, 0, 39, 19))
    assert shifted_box((5, 5, 5, 5), (50, 50)) is None


def test_only_boxes_travel_and_they_drift_up_left():
    volume, _ = through_block((15, 30, 34))
    model = ThresholdModel()
    _run(volume, [SlicePrompt(6, box=BOX)], model)
    assert all(p.masks is None and p.memory is None and not p.points for _, p in model.predicted)
    assert not model.remembered
    boxes = {centre: prompt.box for centre, prompt in model.predicted}
    assert boxes[6] == BOX
    assert boxes[7] == boxes[5] == shifted_box(BOX, (30, 34))


def test_the_box_can_be_enlarged_truly():
    """By the published share of the sides, on all four of them, to tell what the shift costs."""
    assert enlarged_box((100, 200, 140, 220), (512, 512)) == pytest.approx((98, 199, 142, 221))
    assert enlarged_box((0, 0, 40, 20), (20, 41)) == pytest.approx((0, 0, 40, 19))
    assert enlarged_box((5, 5, 5, 5), (50, 50)) == (5, 5, 5, 5)
    volume, _ = through_block((15, 30, 34))
    model = ThresholdModel()
    settings = SlideSettings(scheme="reference", shift_box=False)
    slide_all(volume, [SlicePrompt(6, box=BOX)], model, settings=settings)
    boxes = {centre: prompt.box for centre, prompt in model.predicted}
    assert boxes[6] == BOX
    assert boxes[7] == boxes[5] == enlarged_box(BOX, (30, 34))


def test_the_first_and_the_last_slice_are_never_a_centre():
    volume, truth = through_block((15, 30, 34))
    model = ThresholdModel()
    _, mask, stops = _run(volume, [SlicePrompt(6, box=BOX)], model)
    assert {centre for centre, _ in model.predicted} == set(range(1, 14))
    assert mask[0].any()
    assert mask[14].any()  # seen from the windows beside them
    assert stops == {"backward": Stop.END_OF_VOLUME, "forward": Stop.END_OF_VOLUME}
    assert np.array_equal(mask, truth)
    for index in (0, 14):
        with pytest.raises(InputError, match="first or last"):
            _run(volume, [SlicePrompt(index, box=BOX)])


@pytest.mark.parametrize("slices", [1, 2])
def test_fewer_than_three_slices_are_impossible(slices):
    volume, _ = through_block((slices, 30, 34))
    with pytest.raises(InputError, match="at least three"):
        _run(volume, [SlicePrompt(0, box=BOX)])


def test_every_point_is_an_object_and_positive():
    prompt = SlicePrompt(3, box=BOX, points=[(1, 2), (3, 4)], labels=[1, 0])
    found = targets(prompt)
    assert [t.prompt.box for t in found] == [BOX, None, None]
    assert [t.prompt.points for t in found] == [(), ((1, 2),), ((3, 4),)]
    assert [t.prompt.labels for t in found] == [(), (1,), (1,)]
    volume, left = block_volume(columns=(4, 12))
    right = block_volume(columns=(20, 28))[1]
    volume[right] = 100
    both = SlicePrompt(6, points=[(6, 12), (24, 12)], labels=[1, 0])
    _, mask, _ = _run(volume, [both])
    assert np.array_equal(mask, left | right)  # the negative point was taken for positive


def test_a_mask_prompt_stands_for_its_box():
    mask = np.zeros((30, 34), bool)
    mask[8:20, 10:25] = True
    (target,) = targets(SlicePrompt(3, mask=mask))
    assert target.prompt.box == BOX
    assert target.prompt.masks is None


def test_the_candidate_with_the_highest_predicted_iou_wins():
    class Last(ThresholdModel):
        def quality(self, window, exact):
            return np.array([0.7, 0.8, 0.9], np.float32)

    volume, truth = through_block((15, 30, 34))
    _, mask, _ = _run(volume, [SlicePrompt(6, box=BOX)], Last())
    assert mask[6].sum() > truth[6].sum()  # candidate 2 is the larger one


def test_opening_deletes_thin_structures_and_spares_tiny_masks():
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:25] = True
    mask[15, 25:38] = True
    result = opened(mask)
    assert result[5:25, 5:25].all()
    assert not result[15, 25:].any()
    thin = np.zeros((40, 40), bool)
    thin[3:35, 10:15] = True  # 160 voxels: a kernel of 8
    assert not opened(thin).any()
    tiny = np.zeros((40, 40), bool)
    tiny[3, 3:22] = True  # 19 voxels: no kernel
    assert np.array_equal(opened(tiny), tiny)


def test_the_result_is_a_union():
    class Outer(ThresholdModel):
        """Adds a blob to what it says about the slice after the centre, in one window."""

        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            if embedding.window.key[-1] == 7:
                found.logits[:, 2, 20:29, 10:25] = 6.0
            return found

    volume, truth = block_volume()
    _, mask, _ = _run(volume, [SlicePrompt(6, box=BOX)], Outer())
    assert mask[8, 20:29, 10:25].all()  # only the window at 7 said so
    assert np.array_equal(mask[:8], truth[:8])


def _changed_at_8(**change):
    """Slide through all slices with a model whose window at 8 is changed."""

    class Changed(ThresholdModel):
        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            if embedding.window.key[-1] != 8:
                return found
            fields = {"logits": found.logits, "quality": found.quality}
            fields.update({name: make(found) for name, make in change.items()})
            return WindowPrediction(corner=found.corner, shape=found.shape, **fields)

    volume, _ = through_block((15, 30, 34))
    _, mask, stops = _run(volume, [SlicePrompt(6, box=BOX)], Changed())
    assert stops["backward"] == Stop.END_OF_VOLUME
    return stops["forward"], int(np.flatnonzero(mask.any(axis=(1, 2)))[-1])


def _neighbour(voxels):
    def change(found):
        logits = found.logits.copy()
        logits[:, 2] = -6.0
        logits[:, 2].reshape(len(logits), -1)[:, :voxels] = 6.0
        return logits

    return change


def test_stop_at_fifty_voxels():
    assert _changed_at_8(logits=_neighbour(50)) == (Stop.TOO_SMALL, 9)
    assert _changed_at_8(logits=_neighbour(0)) == (Stop.NOTHING_LEFT, 8)
    assert _changed_at_8(logits=_neighbour(51))[0] != Stop.TOO_SMALL


def test_stop_at_a_predicted_iou_of_one_half():
    half = np.full(3, 0.5, np.float32)
    assert _changed_at_8(quality=lambda found: half) == (Stop.LOW_QUALITY, 8)
    assert _changed_at_8(quality=lambda found: half + 0.01)[0] == Stop.END_OF_VOLUME


def test_stop_below_a_stability_of_six_tenths():
    def unsure(share):
        def change(found):
            logits = found.logits.copy()
            rows = round(12 * share)
            logits[:, :, 8 + rows : 20] = np.where(logits[:, :, 8 + rows : 20] > 0, 0.5, -6.0)
            return logits

        return change

    assert _changed_at_8(logits=unsure(0.5)) == (Stop.LOW_QUALITY, 8)
    assert _changed_at_8(logits=unsure(0.75))[0] == Stop.END_OF_VOLUME
    assert logit_stability(np.array([2.0, 0.5, -0.5, -2.0])) == pytest.approx(1 / 3)
    assert logit_stability(np.array([-2.0])) == 0.0


def test_limits_and_cancelling():
    volume, _ = through_block((15, 30, 34))
    finished, mask, stops = _run(volume, [SlicePrompt(6, box=BOX)], first=5, last=9)
    assert np.array_equal(np.flatnonzero(mask.any(axis=(1, 2))), range(5, 10))
    assert stops == {"backward": Stop.LIMIT_REACHED, "forward": Stop.LIMIT_REACHED}
    assert {f.total for f in finished} == {5}
    calls = iter(range(100))
    _, mask, stops = _run(volume, [SlicePrompt(6, box=BOX)], cancelled=lambda: next(calls) >= 3)
    assert stops == {"backward": Stop.CANCELLED, "forward": Stop.CANCELLED}
    assert mask[5:10].any(axis=(1, 2)).all()


def test_finished_slices_are_as_documented():
    volume, _ = block_volume()
    finished, _, _ = _run(volume, [SlicePrompt(6, box=BOX)])
    assert all(f.probability is None for f in finished)
    assert all(0 <= f.confidence <= 1 for f in finished)
    assert finished[-1].done == len({f.index for f in finished})


def test_two_prompts_are_two_slides_in_one_result():
    volume, truth = block_volume((25, 30, 34), slices=(2, 9))
    other = block_volume((25, 30, 34), slices=(14, 22))[1]
    volume[other] = 100
    prompts = [SlicePrompt(5, box=BOX), SlicePrompt(18, box=BOX)]
    for given in (prompts, iter(prompts)):
        _, mask, stops = _run(volume, given)
        assert np.array_equal(mask, truth | other)
        assert set(stops) == {"backward", "forward"}
