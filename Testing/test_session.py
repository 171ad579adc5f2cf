"""What an interactive user does, without a GUI."""

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Session, Snapshot
from SlideSAMLib.slide_types import SlideSettings
from SlideSAMLib.stack import Stack
from SlideSAMLib.stops import Stop
from SlideSAMLib.stretches import takes_back
from SlideSAMLib.window import EmbeddingCache
from Testing.fakes import ThresholdModel, block_volume

BOX = (10, 8, 24, 19)
PROMPT = SlicePrompt(6, box=BOX)


def _session(volume=None, model=None, axis=0, **options):
    volume = block_volume()[0] if volume is None else volume
    stack = Stack(volume, axis=axis, window=(0, 100))
    return Session(stack, model or ThresholdModel(), **options)


def _two_parts():
    """Two blocks side by side on the slices 2 to 15: (volume, left mask, right mask)."""
    volume, left = block_volume((18, 30, 40), (2, 15), (8, 19), (4, 14))
    right = block_volume((18, 30, 40), (2, 15), (8, 19), (22, 34))[1]
    volume[right] = 100
    return volume, left, right


def test_preview_shows_three_slices_and_encodes_one_window():
    volume, truth = block_volume()
    session = _session(volume)
    session.set_prompt(PROMPT)
    preview = session.preview(6)
    assert session.model.encoded == [[6]]
    assert set(preview.masks) == {5, 6, 7}
    assert all(np.array_equal(mask, truth[index]) for index, mask in preview.masks.items())
    assert 0.9 < preview.confidence <= 1
    assert not session.mask.any()
    session.preview(6)
    assert len(session.model.predicted) == 1


def test_after_points_alone_less_confidence_is_told():
    """They may have meant something else; the slide itself is the same, and so are its ends."""
    told = {}
    for name, prompt, caution in (
        ("box", PROMPT, 2.0),
        ("points", SlicePrompt(6, points=[(17, 13)]), 2.0),
        ("careless", SlicePrompt(6, points=[(17, 13)]), 1.0),
    ):
        session = _session(settings=SlideSettings(point_caution=caution))
        session.set_prompt(prompt)
        preview = session.preview(6).confidence
        list(session.run())
        told[name] = (session.mask, session.stops, [preview, *session.confidence.values()])
    for mask, stops, _ in told.values():
        assert np.array_equal(mask, told["box"][0]) and stops == told["box"][1]
    assert told["careless"][2] == pytest.approx(told["box"][2])
    assert told["points"][2] == pytest.approx(np.square(told["box"][2]))
    assert max(told["box"][2]) < 1

    session = _session(settings=SlideSettings(point_caution=2.0))
    session.set_prompt(SlicePrompt(6, points=[(17, 13)]))
    list(session.run())
    before = session.confidence[6]
    list(session.correct(session.correction(6, [(18, 13)])))  # a mask has been looked at
    assert session.confidence[6] > before


def test_preview_at_the_edge_shows_two_slices():
    session = _session(block_volume(slices=(0, 14))[0])
    session.set_prompt(SlicePrompt(0, box=BOX))
    assert set(session.preview(0).masks) == {0, 1}


def test_a_changed_prompt_makes_a_new_preview_without_encoding():
    session = _session()
    session.set_prompt(PROMPT)
    session.preview(6)
    session.set_prompt(SlicePrompt(6, box=(0, 0, 5, 5)))
    assert not session.preview(6).masks[6].any()
    assert session.model.encoded == [[6]]


def test_preview_needs_a_prompt():
    session = _session()
    session.set_prompt(PROMPT)
    session.remove_prompt(6)
    session.remove_prompt(6)
    with pytest.raises(InputError, match="no prompt"):
        session.preview(6)


def test_prompts_outside_are_refused_at_once():
    session = _session()
    with pytest.raises(InputError):
        session.set_prompt(SlicePrompt(15, box=BOX))
    assert not session.prompts


