"""Every reason why a direction ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SlideSAMLib.prompts import SlicePrompt
from SlideSAMLib.protocol import WindowPrediction
from SlideSAMLib.sliding.slide_types import SlideSettings
from SlideSAMLib.sliding.stops import Findings, Stop, judge
from Testing.fakes import ThresholdModel, block_volume
from Testing.sliding_helpers import BOX, slide_all, through_block


def _scripted(change):
    """A model whose predictions pass through change(centre, prediction)."""

    class Scripted(ThresholdModel):
        def predict(self, embedding, prompt):
            found = super().predict(embedding, prompt)
            return change(embedding.window.key[-1], found)

    return Scripted(presence=True)


def _stop_at_9(change, settings=None, spacing=(1, 1, 1)):
    volume, _ = through_block((15, 30, 34))

    def at_9(centre, found):
        return change(found) if centre == 9 else found

    _, mask, stops = slide_all(
        volume, [SlicePrompt(6, box=BOX)], _scripted(at_9), spacing, settings=settings
    )
    assert stops["backward"] == Stop.END_OF_VOLUME
    reached = int(np.flatnonzero(mask.any(axis=(1, 2)))[-1])
    return stops["forward"], reached


def _with(found, **fields):
    values = {
        "logits": found.logits,
        "corner": found.corner,
        "quality": found.quality,
        "shape": found.shape,
        "presence": found.presence,
    }
    return WindowPrediction(**{**values, **fields})


def _shifted(found, columns):
    return _with(found, logits=np.roll(found.logits, columns, axis=-1))


def _keep_rows(found, rows, places=(0, 1, 2)):
    logits = found.logits.copy()
    logits[:, list(places), rows:] = -6.0
    return _with(found, logits=logits)


def _swollen(found):
    masks = found.logits > 0
    logits = [[ndimage.binary_dilation(m, iterations=8) for m in three] for three in masks]
    return _with(found, logits=np.where(logits, 6.0, -6.0).astype(np.float32))


def test_stop_nothing_left_in_the_own_window():
    stop, reached = _stop_at_9(lambda found: _keep_rows(found, 0))
    assert (stop, reached) == (Stop.NOTHING_LEFT, 8)


def test_stop_nothing_left_on_the_next_slice_keeps_this_one():
    stop, reached = _stop_at_9(lambda found: _keep_rows(found, 0, places=(2,)))
    assert (stop, reached) == (Stop.NOTHING_LEFT, 9)


def test_stop_nothing_left_by_presence():
    stop, reached = _stop_at_9(lambda found: _with(found, presence=np.array([1, 0.2, 1])))
    assert (stop, reached) == (Stop.NOTHING_LEFT, 8)
    stop, reached = _stop_at_9(lambda found: _with(found, presence=np.array([1, 1, 0.2])))
    assert (stop, reached) == (Stop.NOTHING_LEFT, 9)
    volume, _ = through_block((15, 30, 34))
    absent = _scripted(lambda centre, found: _with(found, presence=np.array([0.2, 1, 0.2])))
    slide_all(volume, [SlicePrompt(6, box=BOX)], absent)
    assert [centre for centre, _ in absent.predicted] == [6]  # it knows of the slices beside it
    never = SlideSettings(min_presence=0.0)
    stop, _ = _stop_at_9(lambda found: _with(found, presence=np.array([1, 0.2, 0.2])), never)
    assert stop == Stop.END_OF_VOLUME


def test_presence_ends_no_slide_within_given_limits():
    """By its user, the object goes on: a mask is kept however little the model believes in it."""
    volume, _ = through_block((15, 30, 34))
    absent = _scripted(lambda centre, found: _with(found, presence=np.full(3, 0.1)))
    prompts = [SlicePrompt(6, box=BOX)]
    _, mask, stops = slide_all(volume, prompts, absent, (1, 1, 1), last=12)
    assert stops["backward"] == Stop.NOTHING_LEFT and stops["forward"] == Stop.LIMIT_REACHED
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == list(range(6, 13))
    both = [*prompts, SlicePrompt(10, box=BOX)]
    mask = slide_all(volume, both, absent, (1, 1, 1))[1]
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == list(range(6, 11))


def test_presence_tells_where_the_object_ends_before_a_rejected_slice():
    volume, truth = through_block((15, 30, 34))
    absent = _scripted(lambda centre, found: _with(found, presence=np.array([1, centre < 9, 1])))
    middle = ((BOX[0] + BOX[2]) // 2, (BOX[1] + BOX[3]) // 2)
    rejecting = SlicePrompt(12, mask=truth[12], points=(middle,), labels=(0,))
    mask = slide_all(volume, [SlicePrompt(6, box=BOX), rejecting], absent, (1, 1, 1), first=6)[1]
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [6, 7, 8]


def test_stop_too_small_counts_in_mm2(monkeypatch):
    # A fiftieth of the block is a few voxels.
    monkeypatch.setattr("SlideSAMLib.sliding.stops.SMALLEST_SHARE", 0.1)

    def small(found):
        return _keep_rows(found, 9)  # one row of 15 voxels

    settings = SlideSettings(min_area_mm2=20, min_agreement=0.0)
    assert _stop_at_9(small, settings) == (Stop.TOO_SMALL, 8)
    stop, _ = _stop_at_9(small, settings, spacing=(1, 2, 1))  # now 30 mm2
    assert stop != Stop.TOO_SMALL


def test_stop_low_quality():
    bad = np.full(3, 0.2, np.float32)
    assert _stop_at_9(lambda found: _with(found, quality=bad)) == (Stop.LOW_QUALITY, 8)


def test_stop_low_quality_by_stability():
    def blurred(found):
        return _with(found, logits=np.where(found.logits > 0, 0.4, -0.4).astype(np.float32))

    # Where the outline before makes nothing sure.
    settings = SlideSettings(outline_slope=np.inf)
    assert _stop_at_9(blurred, settings) == (Stop.LOW_QUALITY, 8)


def _doubtful(centre, found):
    """Unsure of every slice, but not so unsure that it stops at any one of them."""
    return _with(found, quality=np.minimum(found.quality, 0.45), presence=np.full(3, 0.8))


@pytest.mark.parametrize("last", [None, 39])
def test_stop_where_the_doubt_of_the_way_has_added_up(last):
    volume, _ = through_block((40, 30, 34))
    model, prompts = _scripted(_doubtful), [SlicePrompt(0, box=BOX)]
    wary = SlideSettings(min_confidence=0.4)
    mask, stops = slide_all(volume, prompts, model, (1, 1, 1), last=last, settings=wary)[1:]
    slices = int(mask.any(axis=(1, 2)).sum())
    if last is None:
        assert stops["forward"] == Stop.LOW_QUALITY and 5 < slices < 35
    else:  # the user has said that the object goes on
        assert stops["forward"] == Stop.END_OF_VOLUME and slices == 40
    careless = SlideSettings(min_confidence=0.0)
    assert slide_all(volume, prompts, model, settings=careless)[1].any(axis=(1, 2)).all()


def test_stop_disagreement():
    assert _stop_at_9(lambda found: _shifted(found, 12)) == (Stop.DISAGREEMENT, 8)


def test_stop_sudden_growth():
    # Where nothing holds the outline back.
    settings = SlideSettings(min_agreement=0.0, outline_slope=np.inf)
    assert _stop_at_9(_swollen, settings) == (Stop.SUDDEN_GROWTH, 8)
    far = replace(settings, max_growth=np.inf, max_growth_total=np.inf)
    assert _stop_at_9(_swollen, far)[0] == Stop.END_OF_VOLUME
    total = replace(settings, max_growth=np.inf, max_growth_total=2.0)
    assert _stop_at_9(_swollen, total) == (Stop.SUDDEN_GROWTH, 8)


def test_an_empty_first_mask_ends_both_ways():
    volume, _ = block_volume()
    finished, mask, stops = slide_all(volume, [SlicePrompt(6, box=(0, 0, 4, 4))])
    assert set(stops.values()) == {Stop.NOTHING_LEFT}
    assert [f.index for f in finished] == [6]
    assert finished[0].confidence == 0.0
    assert not mask.any()


def _judged(voxels, prompted, area, settings=None, **fields):
    return judge(Findings(voxels, prompted, **fields), area, settings or SlideSettings())


def test_judge_follows_its_thresholds():
    settings = SlideSettings(min_area_mm2=10, min_area_voxels=4)
    assert _judged(40, 4000, 0.25, settings) is None
    assert _judged(39, 4000, 0.25, settings) == Stop.TOO_SMALL
    assert _judged(3, 1000, 100.0, settings) == Stop.TOO_SMALL
    assert _judged(0, 1000, 1.0, settings) == Stop.NOTHING_LEFT
    assert _judged(900, 0, 1.0, settings, voxels_before=10) == Stop.SUDDEN_GROWTH
    assert _judged(9000, 100, 1.0, settings, voxels_before=9000) == Stop.SUDDEN_GROWTH
    # As large as where the front comes from: not grown; and a small one may be small.
    assert _judged(9000, 100, 1.0, settings, voxels_before=9000, voxels_start=9000) is None
    assert _judged(6, 100, 1.0, settings, voxels_start=9000) is None
    assert _judged(9000, 100, 1.0, settings) is None  # before it was looked at by itself


@pytest.mark.parametrize("area", [0.02, 1e-4, 1e-8])
def test_small_objects_are_measured_by_themselves(area):
    """A cell of some micrometres and vessels of small animals and of people."""
    prompted = 1000  # 20 mm2, 0.1 mm2, 10 um2
    smallest = prompted // 50
    assert _judged(smallest, prompted, area) is None
    assert _judged(smallest - 1, prompted, area) == Stop.TOO_SMALL
    grown = 2 * prompted
    assert _judged(grown, prompted, area, voxels_before=prompted // 2) == Stop.SUDDEN_GROWTH
    assert _judged(grown - 1, prompted, area, voxels_before=prompted // 2) is None


def test_large_objects_are_measured_in_mm2():
    assert _judged(5, 1000, 1.0) is None and _judged(4, 1000, 1.0) == Stop.TOO_SMALL
    assert _judged(100, 1000, 1.0, voxels_before=30) == Stop.SUDDEN_GROWTH
    assert _judged(99, 1000, 1.0, voxels_before=30) is None


def test_the_readme_explains_every_reason():
    readme = Path(__file__).parents[1] / "README.md"
    rows = [line.split("|")[1] for line in readme.read_text().splitlines() if line[:2] == "| "]
    explained = {words.strip() for row in rows for words in row.split(",")}
    assert {str(stop) for stop in Stop} <= explained
