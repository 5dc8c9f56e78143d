"""How well tokens are foretold: what each row's cost, and what that comes to. P positions of B rows, V tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learning.interfaces import Batch

_LARGEST_EXPONENT = 700.0


def by_row(logits_PV: Tensor, target_P: Tensor, row_P: Tensor, rows: int) -> Tensor:
    """Return of each row how many nats its targets cost, how many they are, and how many were foretold, (B, 3)."""
    cost_P = functional.cross_entropy(logits_PV.float(), target_P, reduction="none")
    right_P = (logits_PV.argmax(1) == target_P).float()
    found_P3 = torch.stack([cost_P, torch.ones_like(cost_P), right_P], 1).double()
    return found_P3.new_zeros(rows, 3).index_add(0, row_P, found_P3)


def measured(costs_N3: Tensor, targets: Batch) -> dict[str, Any]:
    """Return perplexity of a token, nats per character, and the share of tokens foretold."""
    cost, count, right = costs_N3.double().sum(0).tolist()
    characters = int(targets["target_characters_B"].sum())
    return {
        "perplexity": perplexity(cost, count),
        "nats_per_character": cost / max(1, characters),
        "accuracy": right / max(1.0, count),
    }


def perplexity(cost: float, count: float) -> float:
    """Return how many tokens were as likely as the right one, on average."""
    return math.exp(min(cost / max(1.0, count), _LARGEST_EXPONENT))
