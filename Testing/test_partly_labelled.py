"""Cases of which nobody has labelled some slices or voxels: measured and learnt where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib.errors import InputError
from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.evaluation.cases import Case, CaseVolume
from SlideSAMLib.evaluation.metrics import SURFACE_METRICS
from SlideSAMLib.evaluation.subject import Subject
from SlideSAMLib.training import rollouts
from SlideSAMLib.training.datasets import Dataset, held_out_cases, labelled_case
from SlideSAMLib.training.fields import UNLABELLED
from SlideSAMLib.training.losses import decided, figures, iou, window_loss
from SlideSAMLib.training.rollouts import Pool
from SlideSAMLib.training.sam_losses import sam_figures, sam_loss
from SlideSAMLib.training.sam_windows import cut_slab, window
from SlideSAMLib.training.selection import _described
from SlideSAMLib.training.slabs import Labelled, cut, labelled
from Testing.evaluation_data import memory_case
from Testing.fakes import ThresholdModel
from Testing.training_data import FRAME

NOBODY = 9  # label value of what nobody has labelled
LABELLED = [6, 9, 12]  # those of the block's slices, 5 to 14, that are labelled every third time


def partly_labelled(unlabelled, **others) -> Case:
    """The bright block of `memory_case` with voxels that nobody has labelled, held out."""
    case = memory_case(**others)
    labels = case.content.labels.copy()
    labels[unlabelled] = NOBODY
    case = replace(case, content=replace(case.content, labels=labels))
    pair = [replace(case, id="trained on"), case]
    dataset = Dataset("part", 1.0, pair, ("large block",), unlabelled=NOBODY)
    (held_out,) = held_out_cases([dataset], 0.5)
    return held_out


def every_third(**others) -> Case:
    return partly_labelled([k for k in range(20) if k % 3], **others)


@pytest.mark.parametrize("protocol", ["full", "extent", "clicks"])
def test_a_perfect_mask_is_perfect_where_every_third_slice_is_labelled(protocol):
    (found,) = evaluate([every_third()], ThresholdModel(), "box", protocol, surfaces=True)
    assert found.metrics == {"dice": 1.0, "surface dice": 1.0, "HD95 mm": 0.0}
    assert (found.first, found.last, found.voxels) == (6, 12, 360)
    assert (found.leaked_before, found.leaked_after, found.missed) == (0, 0, 0)
    assert (found.predicted, found.pieces) == (3, 1)
    assert [index for index, *_ in found.scores] == LABELLED
    assert found.index in LABELLED
    assert len(found.clicks) == (protocol == "clicks")


def test_labelled_slices_beyond_the_object_are_leaked_into():
    """Of the leaking block's slices before and after it 0, 3, 15 and 18 are labelled."""
    leaking = every_third(leak=True)
    (full,) = evaluate([leaking], ThresholdModel(), "box", "full")
    assert (full.leaked_before, full.leaked_after, full.missed) == (2, 2, 0)
    assert full.predicted == 7 and full.dice == pytest.approx(2 * 3 / (3 + 7))
    (extent,) = evaluate([leaking], ThresholdModel(), "box", "extent")
    assert extent.dice == 1.0 and extent.leaked_after == 0
    (clicks,) = evaluate([leaking], ThresholdModel(), "box", "clicks")
    assert all(click.index % 3 == 0 for click in clicks.clicks[1:])


def test_voxels_that_nobody_has_labelled_are_not_measured():
    """The right half of the block; in its left half the slices are whole."""
    case = partly_labelled(np.s_[:, :, 11:])
    (found,) = evaluate([case], ThresholdModel(), "box", "full", surfaces=True)
    assert found.metrics == {"dice": 1.0, "surface dice": 1.0, "HD95 mm": 0.0}
    assert found.voxels == 10 * 10 * 6 and found.predicted == 10
    (clicks,) = evaluate([case], ThresholdModel(), "box", "clicks")
    assert len(clicks.clicks) == 1


