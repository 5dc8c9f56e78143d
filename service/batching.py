"""Batches without a timer: whatever waits when the device is free is the next batch.

Everything here belongs to the event loop. A batch that takes less than a thread's hop is computed on the loop itself;
a longer one on the process's one device thread, and whoever comes meanwhile makes up the next.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter, thread_time
from typing import Any, Protocol

from service.batch_size import BatchSize
from service.device import Device
from service.errors import ApiError

Answer = dict[str, Any]
_Result = list[Answer] | Exception
# Of one batch. Rows have as many positions as they are long; how many a batch has of those is measured.
MOST_ROWS = 1024
WARM_ROWS = 64
# A batch expected to take longer leaves the loop to others. Measured: the hop to the thread and back costs 0.1 ms alone
# and, under load, what the interpreter's lock makes of it, several times as much. Sixty-four rows of a small perceptron
# take nearly 1 ms, most of it Python, which the loop would have to wait for in any case.
ON_LOOP_S = 2e-3


@dataclass(eq=False, slots=True)
class Waiting:
    """One request's rows on their way through the device, in one batch or, when there are many, in several."""

    rows: Sequence[Any]
    ends: Sequence[int]  # after each row, the positions up to there
    answered: asyncio.Future[list[Answer]]
    arrived: float = field(default_factory=perf_counter)
    answers: list[Answer] = field(default_factory=list)
    taken: int = 0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    batch_size: int = 0

    @property
    def positions(self) -> int:
        """Positions that no batch has taken yet."""
        return self.ends[-1] - (self.ends[self.taken - 1] if self.taken else 0)

    def fitting(self, rows: int, positions: int) -> int:
        """Return how many of the next rows fit."""
        before = self.ends[self.taken - 1] if self.taken else 0
        most = min(len(self.rows), self.taken + rows)
        if self.ends[most - 1] - before <= positions:
            return most - self.taken
        return sum(end - before <= positions for end in self.ends[self.taken : most])

    def next_rows(self, count: int) -> Sequence[Any]:
        """Return so many rows that no batch has taken yet."""
        return self.rows if count == len(self.rows) else self.rows[self.taken : self.taken + count]


@dataclass(frozen=True, slots=True)
class _Share:
    """A request's rows within one batch."""

    of: Waiting
    rows: Sequence[Any]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows that are computed together."""

    shares: list[_Share]
    positions: int
    allowed: int = 0  # so many positions it might have had

    @property
    def rows(self) -> Sequence[Any]:
        if len(self.shares) == 1:
            return self.shares[0].rows
        return [row for share in self.shares for row in share.rows]


@dataclass(slots=True)
class Counts:
    """What a batcher has done."""

    requests: int = 0  # answered
    rows: int = 0  # computed
    batches: int = 0
    failures: int = 0
    queue_s: float = 0.0
    inference_s: float = 0.0


def too_busy(waiting: int, most: int) -> ApiError:
    """Return the error for who comes when so many inputs wait already."""
    return ApiError(
        429,
        "too_busy",
        f"{waiting} inputs wait for this model already; at most {most} may.",
        hint="Try again later, or have the operator start more API processes.",
        retry_after_s=1,
    )


class Batching(Protocol):
    """A queue in front of a loaded model."""

    counts: Counts

    @property
    def is_immediate(self) -> bool:
        """Whether what waits now is computed before the loop looks at the network again."""
        ...

    def submit(self, rows: Sequence[Any]) -> Waiting:
        """Queue a request's rows, at least one; 429 when too many wait already."""
        ...

    def warm(self, row: Any) -> None:
        """Compute a row like those to come."""
        ...


