"""The optimiser: AdamW, whose inner matrices can take orthogonalised steps instead (Muon)."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._orthogonal(parameter, group["lr"], group["weight_decay"])
                        parameter.grad = None  # AdamW leaves out what has none
        super().step(closure)

    def _orthogonal(self, parameter: torch.Tensor, rate: float, decay: float) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if "momentum" not in state:
            state["step"] = torch.zeros(())  # AdamW asks for it where a state is read
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM)
        matrix = orthogonalised(ahead.flatten(1))
        size = ADAM_SIZE * math.sqrt(max(matrix.shape))
        parameter.mul_(1 - rate * decay)
        parameter.add_(matrix.view(ahead.shape), alpha=-rate * size)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with singular values of about 1 (0.7..1.2), same shape and type.

    Small singular values stay below that. bfloat16 inside: nothing depends on exact values.
    """
    a, b, c = ITERATION
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


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
