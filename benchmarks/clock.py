"""A clock inside a training run: what its steps and its batches take, and so what all else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

from torch import Tensor

from learning import training
from learning.data import epoch_order
from learning.interfaces import Batch, Examples
from learning.optimization import Stepper, make_stepper


class Clock:
    """Seconds inside steps and batches, from the first to the last, after that, and on keeping this account."""

    def __init__(self) -> None:
        self.inside = self.own = 0.0
        self.started_at = self.last_at = self.ended_at = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every step and every shuffle that training makes meanwhile."""

        def timed_stepper(*pieces: Any) -> TimedStepper:
            return TimedStepper(make_stepper(*pieces), self)

        with patch.multiple(training, make_stepper=timed_stepper, epoch_order=self.timed_order):
            yield
            self.ended_at = perf_counter()

    def timed_order(self, rows: int, seed: int, epoch: int) -> Tensor:
        """Return an epoch's order, timed."""
        start = perf_counter()
        order_N = epoch_order(rows, seed, epoch)
        self.add(start)
        return order_N

    def add(self, start: float) -> None:
        """Count the time since then as inside."""
        now = perf_counter()
        self.inside += now - start
        self.started_at = self.started_at or start
        self.last_at = now
        self.own += perf_counter() - now

    def share_of_all_else(self) -> float:
        """Return what is neither step nor batch, up to the last step, as a share of what is."""
        return (self.last_at - self.started_at - self.own) / self.inside - 1

    @property
    def after_the_last(self) -> float:
        """Seconds from the last step to the end: evaluation and checkpoint."""
        return self.ended_at - self.last_at


class TimedStepper:
    """A stepper with a clock."""

    def __init__(self, stepper: Stepper, clock: Clock) -> None:
        self._stepper, self._clock = stepper, clock
        self.loss, self.state, self.load_state = stepper.loss, stepper.state, stepper.load_state

    def __call__(self, batch: Batch, rate: float) -> None:
        """Train on a batch."""
        start = perf_counter()
        self._stepper(batch, rate)
        self._clock.add(start)


class TimedExamples:
    """Examples with a clock; evaluation, which takes all rows in few batches, is not timed."""

    def __init__(self, examples: Examples, clock: Clock) -> None:
        self._examples, self._clock = examples, clock

    def __len__(self) -> int:
        return len(self._examples)

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches."""
        batches = self._examples.batches(order_N, batch_size, start)
        while True:
            begin = perf_counter()
            batch = next(batches, None)
            self._clock.add(begin)
            if batch is None:
                return
            yield batch

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield every row once, or one of `every` rows."""
        return self._examples.everything(every)
