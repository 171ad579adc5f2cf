"""The fused attention gives what segment_anything's attention gives, without its big matrix."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from SlideSAMLib.attention import FusedAttention
from SlideSAMLib.sam_modeling import load_modeling

encoder = load_modeling().image_encoder


def _original(dim: int, heads: int, size: tuple[int, int], rel_pos: bool = True):
    torch.manual_seed(3)
    attention = encoder.Attention(dim, heads, use_rel_pos=rel_pos, input_size=size).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.3)
    return attention.requires_grad_(False)


def _difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("dim", "heads", "size"),
    [(64, 4, (8, 8)), (80, 1, (14, 14)), (48, 2, (5, 7)), (36, 3, (9, 4)), (64, 2, (1, 6))],
)
def test_equals_the_original(dim, heads, size):
    original = _original(dim, heads, size)
    x = torch.randn(3, *size, dim)
    expected = original(x)
    assert _difference(FusedAttention(original)(x), expected) < 1e-5


def test_without_relative_positions():
    original = _original(32, 2, (6, 6), rel_pos=False)
    x = torch.randn(2, 6, 6, 32)
    assert _difference(FusedAttention(original)(x), original(x)) < 1e-5


def test_interpolated_positions():
    """Another grid than the one of the tables: both interpolate them."""
    original = _original(32, 2, (8, 8))
    x = torch.randn(1, 6, 11, 32)
    assert _difference(FusedAttention(original)(x), original(x)) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (11, 7), (3, 2), (10, 10)])
def test_padded_windows(size):
    """Windows of 5 x 5 that do not divide the grid: SAM's padding tokens take part."""
    torch.manual_seed(4)
    block = encoder.Block(64, 4, use_rel_pos=True, window_size=5, input_size=(8, 8)).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
        x = torch.randn(2, *size, 64)
        expected = block(x)
        block.attn = FusedAttention(block.attn)
        assert _difference(block(x), expected) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision(dtype, limit):
    original = _original(128, 2, (14, 14))
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.mul_(0.3)
    x = torch.randn(1, 14, 14, 128)
    expected = original(x)
    result = FusedAttention(original).to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    assert _difference(result, expected) < limit


def test_gradients_reach_every_weight():
    original = _original(32, 2, (4, 4)).requires_grad_(True)
    x = torch.randn(1, 4, 4, 32)
    original(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in original.named_parameters()}
    original.zero_grad()
    FusedAttention(original)(x).square().sum().backward()
    for name, parameter in original.named_parameters():
        assert _difference(parameter.grad, expected[name]) < 1e-4, name


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def _largest(module, x) -> int:
    with torch.inference_mode(), _Largest() as largest:
        module(x)
    return largest.elements


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_of_tokens_by_tokens(dtype):
    """At 48 x 48 tokens nothing as large as the scores of even one head is made."""
    original = _original(64, 1, (48, 48)).to(dtype)
    x = torch.randn(1, 48, 48, 64, dtype=dtype)
    scores = (48 * 48) ** 2
    assert _largest(original, x) >= scores  # the check sees what it looks for
    assert _largest(FusedAttention(original), x) < scores / 10
