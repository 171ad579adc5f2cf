"""Prompts: what is refused, how several on one slice become one, and JSON there and back."""

import json

import numpy as np
import pytest

from SlideSAMLib.boxes import around, mask_box
from SlideSAMLib.errors import InputError
from SlideSAMLib.patches import Patch
from SlideSAMLib.prompt_json import prompts_from_json, prompts_to_json
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.sliding.next_prompt import (
    enlarged,
    first_prompt,
    following_prompt,
    merge_prompts,
)
from SlideSAMLib.sliding.slide_types import SlideSettings

SHAPE = (20, 30)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"index": 1}, "marks nothing"),
        ({"index": 1, "points": [(1, 1)], "labels": [0]}, "marks nothing"),
        ({"index": 1, "box": (5, 5, 4, 9)}, "inverted"),
        ({"index": 1, "box": (5, 5, 5, 9)}, "empty"),
        ({"index": 1, "box": (5, 5, 9)}, "four finite numbers"),
        ({"index": 1, "box": (5, 5, np.nan, 9)}, "four finite numbers"),
        ({"index": 1, "points": [(1, 2)], "labels": [1, 0]}, "labels"),
        ({"index": 1, "points": [(1, 2)], "labels": [2]}, "1 \\(positive\\) or 0"),
        ({"index": 1, "points": [(1, 2)], "labels": [1.9]}, "1 \\(positive\\) or 0"),
        ({"index": 1, "points": [(1, 2)] * 2, "labels": [1, 0.7]}, "1 \\(positive\\) or 0"),
        ({"index": 1, "points": [(1, np.inf)]}, "finite"),
        ({"index": 1, "points": [1, 2]}, "pairs"),
        ({"index": 1.5, "points": [(1, 2)]}, "whole number"),
        ({"index": np.inf, "points": [(1, 2)]}, "whole number"),
        ({"index": 1, "mask": np.zeros((4, 4))}, "at least one"),
        ({"index": 1, "mask": np.ones((4, 4, 4))}, "2D"),
        ({"index": 1, "mask": np.full((4, 4), np.nan)}, "True and False"),
        ({"index": 1, "mask": np.full((4, 4), 0.5)}, "True and False"),
        ({"index": 1, "mask": np.array([["a", "b"]])}, "True and False"),
        ({"index": 1, "mask": "x"}, "True and False"),
        ({"index": None, "points": [(1, 2)]}, "whole number"),
        ({"index": "x", "points": [(1, 2)]}, "whole number"),
        ({"index": "1", "points": [(1, 2)]}, "whole number"),
        ({"index": True, "points": [(1, 2)]}, "whole number"),
        ({"index": np.True_, "points": [(1, 2)]}, "whole number"),
        ({"index": np.nan, "points": [(1, 2)]}, "whole number"),
        ({"index": np.inf, "points": [(1, 2)]}, "whole number"),
        ({"index": 1, "box": 5}, "four finite numbers"),
        ({"index": 1, "box": "1234"}, "four finite numbers"),
        ({"index": 1, "box": (1, None, 3, 4)}, "four finite numbers"),
        ({"index": 1, "box": (1, 10**400, 3, 4)}, "four finite numbers"),
        ({"index": 1, "points": [(1, 10**400)]}, "pairs"),
        ({"index": 1, "points": [(1, 2)], "labels": 1}, "list of 1 and 0"),
        ({"index": 1, "points": [(1, 2)], "labels": np.ones((1, 2))}, "list of 1 and 0"),
        ({"index": 1, "points": [(1, 2)], "labels": ["x"]}, "1 \\(positive\\) or 0"),
        ({"index": 1, "points": [(1, 2)], "labels": [np.nan]}, "1 \\(positive\\) or 0"),
    ],
)
def test_unusable_prompts_are_refused(fields, words):
    with pytest.raises(InputError, match=words):
        SlicePrompt(**fields)


def test_whole_numbers_and_masks_may_be_of_any_kind():
    prompt = SlicePrompt(np.float32(3), mask=np.array([[0, 255]], np.uint8))
    assert prompt.index == 3 and type(prompt.index) is int
    assert prompt.mask.tolist() == [[False, True]]
    assert SlicePrompt(np.int64(3), mask=[[0.0, 1.0]]).mask.dtype == bool


@pytest.mark.parametrize(
    "prompt",
    [
        SlicePrompt(5, box=(0, 0, 4, 4)),
        SlicePrompt(-1, box=(0, 0, 4, 4)),
        SlicePrompt(2, box=(40, 0, 44, 4)),
        SlicePrompt(2, points=[(3, 20)]),
        SlicePrompt(2, points=[(-1, 3)]),
        SlicePrompt(2, mask=np.ones((30, 20))),
    ],
)
def test_prompts_outside_the_stack_are_refused(prompt):
    with pytest.raises(InputError):
        prompt.check_inside(5, *SHAPE)


