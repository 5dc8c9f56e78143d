"""Continuous batching (Yu et al. 2022, Orca): answers are written token by token, and rows join and leave between.

Everything here belongs to the event loop but `_compute`, which has the device's thread for a turn of some milliseconds;
between turns it is others'. A row of a request that nobody waits for any more leaves at the next turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from service.batching import Counts, Waiting, too_busy
from service.device import Device

if TYPE_CHECKING:
    from learning.capabilities import Continuing, Steps

# Of the device, before others have theirs. A step of a small model takes less than the way to the thread and back.
TURN_S = 5e-3
MOST_JOINING = 32  # in one turn, since their prompts are read at once
WARM_STEPS = 3
Listener = Callable[[int, str], None]  # hears the number of a row and what is new of its text


@dataclass(eq=False, slots=True)
class Writing(Waiting):
    """One request's rows, each of which joins when there is room, and is written until it ends."""

    listener: Listener | None = None
    begun: float = 0.0
    missing: int = 0  # answers


@dataclass(eq=False, slots=True)
class _Row:
    """A row that is being written."""

    of: Writing
    index: int
    answer: Continuing


@dataclass(slots=True)
class _Turn:
    """What is to be done with the device, and what came of it."""

    leaving: list[Continuing]
    joining: list[tuple[Writing, int]]
    joined: list[_Row] = field(default_factory=list)
    failed: list[tuple[Writing, Exception]] = field(default_factory=list)
    broken: Exception | None = None  # of all rows
    answers: dict[Continuing, dict[str, Any]] = field(default_factory=dict)  # of those that ended by a step
    steps: int = 0


