"""Corrections that add a slice to a result: what its window remembers, and what stays as it was."""

import numpy as np
import pytest

from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Snapshot
from SlideSAMLib.sliding.additions import adds_slice, reference_for, staying
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Stop
from Testing.fakes import ThresholdModel
from Testing.sessions import new_session, two_parts

LEFT = (4, 8, 14, 19)
GAP = slice(9, 12)  # of `interrupted`, where the left block is not found


class Recalling(ThresholdModel):
    """Finds only part of what points mean, unless it remembers another slice."""

    def _masks(self, window, prompt):
        masks = super()._masks(window, prompt)
        if prompt.points and prompt.memory is None:
            masks[:, :13] = False
        return masks


class Blind(ThresholdModel):
    """Has no memory, and says so."""

    remembers = False

    def remember(self, embedding, mask):
        return None


def interrupted(model=None, **options):
    """A session after a run that found the left of two blocks up to slice 8, where it ends.

    It goes on behind slice 11.
    """
    volume, left, _ = two_parts()
    dark = volume.copy()
    dark[GAP, :, :16] = 0
    session = new_session(dark, model or ThresholdModel(margin=0.0), **options)
    session.set_prompt(SlicePrompt(4, box=LEFT))
    list(session.run())
    assert sorted(session.confidence) == list(range(2, 9))
    session.model.predicted.clear()
    return session, left


def asked(session, index):
    """The prompts that the window of a slice was given, before any mask of its own was known."""
    return [p for centre, p in session.model.predicted if centre == index and not any(p.known)]


def test_the_window_of_an_added_slice_remembers_the_nearest_prompted_slice():
    session, _ = interrupted()
    list(session.correct(session.correction(13, [(9, 14)])))
    (prompt,) = asked(session, 13)
    assert prompt.memory == ("memory of slice", 4) and prompt.distance == 9
    list(session.correct(session.correction(10, [(9, 14)])))
    (prompt,) = asked(session, 10)
    assert prompt.memory == ("memory of slice", 13) and prompt.distance == 3


@pytest.mark.parametrize("point", [(9, 14), (31, 14)], ids=["in line with it", "far from it"])
def test_without_a_prompted_mask_it_remembers_the_nearest_mask(point):
    session, _ = interrupted()
    session.remove_prompt(4)
    list(session.correct(session.correction(13, [point])))
    assert asked(session, 13)[0].memory == ("memory of slice", 8)


def test_a_slice_whose_prompt_was_not_run_shows_nothing_sure():
    """What was found may be another object than the one that the changed prompt means."""
    session, _ = interrupted()
    session.set_prompt(SlicePrompt(4, box=(22, 8, 34, 19)))
    session.set_prompt(session.correction(13, [(28, 14)]))
    session.preview(13)
    assert asked(session, 13)[0].memory is None


@pytest.mark.parametrize("how", ["setting", "model"])
def test_where_nothing_is_remembered_nothing_is_asked_for_it(how):
    model = Blind(margin=0.0) if how == "model" else None
    session, left = interrupted(model, settings=SlideSettings(use_memory=how == "model"))
    session.cache.clear()
    session.model.encoded.clear()
    session.set_prompt(session.correction(13, [(9, 14)]))
    assert np.array_equal(session.preview(13).masks[13], left[13])
    assert asked(session, 13)[0].memory is None
    assert session.model.encoded == [[13]]


def test_preview_correction_and_what_comes_after_show_one_mask():
    session, left = interrupted(Recalling(margin=0.0))
    prompt = session.correction(13, [(9, 14)])
    session.set_prompt(prompt)
    previewed = session.preview(13).masks[13]
    assert np.array_equal(previewed, left[13])
    list(session.correct(prompt))
    assert np.array_equal(session.slice_mask(13), previewed)
    assert np.array_equal(session.preview(13).masks[13], previewed)

    session.model.predicted.clear()
    list(session.correct(SlicePrompt(15, box=LEFT)))  # slides from slice 13, too
    assert [p.memory for p in asked(session, 13)] == [("memory of slice", 4)]
    list(session.run())
    assert np.array_equal(session.slice_mask(13), previewed)


def test_an_added_slice_fills_and_changes_nothing_that_was_found():
    session, left = interrupted()
    before = session.snapshot()
    finished = {f.index for f in session.correct(session.correction(13, [(9, 14)]))}
    assert finished == {12, 13, 14, 15}
    for index, mask in before.masks.items():
        assert session.slice_mask(index) is mask
        assert session.confidence[index] == before.confidence[index]
    assert np.array_equal(session.mask[12:], left[12:])
    assert sorted(session.prompts) == [4, 13]
    assert set(session.stops) == {"backward", "4-13", "forward"}


