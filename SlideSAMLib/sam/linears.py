"""Linear layers by the quickest way there is: oneDNN on CPUs, where PyTorch has it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(x: Tensor, layer: nn.Linear, gelu: bool = False) -> Tensor:
    """layer(x), and the exact GELU of it where asked for: (..., in) -> (..., out).

    What only looks like a linear layer, such as one with an adapter around it, is called as it is.
    """
    if type(layer) is nn.Linear:
        return affine(x, layer.weight, layer.bias, gelu)
    out = layer(x)
    return F.gelu(out) if gelu else out


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """x weight^T + bias, and the exact GELU of it where asked for: (..., in) -> (..., out).

    PyTorch multiplies float32 on CPUs with MKL, and adds the bias in a pass of its own. oneDNN does
    all of it in one pass, and in float32 it is up to twice as quick on AMD's processors.
    """
    if onednn_takes(x):
        act = "gelu" if gelu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, act, [], "none")
    out = F.linear(x, weight, bias)
    return F.gelu(out) if gelu else out


def onednn_takes(x: Tensor) -> bool:
    """Whether oneDNN can multiply x here, without gradients."""
    # The operator is PyTorch's own for compiled code, and knows no gradients.
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and x.dtype in _onednn_types()
        and torch.backends.mkldnn.enabled
    )


@cache
def _onednn_types() -> tuple[torch.dtype, ...]:
    """The number types that oneDNN multiplies here; none where PyTorch lacks the operator."""
    if not torch.backends.mkldnn.is_available():
        return ()
    good = []
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.ones(1, 1, dtype=dtype)
        try:
            torch.ops.mkldnn._linear_pointwise(one, one, one[0], "gelu", [], "none")
        except (AttributeError, RuntimeError):  # NotImplementedError is a RuntimeError
            continue
        good.append(dtype)
    return tuple(good)
