"""The optimizer's step against torch.optim's, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from learning.config import Hyperparameters
from learning.fused_optimizer import FusedOptimizer

CHOICES: list[dict[str, Any]] = [
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "adam", "weight_decay": 0.1, "betas": (0.8, 0.95)},
    {"optimizer": "sgd", "weight_decay": 0.1},
    {"optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.9},
]


def reference(parameters: list[nn.Parameter], chosen: Hyperparameters) -> torch.optim.Optimizer:
    if chosen.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=0.0, momentum=chosen.momentum, weight_decay=chosen.weight_decay, fused=True
        )
    kind = torch.optim.AdamW if chosen.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=0.0, betas=chosen.betas, weight_decay=chosen.weight_decay, fused=True)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 3), (7,), (2, 3, 4), (1,))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(parameter.shape, generator=generator) for parameter in parameters()]


@pytest.mark.parametrize("options", CHOICES)
def test_steps_are_torch_s(options: dict[str, Any]) -> None:
    chosen = Hyperparameters(**options)
    ours, theirs = parameters(), parameters()
    step, optimizer = FusedOptimizer(ours, chosen), reference(theirs, chosen)
    for number in range(50):
        rate = 1e-2 * (1 + number % 3)
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(theirs, gradients(number), strict=True):
            parameter.grad = gradient
        optimizer.step()
        step(gradients(number), rate)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("options", CHOICES)
def test_what_has_no_gradient_stays(options: dict[str, Any]) -> None:
    chosen = Hyperparameters(**options)
    all_four, two = parameters(), parameters()[::2]
    step, alone = FusedOptimizer(all_four, chosen), FusedOptimizer(two, chosen)
    step([None] * 4, 1e-2)
    alone([None] * 2, 1e-2)
    assert all(torch.equal(mine, before) for mine, before in zip(all_four, parameters(), strict=True))
    given = gradients(0)
    step([given[0], None, given[2], None], 1e-2)
    alone([given[0], given[2]], 1e-2)
    wanted = [two[0], parameters()[1], two[1], parameters()[3]]
    assert all(torch.equal(mine, other) for mine, other in zip(all_four, wanted, strict=True))


@pytest.mark.parametrize("options", CHOICES)
def test_goes_on_where_it_was(options: dict[str, Any]) -> None:
    chosen = Hyperparameters(**options)
    whole, first = parameters(), parameters()
    step, before = FusedOptimizer(whole, chosen), FusedOptimizer(first, chosen)
    for number in range(10):
        step(gradients(number), 1e-2)
        if number < 4:
            before(gradients(number), 1e-2)
    kept = {name: tensor.clone() for name, tensor in before.state().items()}
    after = FusedOptimizer(first, chosen)
    after.load_state(kept)
    for number in range(4, 10):
        after(gradients(number), 1e-2)
    assert all(torch.equal(mine, other) for mine, other in zip(first, whole, strict=True))
