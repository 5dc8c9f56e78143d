"""The arithmetic that a model predicts in: fp32, or bf16 where products are, which must be measured to be trusted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from learning.evaluation import examine
from learning.folding import fold
from learning.interfaces import Examples
from learning.model import BackboneWithHead, Design

Precision = Literal["fp32", "bf16"]


def predicting(network: BackboneWithHead, precision: Precision) -> BackboneWithHead:
    """Make a network one that predicts, and return it: in evaluation, normalisation folded, products in a precision.

    Weights are cast once instead of in every forward pass, which is what autocast would do.
    """
    fold(network.eval())
    if precision == "bf16":
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                module.to(torch.bfloat16)
    return network


def arithmetic(precision: Precision, device_type: str = "cpu") -> AbstractContextManager[Any]:
    """Return the context in which a lowered network computes."""
    return torch.autocast(device_type, torch.bfloat16) if precision == "bf16" else nullcontext()


def measured(
    design: Design, network: BackboneWithHead, examples: Mapping[str, Examples | None], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metrics in bf16 on the best part there is to judge by, and how they differ from those in fp32.

    `metrics` are those in fp32, by part; a difference is bf16 less fp32.
    """
    split = next(name for name in ("test", "validation", "train") if examples.get(name) is not None)
    part = examples[split]
    assert part is not None
    device_type = next(network.parameters()).device.type
    with arithmetic("bf16", device_type):
        found = examine(design, predicting(copy.deepcopy(network), "bf16"), part).metrics
    before = metrics[split]
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    difference = {name: value - before[name] for name, value in numbers.items() if isinstance(before.get(name), float)}
    return {"split": split, "rows": found["rows"], "metrics": found, "difference": difference}
