"""The decoder's own layers give what those of segment_anything give, and can be trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from SlideSAMLib.sam.attention import TokenAttention, plain_attention
from SlideSAMLib.sam.linears import linear
from SlideSAMLib.sam.modeling import load_modeling
from SlideSAMLib.sam.network import build_network
from SlideSAMLib.sam.upscaling import upscaled_logits
from Testing.reference import MINI


@pytest.fixture(params=[False, True], ids=["no gradients", "gradients"])
def gradients(request):
    """oneDNN multiplies on CPUs where there are no gradients."""
    torch.manual_seed(5)
    with torch.set_grad_enabled(request.param):
        yield request.param


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 64), (64, 5)])
def test_token_attention(queries: int, keys: int, gradients: bool) -> None:
    original = load_modeling().transformer.Attention(32, 4, downsample_rate=2)
    q, k, v = (torch.randn(2, n, 32) for n in (queries, keys, keys))
    torch.testing.assert_close(TokenAttention(original)(q, k, v), original(q, k, v))


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 64), (64, 5)])
def test_attention_of_gpus_is_that_of_cpus(queries: int, keys: int) -> None:
    q, k, v = (torch.randn(2, 4, n, 16) for n in (queries, keys, keys))
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(plain_attention(q, k, v), expected)


def test_upscaling_is_that_of_the_branches(gradients: bool) -> None:
    decoder = build_network(MINI).mask_decoder
    branches = (decoder.output_upscaling, decoder.output_upscaling2, decoder.output_upscaling3)
    for branch in branches:  # norms and biases that are not neutral
        for tensor in branch.parameters():
            nn.init.normal_(tensor, std=0.3)
    grid, dim = 6, MINI.out_channels
    tokens, kernels = torch.randn(2, grid * grid, dim), torch.randn(2, 4, dim // 8)
    image = tokens.mT.unflatten(-1, (grid, grid))
    upscaled = torch.stack([branch(image) for branch in branches], dim=1)
    expected = torch.einsum("btc,bschw->btshw", kernels, upscaled)
    found = upscaled_logits(tokens, branches, kernels, grid)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if gradients:
        wanted = torch.autograd.grad(expected.square().sum(), branches[1].parameters())
        given = torch.autograd.grad(found.square().sum(), branches[1].parameters())
        for one, other in zip(given, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pad", [False, True])
def test_points_are_embedded_as_by_segment_anything(pad: bool, gradients: bool) -> None:
    prompts = build_network(MINI).prompt_encoder
    points = 128 * torch.rand(3, 5, 2)
    labels = torch.tensor([[1, 0, 1, -1, 0], [0, 0, 0, 0, 0], [-1, 1, 1, 1, 1]]).float()
    with torch.no_grad():  # SAM's way writes into what it has computed
        expected = load_modeling().PromptEncoder._embed_points(prompts, points, labels, pad)
    assert torch.equal(prompts._embed_points(points, labels, pad), expected)


def test_the_positions_follow_their_matrix() -> None:
    prompts = build_network(MINI).prompt_encoder
    with torch.inference_mode():
        first = prompts.get_dense_pe()
    assert prompts.get_dense_pe() is first and not first.is_inference()
    torch.testing.assert_close(first[0], prompts.pe_layer((MINI.grid, MINI.grid)))
    with torch.no_grad():
        prompts.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
    assert not torch.equal(prompts.get_dense_pe(), first)
    torch.testing.assert_close(prompts.get_dense_pe()[0], prompts.pe_layer((MINI.grid, MINI.grid)))


def test_a_layer_around_a_layer_is_called(gradients: bool) -> None:
    class Adapted(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base, self.weight, self.bias = base, base.weight, base.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + 1

    base, x = nn.Linear(8, 8), torch.randn(3, 8)
    torch.testing.assert_close(linear(x, base), base(x))
    torch.testing.assert_close(linear(x, Adapted(base)), base(x) + 1)
    gelu = nn.functional.gelu(base(x) + 1)
    torch.testing.assert_close(linear(x, Adapted(base), gelu=True), gelu)
