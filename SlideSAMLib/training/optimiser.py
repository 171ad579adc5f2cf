"""The optimiser: AdamW, whose inner matrices can take orthogonalised steps instead (Muon)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

MOMENTUM = 0.95
ITERATION = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz, with the greatest slope at 0
ROUNDS = 5
ADAM_SIZE = 0.2  # root mean square of AdamW's usual steps, in learning rates


class MatrixAdamW(torch.optim.AdamW):
    """AdamW for all groups but those with `orthogonal: True`.

    Their steps are the momentum with all singular values brought to about 1, as large as AdamW's
    steps are, so that learning rate and weight decay mean the same for both. A convolution counts
    as a matrix of its output channels.

    Source: K. Jordan et al., Muon: an optimizer for hidden layers, 2024; the size of the steps is
    that of J. Liu et al., Muon is scalable for LLM training, arXiv:2502.16982.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step; the gradients of the orthogonal groups are used up."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                with_gradient = [p for p in group["params"] if p.grad is not None]
                for alike in _by_shape(with_gradient):
                    self._orthogonal(alike, group["lr"], group["weight_decay"])
                for parameter in with_gradient:
                    parameter.grad = None  # AdamW leaves out what has none
        super().step(closure)

    def _orthogonal(
        self, parameters: Sequence[torch.nn.Parameter], rate: float, decay: float
    ) -> None:
        """A step of parameters that are matrices of one shape: one product serves them all."""
        momenta, gradients = [], [parameter.grad for parameter in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["step"] = torch.zeros(())  # AdamW asks for it where a state is read
                state["momentum"] = torch.zeros_like(parameter.grad)
            state["step"] += 1
            momenta.append(state["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        matrices = orthogonalised(torch.stack([one.flatten(1) for one in ahead]))
        size = ADAM_SIZE * math.sqrt(max(matrices.shape[1:]))
        steps = [
            matrix.view_as(parameter)
            for matrix, parameter in zip(matrices, parameters, strict=True)
        ]
        torch._foreach_mul_(parameters, 1 - rate * decay)
        torch._foreach_add_(parameters, steps, alpha=-rate * size)


def _by_shape(parameters: Iterable[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Parameters whose matrices have the same shape, together."""
    alike: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        alike.setdefault(tuple(parameter.flatten(1).shape), []).append(parameter)
    return list(alike.values())


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (N, rows, columns) with singular values of about 1 (0.7..1.2), as they were else.

    Small singular values stay below that. bfloat16 inside: nothing depends on exact values.
    """
    a, b, c = ITERATION
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).contiguous()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    one = a * torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        # a x + b G x + c G G x: all sums are of the small square matrices
        x = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(one) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def make_optimiser(
    named: Iterable[tuple[str, torch.nn.Parameter]],
    rate: float,
    decay: float,
    betas: tuple[float, float],
    orthogonal: tuple[str, ...] = (),
) -> torch.optim.Optimizer:
    """Groups of the parameters that are learnt; biases and norms are not drawn to 0.

    orthogonal : beginnings of the names of the matrices that take orthogonalised steps.
    """
    groups: dict[str, list] = {"orthogonal": [], "matrices": [], "others": []}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        inner = parameter.ndim > 1 and bool(orthogonal) and name.startswith(orthogonal)
        kind = "orthogonal" if inner else "matrices" if parameter.ndim > 1 else "others"
        groups[kind].append(parameter)
    described = [
        {"params": groups["orthogonal"], "weight_decay": decay, "orthogonal": True},
        {"params": groups["matrices"], "weight_decay": decay},
        {"params": groups["others"], "weight_decay": 0.0},
    ]
    return MatrixAdamW([g for g in described if g["params"]], lr=rate, betas=betas)
