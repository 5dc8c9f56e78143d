"""Low-rank additions to linear layers, trained instead of the layers' own weights (LoRA, arXiv 2106.09685).

A layer's weight W, whatever way it is laid out, becomes W + scale * left @ right, with left (rows of W, R) and right
(R, columns of W). left begins at zero, so that the network begins as it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from learning.config import Config, Hyperparameters
from learning.errors import InvalidConfig

LEFT, RIGHT = "low_rank_left", "low_rank_right"


class LowRank(Config):
    """How wide the additions are, and how much they count."""

    rank: int = Field(ge=1, le=1_024)
    scale: float = Field(gt=0, le=1_000)


def adapt(backbone: nn.Module, chosen: LowRank) -> None:
    """Add to every linear layer of a backbone, and freeze all that is not added; InvalidConfig when it has none."""
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    layers = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InvalidConfig(
            "The architecture has no linear layers, to which low-rank additions could be made.",
            hint="Leave lora_rank out; backbone_learning_rate_factor holds a backbone back too.",
            param="hyperparameters.lora_rank",
        )
    for layer in layers:
        rows, columns = layer.weight.shape
        left = torch.zeros(rows, chosen.rank, device=layer.weight.device)
        right = torch.randn(chosen.rank, columns, device=layer.weight.device) / math.sqrt(columns)
        layer.register_parameter(LEFT, nn.Parameter(left))
        layer.register_parameter(RIGHT, nn.Parameter(right))
        # A linear layer gives inputs @ weight.T, others say that theirs lies the other way.
        is_upright = getattr(layer, "inputs_first", False)
        layer.register_forward_hook(partial(_add, scale=chosen.scale, is_upright=is_upright))


def _add(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor, *, scale: float, is_upright: bool) -> Tensor:
    left, right = getattr(layer, LEFT), getattr(layer, RIGHT)
    added: Tensor = (inputs[0] @ left) @ right if is_upright else (inputs[0] @ right.T) @ left.T
    return outputs + scale * added


def merge(weights: Mapping[str, Tensor], chosen: LowRank) -> dict[str, Tensor]:
    """Return the weights of the same network without additions: each is added to the layer that it belongs to."""
    merged = {name: tensor for name, tensor in weights.items() if not name.endswith((LEFT, RIGHT))}
    for name, left in weights.items():
        if name.endswith(LEFT):
            layer = name.removesuffix(LEFT)
            added = left.double() @ weights[f"{layer}{RIGHT}"].double() * chosen.scale
            merged[f"{layer}weight"] = (merged[f"{layer}weight"].double() + added).to(left.dtype)
    return merged


def asked(hyperparameters: Hyperparameters) -> LowRank | None:
    """Return what hyperparameters ask for."""
    rank = hyperparameters.lora_rank
    return None if rank is None else LowRank(rank=rank, scale=hyperparameters.lora_scale)