class Batcher:
    """The queue in front of one loaded model; `positions` says what a row costs, one if it is not given."""

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], list[Answer]],
        device: Device,
        most_waiting: int,
        positions: Callable[[Any], int] | None = None,
    ) -> None:
        self._answer = answer
        self._device = device
        self._most_waiting = most_waiting
        self._positions = positions
        self._queue: deque[Waiting] = deque()
        self._rows_waiting = 0
        self._positions_waiting = 0
        self._is_running = False  # or waits for the device
        self._size = BatchSize()
        self._costs: dict[int, float] = {}  # seconds of the processor, by the bit length of the number of positions
        self._quick_size = 0  # the largest such length whose batches hold the loop up no longer than they may
        self.counts = Counts()

    @property
    def is_immediate(self) -> bool:
        """Whether what waits now is computed before the loop looks at the network again."""
        return not self._is_running and self._is_quick(self._positions_waiting)

    def submit(self, rows: Sequence[Any]) -> Waiting:
        """Queue a request's rows, at least one; 429 when too many wait already."""
        if self._rows_waiting and self._rows_waiting + len(rows) > self._most_waiting:
            raise too_busy(self._rows_waiting, self._most_waiting)
        loop = asyncio.get_running_loop()
        waiting = Waiting(rows, self._ends(rows), loop.create_future())
        if not self._queue and not self._is_running:
            loop.call_soon(self._start)
        self._queue.append(waiting)
        self._rows_waiting += len(rows)
        self._positions_waiting += waiting.positions
        return waiting

    def _ends(self, rows: Sequence[Any]) -> Sequence[int]:
        if self._positions is None:
            return range(1, len(rows) + 1)
        return list(accumulate(map(self._positions, rows)))

    def _start(self) -> None:
        """Compute what waits: now if that is quick, else when the device is free."""
        if self._is_running or not self._queue:
            return
        self._is_running = True
        if not self._is_quick(min(self._positions_waiting, self._size.most)):
            self._device.take_turn(self._run)
            return
        if batch := self._take():
            started = perf_counter()
            self._finish(batch, *self._compute(batch), started)
        else:
            self._is_running = False

    def _run(self) -> None:
        """Compute on the device what waits now that it is free."""
        batch = self._take()
        if batch is None:
            self._is_running = False
            self._device.free()
            return
        loop, started = asyncio.get_running_loop(), perf_counter()

        def end(done: Future[tuple[list[_Result], float]]) -> None:
            self._device.free()
            self._finish(batch, *done.result(), started)

        computed = self._device.thread.submit(self._compute, batch)
        computed.add_done_callback(lambda done: loop.call_soon_threadsafe(end, done))

    def _take(self) -> _Batch | None:
        """Return the next batch. Whoever has gone meanwhile, or whose deadline has passed, is left out.

        A request with more rows than fit goes behind the others with what is left of it.
        """
        shares: list[_Share] = []
        left: list[Waiting] = []
        allowed = self._size.next(self._positions_waiting)
        rows, positions = MOST_ROWS, allowed
        while self._queue and rows:
            waiting = self._queue.popleft()
            if waiting.answered.done():
                self._advance(waiting, len(waiting.rows))
                continue
            # The first row goes even if it alone is too long.
            count = waiting.fitting(rows, positions) or (0 if shares else 1)
            if not count:
                self._queue.appendleft(waiting)
                break
            shares.append(_Share(waiting, waiting.next_rows(count)))
            positions -= self._advance(waiting, waiting.taken + count)
            rows -= count
            if waiting.taken < len(waiting.rows):
                left.append(waiting)
        self._queue.extend(left)
        self._note_start(shares)
        return _Batch(shares, allowed - positions, allowed) if shares else None

    def _advance(self, waiting: Waiting, taken: int) -> int:
        """Count rows as taken, and return how many positions they have."""
        positions = waiting.positions
        self._rows_waiting -= taken - waiting.taken
        waiting.taken = taken
        positions -= waiting.positions
        self._positions_waiting -= positions
        return positions

    def _note_start(self, shares: Sequence[_Share]) -> None:
        now = perf_counter()
        for share in shares:
            if share.of.batch_size == 0:
                share.of.queue_ms = (now - share.of.arrived) * 1000
                self.counts.queue_s += now - share.of.arrived

    def _compute(self, batch: _Batch) -> tuple[list[_Result], float]:
        """Return each share's answers, or what went wrong, and the seconds of the processor."""
        started = thread_time()
        shares = batch.shares
        try:
            answers = self._answer(batch.rows)
        except Exception as error:
            if len(shares) == 1:
                return [error], 0.0
            # One that fails must not fail its neighbours.
            return [self._compute(_Batch([share], 0))[0][0] for share in shares], 0.0
        seconds = thread_time() - started
        if len(shares) == 1:
            return [answers], seconds
        ends = list(accumulate(len(share.rows) for share in shares))
        return [answers[end - len(share.rows) : end] for share, end in zip(shares, ends, strict=True)], seconds

    def _finish(self, batch: _Batch, results: list[_Result], seconds: float, started: float) -> None:
        elapsed = perf_counter() - started
        if seconds:
            self._learn(batch.positions, seconds)
            self._size.learn(batch.allowed, batch.positions, seconds)
        self.counts.batches += 1
        self.counts.inference_s += elapsed
        size = sum(len(share.rows) for share in batch.shares)
        self.counts.rows += size
        for share, result in zip(batch.shares, results, strict=True):
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
            waiting.answered.set_result(waiting.answers)

    def warm(self, row: Any) -> None:
        """Compute a row and, if that is quick, many: what is lazy happens the first time, the rest is measured."""
        positions = self._positions(row) if self._positions is not None else 1
        self._answer([row])
        for size in (1, WARM_ROWS):
            if size == 1 or self._is_quick(positions):
                started = thread_time()
                self._answer([row] * size)
                self._learn(positions * size, thread_time() - started)

    def _is_quick(self, positions: int) -> bool:
        """Return whether a batch will hold the loop up no longer than it may."""
        return positions.bit_length() <= self._quick_size

    def _learn(self, positions: int, seconds: float) -> None:
        size = positions.bit_length()
        before = self._costs.get(size, seconds)
        self._costs[size] = before + 0.2 * (seconds - before)
        # No batch takes longer than a larger one, nor more for each position than a smaller one.
        known = ((size, cost) for size, cost in self._costs.items() if cost < ON_LOOP_S)
        self._quick_size = max((size + _doublings(cost) for size, cost in known), default=0)


def _doublings(cost: float) -> int:
    """Return how often a batch of this cost can be doubled and still be quick."""
    return math.ceil(math.log2(ON_LOOP_S / max(cost, 1e-9))) - 1
