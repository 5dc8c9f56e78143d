"""What waits when the device is free is the next batch: sizes, order, failures, those who have left, and the limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.batching import MOST_ROWS, Batcher
from service.errors import ApiError


class Device:
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
def device() -> Device:
    return Device()


def run(device: Device, scenario: Any, most_waiting: int = 100_000) -> None:
    """Run a scenario with a batcher whose device is busy with a first request."""

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(device.answer, thread, most_waiting)
            first = batcher.submit([1])
            await asyncio.to_thread(device.started.wait, 10)
            try:
                await scenario(batcher)
            finally:
                device.go.set()
            assert await first.answered == [{"value": 2}]

    asyncio.run(main())


def test_whoever_waits_is_the_next_batch(device: Device) -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = [batcher.submit([10 * n, 10 * n + 1]) for n in range(1, 6)]
        device.go.set()
        for n, one in enumerate(waiting, 1):
            assert await one.answered == [{"value": 20 * n}, {"value": 20 * n + 2}]
            assert one.batch_size == 10
            assert one.queue_ms > 0

    run(device, scenario)
    assert [len(rows) for rows in device.batches] == [1, 10]


def test_who_has_left_is_not_computed(device: Device) -> None:
    async def scenario(batcher: Batcher) -> None:
        stays, leaves = batcher.submit([5]), batcher.submit([6])
        leaves.answered.cancel()
        device.go.set()
        assert await stays.answered == [{"value": 10}]

    run(device, scenario)
    assert device.batches == [[1], [5]]


def test_a_failure_stays_alone(device: Device) -> None:
    async def scenario(batcher: Batcher) -> None:
        fine, bad, also = batcher.submit([5]), batcher.submit(["poison"]), batcher.submit([7])
        device.go.set()
        assert await fine.answered == [{"value": 10}]
        assert await also.answered == [{"value": 14}]
        with pytest.raises(ValueError, match="poison"):
            await bad.answered

    run(device, scenario)


def test_many_rows_go_in_pieces_and_others_ride_along(device: Device) -> None:
    async def scenario(batcher: Batcher) -> None:
        many, few = batcher.submit(list(range(MOST_ROWS + 5))), batcher.submit([7])
        device.go.set()
        assert [one["value"] for one in await many.answered] == [2 * n for n in range(MOST_ROWS + 5)]
        assert await few.answered == [{"value": 14}]
        assert many.batch_size == MOST_ROWS

    run(device, scenario)
    assert [len(rows) for rows in device.batches] == [1, MOST_ROWS, 6]


def test_too_many_waiting_are_refused(device: Device) -> None:
    async def scenario(batcher: Batcher) -> None:
        whole = batcher.submit([1] * 20)  # one alone may be larger than what may wait
        with pytest.raises(ApiError) as caught:
            batcher.submit([2])
        assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (429, "too_busy", 1)
        device.go.set()
        assert len(await whole.answered) == 20
        assert await batcher.submit([2]).answered == [{"value": 4}]

    run(device, scenario, most_waiting=10)