def test_box_is_cut_to_the_slice():
    assert SlicePrompt(0, box=(-3, -2, 50, 9)).clamped_box(*SHAPE) == (0, 0, 29, 9)


def test_prompts_on_one_slice_become_one():
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 2, 3] = masks[1, 4, 5] = True
    merged = merge_prompts(
        [
            SlicePrompt(7, box=(4, 4, 9, 9), mask=masks[0]),
            SlicePrompt(3, points=[(1, 1)]),
            SlicePrompt(7, box=(2, 6, 8, 12), points=[(5, 5), (1, 1)], labels=[1, 0]),
            SlicePrompt(7, mask=masks[1]),
        ]
    )
    assert list(merged) == [7, 3]
    assert merged[7].box == (2, 4, 9, 12)
    assert merged[7].points == ((5, 5), (1, 1))
    assert merged[7].labels == (1, 0)
    assert np.array_equal(merged[7].mask, masks.any(axis=0))
    assert around([(0, 1, 2, 3)]) == (0, 1, 2, 3)


def test_merging_refuses_nothing_and_strangers():
    with pytest.raises(InputError, match="no prompt"):
        merge_prompts([])
    with pytest.raises(InputError, match="SlicePrompt"):
        merge_prompts([(1, 2)])
    with pytest.raises(InputError, match="SlicePrompt"):
        merge_prompts(None)
    with pytest.raises(InputError, match="different shapes"):
        merge_prompts([SlicePrompt(1, mask=np.ones((3, 3))), SlicePrompt(1, mask=np.ones((4, 3)))])


def test_first_prompt_takes_a_mask_for_the_known_centre():
    mask = np.zeros(SHAPE, bool)
    mask[5:10, 8:20] = mask[15, 25] = True  # what a user has drawn counts, however small
    settings = SlideSettings(enlarge_fraction=0.0, enlarge_voxels=1.0)
    prompt = first_prompt(SlicePrompt(1, mask=mask), SHAPE, settings, knows_masks=True)
    assert prompt.box == (7, 4, 26, 16)
    assert prompt.known == (False, True, False)
    assert np.array_equal(prompt.masks[1], mask)
    assert not prompt.masks[[0, 2]].any()
    boxed = SlicePrompt(1, mask=mask, box=(0, 0, 25, 15))
    assert first_prompt(boxed, SHAPE, settings, knows_masks=False).box == (0, 0, 25, 15)
    assert first_prompt(boxed, SHAPE, settings, knows_masks=False).masks is None
    without = SlideSettings(use_masks=False)
    assert first_prompt(boxed, SHAPE, without, knows_masks=True).masks is None


def test_a_box_beyond_the_slice_is_cut_to_it():
    prompt = first_prompt(SlicePrompt(1, box=(-3, 2, 25, 40)), SHAPE, SlideSettings(), True)
    assert prompt.box == (0, 2, 25, 19)


def test_first_prompt_carries_the_memory_of_another_slice():
    marked = SlicePrompt(1, points=[(3, 4)])
    prompt = first_prompt(marked, SHAPE, SlideSettings(), True, "memory", 5)
    assert (prompt.memory, prompt.distance) == ("memory", 5)
    forgetful = SlideSettings(use_memory=False)
    assert first_prompt(marked, SHAPE, forgetful, True, "memory", 5).memory is None


def test_first_prompt_of_points_has_no_box():
    marked = SlicePrompt(1, points=[(3, 4), (9, 9)], labels=[1, 0])
    prompt = first_prompt(marked, SHAPE, SlideSettings(), knows_masks=True)
    assert prompt.box is None
    assert prompt.masks is None
    assert (prompt.points, prompt.labels) == (((3, 4), (9, 9)), (1, 0))


def test_following_box_really_is_enlarged_and_clamped():
    settings = SlideSettings(enlarge_fraction=0.1, enlarge_voxels=0.5)
    assert enlarged((10, 5, 19, 9), SHAPE, settings) == (8.5, 4, 20.5, 10)
    assert enlarged((0, 0, 29, 19), SHAPE, settings) == (0, 0, 29, 19)


