"""Turns of the device: who joins when, who leaves, what a failure takes with it, and the limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from service.continuous_batching import ContinuousBatcher, Writing
from service.device import Device
from service.errors import ApiError


class Counting:
    """One row's answer: a number of letters."""

    def __init__(self, length: int) -> None:
        self.length, self.written, self.told = length, 0, 0

    @property
    def is_done(self) -> bool:
        return self.written == self.length

    def fresh(self) -> str:
        new, self.told = "x" * (self.written - self.told), self.written
        return new

    def answer(self) -> dict[str, Any]:
        return {"length": self.written}


class Letters:
    """Writes as many letters as a row says, three rows at a time; a row of "poison" fails, a row of -1 fails later."""

    most = 3

    def __init__(self, log: list[list[int]], hold: threading.Event) -> None:
        self.going: list[Counting] = []
        self.log, self.hold = log, hold

    def fitting(self, rows: Sequence[Any]) -> int:
        return max(0, min(len(rows), self.most - len(self.going)))

    def join(self, rows: Sequence[Any]) -> list[Counting]:
        if "poison" in rows:
            raise ValueError("poison")
        joined = [Counting(row) for row in rows]
        self.going += joined
        return joined

    def leave(self, answers: Collection[Any]) -> None:
        self.going = [one for one in self.going if one not in answers]

    def step(self) -> list[Counting]:
        assert self.hold.wait(10)
        self.log.append([one.length for one in self.going])
        if any(one.length < 0 for one in self.going):
            raise ValueError("broken")
        for one in self.going:
            one.written += 1
        ended = [one for one in self.going if one.is_done]
        self.going = [one for one in self.going if not one.is_done]
        return ended


def run(scenario: Callable[[ContinuousBatcher, threading.Event], Awaitable[None]], most: int = 100) -> list[list[int]]:
    """Run a scenario; return the rows of each step."""
    log: list[list[int]] = []
    hold = threading.Event()

    async def main() -> None:
        device = Device()
        batcher = ContinuousBatcher(lambda: Letters(log, hold), nullcontext, device, most)
        try:
            async with asyncio.timeout(20):
                await scenario(batcher, hold)
        finally:
            hold.set()
            device.close()

    asyncio.run(main())
    return log


async def length(writing: Writing) -> list[int]:
    return [one["length"] for one in await writing.answered]


def test_who_comes_late_joins_and_who_has_ended_makes_room() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        first = batcher.submit([4, 2])
        await asyncio.sleep(0.05)  # it has the device now
        late = [batcher.submit([3, 5]), batcher.submit([1])]
        hold.set()
        assert await asyncio.gather(length(first), *map(length, late)) == [[4, 2], [3, 5], [1]]
        assert (first.batch_size, late[0].batch_size) == (3, 3)
        assert (batcher.counts.rows, batcher.counts.requests) == (5, 3)

    log = run(scenario)
    assert log[0] == [4, 2]
    # After the end of the second row there is room for two: one of each request that waits.
    assert [4, 3, 1] in log
    assert max(map(len, log)) == 3


def test_who_has_left_is_not_written_on() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        goes, stays = batcher.submit([10**9]), batcher.submit([6])
        waits = batcher.submit([7, 8])
        await asyncio.sleep(0.05)
        goes.answered.cancel()
        waits.answered.cancel()
        hold.set()
        assert await length(stays) == [6]
        assert await length(batcher.submit([2])) == [2]

    assert run(scenario)[-1] == [2]


def test_a_prompt_that_fails_stays_alone() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        hold.set()
        fine, bad, also = batcher.submit([3]), batcher.submit(["poison"]), batcher.submit([2])
        assert await length(fine) == [3]
        assert await length(also) == [2]
        with pytest.raises(ValueError, match="poison"):
            await bad.answered
        assert batcher.counts.failures == 1

    run(scenario)


def test_a_step_that_fails_fails_all_and_then_goes_on() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        hold.set()
        both = [batcher.submit([50]), batcher.submit([-1])]
        found = await asyncio.gather(*(one.answered for one in both), return_exceptions=True)
        assert [str(one) for one in found] == ["broken", "broken"]
        assert await length(batcher.submit([2])) == [2]

    run(scenario)


def test_a_listener_hears_everything_before_the_answer() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        hold.set()
        heard: list[tuple[int, str]] = []
        writing = batcher.submit([5, 3], lambda row, text: heard.append((row, text)))
        writing.answered.add_done_callback(lambda _: heard.append((9, "end")))
        await writing.answered
        await asyncio.sleep(0)
        assert heard.pop() == (9, "end")
        assert ["".join(text for row, text in heard if row == number) for number in (0, 1)] == ["xxxxx", "xxx"]

    run(scenario)


def test_others_have_the_device_between_turns() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        hold.set()
        writing = batcher.submit([10**9])
        for _ in range(3):
            turn = asyncio.get_running_loop().create_future()
            batcher._device.take_turn(lambda turn=turn: turn.set_result(None))  # type: ignore[misc]
            await turn
            batcher._device.free()
        assert not writing.answered.done()
        writing.answered.cancel()

    run(scenario)


def test_too_many_waiting_are_refused() -> None:
    async def scenario(batcher: ContinuousBatcher, hold: threading.Event) -> None:
        whole = batcher.submit([1] * 20)  # one alone may be larger than what may wait
        with pytest.raises(ApiError) as caught:
            batcher.submit([2])
        assert (caught.value.status, caught.value.code) == (429, "too_busy")
        hold.set()
        assert len(await whole.answered) == 20
        assert await length(batcher.submit([2])) == [2]

    run(scenario, most=10)
