"""What an interactive user does, without a GUI."""

import gc

import numpy as np
import pytest

from SlideSAMLib.errors import InputError
from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.session import Session, Snapshot
from SlideSAMLib.sliding.candidates import Choice
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Stop
from SlideSAMLib.sliding.stretches import run_stretch, sides_of
from SlideSAMLib.stack import Stack
from SlideSAMLib.window import EmbeddingCache
from Testing.fakes import ThresholdModel, block_volume
from Testing.sessions import BOX, PROMPT, new_session


def test_preview_shows_three_slices_and_encodes_one_window():
    volume, truth = block_volume()
    session = new_session(volume)
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
        session = new_session(settings=SlideSettings(point_caution=caution))
        session.set_prompt(prompt)
        preview = session.preview(6).confidence
        list(session.run())
        told[name] = (session.mask, session.stops, [preview, *session.confidence.values()])
    for mask, stops, _ in told.values():
        assert np.array_equal(mask, told["box"][0]) and stops == told["box"][1]
    assert told["careless"][2] == pytest.approx(told["box"][2])
    assert told["points"][2] == pytest.approx(np.square(told["box"][2]))
    assert max(told["box"][2]) < 1

    session = new_session(settings=SlideSettings(point_caution=2.0))
    session.set_prompt(SlicePrompt(6, points=[(17, 13)]))
    list(session.run())
    before = session.confidence[6]
    list(session.correct(session.correction(6, [(18, 13)])))  # a mask has been looked at
    assert session.confidence[6] > before


def test_preview_at_the_edge_shows_two_slices():
    session = new_session(block_volume(slices=(0, 14))[0])
    session.set_prompt(SlicePrompt(0, box=BOX))
    assert set(session.preview(0).masks) == {0, 1}


def test_a_changed_prompt_makes_a_new_preview_without_encoding():
    session = new_session()
    session.set_prompt(PROMPT)
    session.preview(6)
    session.set_prompt(SlicePrompt(6, box=(0, 0, 5, 5)))
    assert not session.preview(6).masks[6].any()
    assert session.model.encoded == [[6]]


def test_preview_needs_a_prompt():
    session = new_session()
    session.set_prompt(PROMPT)
    session.remove_prompt(6)
    session.remove_prompt(6)
    with pytest.raises(InputError, match="no prompt"):
        session.preview(6)


def test_prompts_outside_are_refused_at_once():
    session = new_session()
    with pytest.raises(InputError):
        session.set_prompt(SlicePrompt(15, box=BOX))
    for stranger in ([PROMPT], {"index": 6, "box": BOX}, None):
        with pytest.raises(InputError, match="must be SlicePrompt objects"):
            session.set_prompt(stranger)
        with pytest.raises(InputError, match="must be SlicePrompt objects"):
            list(session.correct(stranger))
    assert not session.prompts


def test_candidates_cycle_and_the_chosen_one_is_run():
    volume, truth = block_volume()
    session = new_session(volume)
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
    assert session.next_candidate(6).candidate == 1
    session.set_prompt(PROMPT)
    assert session.preview(6).candidate == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_run_fills_the_mask_in_the_order_of_the_volume(axis):
    volume, truth = block_volume()
    order = {0: (0, 1, 2), 1: (1, 0, 2), 2: (1, 2, 0)}[axis]
    session = new_session(volume.transpose(order), axis=axis)  # the slide axis lies at `axis`
    session.set_prompt(PROMPT)
    list(session.run())
    assert np.array_equal(session.mask, truth.transpose(order))
    assert session.mask.flags.c_contiguous
    assert set(session.confidence) == set(range(3, 12))
    assert session.stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.NOTHING_LEFT}


@pytest.mark.parametrize(("direction", "slices"), [("backward", (3, 6)), ("forward", (6, 11))])
def test_run_in_one_direction(direction, slices):
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(direction=direction))
    assert sorted(session.confidence) == list(range(slices[0], slices[1] + 1))
    assert set(session.stops) == {direction}


def test_one_direction_keeps_what_lies_in_the_other():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(direction="backward"))
    list(session.run(direction="forward"))
    assert sorted(session.confidence) == list(range(3, 12))
    assert session.stops == {"backward": Stop.NOTHING_LEFT, "forward": Stop.NOTHING_LEFT}


