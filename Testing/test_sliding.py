"""The default sliding scheme: geometry, fusion, limits, cancelling, batches."""

from dataclasses import fields, replace

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding.slide import Slider, slide
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Stop
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel, ball_volume, block_volume
from Testing.sliding_helpers import BOX, WINDOW, slide_all, through_block


def test_a_block_comes_out_voxel_by_voxel():
    volume, truth = block_volume()
    finished, mask, stops = slide_all(volume, [SlicePrompt(6, box=BOX)])
    assert np.array_equal(mask, truth)
    assert stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.NOTHING_LEFT}
    assert finished[0].index == 6
    assert finished[0].direction == 0
    assert {f.index for f in finished} == set(range(3, 12))
    assert all(0 < f.confidence <= 1 for f in finished)
    assert all(f.mask.dtype == bool and f.mask.shape == (30, 34) for f in finished)
    assert all(np.array_equal(f.probability > 0.5, f.mask) for f in finished)
    assert all(f.direction == np.sign(f.index - 6) for f in finished)
    assert [f.total for f in finished] == [None] * len(finished)
    assert finished[-1].done == 9


@pytest.mark.parametrize("region", ["slice", "crop"])
@pytest.mark.parametrize("presence", [False, True])
def test_a_ball_grows_and_shrinks(region, presence):
    volume, truth = ball_volume()
    settings = SlideSettings(min_area_mm2=0, min_area_voxels=1)
    model = ThresholdModel(region=region, presence=presence)
    _, mask, _ = slide_all(volume, [SlicePrompt(10, points=[(22, 20)])], model, settings=settings)
    assert np.array_equal(mask, truth)


def test_the_prompted_window_comes_before_any_other_is_encoded():
    model, volume = ThresholdModel(), block_volume()[0]
    stack = Stack(volume, window=WINDOW)
    slides = slide(stack, [SlicePrompt(6, box=BOX)], model)
    next(slides)
    assert model.encoded == [[6]]


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("at_end", [False, True])
def test_tiny_volumes_work(slices, at_end):
    volume, truth = through_block((slices, 30, 34))
    index = slices - 1 if at_end else 0
    _, mask, stops = slide_all(volume, [SlicePrompt(index, box=BOX)])
    assert np.array_equal(mask, truth)
    assert stops == {"backward": Stop.END_OF_VOLUME, "forward": Stop.END_OF_VOLUME}


@pytest.mark.parametrize("lost", [[6], [5, 9, 10], [6, 7, 8]])
def test_a_slide_goes_on_behind_lost_slices(lost):
    volume, truth = block_volume()
    volume += np.random.default_rng(0).integers(1, 10, volume.shape, np.int16)
    volume[lost] = 0
    _, mask, stops = slide_all(volume, [SlicePrompt(4, box=BOX)], ThresholdModel(presence=True))
    assert np.array_equal(mask, truth)
    assert set(stops.values()) == {Stop.NOTHING_LEFT}


def test_a_slide_does_not_leave_an_object_on_an_even_ground_for_the_next_one():
    volume, truth = block_volume((20, 30, 34), slices=(2, 6))
    volume[block_volume((20, 30, 34), slices=(9, 17))[1]] = 100
    _, mask, _ = slide_all(volume, [SlicePrompt(4, box=BOX)])
    assert np.array_equal(mask, truth)


@pytest.mark.parametrize("index", [0, 4, 9])
def test_edge_slices_can_be_prompted_and_reached(index):
    volume, truth = through_block((10, 30, 34))
    model = ThresholdModel()
    _, mask, _ = slide_all(volume, [SlicePrompt(index, box=BOX)], model)
    assert np.array_equal(mask, truth)
    assert sorted(c for call in model.encoded for c in call) == list(range(10))


def test_every_slice_is_seen_by_three_windows():
    """A view that a neighbouring window has of a slice counts by its weight."""
    volume, _ = through_block((9, 30, 34))

    class Doubting(ThresholdModel):
        """Says background with all its might on the slices beside the centre's left half."""

        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            found.logits[:, [0, 2], :, :12] = -8.0
            return found

    settings = SlideSettings(use_masks=False, outer_weight=0.6, min_agreement=0.0)
    _, mask, _ = slide_all(volume, [SlicePrompt(4, box=BOX)], Doubting(), settings=settings)
    assert mask[4, 10, 11]  # the prompted slice is fixed
    assert not mask[3, 10, 11]  # outvoted two to one: 6 for, 0.6 x 8 against and once more
    settings = SlideSettings(use_masks=False, outer_weight=0.1, min_agreement=0.0)
    _, mask, _ = slide_all(volume, [SlicePrompt(4, box=BOX)], Doubting(), settings=settings)
    assert mask[3, 10, 11]
    settings = SlideSettings(
        use_masks=False, outer_weight=1.0, prompted_outer_weight=1.0, min_agreement=0.0
    )
    _, mask, _ = slide_all(volume, [SlicePrompt(4, box=BOX)], Doubting(), settings=settings)
    assert not mask[4, 10, 11]