def test_surfaces_are_as_far_apart_as_the_labelled_slices():
    """A mask that ends one labelled slice early, three slices of 1 mm."""
    case = every_third()
    subject = Subject(case, case.structures()[0], case.load(), "box", 0)
    early = subject.truth.copy()
    early[12] = False
    result = subject.result("x", "full", early, 0.0, chosen=SURFACE_METRICS)
    assert result.metrics["HD95 mm"] == pytest.approx(3.0)
    assert result.missed == 1


def test_a_case_without_such_voxels_is_measured_as_it_is():
    case = partly_labelled(np.zeros((20, 32, 36), bool))
    assert case.unlabelled == NOBODY and case.load().known is None


# Training

HALF = 31  # the first column that nobody has labelled


def half_labelled() -> Labelled:
    """A block of label 1 on all slices, its right half labelled by nobody."""
    labels = np.zeros((24, 60, 60), np.uint16)
    labels[:, 18:42, 18:44] = 1
    image = np.where(labels > 0, 0.9, 0.1).astype(np.float16)
    labels[:, :, HALF:] = NOBODY
    source = labelled(labels, image, (6.0, 1.0, 1.0), unlabelled=NOBODY)
    source.targets = [1]
    return source


def test_slabs_know_their_labelled_voxels():
    rng = np.random.default_rng(0)
    for slab in (cut(half_labelled(), rng), cut_slab(half_labelled(), rng)):
        known, mask = np.asarray(slab.known), np.asarray(slab.mask)
        assert known.shape == mask.shape and not (mask & ~known).any()
        assert known.any((1, 2)).all() and not known.all((1, 2)).any()
    slab = cut(half_labelled(), rng)
    assert slab.valid.any()
    other = slab.another(rng)
    assert other.known.sum() == slab.known.sum() and not (other.mask & ~other.known).any()


def built_in_step(count: int = 4):
    rng = np.random.default_rng(1)
    return Pool(count, lambda: cut(half_labelled(), rng), rng).step()


def test_the_built_in_network_learns_nothing_where_nobody_has_labelled():
    step = built_in_step()
    unknown = step.target == UNLABELLED
    assert 0.1 < unknown.float().mean() < 0.9
    assert ((step.target >= 0) & (step.target <= 1) | unknown).all()
    fine = torch.randn(4, 3, 128, 128, requires_grad=True)
    logits = torch.randn(4, 4, 3, 64, 64, requires_grad=True)
    rest = torch.zeros(4, 4), torch.zeros(4, 3)
    loss = window_loss(logits, fine, *rest, step)
    loss.backward()
    assert torch.isfinite(loss)
    learnt = ~unknown & (step.valid > 0)[:, :, None, None]
    assert not fine.grad[unknown].any() and fine.grad[learnt].all()
    wholly = torch.nn.functional.avg_pool2d(unknown.float(), 2) == 1
    assert wholly.any() and not logits.grad.masked_select(wholly[:, None]).any()
    right = torch.where(unknown, 99.0, (step.target > 0.5).float() - 0.5)
    found = figures(right, rest[1], step)
    assert all(dice == 1 for name, dice in found.items() if name.endswith(("centre", "ahead")))


def test_whether_the_object_is_on_a_slice_is_learnt_where_it_is_known():
    target = torch.zeros(1, 3, 8, 8)
    target[:, :, :, 4:] = UNLABELLED
    target[:, 1, 2, 2] = 1
    assert decided(target).tolist() == [[False, True, False]]
    target[:, 0] = 0
    assert decided(target).tolist() == [[True, True, False]]


