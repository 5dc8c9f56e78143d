"""The training loop, top to bottom in the order things happen.

It knows no task, no architecture and no database. Everything random follows from the seed, the epoch and the saved
generators, so stopping at any step and resuming gives the same weights, bit for bit, as never having stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from learning import checkpoint, linear_probe
from learning.capabilities import Illustrated
from learning.checkpoint import Position, TrainingState
from learning.config import Checkpointing, EarlyStopping, Hyperparameters
from learning.data import epoch_order
from learning.device import describe
from learning.errors import LearningError
from learning.evaluation import Measured, Stopped, evaluate, examine, is_better
from learning.interfaces import Callback, Examples
from learning.model import BackboneWithHead
from learning.optimization import Stepper, learning_rate, make_stepper
from learning.preparation import Prepared
from learning.weight_average import WeightAverage

REPORT_S = 0.25
RATES_AHEAD = 2048
CHECK_STEPS = 500
# Of training rows that are measured in part, at least so many.
_LEAST_MEASURED = 1_000


class Diverged(LearningError):
    """The loss became infinite or no number."""

    code = "diverged"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train what was prepared."""

    hyperparameters: Hyperparameters
    early_stopping: EarlyStopping | None
    seed: int
    checkpoints: Path
    checkpointing: Checkpointing = field(default_factory=Checkpointing)


@dataclass(slots=True)
class Outcome:
    """What came of it; not finished means stopped on request, to be resumed from `checkpoint`."""

    finished: bool
    position: Position
    weights: dict[str, Tensor] = field(default_factory=dict)
    checkpoint: Path | None = None
    judged: tuple[str, Measured] | None = None  # the best part there is to judge by, where pictures are made of it


def train(prepared: Prepared, plan: Plan, callback: Callback, resume: TrainingState | None = None) -> Outcome:
    """Train until done, until it stops improving, or until the callback says stop; checkpoints on the way."""
    run = _Run(prepared, plan, callback)
    run.restore(resume)
    try:
        if not run.position.step:  # also when it was stopped before the head had begun
            run.begin_head()
        if not run.steps():
            return Outcome(finished=False, position=run.position, checkpoint=run.save())
        run.measure_best()
    except Stopped:
        return Outcome(finished=False, position=run.position, checkpoint=run.save())
    run.position.finished = True
    run.report()
    return Outcome(True, run.position, run.best_weights(), run.save(), run.judged)


