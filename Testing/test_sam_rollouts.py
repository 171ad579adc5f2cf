"""SAM networks slide over slabs with their own masks while they learn."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from SlideSAMLib.training import sam_rollouts
from SlideSAMLib.training.sam_rollouts import SamSlides
from SlideSAMLib.training.sam_windows import DEPTH, Frame, SamSlab

FRAME = Frame(size=128, raster=32, resize="antialias", scaling="sam")


def slab(last: int = DEPTH - 1, slices: int = DEPTH) -> SamSlab:
    """A bright block that moves by a voxel per slice and ends behind slice `last`."""
    mask = np.zeros((DEPTH, 64, 64), bool)
    for n in range(last + 1):
        mask[n, 20:40, 18 + n : 38 + n] = True
    image = np.where(mask, 0.8, 0.2).astype(np.float32)
    return SamSlab(image, mask, np.ones(DEPTH, np.float32), slices)


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """No slide is given up, no slice corrected, and masks are always handed on."""
    monkeypatch.setattr(sam_rollouts, "LEFT", 0.0)
    monkeypatch.setattr(sam_rollouts, "CORRECTED", 0.0)
    monkeypatch.setattr(sam_rollouts, "BOX_ONLY", 0.0)


def slides(count: int = 1, seed: int = 0, **others) -> SamSlides:
    return SamSlides(count, lambda: slab(**others), FRAME, np.random.default_rng(seed))


def right(samples) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer of a network that is right with its second token and rates it best."""
    target = torch.stack([sample.target for sample in samples])
    logits = torch.full((len(samples), 4, *target.shape[1:]), -5.0)
    logits[:, 1] = 12 * (2 * (target > 0.5).float() - 1)
    return logits, torch.tensor([[0.5, 0.9, 0.1, 0.1]]).expand(len(samples), 4)


def test_the_next_window_is_prompted_by_the_networks_own_masks():
    pool = slides()
    for centre in range(1, DEPTH - 1):
        (sample,) = pool.step()
        assert pool._places[0].centre == centre
        if centre > 1:
            assert sample.points is None
            truth = sample.target > 0.5
            for place in (0, 1):  # what the windows before have said about these slices
                assert torch.equal(sample.masks[place] > 0, truth[place])
                assert float(sample.masks[place].abs().max()) == sam_rollouts.LOGITS
            assert not sample.masks[2].any()  # nobody knows yet
            rows, columns = np.nonzero(truth[1].numpy())
            fitting = 4 * np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            grown = np.abs(sample.box.numpy() - fitting)
            assert grown.max() < 0.07 * 44 + 1
        pool.advance([sample], *right([sample]))
    assert pool._places[0].centre == 1  # the slab's end: a fresh one
    assert pool._places[0].masks is None or pool._places[0].box is not None


def test_wrong_masks_are_handed_on_too():
    """It must learn to find back from what it does itself: not from the truth."""
    pool = slides()
    (sample,) = pool.step()
    logits, quality = right([sample])
    logits[:, 1] = logits[:, 1].roll(3, -1)
    pool.advance([sample], logits, quality)
    (after,) = pool.step()
    assert torch.equal(after.masks[1] > 0, logits[0, 1, 2] > 0)
    assert not torch.equal(after.masks[1] > 0, after.target[1] > 0.5)


def test_slides_end_behind_the_object_and_at_the_end_of_the_volume():
    pool, ends = slides(last=3), []
    for _ in range(60):
        samples = pool.step()
        before = pool._places[0].centre
        logits, quality = right(samples)
        logits[:, 1, 2, :6, :6] = 5  # it goes on where nothing is
        pool.advance(samples, logits, quality)
        if pool._places[0].centre == 1:
            ends.append(before)
    assert set(ends) == {3, 4}  # on the last slice, or on the first one without the object
    pool = slides(slices=4)
    for _ in range(3):
        samples = pool.step()
        pool.advance(samples, *right(samples))
    assert pool._places[0].centre == 1  # slice 3 is the last one


def test_slides_stop_before_slices_that_nobody_has_labelled():
    def draw() -> SamSlab:
        made = slab()
        made.labelled[3:] = 0
        return made

    pool = SamSlides(1, draw, FRAME, np.random.default_rng(0))
    centres = []
    for _ in range(6):
        samples = pool.step()
        centres.append(pool._places[0].centre)
        pool.advance(samples, *right(samples))
    assert centres == [1, 2, 1, 2, 1, 2]


def test_a_correction_stays_on_the_slice_and_marks_what_is_wrong(monkeypatch):
    monkeypatch.setattr(sam_rollouts, "CORRECTED", 1.0)
    pool = slides()
    (sample,) = pool.step()
    logits, quality = right([sample])
    logits[:, 1, :, :, :16] = -12  # half of the object is missing
    pool.advance([sample], logits, quality)
    (after,) = pool.step()
    place = pool._places[0]
    assert (place.centre, place.corrections) == (1, 1)
    (x, y), sign = after.points[0][0].tolist(), after.points[1][0]
    assert sign == 1 and sample.target[1, int(y / 4), int(x / 4)] > 0.5
    assert logits[0, 1, 1, int(y / 4), int(x / 4)] < 0
    assert [bool(mask.any()) for mask in after.masks] == [False, True, False]
    pool.advance([after], logits, quality)
    assert len(place.points[0]) == 2 and place.corrections == 2


def test_restored_slides_go_on_in_the_same_way(monkeypatch):
    monkeypatch.setattr(sam_rollouts, "CORRECTED", 0.3)
    monkeypatch.setattr(sam_rollouts, "LEFT", 0.2)
    mine = slides(3, seed=4)
    for _ in range(5):
        file = io.BytesIO()
        torch.save(mine.state(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        copy = SamSlides.restored(state, slab, lambda recipe: slab(), FRAME)
        for _ in range(2):
            ours, theirs = mine.step(), copy.step()
            for one, other in zip(ours, theirs, strict=True):
                for name in ("image", "target", "labelled", "box", "masks"):
                    a, b = getattr(one, name), getattr(other, name)
                    assert (a is None and b is None) or torch.equal(a, b), name
                assert (one.points is None) == (other.points is None)
            logits, quality = right(ours)
            logits = logits.roll(2, -2)
            mine.advance(ours, logits, quality)
            copy.advance(theirs, logits, quality)