def test_candidates_cycle_and_the_chosen_one_is_run():
    volume, truth = block_volume()
    session = _session(volume)
    session.set_prompt(PROMPT)
    offered = session.candidates(6)
    assert [c.candidate for c in offered] == [0, 1, 2]
    assert offered[1].masks[6].sum() < offered[0].masks[6].sum() < offered[2].masks[6].sum()
    assert session.next_candidate(6).candidate == 1
    assert session.preview(6).candidate == 1
    list(session.run())
    assert np.array_equal(session.slice_mask(6), offered[1].masks[6])
    assert [session.next_candidate(6).candidate for _ in range(2)] == [2, 0]
    list(session.run())
    assert np.array_equal(session.mask, truth)
    with pytest.raises(InputError, match="no candidate 7"):
        session.choose(6, 7)
    session.set_prompt(PROMPT)
    assert session.preview(6).candidate == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_run_fills_the_mask_in_the_order_of_the_volume(axis):
    volume, truth = block_volume()
    order = {0: (0, 1, 2), 1: (1, 0, 2), 2: (1, 2, 0)}[axis]
    session = _session(volume.transpose(order), axis=axis)  # the slide axis lies at `axis`
    session.set_prompt(PROMPT)
    list(session.run())
    assert np.array_equal(session.mask, truth.transpose(order))
    assert session.mask.flags.c_contiguous
    assert set(session.confidence) == set(range(3, 12))
    assert session.stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.NOTHING_LEFT}


@pytest.mark.parametrize(("direction", "slices"), [("backward", (3, 6)), ("forward", (6, 11))])
def test_run_in_one_direction(direction, slices):
    session = _session()
    session.set_prompt(PROMPT)
    list(session.run(direction=direction))
    assert sorted(session.confidence) == list(range(slices[0], slices[1] + 1))
    assert set(session.stops) == {direction}


def test_one_direction_keeps_what_lies_in_the_other():
    session = _session()
    session.set_prompt(PROMPT)
    list(session.run(direction="backward"))
    list(session.run(direction="forward"))
    assert sorted(session.confidence) == list(range(3, 12))
    assert session.stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.NOTHING_LEFT}


def test_run_again_replaces_the_result():
    session = _session()
    session.set_prompt(PROMPT)
    list(session.run())
    list(session.run(first=5, last=7))
    assert sorted(session.confidence) == [5, 6, 7]


def test_unusable_runs_are_refused_and_change_nothing():
    session = _session()
    with pytest.raises(InputError, match="no prompt"):
        list(session.run())
    session.set_prompt(PROMPT)
    list(session.run())
    for options in ({"direction": "up"}, {"first": 9, "last": 3}, {"first": 7}):
        with pytest.raises(InputError):
            list(session.run(**options))
    assert sorted(session.confidence) == list(range(3, 12))


def test_cancelled_runs_keep_the_finished_slices():
    session = _session()
    session.set_prompt(PROMPT)
    calls = iter(range(100))
    list(session.run(cancelled=lambda: next(calls) >= 3))
    assert sorted(session.confidence) == [5, 6, 7]
    assert set(session.stops.values()) == {Stop.CANCELLED}


def test_a_run_that_is_left_keeps_the_finished_slices():
    session = _session()
    session.set_prompt(PROMPT)
    run = session.run()
    next(run)
    run.close()
    assert sorted(session.confidence) == [6]
    assert set(session.stops.values()) == {Stop.CANCELLED}


def test_a_snapshot_brings_the_result_back():
    session = _session()
    session.set_prompt(PROMPT)
    list(session.run())
    before, snapshot = session.mask, session.snapshot()
    list(session.run(first=6, last=6))
    assert session.mask.sum() < before.sum()
    session.restore(snapshot)
    assert np.array_equal(session.mask, before)
    assert session.stops["forward"] == Stop.NOTHING_LEFT


def test_correcting_with_one_negative_point():
    volume, left, right = _two_parts()
    session = _session(volume)
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
    volume, left, _ = _two_parts()
    model = ThresholdModel()
    session = _session(volume, model)
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


def test_a_correction_beyond_the_prompts_removes_what_is_no_longer_reached():
    volume, left, right = _two_parts()
    session = _session(volume)
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    assert session.slice_mask(15) is not None
    list(session.correct(SlicePrompt(12, box=(30, 0, 38, 4))))  # there is nothing there
    assert session.stops["forward"] == Stop.NOTHING_LEFT
    assert session.slice_mask(13) is None
    assert np.array_equal(session.mask[:12], (left | right)[:12])


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

    volume, left, right = _two_parts()
    session = _session(volume, Doubter(margin=0.0))
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
    assert takes_back(Stop.NOTHING_LEFT, 4, 12, 1, reached, earlier, earlier)
    assert not takes_back(Stop.CANCELLED, 4, None, 1, reached, earlier, now)


def test_a_cancelled_correction_keeps_what_it_did_not_reach():
    volume, left, right = _two_parts()
    session = _session(volume)
    session.set_prompt(SlicePrompt(4, box=(4, 8, 34, 19)))
    list(session.run())
    calls = iter(range(100))
    prompt = SlicePrompt(10, box=(4, 8, 14, 19))
    list(session.correct(prompt, cancelled=lambda: next(calls) >= 3))
    assert np.array_equal(session.slice_mask(10), left[10])
    assert np.array_equal(session.slice_mask(15), (left | right)[15])
    assert session.stops["4-10"] == Stop.CANCELLED


