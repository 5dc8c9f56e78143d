"""Loss and metrics over a part of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from learning.capabilities import Detailed, Examined
from learning.interfaces import Batch, Examples, Predictions, rows_in
from learning.model import BackboneWithHead, Design
from learning.packing import joined

_SEED = 20_240_501


class Stopped(Exception):
    """An evaluation was asked to stop; nothing has changed by it."""


class Measured(NamedTuple):
    """What was measured on a part, and by what: the predictions of its rows, in order, and their targets."""

    metrics: dict[str, Any]
    predictions: Predictions
    targets: Batch


def evaluate(
    design: Design,
    network: BackboneWithHead,
    examples: Examples,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Return the mean loss and the task's metrics; training's random state and mode stay as they were.

    Raises Stopped between two batches when `should_stop` says so.
    """
    return _measure(design, network, examples, should_stop).metrics


def _measure(
    design: Design,
    network: BackboneWithHead,
    examples: Examples,
    should_stop: Callable[[], bool],
    every: int = 1,
) -> Measured:
    task, state = design.task, design.targets
    total, rows = 0.0, 0
    predictions: list[Predictions] = []
    targets: list[Batch] = []
    was_training = network.training
    network.eval()
    # Pretraining draws its corruption in the loss: the same draw each time makes evaluations comparable.
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(_SEED)
        for batch in examples.everything(every):
            if should_stop():
                raise Stopped
            count = rows_in(batch)
            total += float(task.loss(network, batch, state)) * count
            rows += count
            predictions.append(task.predict(network, batch, state))
            targets.append({name: value for name, value in batch.items() if name.startswith("target")})
    network.train(was_training)
    answers, wanted = (
        joined(predictions),
        {name: _together([part[name] for part in targets]).cpu() for name in targets[0]},
    )
    return Measured({"loss": total / rows, "rows": rows, **task.metrics(answers, wanted, state)}, answers, wanted)


def examine(
    design: Design,
    network: BackboneWithHead,
    examples: Examples,
    should_stop: Callable[[], bool] = lambda: False,
    every: int = 1,
) -> Measured:
    """Return what `evaluate` does, and what only the end of a training is worth: metrics of answers.

    Only one of `every` rows is measured. Raises Stopped between two batches when `should_stop` says so.
    """
    found = _measure(design, network, examples, should_stop, every)
    if isinstance(design.task, Detailed):
        more = design.task.details(found.predictions, found.targets, design.targets)
        found = found._replace(metrics=found.metrics | more)
    if not isinstance(design.task, Examined):
        return found

    def check() -> None:
        if should_stop():
            raise Stopped

    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            more = design.task.examine(network, examples, design.inputs, design.targets, check)
            return found._replace(metrics=found.metrics | more)
    finally:
        network.train(was_training)


def _together(parts: list[Tensor]) -> Tensor:
    """Return batches' targets as one tensor; where rows have as many as the longest of a batch, -1 fills them up."""
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        after = [0, 0] * (parts[0].ndim - 2)
        parts = [functional.pad(part, (*after, 0, longest - part.shape[1]), value=-1) for part in parts]
    return torch.cat(parts)


def is_better(task_monitor: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Return whether a monitored value improves on the best: losses fall, anything else rises."""
    if best is None:
        return True
    return value < best - min_delta if task_monitor == "loss" else value > best + min_delta
