"""Batches without a timer: whatever waits when the device is free is the next batch.

Everything here belongs to the event loop. A batch that takes less than a thread's hop is computed on the loop itself;
a longer one on the process's one device thread, and whoever comes meanwhile makes up the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import Any

from service.errors import ApiError

Answer = dict[str, Any]
_Result = list[Answer] | Exception
MOST_ROWS = 1024  # of one batch
WARM_ROWS = 64
# A batch expected to take longer leaves the loop to others. Measured: the hop to the thread and back costs 0.1 ms alone
# and, under load, what the interpreter's lock makes of it, several times as much.
ON_LOOP_S = 1e-3


@dataclass(eq=False, slots=True)
class Waiting:
    """One request's rows on their way through the device, in one batch or, when there are many, in several."""

    rows: Sequence[Any]
    answered: asyncio.Future[list[Answer]]
    arrived: float = field(default_factory=perf_counter)
    answers: list[Answer] = field(default_factory=list)
    taken: int = 0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class _Share:
    """A request's rows within one batch."""

    of: Waiting
    rows: Sequence[Any]


@dataclass(slots=True)
class Counts:
    """What a batcher has done."""

    requests: int = 0
    rows: int = 0
    batches: int = 0
    failures: int = 0
    queue_s: float = 0.0
    inference_s: float = 0.0


class Batcher:
    """The queue in front of one loaded model."""

    def __init__(self, answer: Callable[[Sequence[Any]], list[Answer]], device: Executor, most_waiting: int) -> None:
        self._answer = answer
        self._device = device
        self._most_waiting = most_waiting
        self._queue: deque[Waiting] = deque()
        self._rows_waiting = 0
        self._is_running = False
        self._costs: dict[int, float] = {}  # seconds of the processor, by the bit length of the number of rows
        self.counts = Counts()

    @property
    def is_immediate(self) -> bool:
        """Whether what waits now is computed before the loop looks at the network again."""
        return self._device_is_free and self._expected_s(self._rows_waiting) < ON_LOOP_S

    @property
    def _device_is_free(self) -> bool:
        return not self._is_running

    def submit(self, rows: Sequence[Any]) -> Waiting:
        """Queue a request's rows, at least one; 429 when too many wait already."""
        if self._rows_waiting and self._rows_waiting + len(rows) > self._most_waiting:
            raise ApiError(
                429,
                "too_busy",
                f"{self._rows_waiting} inputs wait for this model already; at most {self._most_waiting} may.",
                hint="Try again later, or have the operator start more API processes.",
                retry_after_s=1,
            )
        loop = asyncio.get_running_loop()
        waiting = Waiting(rows, loop.create_future())
        if not self._queue and self._device_is_free:
            loop.call_soon(self._start)
        self._queue.append(waiting)
        self._rows_waiting += len(rows)
        return waiting

    def _start(self) -> None:
        """Compute what waits, unless the device is busy: then its end starts the next batch."""
        if self._is_running or not (batch := self._take()):
            return
        rows = batch[0].rows if len(batch) == 1 else [row for share in batch for row in share.rows]
        started = perf_counter()
        for share in batch:
            if share.of.batch_size == 0:
                share.of.queue_ms = (started - share.of.arrived) * 1000
                self.counts.queue_s += started - share.of.arrived
        self._is_running = True
        if self._expected_s(len(rows)) < ON_LOOP_S:
            self._finish(batch, len(rows), self._compute(batch, rows), started)
            return
        loop = asyncio.get_running_loop()
        computed = self._device.submit(self._compute, batch, rows)

        def finish(done: Future[list[_Result]]) -> None:
            loop.call_soon_threadsafe(self._finish, batch, len(rows), done.result(), started)

        computed.add_done_callback(finish)

    def _take(self) -> list[_Share]:
        """Return the next batch. Whoever has gone meanwhile, or whose deadline has passed, is left out."""
        batch: list[_Share] = []
        room = MOST_ROWS
        while self._queue and room:
            waiting = self._queue[0]
            if waiting.answered.done():
                self._rows_waiting -= len(waiting.rows) - waiting.taken
                self._queue.popleft()
                continue
            rows = waiting.rows
            if waiting.taken or room < len(rows):
                rows = rows[waiting.taken : waiting.taken + room]
            batch.append(_Share(waiting, rows))
            waiting.taken += len(rows)
            room -= len(rows)
            self._rows_waiting -= len(rows)
            if waiting.taken == len(waiting.rows):
                self._queue.popleft()
        return batch

    def _compute(self, batch: Sequence[_Share], rows: Sequence[Any]) -> list[_Result]:
        """Return each share's answers, or what went wrong; one that fails must not fail its neighbours."""
        started = thread_time()
        try:
            answers = self._answer(rows)
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [self._compute([share], share.rows)[0] for share in batch]
        self._learn(len(rows), thread_time() - started)
        if len(batch) == 1:
            return [answers]
        cut: list[_Result] = []
        start = 0
        for share in batch:
            cut.append(answers[start : start + len(share.rows)])
            start += len(share.rows)
        return cut

    def _finish(self, batch: Sequence[_Share], size: int, results: list[_Result], started: float) -> None:
        elapsed = perf_counter() - started
        self.counts.batches += 1
        self.counts.inference_s += elapsed
        for share, result in zip(batch, results, strict=True):
            self._deliver(share.of, result, size, elapsed)
        self._is_running = False
        if self._queue:
            asyncio.get_running_loop().call_soon(self._start)

    def _deliver(self, waiting: Waiting, result: _Result, size: int, elapsed: float) -> None:
        waiting.batch_size = max(waiting.batch_size, size)
        waiting.inference_ms += elapsed * 1000
        if waiting.answered.done():
            return
        if isinstance(result, Exception):
            self.counts.failures += 1
            waiting.answered.set_exception(result)
            return
        waiting.answers += result
        if len(waiting.answers) == len(waiting.rows):
            self.counts.requests += 1
            self.counts.rows += len(waiting.rows)
            waiting.answered.set_result(waiting.answers)

    def warm(self, row: Any) -> None:
        """Compute a row and, if that is quick, many: what is lazy happens the first time, the rest is measured."""
        self._answer([row])
        for size in (1, WARM_ROWS):
            if self._expected_s(1) < ON_LOOP_S or size == 1:
                started = thread_time()
                self._answer([row] * size)
                self._learn(size, thread_time() - started)

    def _expected_s(self, rows: int) -> float:
        """Return how long a batch will take, at most."""
        size = rows.bit_length()
        # No batch takes longer than a larger one, nor more for each row than a smaller one.
        bounds = [cost * (1 << max(0, size - known)) for known, cost in self._costs.items()]
        return min(bounds, default=float("inf"))

    def _learn(self, rows: int, seconds: float) -> None:
        size = rows.bit_length()
        before = self._costs.get(size, seconds)
        self._costs[size] = before + 0.2 * (seconds - before)