@pytest.mark.parametrize(
    ("direction", "slices"), [("both", (0, 19)), ("backward", (0, 8)), ("forward", (4, 19))]
)
def test_a_run_replaces_what_lies_between_its_prompts_and_where_it_leads(direction, slices):
    stretch = run_stretch([8, 4], sides_of(direction))
    first, last = slices
    assert [i for i in range(20) if i in stretch] == list(range(first, last + 1))


def test_run_again_replaces_the_result():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run())
    list(session.run(first=5, last=7))
    assert sorted(session.confidence) == [5, 6, 7]


def test_unusable_runs_are_refused_and_change_nothing():
    session = new_session()
    with pytest.raises(InputError, match="no prompt"):
        list(session.run())
    session.set_prompt(PROMPT)
    list(session.run())
    for options in ({"direction": "up"}, {"first": 9, "last": 3}, {"first": 7}):
        with pytest.raises(InputError):
            list(session.run(**options))
    assert sorted(session.confidence) == list(range(3, 12))


def test_cancelled_runs_keep_the_finished_slices():
    session = new_session()
    session.set_prompt(PROMPT)
    calls = iter(range(100))
    list(session.run(cancelled=lambda: next(calls) >= 3))
    assert sorted(session.confidence) == [5, 6, 7]
    assert set(session.stops.values()) == {Stop.CANCELLED}


def test_a_run_that_is_left_keeps_the_finished_slices():
    session = new_session()
    session.set_prompt(PROMPT)
    run = session.run()
    next(run)
    run.close()
    assert sorted(session.confidence) == [6]
    assert set(session.stops.values()) == {Stop.CANCELLED}


def test_a_snapshot_brings_the_result_back():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run())
    before, snapshot, confidence = session.mask, session.snapshot(), dict(session.confidence)
    for _ in range(2):  # what comes after it is brought back does not change it either
        list(session.run(first=6, last=6))
        assert session.mask.sum() < before.sum() and session.confidence.keys() == {6}
        session.restore(snapshot)
        assert np.array_equal(session.mask, before)
        assert session.stops["forward"] == Stop.NOTHING_LEFT
        assert session.confidence == confidence


def test_the_weakest_slice_is_found():
    class Unsure(ThresholdModel):
        def quality(self, window, exact):
            return np.full(3, 0.5 if window.key[-1] == 9 else 0.9, np.float32)

    session = new_session(model=Unsure())
    assert session.weakest() is None
    session.set_prompt(PROMPT)
    list(session.run())
    assert session.weakest() == 9
    assert session.confidence[9] == min(session.confidence.values())
    list(session.correct(SlicePrompt(9, box=BOX)))
    assert session.weakest() not in (6, 9)
    session.restore(Snapshot({}, {8: 0.3, 4: 0.3}, {}))
    assert session.weakest() == 4
    only = new_session()
    only.set_prompt(PROMPT)
    list(only.run(first=6, last=6))
    assert only.weakest() == 6


def test_prompts_go_to_json_and_back():
    session = new_session()
    session.set_prompt(SlicePrompt(9, points=[(12, 12)]))
    session.set_prompt(PROMPT)
    other = new_session()
    other.set_prompt(SlicePrompt(2, box=BOX))
    other.load_json(session.to_json())
    assert sorted(other.prompts) == [6, 9]
    list(session.run())
    list(other.run())
    assert np.array_equal(session.mask, other.mask)
    with pytest.raises(InputError):
        other.load_json('[{"slice": 99, "box": [1, 2, 3, 4]}]')
    assert sorted(other.prompts) == [6, 9]


def test_nobody_can_write_into_a_result_that_is_shared():
    session = new_session()
    session.set_prompt(PROMPT)
    finished = list(session.run())
    for mask in (finished[-1].mask, session.slice_mask(6), session.snapshot().masks[6]):
        with pytest.raises(ValueError, match="read-only"):
            mask[:] = True
    session.mask[:] = True  # a copy


def test_prompts_from_json_have_previews_of_their_own():
    session, other = new_session(), new_session()
    session.set_prompt(PROMPT)
    assert session.preview(6).masks[6].any()
    other.set_prompt(SlicePrompt(6, box=(30, 22, 34, 26)))
    session.load_json(other.to_json())
    assert np.array_equal(session.preview(6).masks[6], other.preview(6).masks[6])


