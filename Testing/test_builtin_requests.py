"""What the built-in network is shown for a prompt: where it looks, and what is marked there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib.builtin.features import Batch
from SlideSAMLib.builtin.model import BuiltinModel
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.regions import GRID, SMALLEST_SIDE, Region
from SlideSAMLib.builtin.requests import POINT_SIDES, Answer, BuiltinEmbedding, Request
from SlideSAMLib.patches import Patch
from SlideSAMLib.protocol import Window, WindowPrompt


def embedding(spacing=(3.0, 1.0, 1.0)):
    """An encoded window of 60 x 80 voxels."""
    network = BuiltinNetwork(widths=(8, 16, 16, 32), depths=(0, 1, 1, 1), blocks=1, heads=4)
    model = BuiltinModel(network, torch.device("cpu"), torch.float32)
    slices = np.random.default_rng(1).uniform(0, 100, (3, 60, 80)).astype(np.float32)
    return model.encode([Window(slices, spacing, (0, 100), ("w",))])[0]


def region_of(request, region):
    """Middle (x, y) in voxels and side in mm of a region, which is square in mm."""
    row, column = request.embedding.spacing
    assert region.rows * row == pytest.approx(region.columns * column)
    middle = (region.column + region.columns / 2, region.row + region.rows / 2)
    return *middle, pytest.approx(region.rows * row)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ({"box": (20, 20, 50, 40)}, (35, 30, 1.6 * 42)),
        # Points outside their box still count, negative ones do not.
        (
            {"box": (20, 20, 50, 40), "points": ((60, 30), (10, 41), (70, 5)), "labels": (1, 1, 0)},
            (35, 30.5, 1.6 * 51),
        ),
        # Beyond a box that nearly fills the slice there is nothing to see.
        ({"box": (10, 2, 40, 51)}, (25, 26.5, 1.1 * 120)),
        ({"box": (0, 0, 79, 59)}, (39.5, 29.5, 1.15 * 120)),
    ],
)
def test_the_region_of_a_box(prompt, expected):
    request = Request(embedding((3.0, 2.0, 1.0)), WindowPrompt(**prompt), False)  # 80 x 120 mm
    assert region_of(request, request.region()) == expected


@pytest.mark.parametrize(
    ("points", "middle", "sides"),
    [
        (((20, 12),), (20, 12), (16, 21.6, 38.4, 67.2, 120)),
        (((20, 12), (50, 32), (26, 22)), (35, 22), (60, 67.2, 120)),
    ],
)
def test_the_regions_of_points_hold_them_all(points, middle, sides):
    labels = (1,) * len(points)
    prompt = WindowPrompt(points=(*points, (70, 50)), labels=(*labels, 0))
    request = Request(embedding((3.0, 2.0, 1.0)), prompt, False)
    found = [region_of(request, region) for region in request.point_regions()]
    assert found == [(*middle, side) for side in sides]


@pytest.mark.parametrize(("width", "smallest"), [(1280, 128), (2048, 128), (4096, 128), (500, 50)])
def test_the_smallest_region_of_a_point_shows_every_voxel(width, smallest):
    """A cell of ten voxels on a slice of a few thousand must not vanish between the samples."""
    plane = torch.zeros(8, width, dtype=torch.float16)
    seen = BuiltinEmbedding((plane,) * 3, (0.003, 0.001))
    request = Request(seen, WindowPrompt(points=((9, 4),), labels=(1,)), False)
    columns = [region.columns for region in request.point_regions()]
    assert len(columns) == len(POINT_SIDES)
    assert (columns[0], columns[-1]) == pytest.approx((smallest, width))


@pytest.mark.parametrize("turned", [False, True])
def test_the_network_sees_all_that_is_marked_and_known(turned):
    masks = np.zeros((3, 60, 80), np.float32)
    masks[0, 20:30, 30:40] = masks[1, 20:30, 35:40] = masks[2] = 1
    box, points = (30, 20, 39, 29), ((32, 24), (38, 28))
    prompt = WindowPrompt(box, points, (1, 0), masks, known=(True, True, False))
    request, batch = Request(embedding(), prompt, turned), Batch.empty(1)
    request.fill(batch, 0, request.region())
    part = 10 / SMALLEST_SIDE  # of the region
    low, high = GRID * (1 - part) / 2, GRID * (1 + part) / 2
    assert batch.box[0].tolist() == pytest.approx([low, low, high - 1, high - 1])
    assert batch.has_box.tolist() == [1] and batch.signs[0, :3].tolist() == [1, 0, -1]
    before, centre, after = (2, 1, 0) if turned else (0, 1, 2)
    assert [int(batch.known[0, place]) for place in (before, centre, after)] == [1, 1, 0]
    shares = [float(batch.masks[0, place].mean()) for place in (before, centre, after)]
    assert shares == pytest.approx([part**2, part**2 / 2, 0], abs=1e-3)
    for (x, y), known in zip(batch.points[0, :2].round().int().tolist(), (0, 1), strict=True):
        assert batch.masks[0, before, y, x] == 1 and batch.masks[0, centre, y, x] == known


def test_the_box_of_a_mask_counts_on_the_slice():
    logits = np.full((10, 12), -5, np.float32)
    logits[2:6, 3:9] = 5
    assert Request.box_of(Patch((5, 7), logits)) == (10, 7, 15, 10)
    assert Request.box_of(Patch((5, 7), np.full((10, 12), -5, np.float32))) is None


@pytest.mark.parametrize(
    ("known", "middle"),
    [((True, True, False), (54.5, 34.5)), ((True, False, False), (14.5, 14.5))],
)
def test_the_region_of_known_masks(known, middle):
    """About that of the slice itself, where it is known; about all of the slice without any."""
    masks = np.zeros((3, 60, 80), np.float32)
    whole = Request(embedding(), WindowPrompt(masks=masks, known=known), False)
    assert region_of(whole, whole.region())[:2] == (39.5, 29.5)
    masks[0, 10:20, 10:20] = 1
    masks[1, 30:40, 50:60] = known[1]
    request = Request(embedding(), WindowPrompt(masks=masks, known=known), False)
    assert region_of(request, request.region())[:2] == middle


def test_the_region_of_a_box_from_side_to_side():
    request = Request(embedding(), WindowPrompt((5, 20, 74, 29)), False)
    assert region_of(request, request.region()) == (39.5, 24.5, 1.1 * 80)


def test_what_is_asked_first_is_about_the_first_point_on_the_object():
    """Seen in the same order of slices."""
    points = ((9, 9), (30, 20), (50, 40))
    request = Request(embedding(), WindowPrompt(points=points, labels=(0, 1, 1)), True)
    alone = request.alone()
    assert (alone.prompt.points, alone.prompt.labels) == ((points[1],), (1,))
    assert alone.turned and request.with_box((1, 2, 3, 4)).turned


def test_the_best_box_is_that_of_the_best_answer():
    """On the slice itself."""
    request = Request(embedding(), WindowPrompt(points=((40, 30),), labels=(1,)), False)
    regions = [Region(-10.0, 0.0, 80.0, 80.0)] * 2
    logits = torch.full((2, 4, 3, GRID, GRID), 5.0)
    logits[:, 0, 1] = -5.0
    logits[0, 0, 1, :32, :32], logits[1, 0, 1, 64:96, 32:64] = 5.0, 5.0
    zeros, quality = torch.zeros(2), torch.tensor([[0.2], [0.8]])
    answer = Answer(regions, logits, quality, torch.ones(2, 3), zeros, zeros)
    assert request.best_box(answer) == (20, 30, 39, 49)
