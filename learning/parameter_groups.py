"""Which weights are trained at which share of the learning rate, and from which step on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from learning.config import Hyperparameters
from learning.errors import InvalidConfig
from learning.model import BackboneWithHead

_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, slots=True)
class Group:
    """Weights that are trained alike; until the step `start` they stay as they are."""

    parameters: list[nn.Parameter]
    factor: float
    start: int = 0
    matrices: bool = False


def layers_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Return a backbone's trainable weights by layer, from its inputs to its outputs.

    A layer is an entry of the first list of modules that a weight lies in. What comes before the first list, such as
    embeddings, is the lowest layer; what comes behind belongs to the layer before it.
    """
    layers: list[list[nn.Parameter]] = [[]]
    last: str | None = None
    for name, parameter in backbone.named_parameters():
        if not parameter.requires_grad:
            continue
        match = _NUMBER.search(name)
        place = name[: match.end()] if match else last
        if place != last:
            layers.append([])
            last = place
        layers[-1].append(parameter)
    return [layer for layer in layers if layer]


def groups_of(network: BackboneWithHead, chosen: Hyperparameters, steps_per_epoch: int) -> list[Group]:
    """Return the groups of a network's weights; what is in none is frozen."""
    factor = chosen.backbone_learning_rate_factor
    head = list(network.head.parameters())
    if factor == 0:
        for parameter in network.backbone.parameters():
            parameter.requires_grad_(False)
    backbone = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    by_layer = chosen.layer_learning_rate_decay != 1 or chosen.unfreeze_every_epochs is not None
    if not by_layer and factor == 1:
        groups = [Group([*head, *backbone], 1.0)]  # each group is a fused call of its own
    elif not by_layer:
        groups = [Group(head, 1.0), Group(backbone, factor)]
    else:
        layers = layers_of(network.backbone)
        # Where a head scores tokens by their embeddings it has no weights, and something must learn from the start.
        groups = [Group(head, 1.0), *_by_layer(layers, chosen, steps_per_epoch, first=1 if head else 0)]
    if chosen.optimizer == "muon":
        groups = _matrices_apart(groups, network.backbone)
    groups = [group for group in groups if group.parameters]
    if chosen.optimizer == "muon" and not any(group.matrices for group in groups):
        raise InvalidConfig(
            "muon is for matrices of the backbone's linear layers, and none of them is trained here.",
            hint="Choose adamw, which muon leaves everything else to.",
            param="hyperparameters.optimizer",
        )
    if not groups:
        raise InvalidConfig(
            "With a frozen backbone there is nothing to train: the task's head has no weights.",
            hint="Leave backbone_learning_rate_factor out.",
            param="hyperparameters.backbone_learning_rate_factor",
        )
    return groups


def _matrices_apart(groups: Sequence[Group], backbone: nn.Module) -> list[Group]:
    """Return for each group what linear layers of the backbone multiply by, and the rest.

    Embeddings and the scores of a head have rows that are seen rarely: orthogonal steps are not for them.
    """
    layers = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    matrices = {id(layer.weight) for layer in layers}
    return [
        replace(group, parameters=[one for one in group.parameters if (id(one) in matrices) == apart], matrices=apart)
        for group in groups
        for apart in (True, False)
    ]


def _by_layer(
    layers: Sequence[list[nn.Parameter]], chosen: Hyperparameters, steps_per_epoch: int, first: int
) -> list[Group]:
    """Return a group for each layer, the one next to the head first (Howard and Ruder 2018, arXiv 1801.06146).

    If layers join in later, that one does so after `first` times as long as each waits for the one above it.
    """
    groups = []
    for depth, layer in enumerate(reversed(layers)):
        factor = chosen.backbone_learning_rate_factor * chosen.layer_learning_rate_decay ** (depth + 1)
        groups.append(Group(layer, factor, (depth + first) * (chosen.unfreeze_every_epochs or 0) * steps_per_epoch))
    return groups
