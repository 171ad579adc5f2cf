"""The fused attention gives what segment_anything's attention gives, without its big matrix."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from SlideSAMLib.sam import attention, kernel_attention, linears, tiled_attention
from SlideSAMLib.sam.attention import FusedAttention
from SlideSAMLib.sam.modeling import load_modeling
from SlideSAMLib.sam.network import ImageBlock
from SlideSAMLib.sam.relative_positions import Grid

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


@pytest.fixture(params=["with gradients", "tiled", "in small tiles"])
def way(request, monkeypatch):
    """The two ways of computing: PyTorch's kernel where gradients may be wanted, else tiles."""
    if request.param == "in small tiles":
        monkeypatch.setattr(tiled_attention, "TILE", 400)
        monkeypatch.setattr(tiled_attention, "WHOLE", 50)
    with torch.set_grad_enabled(request.param == "with gradients"):
        yield request.param


@pytest.mark.parametrize(
    ("dim", "heads", "size"),
    [(64, 4, (8, 8)), (80, 1, (14, 14)), (48, 2, (5, 7)), (36, 3, (9, 4)), (64, 2, (1, 6))],
)
def test_equals_the_original(dim, heads, size, way):
    original = _original(dim, heads, size)
    x = torch.randn(3, *size, dim)
    expected = original(x)
    assert _difference(FusedAttention(original)(x), expected) < 1e-5


def test_without_relative_positions(way):
    original = _original(32, 2, (6, 6), rel_pos=False)
    x = torch.randn(2, 6, 6, 32)
    assert _difference(FusedAttention(original)(x), original(x)) < 1e-5


def test_interpolated_positions(way):
    """Another grid than the one of the tables: both interpolate them."""
    original = _original(32, 2, (8, 8))
    x = torch.randn(1, 6, 11, 32)
    assert _difference(FusedAttention(original)(x), original(x)) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (11, 7), (3, 2), (10, 10), (4, 13)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("band", [3, 10_000])
def test_padded_windows(size, bias, band, way, monkeypatch):
    """Windows of 5 x 5 that do not divide the grid: SAM's padding tokens take part."""
    torch.manual_seed(4)
    monkeypatch.setattr(attention, "BAND", band)  # rows are projected in several parts, or at once
    block = encoder.Block(
        64, 4, qkv_bias=bias, use_rel_pos=True, window_size=5, input_size=(8, 8)
    ).eval()
    for parameter in block.requires_grad_(False).parameters():
        parameter.normal_(std=0.3)
    x = torch.randn(2, *size, 64)
    assert _difference(ImageBlock(block)(x), block(x)) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision(dtype, limit, way):
    original = _original(128, 2, (14, 14))
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.mul_(0.3)
    x = torch.randn(1, 14, 14, 128)
    expected = original(x)
    result = FusedAttention(original).to(dtype)(x.to(dtype))
    assert result.dtype == dtype
    assert _difference(result, expected) < limit


@pytest.mark.parametrize("tile", [200, 2**16, 2**22])
@pytest.mark.parametrize("size", [(7, 9), (8, 6), (1, 5), (6, 1)])
def test_biases_as_channels_are_biases_as_sums(tile, size, monkeypatch):
    """Head by head, and several heads at once; all keys at once, and in quarters."""
    torch.manual_seed(6)
    height, width = size
    grid = Grid(height, width, torch.randn(2 * height - 1, 8), torch.randn(2 * width - 1, 8))
    q, k, v = torch.randn(3, 5, height * width, 8)
    monkeypatch.setattr(tiled_attention, "TILE", tile)
    monkeypatch.setattr(kernel_attention, "WIDENED", tile)
    monkeypatch.setattr(kernel_attention, "MASK", tile)
    with torch.inference_mode():
        expected = tiled_attention._tiled(q, k, v, grid, 0.3)
        ways = (kernel_attention.attend_by_quarters, kernel_attention.attend_with_mask)
        for way in (tiled_attention._extended, *ways):
            assert _difference(way(q, k, v, grid, 0.3), expected) < 1e-6


def test_quarters_round_less_than_tiles():
    torch.manual_seed(7)
    grid = Grid(20, 26, torch.randn(39, 64).mul(0.2), torch.randn(51, 64).mul(0.2))
    q, k, v = torch.randn(3, 2, 520, 64)
    half = Grid(20, 26, grid.row_table.bfloat16(), grid.column_table.bfloat16())
    with torch.inference_mode():
        expected = tiled_attention._tiled(q, k, v, grid, 0.125)
        parts = [part.bfloat16() for part in (q, k, v)]
        tiles = tiled_attention._tiled(*parts, half, 0.125)
        quarters = kernel_attention.attend_by_quarters(*parts, half, 0.125)
    assert quarters.dtype == torch.bfloat16
    assert _difference(quarters, expected) < min(0.02, _difference(tiles, expected))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("amx", [True, False])
def test_the_way_of_a_processor(amx, kernel, monkeypatch):
    asked = []
    for name in ("_extended", "_tiled", "attend_by_quarters", "attend_with_mask"):
        monkeypatch.setattr(tiled_attention, name, lambda *_, name=name: asked.append(name))
    monkeypatch.setattr(tiled_attention, "multiplies_in_tiles", lambda: amx)
    monkeypatch.setattr(tiled_attention, "kernel_takes", lambda dtype: kernel)
    for dtype, tokens in ((torch.bfloat16, 4096), (torch.float32, 4096), (torch.bfloat16, 196)):
        q = torch.empty(1, tokens, 8, dtype=dtype)
        tiled_attention.attend_in_tiles(q, q, q, None, 1.0)
    large = ["attend_by_quarters", "attend_with_mask"] if amx and kernel else ["_tiled", "_tiled"]
    assert asked == [*large, "_extended"]


def test_a_kernel_that_tells_no_sums_is_not_asked_for_them(monkeypatch):
    assert kernel_attention.kernel_takes.__wrapped__(torch.float32)
    for answer in (
        lambda *_: (torch.ones(1),) * 9,
        lambda *_: (torch.ones(1), torch.ones(0)),
        lambda *_: (torch.ones(1), torch.full((1, 2, 3), 2.0)),  # logarithms to the base of 2
    ):
        monkeypatch.setattr(kernel_attention, "_kernel", answer)
        assert not kernel_attention.kernel_takes.__wrapped__(torch.float32)


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
    """At 80 x 80 tokens nothing as large as the scores of even one head is made."""
    original = _original(16, 1, (80, 80)).to(dtype)
    x = torch.randn(1, 80, 80, 16, dtype=dtype)
    scores = (80 * 80) ** 2
    assert _largest(original, x) >= scores  # the check sees what it looks for
    assert _largest(FusedAttention(original), x) < scores / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
def test_linear_layers(dtype, gelu, onednn, monkeypatch):
    """With and without oneDNN, on tensors that do not lie in one piece."""
    torch.manual_seed(5)
    if not onednn:
        monkeypatch.setattr(linears, "_onednn_types", tuple)
    layer = torch.nn.Linear(24, 40).requires_grad_(False)
    x = torch.randn(3, 7, 5, 24).transpose(0, 1)[:, 1:]
    expected = torch.nn.functional.gelu(layer(x)) if gelu else layer(x)
    with torch.inference_mode():
        found = linears.linear(x.to(dtype), layer.to(dtype), gelu)
    assert found.dtype == dtype and found.shape == expected.shape
    limit = {torch.float32: 1e-6, torch.bfloat16: 0.01, torch.float16: 0.001}[dtype]
    assert _difference(found, expected) < limit
