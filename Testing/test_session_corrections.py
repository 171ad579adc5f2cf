"""Corrections in a session: what they change, what they keep, and what they keep to."""

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Session, Snapshot
from SlideSAMLib.sliding.stops import Stop
from SlideSAMLib.sliding.stretches import takes_back
from SlideSAMLib.stack import Stack
from Testing.fakes import ThresholdModel, block_volume
from Testing.sessions import BOX, PROMPT, new_session, two_parts


def test_correcting_with_one_negative_point():
    volume, left, right = two_parts()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    assert np.array_equal(session.mask, left | right)
    correction = session.correction(10, [(28, 12)], [0])
    list(session.correct(correction))
    assert np.array_equal(session.mask[10:], left[10:])
    assert np.array_equal(session.mask[:5], (left | right)[:5])
    assert sorted(session.prompts) == [4, 10]
    assert session.stops["4-10"] == Stop.MET_NEXT_PROMPT


def test_a_correction_touches_its_stretch_only():
    """Between the prompts 4, 8 and 12 the one at 8 changes: 4 and 12 and beyond stay."""
    volume, left, _ = two_parts()
    model = ThresholdModel()
    session = new_session(volume, model)
    for index in (4, 8, 12):
        session.set_prompt(SlicePrompt(index, box=(4, 8, 34, 19)))
    list(session.run())
    before = {index: session.slice_mask(index) for index in session.confidence}
    model.predicted.clear()
    changed = list(session.correct(SlicePrompt(8, box=(4, 8, 14, 19))))
    assert {f.index for f in changed} == {5, 6, 7, 8, 9, 10, 11}
    assert {centre for centre, _ in model.predicted} == set(range(4, 13))
    assert np.array_equal(session.slice_mask(8), left[8])
    for index in (*range(2, 5), *range(12, 16)):
        assert session.slice_mask(index) is before[index]
    assert set(session.stops) == {"backward", "forward", "4-8", "8-12"}


@pytest.mark.parametrize(
    ("side", "prompted", "corrected", "beyond", "rest"),
    [("forward", 4, 12, 13, slice(12)), ("backward", 13, 5, 4, slice(6, None))],
)
def test_a_correction_beyond_the_prompts_removes_what_is_no_longer_reached(
    side, prompted, corrected, beyond, rest
):
    volume, left, right = two_parts()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(prompted, box=(4, 8, 34, 19)))
    list(session.run())
    assert session.slice_mask(beyond) is not None
    list(session.correct(SlicePrompt(corrected, box=(30, 0, 38, 4))))  # there is nothing there
    assert session.stops[side] == Stop.NOTHING_LEFT
    assert session.slice_mask(beyond) is None
    assert np.array_equal(session.mask[rest], (left | right)[rest])


@pytest.mark.parametrize(
    ("box", "kept"), [((4, 8, 14, 19), True), ((4, 8, 7, 10), False)], ids=["alike", "unlike"]
)
def test_a_correction_that_ends_in_doubt_takes_nothing_back(box, kept):
    """Unless it found something else than was there: then what lies beyond is of that, too."""
    doubtful_from = [99]

    class Doubter(ThresholdModel):
        def quality(self, window, exact):
            sure = 0.95 if window.key[-1] < doubtful_from[0] else 0.01
            return np.full(3, sure, np.float32)

    volume, left, right = two_parts()
    session = new_session(volume, Doubter(margin=0.0))
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    doubtful_from[0] = 12
    list(session.correct(SlicePrompt(8, box=box)))
    assert session.stops["forward"] == Stop.LOW_QUALITY
    assert not np.array_equal(session.slice_mask(11), (left | right)[11])  # slid anew
    for index in range(12, 16):
        mask = session.slice_mask(index)
        assert np.array_equal(mask, (left | right)[index]) if kept else mask is None
        assert (index in session.confidence) == kept


def test_a_doubt_between_two_prompts_takes_nothing_back():
    """The object surely goes on there; beyond them, that depends on what was found last."""
    earlier = dict.fromkeys(range(4, 13), np.ones((4, 4), bool))
    now = earlier | {6: np.eye(4, dtype=bool)}
    reached = {5, 6}
    for end, now_there, expected in ((12, now, False), (None, now, True), (None, earlier, False)):
        taken = takes_back(Stop.LOW_QUALITY, 4, end, 1, reached, earlier, now_there)
        assert taken == expected
    farther = {5, 6, 13}, earlier, earlier | {13: earlier[12]}  # than what an earlier slide found
    assert takes_back(Stop.LOW_QUALITY, 4, None, 1, *farther)
    assert takes_back(Stop.LOW_QUALITY, 7, None, -1, reached, earlier, now | {5: now[6]})
    assert not takes_back(Stop.LOW_QUALITY, 7, None, -1, reached, earlier, now)  # 5 is as it was
    assert takes_back(Stop.NOTHING_LEFT, 4, 12, 1, reached, earlier, earlier)
    assert not takes_back(Stop.CANCELLED, 4, None, 1, reached, earlier, now)