def test_corrections_keep_to_limits_and_direction():
    session = _session()
    session.set_prompt(PROMPT)
    list(session.run(first=5, last=9, direction="forward"))
    list(session.correct(SlicePrompt(8, box=BOX)))
    assert sorted(session.confidence) == [6, 7, 8, 9]
    with pytest.raises(InputError, match="limits"):
        list(session.correct(SlicePrompt(10, box=BOX)))
    assert sorted(session.prompts) == [6, 8]


def test_a_correction_adds_to_prompt_and_mask():
    volume, truth = block_volume()
    session = _session(volume)
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


def test_the_weakest_slice_is_found():
    class Unsure(ThresholdModel):
        def quality(self, window, exact):
            return np.full(3, 0.5 if window.key[-1] == 9 else 0.9, np.float32)

    session = _session(model=Unsure())
    assert session.weakest() is None
    session.set_prompt(PROMPT)
    list(session.run())
    assert session.weakest() == 9
    assert session.confidence[9] == min(session.confidence.values())
    list(session.correct(SlicePrompt(9, box=BOX)))
    assert session.weakest() not in (6, 9)
    only = _session()
    only.set_prompt(PROMPT)
    list(only.run(first=6, last=6))
    assert only.weakest() == 6


def test_prompts_go_to_json_and_back():
    session = _session()
    session.set_prompt(SlicePrompt(9, points=[(12, 12)]))
    session.set_prompt(PROMPT)
    other = _session()
    other.set_prompt(SlicePrompt(2, box=BOX))
    other.load_json(session.to_json())
    assert sorted(other.prompts) == [6, 9]
    list(session.run())
    list(other.run())
    assert np.array_equal(session.mask, other.mask)
    with pytest.raises(InputError):
        other.load_json('[{"slice": 99, "box": [1, 2, 3, 4]}]')
    assert sorted(other.prompts) == [6, 9]


def test_clear_removes_everything():
    session = _session()
    session.set_prompt(PROMPT)
    session.next_candidate(6)
    list(session.run())
    session.clear()
    assert not session.prompts
    assert not session.mask.any()
    assert session.stops == session.confidence == {}
    session.set_prompt(PROMPT)
    assert session.preview(6).candidate == 0


def test_sessions_share_embeddings_of_one_stack():
    cache, model = EmbeddingCache(), ThresholdModel()
    stack = Stack(block_volume()[0], window=(0, 100))
    for _ in range(2):
        session = Session(stack, model, cache)
        session.set_prompt(PROMPT)
        list(session.run())
    centres = [centre for call in model.encoded for centre in call]
    assert len(centres) == len(set(centres))


def test_the_reference_scheme_runs_in_a_session():
    volume, truth = block_volume()
    session = _session(volume, settings=SlideSettings(scheme="reference"))
    session.set_prompt(PROMPT)
    list(session.run())
    assert np.array_equal(session.mask, truth)


def test_a_point_beside_the_result_gets_a_box_of_its_size():
    session = _session()
    stack = session.stack
    session.restore(Snapshot({4: rectangle(stack, 10, 12, 19, 25)}, {4: 1.0}, {}))
    assert session.correction(9, [(15, 15)]).box == (10, 12, 19, 25)
    assert session.correction(9, [(23, 8)]).box == (14, 8, 23, 21)  # moved, not larger
    assert session.correction(9, [(5, 15), (23, 15)], [1, 1]).box[0::2] == (5, 23)
    assert session.correction(9, [(15, 15)], box=(1, 2, 3, 4)).box == (1, 2, 3, 4)


def test_a_point_far_from_the_mask_of_its_slice_says_that_the_mask_is_wrong():
    session = _session()
    stack = session.stack
    masks = {4: rectangle(stack, 10, 12, 19, 25), 9: rectangle(stack, 2, 2, 4, 4)}
    session.restore(Snapshot(masks, {4: 1.0, 9: 1.0}, {}))
    far = session.correction(9, [(15, 15)])
    assert far.mask is None and far.box == (10, 12, 19, 25)
    near = session.correction(9, [(6, 4)])
    assert np.array_equal(near.mask, masks[9]) and near.box is None


def test_a_rejected_slice_is_empty_until_it_is_marked_anew():
    volume, left, right = _two_parts()
    session = _session(volume)
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
    session = _session(volume)
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
