"""Optimizers, learning-rate schedules, and the step that uses both."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from learning import flat_mlp
from learning.config import Hyperparameters, Resolved
from learning.errors import InvalidConfig
from learning.fused_optimizer import FusedOptimizer
from learning.interfaces import Batch, Task
from learning.model import BackboneWithHead, Design


class Stepper(Protocol):
    """One optimizer step, and the state that has to survive between two of them."""

    def __call__(self, batch: Batch, rate: float) -> None:
        """Train on a batch at a learning rate."""
        ...

    def loss(self) -> Tensor:
        """Return the last batch's loss, as it was before the step; apart, since few steps are asked for theirs."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors by name."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from tensors that `state` returned."""
        ...


def learning_rate(step: int, resolved: Resolved, chosen: Hyperparameters) -> float:
    """Return the learning rate of a step counted from 0."""
    total = resolved.total_steps
    warmup = round(total * chosen.warmup_fraction)
    if step < warmup:
        return resolved.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return resolved.learning_rate * _after_warmup(done, step, resolved, chosen)


def _after_warmup(done: float, step: int, resolved: Resolved, chosen: Hyperparameters) -> float:
    last = chosen.final_learning_rate_fraction
    if chosen.schedule == "constant":
        return 1.0
    if chosen.schedule == "linear":
        return 1 - (1 - last) * done
    if chosen.schedule == "cosine":
        return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2
    if chosen.schedule == "step":
        epoch = step // resolved.steps_per_epoch
        return float(chosen.step_factor ** (epoch // chosen.step_every_epochs))
    return _one_cycle(done, last)


def _one_cycle(done: float, last: float) -> float:
    """Rise from a 25th over the first 30 %, then fall, both by a cosine (Smith 2018, arXiv 1803.09820)."""
    first, rise = 1 / 25, 0.3
    if done < rise:
        return 1 - (1 - first) * (1 + math.cos(math.pi * done / rise)) / 2
    return last + (1 - last) * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


class AutogradStepper:
    """Forward, backward and a fused optimizer step of any network."""

    def __init__(self, design: Design, network: BackboneWithHead, chosen: Hyperparameters) -> None:
        self._task: Task = design.task
        self._targets = design.targets
        self._network = network
        self._clip = chosen.gradient_clip
        self._groups = [
            (FusedOptimizer(parameters, chosen), parameters, factor)
            for parameters, factor in _groups(network, chosen.backbone_learning_rate_factor)
        ]
        self._autocast = chosen.precision == "bf16"
        self._device_type = next(network.parameters()).device.type

    def __call__(self, batch: Batch, rate: float) -> None:
        """Train on a batch at a learning rate."""
        if self._autocast:
            with torch.autocast(self._device_type, torch.bfloat16):
                loss = self._task.loss(self._network, batch, self._targets)
        else:
            loss = self._task.loss(self._network, batch, self._targets)
        loss.backward()
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        for optimizer, parameters, factor in self._groups:
            optimizer([parameter.grad for parameter in parameters], rate * factor)
            for parameter in parameters:
                parameter.grad = None
        self._loss = loss.detach()

    def loss(self) -> Tensor:
        """Return the last batch's loss."""
        return self._loss

    def state(self) -> dict[str, Tensor]:
        """Return the optimizers' tensors, by group and name."""
        return {
            f"{number}.{name}": tensor
            for number, (optimizer, _, _) in enumerate(self._groups)
            for name, tensor in optimizer.state().items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        for number, (optimizer, _, _) in enumerate(self._groups):
            optimizer.load_state({name: tensors[f"{number}.{name}"] for name in optimizer.state()})


def _groups(network: BackboneWithHead, factor: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return parameters with their share of the learning rate; a frozen backbone's get no gradient."""
    head, backbone = list(network.head.parameters()), list(network.backbone.parameters())
    for parameter in backbone:
        parameter.requires_grad_(factor > 0)
    if factor == 1:
        return [([*head, *backbone], 1.0)]  # each group is a fused call of its own
    groups = [(head, 1.0), (backbone, factor)] if factor > 0 else [(head, 1.0)]
    if not any(parameters for parameters, _ in groups):
        raise InvalidConfig(
            "With a frozen backbone there is nothing to train: the task's head has no weights.",
            hint="Leave backbone_learning_rate_factor out, or set it above 0.",
            param="hyperparameters.backbone_learning_rate_factor",
        )
    return [group for group in groups if group[0]]


def make_stepper(design: Design, network: BackboneWithHead, chosen: Hyperparameters) -> Stepper:
    """Return the fastest step that trains this network exactly."""
    if flat_mlp.supports(design, network, chosen):
        return flat_mlp.FlatMlpStepper(design, network, chosen)
    return AutogradStepper(design, network, chosen)