class _Run:
    """The moving parts of one training run."""

    def __init__(self, prepared: Prepared, plan: Plan, callback: Callback) -> None:
        self.prepared = prepared
        self.plan = plan
        self.callback = callback
        self.network = prepared.network.train()
        self.stepper: Stepper = make_stepper(
            prepared.design, self.network, plan.hyperparameters, prepared.resolved.steps_per_epoch
        )
        decay = prepared.resolved.ema_decay
        self.average = WeightAverage(self.network, decay) if decay else None
        self.position = Position()
        self.judged: tuple[str, Measured] | None = None
        self._best: dict[str, Tensor] = {}
        self._rates: list[float] = []
        self._rates_from = 0
        self._saves = 0
        self._started_at = monotonic()
        self._first_step = 0
        # The loss alone is looked at rarely: where an epoch is short, that costs as much as a step. At fixed steps, so
        # that a resumed run fails where the undisturbed one does.
        self._look_every_epochs = prepared.resolved.evaluate_every_epochs
        if prepared.validation is None:
            epochs = -(-CHECK_STEPS // prepared.resolved.steps_per_epoch)
            self._look_every_epochs = max(self._look_every_epochs, epochs)

    def restore(self, saved: TrainingState | None) -> None:
        """Continue from a checkpoint as if there had been no stop."""
        if saved is None:
            return
        self.position = saved.position
        self._first_step = saved.position.step
        self.network.load_state_dict(saved.weights)
        self.stepper.load_state(saved.optimizer)
        self._best = saved.best_weights
        if self.average is not None:
            self.average.restore(saved.average or saved.weights, saved.position.step)
        checkpoint.restore_random_states(saved.random)

    def begin_head(self) -> None:
        """Let the head begin as it was asked for, unless it was trained before."""
        chosen = self.plan.hyperparameters
        if chosen.head_initialization == "random" or not self.prepared.fresh_head:
            return
        design, rows = self.prepared.design, self.prepared.train
        linear_probe.initialise_head(design, self.network, rows, chosen.linear_probe_c, self.callback.should_stop)

    def steps(self) -> bool:
        """Take every step that is left; returns False when asked to stop."""
        resolved, examples, position = self.prepared.resolved, self.prepared.train, self.position
        stepper, average, should_stop = self.stepper, self.average, self.callback.should_stop
        report_at, checkpoint_at = 0.0, monotonic() + self.plan.checkpointing.every_s
        every_steps = self.plan.checkpointing.every_steps or resolved.total_steps + 1
        self.end_of_epoch()  # a stop may have come between an epoch's last step and what its end brings
        while position.step < resolved.total_steps and not position.stopped_early:
            epoch, start = divmod(position.step, resolved.steps_per_epoch)
            order_N = epoch_order(len(examples), self.plan.seed, epoch)
            stop = min(position.step - start + resolved.steps_per_epoch, resolved.total_steps)
            batches = examples.batches(order_N, resolved.batch_size, start)
            for batch, rate in zip(batches, self._learning_rates(position.step, stop), strict=False):
                stepper(batch, rate)
                if average is not None:
                    average.update(self.network)
                position.step += 1
                now = monotonic()
                if now >= report_at:
                    self.report()
                    report_at = now + REPORT_S
                if should_stop():
                    return False
                if now >= checkpoint_at or position.step % every_steps == 0:
                    self.save()
                    checkpoint_at = monotonic() + self.plan.checkpointing.every_s
            self.end_of_epoch()
        return True

    def _learning_rates(self, start: int, stop: int) -> list[float]:
        """Return the rates of these steps.

        Many are made at once: between two steps, which leave the processor's caches to others, each takes five times
        as long.
        """
        if not self._rates_from <= start <= stop <= self._rates_from + len(self._rates):
            end = max(stop, min(start + RATES_AHEAD, self.prepared.resolved.total_steps))
            self._rates = [
                learning_rate(step, self.prepared.resolved, self.plan.hyperparameters) for step in range(start, end)
            ]
            self._rates_from = start
        return self._rates[start - self._rates_from : stop - self._rates_from]

    def save(self) -> Path:
        """Write a checkpoint and tell the callback where it is."""
        state = TrainingState(
            position=self.position,
            design=self.prepared.design.to_dict(),
            weights=self.network.state_dict(),
            optimizer=self.stepper.state(),
            best_weights=self._best,
            random=checkpoint.random_states(),
            average={} if self.average is None else self.average.network.state_dict(),
            environment=describe(self.prepared.device),
        )
        # A name of its own also when a step is saved twice, as the last one is: the one before may just be read.
        self._saves += 1
        name = f"step-{self.position.step:010d}-{self._saves}"
        path = checkpoint.write(state, self.plan.checkpoints / name)
        self.callback.on_checkpoint(path, self.position)
        return path

    def report(self) -> None:
        """Say where training is, at the rate of this attempt alone."""
        elapsed = monotonic() - self._started_at
        steps = self.position.step - self._first_step
        resolved = self.prepared.resolved
        rate = steps / elapsed if elapsed > 0 else 0.0
        left = 0 if self.position.finished else resolved.total_steps - self.position.step
        progress: dict[str, Any] = {
            "step": self.position.step,
            "total_steps": resolved.total_steps,
            "epoch": self.position.step / resolved.steps_per_epoch,
            "fraction": 1.0 if self.position.finished else self.position.step / resolved.total_steps,
            "examples_per_second": rate * min(resolved.batch_size, len(self.prepared.train)),
            "eta_seconds": left / rate if rate > 0 else None,
        }
        if not self.position.finished:
            value = float(self.stepper.loss())
            progress["loss"] = value if math.isfinite(value) else None
        self.callback.on_step(progress)

    def _check_loss(self) -> None:
        """Raise Diverged when the last loss is no number."""
        loss = float(self.stepper.loss())
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss is {loss} at step {self.position.step}: training diverged.",
                hint="Lower hyperparameters.learning_rate, or set hyperparameters.gradient_clip to 1.",
                param="hyperparameters.learning_rate",
            )

    def end_of_epoch(self) -> None:
        """When it is due: check the loss, evaluate, keep the best weights, stop when nothing improves."""
        resolved, validation = self.prepared.resolved, self.prepared.validation
        epoch, rest = divmod(self.position.step, resolved.steps_per_epoch)
        last = self.position.step >= resolved.total_steps
        due = last or (rest == 0 and epoch % self._look_every_epochs == 0)
        if not due or self.position.evaluated_step == self.position.step:
            return
        if self.position.step > self._first_step:
            self._check_loss()
        if validation is None:
            return
        values = evaluate(self.prepared.design, self._judged_network(), validation, self.callback.should_stop)
        self.position.evaluated_step = self.position.step
        self.position.metrics["validation"] = values
        self.callback.on_evaluation(
            "validation", self.position.step, self.position.step / resolved.steps_per_epoch, values
        )
        self._keep_if_best(values)

    def _judged_network(self) -> BackboneWithHead:
        """Return the network that is measured: with the average for weights where one is kept."""
        return self.network if self.average is None else self.average.network

    def _keep_if_best(self, values: dict[str, Any]) -> None:
        stopping = self.plan.early_stopping
        measured = values[self.prepared.design.task.monitor]
        if measured is None:  # there is nothing to choose by, so the last weights stay
            return
        value = float(measured)
        self.position.score = -value if self.prepared.design.task.monitor == "loss" else value
        if is_better(
            self.prepared.design.task.monitor,
            value,
            self.position.best_value,
            stopping.min_delta if stopping else 0.0,
        ):
            self.position.best_value, self.position.best_step = value, self.position.step
            self.position.evaluations_without_gain = 0
            best = self._judged_network().state_dict()
            self._best = {name: tensor.detach().clone() for name, tensor in best.items()}
            return
        self.position.evaluations_without_gain += 1
        if stopping is not None and self.position.evaluations_without_gain >= stopping.patience:
            self.position.stopped_early = True

    def measure_best(self) -> None:
        """Put the best weights in place and measure them on every part there is."""
        if self._best or self.average is not None:
            self.network.load_state_dict(self._best or self._judged_network().state_dict())
        epoch = self.position.step / self.prepared.resolved.steps_per_epoch
        parts = {
            "train": self.prepared.train,
            "validation": self.prepared.validation,
            "test": self.prepared.test,
        }
        for split, examples in parts.items():
            if examples is None:
                continue
            every = self._measured_every(examples) if split == "train" else 1
            measured = examine(self.prepared.design, self.network, examples, self.callback.should_stop, every)
            if isinstance(self.prepared.design.task, Illustrated):
                self.judged = (split, measured)  # the last part is the one that learning has seen least of
            self.position.metrics[split] = measured.metrics
            self.callback.on_evaluation(split, self.position.step, epoch, measured.metrics)

    def _measured_every(self, train: Examples) -> int:
        """Return of how many training rows one is measured: of more than one in pretraining, where to measure all would
        take as long as a pass.
        """
        if self.prepared.design.task.kind != "pretrain":
            return 1
        held_out = sum(len(part) for part in (self.prepared.validation, self.prepared.test) if part is not None)
        return max(1, len(train) // max(_LEAST_MEASURED, held_out or len(train) // 10))

    def best_weights(self) -> dict[str, Tensor]:
        """Return the weights that were measured, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
