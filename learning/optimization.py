"""Optimizers, learning-rate schedules, and the step that uses both."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from learning import flat_mlp
from learning.config import Hyperparameters, Resolved
from learning.fused_optimizer import FusedOptimizer
from learning.interfaces import Batch, Task
from learning.model import BackboneWithHead, Design
from learning.muon import Muon
from learning.parameter_groups import groups_of


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

    def __init__(
        self, design: Design, network: BackboneWithHead, chosen: Hyperparameters, steps_per_epoch: int = 1
    ) -> None:
        self._task: Task = design.task
        self._targets = design.targets
        self._network = network
        self._clip = chosen.gradient_clip
        groups = groups_of(network, chosen, steps_per_epoch)
        self._groups = [
            ((Muon if group.matrices else FusedOptimizer)(group.parameters, chosen), group.parameters, group.factor)
            for group in groups
        ]
        # At these steps groups join in, which are frozen before.
        self._starts = [group.start for group in groups]
        self._taken = torch.zeros((), dtype=torch.int64)
        self._thaw()
        self._autocast = chosen.precision == "bf16"
        self._device_type = next(network.parameters()).device.type

    def _thaw(self) -> None:
        """Let the groups whose step has come be trained."""
        taken = int(self._taken)
        for (_, parameters, _), start in zip(self._groups, self._starts, strict=True):
            for parameter in parameters:
                parameter.requires_grad_(start <= taken)
        self._network.train(self._network.training)  # what batch normalisation counts follows from what is frozen

    def __call__(self, batch: Batch, rate: float) -> None:
        """Train on a batch at a learning rate."""
        if any(self._starts):
            if int(self._taken) in self._starts:
                self._thaw()
            self._taken += 1
        if self._autocast:
            with torch.autocast(self._device_type, torch.bfloat16):
                loss = self._task.loss(self._network, batch, self._targets)
        else:
            loss = self._task.loss(self._network, batch, self._targets)
        loss.backward()
        if self._clip is not None:
            clip_grad_norm_(self._network.parameters(), self._clip)
        for optimizer, parameters, factor in self._groups:
            if not parameters[0].requires_grad:
                continue
            optimizer([parameter.grad for parameter in parameters], rate * factor)
            for parameter in parameters:
                parameter.grad = None
        self._loss = loss.detach()

    def loss(self) -> Tensor:
        """Return the last batch's loss."""
        return self._loss

    def state(self) -> dict[str, Tensor]:
        """Return the optimizers' tensors, by group and name, and how many steps were taken if that matters."""
        taken = {"taken": self._taken} if any(self._starts) else {}
        return taken | {
            f"{number}.{name}": tensor
            for number, (optimizer, _, _) in enumerate(self._groups)
            for name, tensor in optimizer.state().items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        if any(self._starts):
            self._taken.copy_(tensors["taken"])
            self._thaw()
        for number, (optimizer, _, _) in enumerate(self._groups):
            optimizer.load_state({name: tensors[f"{number}.{name}"] for name in optimizer.state()})


def make_stepper(
    design: Design, network: BackboneWithHead, chosen: Hyperparameters, steps_per_epoch: int = 1
) -> Stepper:
    """Return the fastest step that trains this network exactly."""
    if flat_mlp.supports(design, network, chosen):
        return flat_mlp.FlatMlpStepper(design, network, chosen)
    return AutogradStepper(design, network, chosen, steps_per_epoch)