def test_an_added_slice_on_which_nothing_is_found_takes_nothing_back():
    session, _ = interrupted()
    list(session.correct(session.correction(13, [(9, 14)])))
    before = session.snapshot()
    list(session.correct(SlicePrompt(10, box=LEFT)))  # there is nothing there
    assert not session.slice_mask(10).any()
    for index, mask in before.masks.items():
        assert session.slice_mask(index) is mask


def test_a_slice_that_had_been_emptied_is_added_again():
    session, left = interrupted()
    list(session.correct(SlicePrompt(7, box=(18, 0, 20, 4))))  # there is nothing there
    assert not session.slice_mask(7).any()
    before = session.snapshot()
    list(session.correct(SlicePrompt(7, points=[(9, 14)])))
    assert np.array_equal(session.slice_mask(7), left[7])
    assert all(session.slice_mask(i) is before.masks[i] for i in before.masks if i != 7)


def test_an_added_slice_far_from_all_masks_changes_none_of_them():
    """Nothing speaks against them: on its own slice nothing had been found."""
    session, _ = interrupted()
    before = session.snapshot()
    finished = [f.index for f in session.correct(session.correction(9, [(31, 14)]))]
    assert min(finished) == 9 and max(finished) == 15
    assert all(session.slice_mask(index) is mask for index, mask in before.masks.items())


def test_a_drawn_mask_tells_more_than_what_was_found():
    """It shows what the object looks like, so it does not only fill slices without a mask."""
    session, left = interrupted()
    finished = {f.index for f in session.correct(SlicePrompt(10, mask=left[10]))}
    assert finished >= {5, 6, 7, 8, 10}


def test_an_emptied_slice_shows_nothing_and_does_not_stay():
    session, left = interrupted()
    list(session.correct(SlicePrompt(7, box=(18, 0, 20, 4))))  # there is nothing there
    list(session.correct(session.correction(13, [(9, 14)])))
    assert asked(session, 13)[0].memory == ("memory of slice", 4)
    session.remove_prompt(7)
    list(session.correct(session.correction(8, [(9, 14)])))
    assert np.array_equal(session.slice_mask(7), left[7])


@pytest.mark.parametrize(("point", "far"), [((9, 29), True), ((26, 13), False)])
def test_how_far_a_point_lies_from_a_mask_is_in_mm(point, far):
    """Ten rows of 2 mm below it, or twelve columns of 0.5 mm beside it."""
    _, left, _ = two_parts()
    masks, spacing = {i: left[i] for i in range(2, 9)}, (2.0, 0.5)
    prompt = SlicePrompt(6, points=[point])
    assert adds_slice(prompt, masks, spacing) == far
    assert (reference_for(prompt, masks, [], [], spacing) is None) == far
    assert staying(masks, prompt, (None, None), [], spacing) == (
        set() if far else {2, 3, 4, 5, 7, 8}
    )


def test_only_what_is_inside_says_that_a_mask_is_of_something_else():
    _, left, _ = two_parts()
    prompt = SlicePrompt(6, points=[(9, 14), (38, 2)], labels=[1, 0])
    assert not adds_slice(prompt, {6: left[6]}, (1.0, 1.0))


def test_what_lies_between_an_added_slice_and_a_prompted_one_is_filled():
    session, left = interrupted()
    for index in (5, 6):
        session.restore(without(session.snapshot(), index))
    list(session.correct(session.correction(6, [(9, 14)])))
    assert np.array_equal(session.mask[2:9], left[2:9])


def test_no_stretch_lies_between_neighbours():
    session, left = interrupted()
    session.restore(without(session.snapshot(), 5))
    list(session.correct(session.correction(5, [(9, 14)])))
    assert np.array_equal(session.slice_mask(5), left[5])
    assert set(session.stops) == {"backward", "forward"}


def test_a_prompt_that_was_not_run_yet_right_beside_an_added_slice_is_run():
    session, left = interrupted()
    session.set_prompt(SlicePrompt(12, box=LEFT))
    list(session.correct(session.correction(13, [(9, 14)])))
    assert np.array_equal(session.mask[12:], left[12:])


def drifted():
    """A session whose slide has changed over from the left block to the right one on slice 8."""
    volume, left, right = two_parts()
    session = new_session(volume, ThresholdModel(margin=2.0))
    session.set_prompt(SlicePrompt(4, box=LEFT))
    masks = {i: (left if i < 8 or i > 12 else right)[i] for i in range(2, 16)}
    session.restore(Snapshot(masks, dict.fromkeys(masks, 0.9), {}))
    return session, left, right


