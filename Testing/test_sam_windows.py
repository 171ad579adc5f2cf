"""Slabs of whole slices for the SAM networks, their windows and the prompts of users."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")
pytest.importorskip("peft", reason="LoRA needs the extra 'train'")

from SlideSAMLib.errors import InputError
from SlideSAMLib.training.config import DatasetConfig
from SlideSAMLib.training.datasets import Dataset, labelled_case, read_dataset
from SlideSAMLib.training.sam_windows import (
    DEPTH,
    user_prompt,
    window,
)
from SlideSAMLib.training.slabs import labelled
from Testing.evaluation_data import memory_case
from Testing.training_data import FRAME, blocks, draw


def test_slabs_lead_from_the_object_out_of_it():
    slabs = draw(blocks())
    for slab in slabs:
        assert slab.image.shape == slab.mask.shape and len(slab.mask) == DEPTH
        assert slab.mask[1].sum() >= 12 and 1 < slab.slices <= DEPTH
        inside = slab.mask.any((1, 2))
        assert not inside[1 + inside[1:].argmin() :].any() or inside[1:].all()  # no gap
        assert (
            slab.image[slab.mask].mean() > slab.image[~slab.mask].mean()
            or slab.image[slab.mask].mean() < 0.5
        )  # inverted, now and then
    ends = [slab.mask.any((1, 2))[1:].sum() for slab in slabs]
    assert min(ends) == 1 and max(ends) == 6
    repeated = next(slab for slab in slabs if slab.slices < DEPTH)
    assert np.array_equal(repeated.image[repeated.slices], repeated.image[repeated.slices - 1])


def test_windows_and_prompts_lie_in_the_frame():
    slab = draw(blocks(), 1)[0]
    rng = np.random.default_rng(0)
    image, target, known = window(slab, 1, FRAME)
    assert image.shape == (3, 128, 128) and target.shape == (3, 32, 32)
    assert known.tolist() == [1, 1, 1]
    assert float(target.min()) >= 0 and float(target.max()) <= 1 and float(target[1].max()) > 0.9
    kinds = set()
    for _ in range(80):
        points, box, masks = user_prompt(slab.mask[1], FRAME, rng)
        kinds.add((points is not None, box is not None, masks is not None))
        if box is not None:  # it fits the marked slice's mask, on the raster of 32
            rows, columns = np.nonzero(target[1].numpy() > 0.5)
            found = 4 * np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            side = max(found[2] - found[0], found[3] - found[1])
            assert np.abs(box.numpy() - found).max() < 0.1 * side + 6
        if points is not None:
            (x, y), sign = points[0][0].tolist(), points[1][0]
            assert sign == 1 and float(target[1, int(y / 4), int(x / 4)]) > 0.4
        if masks is not None:
            assert masks.shape == (3, 32, 32)
            assert [bool(mask.any()) for mask in masks] == [False, True, False]
    assert kinds == {
        (True, False, False),
        (False, True, False),
        (True, True, False),
        (False, True, True),
    }


def test_slices_beyond_the_volume_teach_nothing():
    """They are seen as copies of the slice at the end, but nobody has labelled them."""
    source = blocks()
    labels = np.broadcast_to(source.labels[5], source.labels.shape).copy()  # from end to end
    slabs = draw(labelled(labels, source.image, source.spacing))
    for slab in slabs:
        assert slab.labelled[1 : slab.slices].all() and not slab.labelled[slab.slices :].any()
    assert any(slab.slices == 2 for slab in slabs)  # marked on the last slice
    starts = [slab for slab in slabs if not slab.labelled[0]]  # marked on the first one
    assert 0 < len(starts) < len(slabs)
    _, target, known = window(starts[0], 1, FRAME)
    assert known.tolist() == [0, 1, starts[0].labelled[2]] and float(target[0].max()) > 0


def test_slices_without_labels_are_marked():
    source = blocks(unlabelled=9)
    source.labels[8:] = 9  # nobody has drawn on these
    source.labels[:3] = 9
    slabs = [slab for slab in draw(source) if slab is not None]
    assert all(slab.labelled[1] == 1 for slab in slabs)
    assert sum(slab.labelled.min() == 0 for slab in slabs) > 0
    case = memory_case()
    dataset = Dataset("x", 1.0, [case], frozenset(), unlabelled=2)
    assert labelled_case(case, dataset).targets == [1]  # 2 is no structure then
    described = DatasetConfig("there", unlabelled=255)
    with pytest.raises(InputError, match="There is no data set"):
        read_dataset(described)


# Losses
