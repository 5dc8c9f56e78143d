"""Muon's step against torch.optim's, and what is trained by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learning.architectures.bert import BertBackbone, BertConfig
from learning.config import Hyperparameters
from learning.errors import InvalidConfig
from learning.model import BackboneWithHead
from learning.muon import Muon, orthogonalised
from learning.parameter_groups import groups_of

SHAPES = ((24, 8), (8, 24), (24, 8), (16, 16))


def matrices(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_steps_are_torch_s() -> None:
    ours = matrices(1)
    theirs = [nn.Parameter(matrix.clone()) for matrix in ours]
    step = Muon(ours, Hyperparameters(optimizer="muon", weight_decay=0.1))
    reference = torch.optim.Muon(theirs, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for number in range(20):
        rate = 1e-2 * (1 + number % 3)
        reference.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(theirs, matrices(100 + number), strict=True):
            parameter.grad = gradient
        reference.step()
        step(matrices(100 + number), rate)
    # Both iterate in bf16, of which one unit in the last place is a hundredth of a step.
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other.detach(), rtol=0, atol=5e-3)


def test_directions_count_alike() -> None:
    wide = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(2)) * torch.tensor([1e-3, 1.0, 1e3]).view(
        3, 1, 1
    )
    for matrix in orthogonalised(wide), orthogonalised(wide.mT):
        values = torch.linalg.svdvals(matrix.float())
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_what_has_no_gradient_stays_and_zeros_stay_zeros() -> None:
    ours = matrices(3)
    before = [matrix.clone() for matrix in ours]
    step = Muon(ours, Hyperparameters(optimizer="muon", weight_decay=0.0))
    step([None, torch.zeros(8, 24), torch.ones(24, 8), None], 0.1)
    assert [torch.equal(mine, was) for mine, was in zip(ours, before, strict=True)] == [True, True, False, True]


def test_training_goes_on_from_its_state() -> None:
    chosen = Hyperparameters(optimizer="muon")
    whole, first = matrices(4), matrices(4)
    one, two = Muon(whole, chosen), Muon(first, chosen)
    for number in range(4):
        one(matrices(number), 0.1)
    for number in range(2):
        two(matrices(number), 0.1)
    resumed = Muon(first, chosen)
    resumed.load_state({name: tensor.clone() for name, tensor in two.state().items()})
    for number in range(2, 4):
        resumed(matrices(number), 0.1)
    assert all(torch.equal(mine, other) for mine, other in zip(whole, first, strict=True))


def test_matrices_of_the_backbone_alone_are_trained_by_it() -> None:
    backbone = BertBackbone(5, 8, BertConfig(layers=1, width=16))
    head = nn.Linear(16, 2)
    groups = groups_of(BackboneWithHead(backbone, head), Hyperparameters(optimizer="muon"), 1)
    by_muon = {id(parameter) for group in groups if group.matrices for parameter in group.parameters}
    others = {id(parameter) for group in groups if not group.matrices for parameter in group.parameters}
    layer = [module for module in backbone.encoder.modules() if isinstance(module, nn.Linear)]
    assert by_muon == {id(linear.weight) for linear in layer}
    assert others == {id(parameter) for parameter in (*backbone.parameters(), *head.parameters())} - by_muon


def test_where_no_matrix_is_trained_it_is_refused() -> None:
    backbone = BertBackbone(5, 8, BertConfig(layers=1, width=16))
    frozen = Hyperparameters(optimizer="muon", backbone_learning_rate_factor=0.0)
    with pytest.raises(InvalidConfig, match="none of them is trained"):
        groups_of(BackboneWithHead(backbone, nn.Linear(16, 2)), frozen, 1)