def test_a_slice_that_was_another_object_takes_the_slices_like_it_along():
    session, left, _ = drifted()
    before = session.snapshot()
    list(session.correct(session.correction(10, [(5, 14)])))
    assert asked(session, 10)[0].memory == ("memory of slice", 4)
    assert np.array_equal(session.mask, left)
    for index in (2, 3, 4, 5, 6, 7, 13, 14, 15):
        assert session.slice_mask(index) is before.masks[index]


def test_a_result_that_was_another_object_throughout_is_slid_anew():
    session, left, right = drifted()
    masks = {i: right[i] for i in range(2, 16)}
    session.restore(Snapshot(masks, dict.fromkeys(masks, 0.9), {}))
    list(session.correct(session.correction(10, [(5, 14)])))
    assert np.array_equal(session.mask[5:], left[5:])


def test_what_was_another_object_is_no_reference():
    session, _, _ = drifted()
    session.remove_prompt(4)
    session.set_prompt(session.correction(10, [(5, 14)]))
    session.preview(10)
    assert asked(session, 10)[0].memory == ("memory of slice", 7)


def test_between_slices_that_stay_only_the_added_one_is_predicted():
    session, _ = interrupted()
    list(session.correct(session.correction(13, [(9, 14)])))
    for index in (6, 14):
        session.restore(without(session.snapshot(), index))
    session.model.predicted.clear()
    finished = [f.index for f in session.correct(session.correction(6, [(9, 14)]))]
    assert 6 in finished and not {5, 7} & set(finished)
    assert 5 not in {centre for centre, _ in session.model.predicted}
    assert session.stops["4-6"] is Stop.MET_NEXT_PROMPT


def test_a_correction_of_a_found_slice_slides_again_over_an_added_stretch():
    session, _ = interrupted()
    list(session.correct(session.correction(13, [(9, 14)])))
    before = session.snapshot()
    for index, again in ((14, {14, 15}), (6, {5, 6, 7, 8})):
        finished = {f.index for f in session.correct(session.correction(index, [(5, 9)]))}
        assert finished >= again
        assert all(session.slice_mask(i) is not before.masks[i] for i in again)


def test_towards_a_changed_prompt_nothing_stays():
    """What was found there goes back to what that prompt was before."""
    volume, left, right = two_parts()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(4, box=LEFT))
    list(session.run(last=8))
    session.keep_to()
    wide = (4, 8, 34, 19)
    session.set_prompt(SlicePrompt(4, box=wide))
    list(session.correct(session.correction(12, [(9, 14), (28, 14)], box=wide)))
    assert np.array_equal(session.mask[4:13], (left | right)[4:13])


def test_a_cancelled_addition_loses_nothing():
    session, left = interrupted()
    before = session.snapshot()
    calls = iter(range(100))
    prompt = session.correction(13, [(9, 14)])
    list(session.correct(prompt, cancelled=lambda: next(calls) >= 3))
    assert session.stops["forward"] is Stop.CANCELLED
    assert np.array_equal(session.slice_mask(13), left[13])
    assert all(session.slice_mask(index) is mask for index, mask in before.masks.items())


def test_an_added_slice_keeps_to_limits_and_is_undone():
    session, _ = interrupted()
    session.keep_to(2, 14, "both")
    before = session.snapshot()
    list(session.correct(session.correction(13, [(9, 14)])))
    assert max(session.confidence) == 14 and session.stops["forward"] is Stop.LIMIT_REACHED
    session.restore(before)
    assert session.snapshot().masks == before.masks
    list(session.correct(session.correction(13, [(9, 14)])))
    assert max(session.confidence) == 14


def test_the_reference_goes_with_its_prompt():
    session, _ = interrupted(Recalling(margin=0.0))
    session.set_prompt(session.correction(13, [(9, 14)]))
    session.load_json(session.to_json())
    session.preview(13)
    session.restore(session.snapshot())
    session.set_prompt(session.correction(13, [(9, 14)]))
    session.preview(13)
    session.restore(Snapshot({}, {}, {}))
    session.set_prompt(SlicePrompt(13, box=LEFT))
    session.preview(13)
    remembered = [p.memory for p in asked(session, 13)]
    assert remembered == [None, ("memory of slice", 4), None]


def without(snapshot, index):
    masks = {i: mask for i, mask in snapshot.masks.items() if i != index}
    confidence = {i: value for i, value in snapshot.confidence.items() if i != index}
    return Snapshot(masks, confidence, snapshot.stops)
