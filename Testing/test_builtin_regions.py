"""Cutting regions out of slices and putting masks back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from SlideSAMLib.builtin.regions import (
    GRID,
    SMALLEST_SIDE,
    Region,
    paste_region,
    region_around,
    resampled,
    resampling_matrix,
    sample_region,
)


def test_the_same_raster_gives_the_same_values():
    image = torch.rand(2, GRID, GRID)
    whole = Region(-0.5, -0.5, GRID, GRID)
    assert torch.allclose(sample_region(image, whole), image, atol=1e-6)


def test_positions_are_kept():
    rows = torch.arange(200.0)[None, :, None].expand(1, 200, 180)
    region = region_around((50, 60, 90, 80), (1.0, 1.0), 2.0)
    sampled = sample_region(rows, region)[0, :, 0]
    for g in (0, 17, GRID - 1):
        _, back = region.to_grid(0.0, float(sampled[g]))
        assert back == pytest.approx(g, abs=1e-3)


def test_shrinking_does_not_alias():
    stripes = torch.zeros(1, 8 * GRID, 8 * GRID)
    stripes[:, ::2] = 1.0
    sampled = sample_region(stripes, Region(-0.5, -0.5, 8 * GRID, 8 * GRID))[:, 2:-2]
    assert sampled.min() > 0.45
    assert sampled.max() < 0.55


def test_outside_the_slice_the_edge_is_repeated():
    image = torch.full((1, 20, 20), 3.0)
    assert torch.allclose(
        sample_region(image, Region(-50, -50, 200, 200)), torch.tensor(3.0), atol=1e-5
    )


def test_weights_sum_to_one():
    matrix = resampling_matrix(17, -3.2, 0.37, 90)
    assert torch.allclose(matrix.sum(1), torch.ones(90), atol=1e-6)


def plain_weights(count: int, start: float, step: float, out: int) -> torch.Tensor:
    """The same weights by PyTorch's functions."""
    centres = start + (torch.arange(out, dtype=torch.float64) + 0.5) * step
    reach = max(step, 1.0)
    taps = torch.arange(-int(reach) - 1, int(reach) + 3, dtype=torch.float64)
    positions = centres.floor()[:, None] + taps
    weights = (1 - (positions - centres[:, None]).abs() / reach).clamp(min=0)
    weights /= weights.sum(1, keepdim=True)
    matrix = torch.zeros(out, count, dtype=torch.float64)
    return matrix.scatter_add_(1, positions.long().clamp(0, count - 1), weights).float()


def test_weights_are_the_same_to_the_last_bit():
    random = np.random.default_rng(0)
    for _ in range(200):
        count, out = (int(each) for each in random.integers(1, 300, 2))
        step = float(random.choice([random.uniform(0.05, 5), 0.5, 1.0, 2.0]))
        where = (count, float(random.uniform(-60, 200)), step, out)
        assert torch.equal(resampling_matrix(*where), plain_weights(*where))


def test_weights_are_made_once_and_serve_training_too():
    with torch.inference_mode():
        first = resampling_matrix(19, -2.2, 0.61, 33)
    assert resampling_matrix(19, -2.2, 0.61, 33) is first
    values = torch.ones(19, 4, requires_grad=True)
    (first @ values).sum().backward()
    assert values.grad is not None


def test_a_region_is_square_in_millimetres():
    region = region_around((10, 10, 49, 19), (5.0, 0.5), 2.0)  # 20 mm wide, 50 mm high
    assert region.rows * 5.0 == pytest.approx(100.0)
    assert region.columns * 0.5 == pytest.approx(100.0)


def test_a_region_lies_about_the_middle_of_its_box():
    region = region_around((10, 20, 49, 29), (2.0, 1.0), 2.0)  # a box of 40 x 20 mm
    assert (region.rows, region.columns) == (40, 80)
    middle = (region.row + region.rows / 2, region.column + region.columns / 2)
    assert middle == (24.5, 29.5)


def test_tiny_boxes_keep_some_surroundings():
    region = region_around((10, 10, 11, 11), (1.0, 1.0), 1.8)
    assert region.rows == SMALLEST_SIDE


def test_a_box_spans_the_same_share_of_the_grid():
    region = Region(9.5, 19.5, 40, 40)
    x0, y0, x1, y1 = region.box_to_grid((20, 10, 29, 19))
    assert (x0, y0) == pytest.approx((0, 0))
    assert (x1 - x0 + 1) == pytest.approx(GRID / 4)
    assert (y1 - y0 + 1) == pytest.approx(GRID / 4)


@pytest.mark.parametrize("side", [30, 64, 150])
def test_pasting_undoes_sampling(side):
    mask = torch.zeros(1, 160, 140)
    mask[:, 60:90, 50:85] = 1
    region = region_around((67 - side / 2, 75 - side / 2, 67 + side / 2, 75 + side / 2), (1, 1), 1)
    pasted, (row, column) = paste_region(sample_region(mask, region, 64), region, (160, 140))
    wanted = mask[:, row : row + pasted.shape[1], column : column + pasted.shape[2]]
    differing = ((pasted > 0.5) != (wanted > 0.5)).float().mean()
    assert differing < 0.02


def test_a_region_beside_the_slice_gives_one_voxel():
    pasted, corner = paste_region(torch.zeros(1, 64, 64), Region(-90, 500, 20, 20), (50, 60))
    assert pasted.shape == (1, 1, 1)
    assert corner == (0, 59)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_a_sample_is_made_of_is_cut_away(seed):
    """Regions inside, across and beside the slice, finer and coarser than it."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    height, width = int(between(1, 90)), int(between(1, 90))
    image = torch.rand(2, height, width, generator=generator)
    region = Region(
        between(-60, height + 40), between(-60, width + 40), between(0.5, 200), between(0.5, 200)
    )
    rows = resampling_matrix(height, region.row, region.rows / 16, 16)
    columns = resampling_matrix(width, region.column, region.columns / 16, 16)
    expected = rows @ image @ columns.T
    torch.testing.assert_close(sample_region(image, region, 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_resampling_by_two_products(leading):
    images, rows, columns = torch.randn(*leading, 9, 7), torch.randn(5, 9), torch.randn(4, 7)
    expected = rows @ images @ columns.T
    torch.testing.assert_close(resampled(images, rows, columns), expected, rtol=1e-5, atol=1e-5)
