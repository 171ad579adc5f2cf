"""Merging low-rank adapters (LoRA) that Slide-SAM checkpoints carry into the plain weights.

The published checkpoints wrap the query-key-value projection of every attention. A wrapper under
`...attn.qkv` holds the wrapped projection as `qkv` and two adapters; its output is that of the
projection with `B_q A_q x` added to the query third and `B_v A_v x` to the value third. Fine-tuned
checkpoints wrap once more around that, to any depth. All of it is linear, so it equals one
projection with the sum of all products added to its weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ModelError

_ADAPTER = re.compile(r"^(?P<layer>.*\.attn\.qkv)(?P<wrap>(?:\.qkv)*)\.linear_a_q\.weight$")
_PARTS = ("linear_a_q", "linear_b_q", "linear_a_v", "linear_b_v")


def has_lora(names: Mapping[str, Tensor]) -> bool:
    """Whether any tensor belongs to an adapter."""
    return any(_ADAPTER.match(name) for name in names)


def merge_lora(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Plain tensors with every adapter merged, and the ranks found, innermost adapter first.

    The order of the names is kept; the given tensors are not changed.

    Raises
    ------
    ModelError
        An adapter is incomplete, or its shapes do not fit its projection.
    """
    plain = dict(tensors)
    wrappers: dict[str, list[str]] = {}
    for name in tensors:
        found = _ADAPTER.match(name)
        if found:
            wrappers.setdefault(found["layer"], []).append(found["wrap"])
    ranks: tuple[int, ...] = ()
    for layer, wraps in wrappers.items():
        wraps.sort(key=len, reverse=True)  # innermost first
        base = f"{layer}{wraps[0]}.qkv"
        weight = _take(plain, f"{base}.weight").to(torch.float32, copy=True)
        ranks = tuple(_add(plain, layer + wrap, weight) for wrap in wraps)
        renamed = {f"{base}.weight": f"{layer}.weight", f"{base}.bias": f"{layer}.bias"}
        plain[f"{base}.weight"] = weight.to(tensors[f"{base}.weight"].dtype)
        plain = {renamed.get(name, name): tensor for name, tensor in plain.items()}
    return plain, ranks


def _add(plain: dict[str, Tensor], wrapper: str, weight: Tensor) -> int:
    """Add one adapter to the weight (3 C, C) in place, remove it from `plain`; its rank."""
    names = [f"{wrapper}.{part}.weight" for part in _PARTS]
    a_q, b_q, a_v, b_v = (_take(plain, name).to(torch.float32) for name in names)
    rows, columns = weight.shape if weight.ndim == 2 else (0, 0)
    rank = a_q.shape[0]
    down, up = (rank, columns), (rows // 3, rank)
    if rows % 3 or [tuple(t.shape) for t in (a_q, b_q, a_v, b_v)] != [down, up, down, up]:
        raise ModelError(
            f"The LoRA adapter '{wrapper}' does not fit its projection of shape "
            f"{tuple(weight.shape)}: the checkpoint is damaged or of an unknown kind."
        )
    weight[: rows // 3] += b_q @ a_q
    weight[2 * rows // 3 :] += b_v @ a_v
    for name in names:
        del plain[name]
    return rank


def _take(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"The checkpoint has LoRA adapters but lacks the tensor '{name}'.")
    return tensors[name]
