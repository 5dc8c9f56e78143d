"""What waits when the device is free is the next batch: sizes, order, failures, those who have left, and the limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from time import thread_time
from typing import Any

import pytest

from service.batch_size import START
from service.batching import MOST_ROWS, ON_LOOP_S, Batcher
from service.device import Device
from service.errors import ApiError


class Doubler:
    """Answers rows by doubling them; holds the first batch until it is let go, and notes every batch's rows."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def answer(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.batches.append(list(rows))
        self.started.set()
        assert self.go.wait(10)
        if "poison" in rows:
            raise ValueError("poison")
        return [{"value": 2 * row} for row in rows]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


def run(
    doubler: Doubler, scenario: Any, most_waiting: int = 100_000, positions: Callable[[Any], int] | None = None
) -> None:
    """Run a scenario with a batcher whose device is busy with a first request."""

    async def main() -> None:
        device = Device()
        batcher = Batcher(doubler.answer, device, most_waiting, positions)
        first = batcher.submit([1])
        await asyncio.to_thread(doubler.started.wait, 10)
        try:
            await scenario(batcher)
        finally:
            doubler.go.set()
        assert await first.answered == [{"value": 2}]
        device.close()

    asyncio.run(main())


def test_whoever_waits_is_the_next_batch(doubler: Doubler) -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = [batcher.submit([10 * n, 10 * n + 1]) for n in range(1, 6)]
        doubler.go.set()
        for n, one in enumerate(waiting, 1):
            assert await one.answered == [{"value": 20 * n}, {"value": 20 * n + 2}]
            assert one.batch_size == 10
            assert one.queue_ms > 0

    run(doubler, scenario)
    assert [len(rows) for rows in doubler.batches] == [1, 10]


def test_who_has_left_is_not_computed(doubler: Doubler) -> None:
    async def scenario(batcher: Batcher) -> None:
        stays, leaves = batcher.submit([5]), batcher.submit([6])
        leaves.answered.cancel()
        doubler.go.set()
        assert await stays.answered == [{"value": 10}]

    run(doubler, scenario)
    assert doubler.batches == [[1], [5]]


def test_a_failure_stays_alone(doubler: Doubler) -> None:
    async def scenario(batcher: Batcher) -> None:
        fine, bad, also = batcher.submit([5]), batcher.submit(["poison"]), batcher.submit([7])
        doubler.go.set()
        assert await fine.answered == [{"value": 10}]
        assert await also.answered == [{"value": 14}]
        with pytest.raises(ValueError, match="poison"):
            await bad.answered

    run(doubler, scenario)


def test_many_rows_go_in_pieces_and_others_come_in_between(doubler: Doubler) -> None:
    async def scenario(batcher: Batcher) -> None:
        many, few = batcher.submit(list(range(2 * MOST_ROWS + 5))), batcher.submit([7])
        doubler.go.set()
        assert [one["value"] for one in await many.answered] == [2 * n for n in range(2 * MOST_ROWS + 5)]
        assert await few.answered == [{"value": 14}]
        assert many.batch_size == MOST_ROWS

    run(doubler, scenario)
    assert [len(rows) for rows in doubler.batches] == [1, MOST_ROWS, MOST_ROWS, 6]
    assert doubler.batches[2][:2] == [7, MOST_ROWS]


def test_rows_count_by_their_positions(doubler: Doubler) -> None:
    half = START // 2

    async def scenario(batcher: Batcher) -> None:
        # Each row has as many positions as its value: two halves, then one that is too long by itself, then the rest.
        first, second = batcher.submit([half, half - 1, 2 * START]), batcher.submit([half, 1, half])
        doubler.go.set()
        assert [one["value"] for one in await first.answered] == [2 * half, 2 * half - 2, 4 * START]
        assert [one["value"] for one in await second.answered] == [2 * half, 2, 2 * half]
        assert (batcher._rows_waiting, batcher._positions_waiting) == (0, 0)

    run(doubler, scenario, positions=int)
    assert doubler.batches == [[1], [half, half - 1], [half, 1], [2 * START], [half]]


def test_two_models_have_the_device_in_turn() -> None:
    computed: list[str] = []

    def model(name: str) -> Callable[[Sequence[Any]], list[dict[str, Any]]]:
        def answer(rows: Sequence[Any]) -> list[dict[str, Any]]:
            computed.append(name * len(rows))
            until = thread_time() + 2 * ON_LOOP_S  # long enough for the device
            while thread_time() < until:
                pass
            return [{}] * len(rows)

        return answer

    async def main() -> None:
        device = Device()
        a, b = Batcher(model("a"), device, 10_000), Batcher(model("b"), device, 10_000)
        waiting = [a.submit([0] * 3 * MOST_ROWS), b.submit([0]), b.submit([0]), a.submit([0])]
        # What waits for a model when it has the device is one batch, whenever it came.
        await asyncio.gather(*(one.answered for one in waiting))
        device.close()

    asyncio.run(main())
    assert computed == ["a" * MOST_ROWS, "bb", "a" * MOST_ROWS, "a" * MOST_ROWS, "a"]


def test_many_rows_are_not_immediate() -> None:
    async def main() -> None:
        device = Device()
        batcher = Batcher(lambda rows: [{}] * len(rows), device, 1)
        batcher.warm(0)
        few = batcher.submit([0])
        assert batcher.is_immediate
        await few.answered
        many = batcher.submit([0] * (4096 * MOST_ROWS))
        assert not batcher.is_immediate  # so whoever asked is watched, and may leave
        many.answered.cancel()
        device.close()

    asyncio.run(main())


def test_too_many_waiting_are_refused(doubler: Doubler) -> None:
    async def scenario(batcher: Batcher) -> None:
        whole = batcher.submit([1] * 20)  # one alone may be larger than what may wait
        with pytest.raises(ApiError) as caught:
            batcher.submit([2])
        assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (429, "too_busy", 1)
        doubler.go.set()
        assert len(await whole.answered) == 20
        assert await batcher.submit([2]).answered == [{"value": 4}]

    run(doubler, scenario, most_waiting=10)