def test_a_cancelled_correction_keeps_what_it_did_not_reach():
    volume, left, right = two_parts()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    calls = iter(range(100))
    prompt = SlicePrompt(10, box=(4, 8, 14, 19))
    list(session.correct(prompt, cancelled=lambda: next(calls) >= 3))
    assert np.array_equal(session.slice_mask(10), left[10])
    assert np.array_equal(session.slice_mask(15), (left | right)[15])
    assert session.stops["4-10"] == Stop.CANCELLED


def test_corrections_keep_to_limits_and_direction():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(first=5, last=9, direction="forward"))
    list(session.correct(SlicePrompt(8, box=BOX)))
    assert sorted(session.confidence) == [6, 7, 8, 9]
    with pytest.raises(InputError, match="limits"):
        list(session.correct(SlicePrompt(10, box=BOX)))
    assert sorted(session.prompts) == [6, 8]


def test_a_side_that_the_last_run_did_not_lead_to_stays():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(direction="backward"))
    list(session.run(direction="forward"))
    before = session.snapshot()
    list(session.correct(SlicePrompt(6, box=BOX, points=[(12, 12)])))
    assert sorted(session.confidence) == list(range(3, 12))
    assert all(session.slice_mask(i) is before.masks[i] for i in (3, 4, 5))


def test_a_new_session_keeps_to_what_it_is_told():
    """As one that goes on from the result of another: it has not seen the run."""
    first = new_session()
    first.set_prompt(PROMPT)
    list(first.run(first=5, last=9, direction="forward"))
    session = new_session()
    session.set_prompt(PROMPT)
    session.restore(first.snapshot())
    session.keep_to(5, 9, "forward")
    list(session.correct(SlicePrompt(8, box=BOX)))
    assert sorted(session.confidence) == [6, 7, 8, 9]
    with pytest.raises(InputError, match="behind the last"):
        session.keep_to(9, 5)
    with pytest.raises(InputError, match="direction"):
        session.keep_to(direction="up")


def test_a_prompt_that_was_not_run_yet_is_filled_in_by_a_correction_beside_it():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(last=7))
    session.keep_to()
    session.set_prompt(SlicePrompt(10, box=BOX))
    finished = [f.index for f in session.correct(SlicePrompt(8, box=BOX))]
    assert 10 in finished and sorted(session.confidence) == list(range(3, 11))


@pytest.mark.parametrize("how", ["prompt", "candidate"])
def test_a_correction_takes_in_what_changed_beside_it(how):
    """It slides from the changed slice, so that slice must be what it slid from."""
    session = new_session(two_parts()[0])
    session.set_prompt(SlicePrompt(4, box=(4, 8, 14, 19)))
    list(session.run())
    earlier = session.slice_mask(4).copy()
    if how == "prompt":
        session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    else:
        session.next_candidate(4)
    expected = session.preview(4).masks[4]
    assert not np.array_equal(expected, earlier)
    list(session.correct(SlicePrompt(8, box=(4, 8, 14, 19))))
    assert np.array_equal(session.slice_mask(4), expected)
    again = session.slice_mask(4)
    list(session.correct(SlicePrompt(10, box=(4, 8, 14, 19))))
    assert session.slice_mask(4) is again  # and then it is left alone


def test_the_candidate_that_is_taken_already_changes_nothing():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run())
    session.choose(6, session.preview(6).candidate)
    assert 6 not in [f.index for f in session.correct(SlicePrompt(9, box=BOX))]
    session.next_candidate(6)
    assert 6 in [f.index for f in session.correct(SlicePrompt(9, box=BOX))]


def test_a_prompted_slice_that_a_cancelled_run_took_out_comes_back_with_a_correction():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run())
    list(session.run(cancelled=lambda: True))
    assert not session.mask.any()
    list(session.correct(SlicePrompt(9, box=BOX)))
    assert session.slice_mask(6).any()


def test_prompts_given_to_a_restored_session_are_those_of_its_result():
    first = new_session()
    first.set_prompt(PROMPT)
    list(first.run())
    corrected = first.slice_mask(6).copy()
    corrected[8:12] = False  # as a correction may have left it
    session = new_session()
    session.set_prompt(PROMPT)
    masks = {**first.snapshot().masks, 6: corrected}
    session.restore(Snapshot(masks, first.snapshot().confidence, {}))
    list(session.correct(SlicePrompt(8, box=BOX)))
    assert np.array_equal(session.slice_mask(6), corrected)


def test_a_correction_is_refused_for_a_prompt_beside_it_and_changes_nothing():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(first=5, last=9))
    session.set_prompt(SlicePrompt(10, box=BOX))  # outside the limits of the run
    before = session.snapshot()
    with pytest.raises(InputError, match="limits"):
        list(session.correct(SlicePrompt(8, box=BOX)))
    assert sorted(session.prompts) == [6, 10]
    assert session.snapshot().masks.keys() == before.masks.keys()