def test_following_prompts_carry_masks_in_slice_order_and_memory():
    volume, truth = block_volume()
    model = ThresholdModel()
    slide_all(volume, [SlicePrompt(6, box=BOX)], model)
    prompts = dict(model.predicted)
    assert prompts[6].masks is None
    assert prompts[7].known == (True, True, False)  # forward: the slice before is shared
    assert prompts[5].known == (False, True, True)  # backward: the slice after is shared
    assert np.array_equal(prompts[7].masks[:2] > 0.5, truth[6:8])
    assert np.array_equal(prompts[5].masks[1:] > 0.5, truth[5:7])
    assert model.remembered == [(6, int(truth[6].sum()))]
    assert {prompts[c].memory for c in (4, 5, 7, 8)} == {("memory of slice", 6)}
    x0, y0, x1, y1 = prompts[7].box
    assert x0 < BOX[0] < BOX[2] < x1
    assert y0 < BOX[1] < BOX[3] < y1


def test_models_that_do_not_know_masks_get_none():
    model = ThresholdModel(prompts=("box", "point"))
    slide_all(block_volume()[0], [SlicePrompt(6, box=BOX)], model)
    assert all(prompt.masks is None for _, prompt in model.predicted)
    assert all(prompt.known == (False, False, False) for _, prompt in model.predicted)


def test_points_positive_and_negative_choose_parts():
    volume, left = block_volume(columns=(4, 10))
    right = block_volume(columns=(20, 28))[1]
    volume[right] = 100
    two = [SlicePrompt(6, points=[(6, 12), (24, 12)])]
    assert np.array_equal(slide_all(volume, two)[1], left | right)
    first = SlicePrompt(6, box=(4, 8, 28, 19), points=[(6, 12), (24, 12)], labels=[1, 0])
    assert np.array_equal(slide_all(volume, [first])[1], left)


def test_prompts_on_one_slice_are_one_window():
    model = ThresholdModel()
    prompts = [SlicePrompt(6, box=(10, 8, 15, 19)), SlicePrompt(6, box=(14, 8, 24, 12))]
    slide_all(block_volume()[0], prompts, model)
    assert [p.box for c, p in model.predicted if c == 6] == [(10, 8, 24, 19)]


def test_a_mask_alone_stays_as_it_is():
    volume, truth = block_volume()
    drawn = truth[6].copy()
    drawn[8:12, 10:14] = False
    _, mask, _ = slide_all(volume, [SlicePrompt(6, mask=drawn)])
    assert np.array_equal(mask[6], drawn)
    assert mask[7:12].any(axis=(1, 2)).all()
    free = SlideSettings(keep_mask_prompts=False)
    _, mask, _ = slide_all(volume, [SlicePrompt(6, mask=drawn)], settings=free)
    assert np.array_equal(mask[6], truth[6])


def test_limits_are_inclusive_and_counted():
    volume, truth = block_volume()
    finished, mask, stops = slide_all(volume, [SlicePrompt(6, box=BOX)], first=5, last=8)
    assert np.array_equal(np.flatnonzero(mask.any(axis=(1, 2))), [5, 6, 7, 8])
    assert np.array_equal(mask[5:9], truth[5:9])
    assert stops == {"backward": Stop.LIMIT_REACHED, "forward": Stop.LIMIT_REACHED}
    assert {f.total for f in finished} == {4}
    assert finished[-1].done == 4
    for half in ({"first": 5}, {"last": 8}):  # nobody knows where the other side ends
        finished = slide_all(volume, [SlicePrompt(6, box=BOX)], **half)[0]
        assert {f.total for f in finished} == {None}


@pytest.mark.parametrize(
    "options",
    [
        {"first": 8, "last": 4},
        {"first": -1},
        {"last": 15},
        {"first": 7},
        {"last": 5},
        {"first": 1.5},
    ],
)
def test_unusable_limits_are_refused(options):
    with pytest.raises(InputError):
        slide_all(block_volume()[0], [SlicePrompt(6, box=BOX)], **options)


@pytest.mark.parametrize(
    "prompts",
    [
        [],
        [SlicePrompt(15, box=BOX)],
        [SlicePrompt(6, points=[(40, 5)])],
        [SlicePrompt(6, box=(50, 5, 60, 9))],
        [SlicePrompt(6, box=(-3, 5, -0.2, 9))],
        [SlicePrompt(6, box=(5, -3, 9, -0.2))],
    ],
)
def test_unusable_prompts_are_refused(prompts):
    with pytest.raises(InputError):
        slide_all(block_volume()[0], prompts)


def test_cancelling_keeps_what_is_finished():
    volume, truth = block_volume()
    calls = iter(range(100))
    finished, mask, stops = slide_all(
        volume, [SlicePrompt(6, box=BOX)], cancelled=lambda: next(calls) >= 4
    )
    assert stops == {"backward": Stop.CANCELLED, "forward": Stop.CANCELLED}
    assert {f.index for f in finished} == {5, 6, 7, 4}
    assert np.array_equal(mask[4:8], truth[4:8])


