"""The filters do what PyTorch's pooling and interpolation do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from SlideSAMLib.builtin.filters import greatest_within, halved, mean_of_three
from SlideSAMLib.builtin.regions import enlarged


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 20, 34, generator=torch.Generator().manual_seed(0))


def test_means(image):
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    assert torch.allclose(mean_of_three(image), F.avg_pool2d(padded, 3, 1), atol=1e-6)
    assert torch.allclose(halved(image), F.avg_pool2d(image, 2), atol=1e-6)


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 6, 25])
def test_maxima(image, reach):
    expected = image
    for _ in range(reach):
        expected = F.max_pool2d(expected, 3, 1, 1)
    assert torch.equal(greatest_within(image - 1, reach), expected - 1)  # negative ones, too


def test_enlarging_interpolates_linearly():
    values = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(values.flatten(0, 1), (32, 32), mode="bilinear").view(2, 4, 3, 32, 32)
    assert torch.allclose(enlarged(values, 32), expected, atol=1e-5)