class ContinuousBatcher:
    """The queue in front of one loaded model that writes; takes the same requests as a `Batcher`."""

    is_immediate = False  # whoever asks is watched, and may leave

    def __init__(
        self,
        begin: Callable[[], Steps],
        computing: Callable[[], AbstractContextManager[None]],
        device: Device,
        most_waiting: int,
    ) -> None:
        self._begin, self._computing = begin, computing
        self._device = device
        self._most_waiting = most_waiting
        self._steps = begin()
        self._queue: deque[Writing] = deque()
        self._rows_waiting = 0
        self._going: list[_Row] = []
        self._is_running = False  # or waits for the device
        self.counts = Counts()

    def submit(self, rows: Sequence[Any], listener: Listener | None = None) -> Writing:
        """Queue a request's rows, at least one; 429 when too many wait already."""
        if self._rows_waiting and self._rows_waiting + len(rows) > self._most_waiting:
            raise too_busy(self._rows_waiting, self._most_waiting)
        loop = asyncio.get_running_loop()
        waiting = Writing(rows, range(1, len(rows) + 1), loop.create_future(), listener=listener, missing=len(rows))
        waiting.answers = [{}] * len(rows)
        self._queue.append(waiting)
        self._rows_waiting += len(rows)
        if not self._is_running:
            loop.call_soon(self._start)
        return waiting

    def _start(self) -> None:
        if not self._is_running and (self._queue or self._going):
            self._is_running = True
            self._device.take_turn(self._run)

    def _run(self) -> None:
        """Have a turn, now that the device is free."""
        gone = [row for row in self._going if row.of.answered.done()]
        self._going = [row for row in self._going if not row.of.answered.done()]
        turn = _Turn([row.answer for row in gone], self._joining())
        if not (turn.leaving or turn.joining or self._going):
            self._is_running = False
            self._device.free()
            return
        loop, started = asyncio.get_running_loop(), perf_counter()

        def end(done: Future[None]) -> None:
            self._device.free()
            done.result()
            self._finish(turn, perf_counter() - started)

        computed = self._device.thread.submit(self._compute, turn, len(self._going))
        computed.add_done_callback(lambda done: loop.call_soon_threadsafe(end, done))

    def _joining(self) -> list[tuple[Writing, int]]:
        """Return rows for which there is room, first come, first served, and in turn one of each request."""
        self._forget_gone()
        order = [
            (waiting, index)
            for number in range(MOST_JOINING)
            for waiting in self._queue
            if (index := waiting.taken + number) < len(waiting.rows)
        ][:MOST_JOINING]
        order = order[: self._steps.fitting([waiting.rows[index] for waiting, index in order])]
        now = perf_counter()
        for waiting, _ in order:
            if not waiting.taken:
                waiting.begun, waiting.queue_ms = now, (now - waiting.arrived) * 1000
                self.counts.queue_s += now - waiting.arrived
            waiting.taken += 1
        self._rows_waiting -= len(order)
        # Who had a turn and wants more goes behind those who had none.
        served = {waiting for waiting, _ in order}
        left = [waiting for waiting in self._queue if waiting.taken < len(waiting.rows)]
        self._queue = deque(sorted(left, key=served.__contains__))
        return order

    def _forget_gone(self) -> None:
        for waiting in [one for one in self._queue if one.answered.done()]:
            self._queue.remove(waiting)
            self._rows_waiting -= len(waiting.rows) - waiting.taken

    def _compute(self, turn: _Turn, going: int) -> None:
        """Let rows leave and join, and write tokens until a row has ended or the turn has."""
        until = perf_counter() + TURN_S
        with self._computing():
            self._steps.leave(turn.leaving)
            self._join(turn, turn.joining)
            try:
                while going + len(turn.joined) and (not turn.steps or perf_counter() < until):
                    turn.steps += 1
                    if ended := self._steps.step():
                        # Here and not on the event loop: the answer to an hour of speech takes a while.
                        turn.answers = {one: one.answer() for one in ended}
                        break
            except Exception as error:
                turn.broken = error

    def _join(self, turn: _Turn, joining: Sequence[tuple[Writing, int]]) -> None:
        if not joining:
            return
        try:
            found = self._steps.join([waiting.rows[index] for waiting, index in joining])
        except Exception as error:
            if len(joining) == 1:
                turn.failed.append((joining[0][0], error))
            else:  # one that fails must not fail its neighbours
                for one in joining:
                    self._join(turn, [one])
            return
        pairs = zip(joining, found, strict=True)
        turn.joined += [_Row(waiting, index, answer) for (waiting, index), answer in pairs]

    def _finish(self, turn: _Turn, elapsed: float) -> None:
        self._going += turn.joined
        self.counts.batches += turn.steps
        self.counts.inference_s += elapsed
        for waiting, error in turn.failed:
            self._fail(waiting, error)
        if turn.broken is not None:
            for row in self._going:
                self._fail(row.of, turn.broken)
            self._going, self._steps = [], self._begin()
        size = len(self._going)
        for row in self._going:
            row.of.batch_size = max(row.of.batch_size, size)
            self._tell(row, turn.answers.get(row.answer))
        self._going = [row for row in self._going if not row.answer.is_done]
        self._is_running = False
        self._start()

    def _tell(self, row: _Row, answer: dict[str, Any] | None) -> None:
        """Give out what is new of a row, and its answer if it has ended."""
        waiting = row.of
        if waiting.answered.done():
            return
        if waiting.listener is not None and (text := row.answer.fresh()):
            waiting.listener(row.index, text)
        if row.answer.is_done:
            waiting.answers[row.index] = row.answer.answer() if answer is None else answer
            waiting.missing -= 1
            self.counts.rows += 1
        if not waiting.missing:
            waiting.inference_ms = (perf_counter() - waiting.begun) * 1000
            self.counts.requests += 1
            waiting.answered.set_result(waiting.answers)

    def _fail(self, waiting: Writing, error: Exception) -> None:
        if not waiting.answered.done():
            self.counts.failures += 1
            waiting.answered.set_exception(error)

    def warm(self, row: Any) -> None:
        """Write a few tokens: what is lazy happens the first time."""
        with self._computing():
            steps = self._begin()
            answers = steps.join([row])
            for _ in range(WARM_STEPS):
                if not answers[0].is_done:
                    steps.step()
