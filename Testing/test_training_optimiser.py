"""Orthogonalised steps for inner matrices, plain AdamW for the rest."""

from __future__ import annotations

import copy

import pytest
import torch

from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.training.optimiser import MatrixAdamW, make_optimiser, orthogonalised
from Testing.training_data import SMALL

BETAS = (0.9, 0.98)
RATE, DECAY = 0.01, 0.1


def with_gradients(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 12, 3), torch.nn.Linear(12, 6), torch.nn.Linear(6, 2)
    )
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return network


def optimiser(network: torch.nn.Module, orthogonal: tuple[str, ...] = ("0.", "1.")):
    return make_optimiser(network.named_parameters(), RATE, DECAY, BETAS, orthogonal)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_become_about_1(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape) * 7
    if shape[0] == shape[1]:
        matrix += 20 * torch.eye(shape[0])  # no singular value next to 0
    found = orthogonalised(matrix[None])[0]
    assert found.dtype == matrix.dtype and found.shape == matrix.shape
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), 0) > 0.97


def test_steps_are_as_large_as_those_of_adamw():
    network = with_gradients()
    before = network[0].weight.detach().clone()
    optimiser(network).step()
    step = network[0].weight.detach() - before * (1 - RATE * DECAY)
    assert 0.15 * RATE < float(step.pow(2).mean().sqrt()) < 0.25 * RATE


def test_all_others_take_steps_of_adamw():
    ours, plain = with_gradients(), with_gradients()
    optimiser(ours).step()
    matrices = [plain[0].weight, plain[1].weight, plain[2].weight]
    others = [plain[n].bias for n in range(3)]
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=RATE, betas=BETAS).step()
    same = [torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True)]
    assert same == [False, True, False, True, True, True]


def test_without_names_it_is_adamw():
    ours, plain = with_gradients(), with_gradients()
    one = optimiser(ours, ())
    assert isinstance(one, MatrixAdamW) and not any(g.get("orthogonal") for g in one.param_groups)
    one.step()
    optimiser(plain, ("nothing",)).step()
    pairs = zip(ours.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_momentum_goes_on_after_a_state_was_read():
    network = with_gradients()
    first = optimiser(network)
    first.step()
    other = copy.deepcopy(network)
    second = optimiser(other)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for net, opt in ((network, first), (other, second)):
        torch.manual_seed(3)
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        opt.step()
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_direction_follows_the_gradient_downhill():
    """A quadratic bowl is left behind by far within 150 steps."""
    torch.manual_seed(2)
    layer, goal = torch.nn.Linear(10, 8, bias=False), torch.randn(8, 10)
    opt = make_optimiser(layer.named_parameters(), 0.05, 0.0, BETAS, ("weight",))
    begin = float((layer.weight.detach() - goal).pow(2).sum())
    for _ in range(150):
        opt.zero_grad()
        (layer.weight - goal).pow(2).sum().backward()
        opt.step()
    assert float((layer.weight.detach() - goal).pow(2).sum()) < 0.1 * begin


def test_the_names_of_the_built_in_network_are_those_of_its_inner_matrices():
    from SlideSAMLib.training.builtin_task import BuiltinTask

    network = BuiltinNetwork(**SMALL, decoder=(0, 1))
    made = make_optimiser(network.named_parameters(), RATE, DECAY, BETAS, BuiltinTask.matrices)
    inner = {id(p) for g in made.param_groups if g.get("orthogonal") for p in g["params"]}
    names = {n for n, p in network.named_parameters() if id(p) in inner}
    for beginning in BuiltinTask.matrices:
        assert any(name.startswith(beginning) for name in names), beginning
    assert not names & {"position", "tokens", "stem.weight", "refinement.last.weight"}
    assert sum(len(g["params"]) for g in made.param_groups) == len(list(network.parameters()))