def test_a_session_without_prompts_goes_to_json_and_back():
    session = new_session()
    empty = session.to_json()
    session.set_prompt(PROMPT)
    session.load_json(empty + "\n")
    assert not session.prompts


def test_clear_forgets_the_limits():
    session = new_session()
    session.set_prompt(PROMPT)
    list(session.run(first=5, last=7, direction="forward"))
    session.clear()
    list(session.correct(SlicePrompt(9, box=BOX)))
    assert sorted(session.confidence) == list(range(3, 12))


def test_stretches_that_were_cancelled_before_they_began_have_a_reason():
    session = new_session()
    for index in (4, 5, 9):
        session.set_prompt(SlicePrompt(index, box=BOX))
    list(session.run(cancelled=lambda: True))
    assert session.stops == dict.fromkeys(("backward", "forward", "5-9"), Stop.CANCELLED)


def test_stretches_between_prompts_that_are_gone_have_no_reason_any_more():
    session = new_session()
    for index in (5, 9):
        session.set_prompt(SlicePrompt(index, box=BOX))
    list(session.run())
    session.remove_prompt(9)
    list(session.run())
    assert session.stops.keys() == {"backward", "forward"}


def test_clear_removes_everything():
    session = new_session()
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
    session = new_session(volume, settings=SlideSettings(scheme="reference"))
    session.set_prompt(PROMPT)
    list(session.run())
    assert np.array_equal(session.mask, truth)


def test_a_run_that_the_reference_scheme_cannot_begin_changes_nothing():
    session = new_session(settings=SlideSettings(scheme="reference"))
    session.set_prompt(PROMPT)
    list(session.run())
    before = session.mask
    session.set_prompt(SlicePrompt(0, box=BOX))
    with pytest.raises(InputError, match="first or last"):
        list(session.run())
    assert np.array_equal(session.mask, before) and before.any()


def test_the_candidates_of_one_slice_alone_are_kept():
    """All candidates of a slice are as large as a dozen images: those of many fill the memory."""
    session, before = new_session(), _choices_in_memory()
    for index in (4, 6, 8):
        session.set_prompt(SlicePrompt(index, box=BOX))
        session.preview(index)
    assert len(session.model.predicted) == 3
    session.preview(8)  # once more, or with another mask: nothing to predict
    session.next_candidate(8)
    assert len(session.model.predicted) == 3
    assert _choices_in_memory() - before == 3
    session.preview(4)
    assert len(session.model.predicted) == 4 and len(session.model.encoded) == 3


def test_candidates_that_were_not_kept_are_the_same_again():
    slices = (4, 6, 8)
    session, apart = new_session(), {index: new_session() for index in slices}
    for index in slices:
        session.set_prompt(SlicePrompt(index, box=BOX))
        apart[index].set_prompt(SlicePrompt(index, box=BOX))
    rng = np.random.default_rng(3)
    for index, turn in zip(rng.choice(slices, 60), rng.integers(3, size=60), strict=True):
        pair = []
        for one in (session, apart[index]):
            if turn == 0:
                one.set_prompt(SlicePrompt(index, box=BOX))
            pair.append(one.next_candidate(index) if turn == 1 else one.preview(index))
        assert pair[0].candidate == pair[1].candidate
        assert pair[0].masks.keys() == pair[1].masks.keys()
        assert all(
            np.array_equal(pair[0].masks[each], pair[1].masks[each]) for each in pair[0].masks
        )
    chosen = {index: apart[index].preview(index).candidate for index in slices}
    assert len(set(chosen.values())) > 1
    list(session.run())
    for index in slices:
        assert np.array_equal(session.slice_mask(index), apart[index].preview(index).masks[index])


def _choices_in_memory() -> int:
    gc.collect()
    return sum(type(each) is Choice for each in gc.get_objects())


def test_choices_of_another_session_are_kept_without_a_prediction():
    first, second = (new_session(block_volume()[0]) for _ in range(2))
    for session in (first, second):
        session.set_prompt(PROMPT)
    chosen = first.next_candidate(6)
    second.keep_choices({6: chosen.candidate, 4: 1})  # slice 4 has no prompt
    assert second.model.predicted == []
    assert second.preview(6).candidate == chosen.candidate
    list(second.run(5, 7))
    assert np.array_equal(second.slice_mask(6), chosen.masks[6])