def test_sam_networks_learn_nothing_where_nobody_has_labelled():
    rng = np.random.default_rng(1)
    windows = [window(cut_slab(half_labelled(), rng), 1, FRAME) for _ in range(6)]
    target, there = (torch.stack([w[n] for w in windows]) for n in (1, 2))
    unknown = target == UNLABELLED
    assert 0.1 < unknown.float().mean() < 0.9 and there[:, 1].all()
    taught = ~unknown & (there > 0)[..., None, None]  # not beyond the volume either
    logits = torch.randn(6, 4, 3, 32, 32, requires_grad=True)
    sam_loss(logits, torch.zeros(6, 4), target, there).backward()
    moved = logits.grad[:, 0]
    assert not moved[~taught].any() and moved[taught].all()
    right = torch.where(unknown, 9.0, (target > 0.5).float() - 0.5)
    perfect = right[:, None].expand(-1, 4, -1, -1, -1)
    assert sam_figures(perfect, target, there)["centre"] == 1
    assert float(iou(perfect, target, there).min()) == 1


def test_nobody_corrects_where_nobody_has_labelled(monkeypatch):
    """A mask that is right where there are labels, and too large elsewhere."""
    monkeypatch.setattr(rollouts, "CORRECTED", 1.0)
    rng = np.random.default_rng(2)
    pool = Pool(8, lambda: cut(half_labelled(), rng), rng)
    for place in pool.places:
        found = torch.where(place.slab.known, place.mask, 1.0)[:3]
        assert not pool._correct(place, found)
        assert pool._correct(place, torch.where(place.slab.known, 1.0, place.mask)[:3])


def test_the_best_of_another_way_of_measuring_is_forgotten():
    """The note of a selection is what it was for cases that are wholly labelled."""
    whole, part = memory_case(), every_third()
    assert set(_described([whole])) == {"case ids"}
    assert _described([whole, part])["unlabelled"] == [None, NOBODY]


def in_memory(values: np.ndarray) -> Case:
    """A case in memory whose labels are of any integer type."""
    image = np.random.default_rng(0).normal(0, 1, values.shape).astype(np.float32)
    return Case("part", content=CaseVolume(image, values, (1.0, 1.0, 1.0), 0))


@pytest.mark.parametrize("unlabelled", [-1, 70_000, 255])
def test_any_value_may_mark_what_is_not_labelled(unlabelled):
    values = np.zeros((20, 40, 40), np.int32)
    values[5:15, 10:30, 10:30] = 1
    values[15:] = unlabelled
    case = in_memory(values)
    volume = labelled_case(case, Dataset("part", 1.0, [case], unlabelled=unlabelled))
    assert volume.targets == [1]
    assert np.array_equal(volume.labels == volume.unlabelled, values == unlabelled)


def test_structures_that_cannot_be_cut_are_not_offered():
    values = np.zeros((20, 40, 40), np.uint8)
    values[5:15, 10:30, 10:30] = 1
    values[2:18, 2:6, 2:6] = 2  # 16 and 64 voxels on a slice
    values[:, 35, 35:38] = 3  # never more than 60 voxels, and those in one plane
    values[16:, 33, 2:38] = 4  # on slices that nobody has labelled later, or in one row
    values[19, 0, 0] = 255
    case = in_memory(values)
    dataset = Dataset("part", 1.0, [case])
    assert labelled_case(case, dataset).targets == [1, 2, 3, 4]
    assert labelled_case(case, dataset, 61).targets == [1, 2, 4]
    thick = replace(case, content=replace(case.content, spacing=(5.0, 1.0, 1.0)))
    assert labelled_case(thick, dataset).targets == [1, 4]
    assert labelled_case(thick, dataset, 12).targets == [1, 2, 4]
    partly = replace(dataset, unlabelled=255)
    values[16:, 0, 0] = 255
    assert labelled_case(thick, partly).targets == [1, 4]  # the rest of the slices is labelled
    values[16:] = 255
    assert labelled_case(thick, partly).targets == [1]


@pytest.mark.parametrize("value", [-2, 65_536])
def test_label_values_that_do_not_fit_are_refused(value):
    values = np.zeros((20, 40, 40), np.int32)
    values[5:15, 10:30, 10:30] = value
    case = in_memory(values)
    with pytest.raises(InputError, match=r"Case part: its labels go from .* must lie in 0 to"):
        labelled_case(case, Dataset("part", 1.0, [case]))