def test_cancelling_keeps_the_reasons_of_directions_that_had_ended():
    volume, _ = block_volume(slices=(5, 14))
    calls = iter(range(100))
    _, _, stops = slide_all(volume, [SlicePrompt(6, box=BOX)], cancelled=lambda: next(calls) >= 5)
    assert stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.CANCELLED}


def test_cancelling_before_anything_yields_nothing():
    volume, _ = block_volume()
    finished, _, stops = slide_all(volume, [SlicePrompt(6, box=BOX)], cancelled=lambda: True)
    assert not finished
    assert set(stops.values()) == {Stop.CANCELLED}


def test_a_closed_generator_says_cancelled():
    slider = Slider(
        Stack(block_volume()[0], window=WINDOW), [SlicePrompt(6, box=BOX)], ThresholdModel()
    )
    run = slider.run()
    next(run)
    run.close()
    assert set(slider.stops.values()) == {Stop.CANCELLED}


def test_runs_repeat_exactly():
    rng = np.random.default_rng(0)
    volume = (ball_volume()[0] + rng.normal(0, 25, (21, 40, 44))).astype(np.float32)
    prompts = [SlicePrompt(8, box=(13, 11, 31, 29)), SlicePrompt(13, points=[(22, 20)])]
    runs = [slide_all(volume, prompts) for _ in range(2)]
    assert np.array_equal(runs[0][1], runs[1][1])
    assert runs[0][2] == runs[1][2]
    assert [(f.index, f.confidence) for f in runs[0][0]] == [
        (f.index, f.confidence) for f in runs[1][0]
    ]


@pytest.mark.parametrize("prompted", [(6,), (4, 10)])
def test_batches_change_the_encoding_and_nothing_else(prompted):
    volume, _ = ball_volume()
    prompts = [SlicePrompt(index, points=[(22, 20)]) for index in prompted]
    single, batched = ThresholdModel(), ThresholdModel()
    expected = slide_all(volume, prompts, single)
    found = slide_all(volume, prompts, batched, settings=SlideSettings(encode_batch=4))
    assert np.array_equal(found[1], expected[1])
    assert found[2] == expected[2]
    assert {len(call) for call in single.encoded} == {1}
    assert len(batched.encoded) < len(single.encoded) / 2
    assert max(len(call) for call in batched.encoded) == 4
    once = [centre for call in batched.encoded for centre in call]
    assert len(once) == len(set(once))


def test_batches_stay_inside_the_limits():
    volume, _ = through_block((15, 30, 34))
    model = ThresholdModel()
    settings = SlideSettings(encode_batch=8)
    slide_all(volume, [SlicePrompt(6, box=BOX)], model, first=4, last=9, settings=settings)
    assert {centre for call in model.encoded for centre in call} == set(range(4, 10))


NUMBERS = [f.name for f in fields(SlideSettings) if f.type in ("float", "int")]
SHARES = [name for name in NUMBERS if name.startswith("min_") and "area" not in name]
SHARES += ["box_ignore_fraction", "carried_doubt", "doubt_reach"]
GROWTH = {"max_growth": np.inf, "max_growth_total": np.inf}
WHOLE = ("meet_overlap", "encode_batch")
UNLIMITED = ("outline_slope", "outline_voxels", "logit_limit", *GROWTH)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_setting_that_would_spoil_every_mask_is_refused_by_its_name(name):
    """A percentage for a share, a sign, and what a weighted mean or a power makes useless."""
    wrong = [-1, float("nan")] + [1.5, 30] * (name in SHARES) + [np.inf] * (name not in UNLIMITED)
    wrong += [1.5, 2.0] * (name in WHOLE)
    for value in wrong:
        with pytest.raises(InputError, match=f"setting {name} must be .*, not {value!r}"):
            SlideSettings(**{name: value})


def test_a_rule_can_be_switched_off():
    SlideSettings(**dict.fromkeys(SHARES, 0.0), **GROWTH, min_area_mm2=0, min_area_voxels=0)
    SlideSettings(**dict.fromkeys(SHARES, 1.0), outline_slope=np.inf, outline_voxels=np.inf)
    SlideSettings(outline_slope=0.0, outline_voxels=0.0, meet_overlap=0)
    for name in ("centre_weight", "point_caution", "logit_limit", *GROWTH):
        with pytest.raises(InputError, match=f"{name} must be greater than 0"):
            SlideSettings(**{name: 0.0})


def test_there_is_no_other_scheme():
    with pytest.raises(InputError, match="default, reference, not 'best'"):
        SlideSettings(scheme="best")


@pytest.mark.parametrize(("margin", "box"), [(0.0, BOX), (1.0, (8.0, 6.0, 26.0, 21.0))])
def test_only_models_that_need_it_get_a_larger_box(margin, box):
    """The block is its box; 10 % of its sides and half a voxel are 2 and 1.7 voxels."""
    volume, _ = through_block((9, 30, 34))
    model = ThresholdModel()
    model.traits = replace(model.traits, box_margin=margin)
    settings = SlideSettings(enlarge_fraction=0.1, enlarge_voxels=0.5)
    slide_all(volume, [SlicePrompt(4, box=BOX)], model, settings=settings)
    following = dict(model.predicted)[5]
    assert following.box == pytest.approx(box, abs=0.35)