def test_a_correction_adds_to_prompt_and_mask():
    volume, truth = block_volume()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(6, box=BOX, points=[(12, 12)]))
    list(session.run())
    prompt = session.correction(6, [(11, 10), (20, 12)], [0, 1])
    assert prompt.box == BOX
    assert prompt.points == ((12, 12), (11, 10), (20, 12))
    assert prompt.labels == (1, 0, 1)
    assert np.array_equal(prompt.mask, truth[6])
    elsewhere = session.correction(9, [(11, 10)], [0])
    assert np.array_equal(elsewhere.mask, truth[9])
    assert session.correction(0, [(11, 10)]).mask is None
    with pytest.raises(InputError, match="marks nothing"):
        session.correction(0, [(11, 10)], [0])


@pytest.mark.parametrize(
    ("points", "labels", "words"),
    [
        ([(1, 2)], [1, 0], "1 points but 2 labels"),
        ([5], None, "pairs"),
        ([(1, 2)], [3], "1 \\(pos"),
    ],
)
def test_a_correction_refuses_what_a_prompt_refuses(points, labels, words):
    with pytest.raises(InputError, match=words):
        new_session().correction(6, points, labels)


def test_a_correction_takes_arrays():
    prompt = new_session().correction(6, np.array([[12, 12]]), np.array([1]), np.array(BOX))
    assert (prompt.points, prompt.labels, prompt.box) == (((12, 12),), (1,), BOX)


def test_a_point_beside_the_result_gets_a_box_of_its_size():
    session = new_session()
    stack = session.stack
    session.restore(Snapshot({4: rectangle(stack, 10, 12, 19, 25)}, {4: 1.0}, {}))
    assert session.correction(9, [(15, 15)]).box == (10, 12, 19, 25)
    assert session.correction(9, [(23, 8)]).box == (14, 8, 23, 21)  # moved, not larger
    assert session.correction(9, [(5, 15), (23, 15)], [1, 1]).box[0::2] == (5, 23)
    assert session.correction(9, [(15, 15)], box=(1, 2, 3, 4)).box == (1, 2, 3, 4)


def test_a_point_beside_a_result_of_one_column_is_a_prompt():
    session = new_session()
    column = rectangle(session.stack, 10, 12, 10, 25)
    session.restore(Snapshot({4: column}, {4: 1.0}, {}))
    box = session.correction(9, [(12.3, 15)]).box
    assert box == pytest.approx((11.8, 12, 12.8, 25))


def test_a_point_far_from_the_mask_of_its_slice_says_that_the_mask_is_wrong():
    session = new_session()
    stack = session.stack
    masks = {4: rectangle(stack, 10, 12, 19, 25), 9: rectangle(stack, 2, 2, 4, 4)}
    session.restore(Snapshot(masks, {4: 1.0, 9: 1.0}, {}))
    far = session.correction(9, [(15, 15)])
    assert far.mask is None and far.box == (10, 12, 19, 25)
    near = session.correction(9, [(6, 4)])
    assert np.array_equal(near.mask, masks[9]) and near.box is None
    assert session.correction(9, [(6, 4)], box=(1, 1, 8, 8)).box == (1, 1, 8, 8)
    session.set_prompt(SlicePrompt(9, box=(0, 0, 5, 5), points=[(3, 3)]))
    marked = session.correction(9, [(15, 15)])  # what is there was marked as the object
    assert np.array_equal(marked.mask, masks[9]) and marked.box == (0, 0, 5, 5)
    assert session.correction(9, box=(1, 1, 8, 8)).box == (1, 1, 8, 8)


def test_how_far_a_correction_lies_from_the_mask_is_in_mm_of_the_slice():
    stack = Stack(block_volume()[0], spacing=(9.0, 1.0, 1.0), window=(0, 100))
    session = Session(stack, ThresholdModel())
    session.restore(Snapshot({9: rectangle(stack, 2, 2, 6, 6)}, {9: 1.0}, {}))
    assert session.correction(9, [(4, 9)]).mask is not None


def test_a_rejected_slice_is_empty_until_it_is_marked_anew():
    volume, left, right = two_parts()
    session = new_session(volume)
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    for x in (28, 9):  # the middles of the two parts
        list(session.correct(session.correction(12, [(x, 13)], [0])))
    assert not session.mask[12:].any()
    assert np.array_equal(session.mask[:8], (left | right)[:8])
    again = session.correction(12, [(9, 14)])
    assert again.mask is None and again.box is not None


def test_rejecting_a_slice_takes_the_slices_like_it_along():
    """The block moves to another place behind slice 7; nobody said that this is no end."""
    volume, _ = block_volume((18, 30, 40), (2, 15), (8, 19), (6, 17))
    volume[8:] = np.roll(volume[8:], 7, axis=2)
    session = new_session(volume)
    session.set_prompt(SlicePrompt(4, box=(6, 8, 17, 19)))
    list(session.run())
    assert session.slice_mask(13).any()
    list(session.correct(session.correction(13, [(18, 13)], [0])))
    assert sorted(i for i in session.confidence if session.slice_mask(i).any()) == list(range(2, 8))
    assert session.stops["4-13"] == Stop.NOTHING_LEFT


def rectangle(stack, x0, y0, x1, y1):
    mask = np.zeros((stack.height, stack.width), bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask
