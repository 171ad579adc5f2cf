"""A small built-in network with random weights, and a window for it, for the tests."""

from __future__ import annotations

import numpy as np
import torch

from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.protocol import Window

SMALL = {"widths": (8, 16, 16, 32), "depths": (0, 1, 1, 1), "blocks": 1, "heads": 4}


def small_network() -> BuiltinNetwork:
    torch.manual_seed(0)
    network = BuiltinNetwork(**SMALL)
    for parameter in network.parameters():  # zero-initialised layers would hide mistakes
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def window(shape=(60, 80), spacing=(3.0, 1.0, 1.0)) -> Window:
    rng = np.random.default_rng(1)
    return Window(rng.uniform(0, 100, (3, *shape)).astype(np.float32), spacing, (0, 100), ("w",))