def test_following_prompt_places_box_and_masks():
    logits = np.full((6, 8), -5.0, np.float32)
    logits[2:4, 3:7] = logits[5, 0] = 5.0  # and a speck
    known = {1: Patch((10, 20), logits), 0: Patch((9, 18), logits)}
    settings = SlideSettings(enlarge_fraction=0.0, enlarge_voxels=0.0, box_ignore_fraction=0.2)
    prompt = following_prompt(known, SHAPE, settings, knows_masks=True, memory="kept", distance=3)
    assert prompt.box == (23, 12, 26, 13)
    assert prompt.known == (True, True, False)
    assert (prompt.memory, prompt.distance) == ("kept", 3)
    assert prompt.masks[1, 12, 23] == pytest.approx(1 / (1 + np.exp(-5)))
    assert prompt.masks[0, 11, 21] > 0.9
    assert prompt.masks[1, 0, 0] == 0
    without = SlideSettings(use_masks=False, use_memory=False)
    plain = following_prompt(known, SHAPE, without, knows_masks=True, memory="kept")
    assert plain.masks is None
    assert plain.known == (False, False, False)
    assert plain.memory is None


def test_specks_do_not_blow_up_the_box():
    mask = np.zeros(SHAPE, bool)
    mask[4:10, 6:12] = True
    mask[18, 28] = True
    assert mask_box(mask, 0.05) == (6, 4, 11, 9)
    assert mask_box(mask, 0.0) == (6, 4, 28, 18)


def test_all_parts_are_boxed_that_are_no_specks_beside_the_largest():
    mask = np.zeros(SHAPE, bool)
    mask[0, :20] = mask[10, 9:29] = mask[19, 0] = True
    assert mask_box(mask, 0.05) == (0, 0, 28, 19)


def test_json_there_and_back():
    mask = np.zeros(SHAPE, bool)
    mask[0, :3] = mask[5:9, 4:20] = True
    prompts = [
        SlicePrompt(57, box=(1, 2, 3.5, 4)),
        SlicePrompt(3, points=[(1.5, 2), (3, 4)], labels=[1, 0], mask=mask),
    ]
    back = prompts_from_json(prompts_to_json(prompts))
    assert [p.index for p in back] == [57, 3]
    assert back[0].box == (1, 2, 3.5, 4)
    assert back[0].mask is None
    assert (back[1].points, back[1].labels) == (((1.5, 2), (3, 4)), (1, 0))
    assert np.array_equal(back[1].mask, mask)


def test_json_of_the_documented_form_is_read():
    text = '[{"slice": 57, "box": [1, 2, 30, 40], "points": [[5, 6]], "labels": [1]}]'
    (prompt,) = prompts_from_json(text)
    assert (prompt.index, prompt.box, prompt.points) == (57, (1, 2, 30, 40), ((5, 6),))
    assert prompts_from_json(json.loads(text))[0].box == prompt.box
    assert prompts_from_json("\ufeff" + text)[0].box == prompt.box  # a byte order mark, decoded


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "{}",
        "[]",
        "[5]",
        '[{"box": [1, 2, 3, 4]}]',
        '[{"slice": 1, "boxx": [1, 2, 3, 4]}]',
        '[{"slice": "one", "box": [1, 2, 3, 4]}]',
        '[{"slice": 1, "box": 7}]',
        '[{"slice": 1, "points": [[1, 2]], "labels": ["x"]}]',
        '[{"slice": 1, "mask": {"shape": [2, 2], "runs": [1, 1]}}]',
        '[{"slice": 1, "mask": {"shape": [2, 2]}}]',
        '[{"slice": 1, "mask": 5}]',
        '[{"slice": 1e400, "box": [1, 2, 3, 4]}]',
        '[{"slice": 1, "points": [[1, 2]], "labels": [1e400]}]',
        '[{"slice": 1, "mask": {"shape": [1, 2], "runs": [1e400, 1]}}]',
    ],
)
def test_unusable_json_is_refused_in_one_sentence(text):
    with pytest.raises(InputError) as caught:
        prompts_from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '[{"slice": ' + "9" * 5000 + ', "points": [[1, 1]]}]',
        '[{"slice": 1e400, "points": [[1, 1]]}]',
        '[{"slice": 1, "mask": {"shape": [1e400, 1], "runs": [1]}}]',
        '[{"slice": 1, "mask": {"shape": [9, 9], "runs": [1e400]}}]',
        '[{"slice": 1, "mask": {"shape": [9, 9], "runs": [99999999999999999999]}}]',
        # sums of such numbers start again at 0, so that these are 5 in all
        f'[{{"slice": 1, "mask": {{"shape": [1, 5], "runs": [{2**63 - 1}, {2**63 - 1}, 7]}}}}]',
        '[{"slice": 1, "mask": {"shape": [10000000, 10000000], "runs": [0, 100000000000000]}}]',
    ],
)
def test_json_that_is_too_deep_or_too_large_is_refused(text):
    with pytest.raises(InputError):
        prompts_from_json(text)
