"""The encoder for CUDA GPUs, on a CPU: the same sums in another order."""

from __future__ import annotations

import pytest
import torch

from SlideSAMLib.benchmark.subjects import random_network
from SlideSAMLib.sam.cuda_encoder import CudaEncoder, quickest_encoder
from SlideSAMLib.sam.model import fill_network
from SlideSAMLib.sam.network import NetworkConfig

CPU = torch.device("cpu")
CONFIGS = {
    "windows with padding, two kinds of blocks": NetworkConfig(
        embed_dim=96, depth=4, heads=3, global_blocks=(1, 3), image_size=320, window_size=14
    ),
    "windows that fit, odd numbers of channels": NetworkConfig(
        embed_dim=120, depth=3, heads=2, global_blocks=(1,), image_size=224, window_size=7
    ),
    "no windows": NetworkConfig(
        embed_dim=64, depth=2, heads=2, global_blocks=(0, 1), image_size=128
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 3e-6), (torch.bfloat16, 8e-3)])
@torch.inference_mode()
def test_it_answers_what_the_network_answers(config, dtype, most):
    network = random_network(config)
    copy = fill_network(config, network.state_dict(), CPU, dtype)
    encoder = CudaEncoder(copy.image_encoder)
    for batch in (1, 3, 1):
        generator = torch.Generator().manual_seed(batch)
        side = config.image_size
        images = torch.randn(batch, 3, side, side, generator=generator)
        expected, found = network.encode(images), encoder(images)
        assert found.shape == expected.shape
        assert (found - expected).norm() < most * expected.norm()


@torch.inference_mode()
def test_it_asks_the_host_nothing():
    """Tensors without values: whoever looks at a value fails. A CUDA graph could not be made."""
    config = CONFIGS["windows with padding, two kinds of blocks"]
    copy = fill_network(config, random_network(config).state_dict(), CPU, torch.float32)
    encoder = CudaEncoder(copy.to("meta").image_encoder)
    assert encoder(torch.empty(2, 3, 320, 320, device="meta")).shape == (2, 256, 20, 20)


def test_other_devices_and_adapted_networks_keep_their_own_way():
    network = random_network(CONFIGS["no windows"])
    assert quickest_encoder(network) == network.encode
