"""The size of a batch is found by measuring: where that is depends on what a position costs in batches of each size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from time import thread_time
from typing import Any

import pytest

from service.batch_size import FACTOR, START, BatchSize
from service.batching import Batcher
from service.device import Device

PLENTY = 100 * START


def settled(cost: Callable[[int], float], batches: int = 600, waiting: int = PLENTY) -> tuple[BatchSize, list[int]]:
    """Return what is best after so many batches, and their sizes, when a batch of so many positions costs that."""
    size, taken = BatchSize(), []
    for _ in range(batches):
        allowed = size.next(waiting)
        taken.append(min(allowed, waiting))
        size.learn(allowed, taken[-1], cost(taken[-1]))
    return size, taken


@pytest.mark.parametrize("best", [START // 5, START // 2, START, 2 * START, 3 * START])
def test_the_best_size_is_found_wherever_it_is(best: int) -> None:
    def cost(positions: int) -> float:
        return positions * (1 + abs(positions / best - 1))  # a position costs least in batches of that size

    size, taken = settled(cost)
    assert best / FACTOR < size.best < best * FACTOR
    assert sum(one == size.best for one in taken[-100:]) > 80  # others are tried now and then, and no more
    assert max(max(pair) / min(pair) for pair in pairwise(taken)) < FACTOR**2 + 0.01


def test_of_sizes_about_as_fast_the_smallest_is_taken() -> None:
    size, _ = settled(lambda positions: 5.0 * positions)
    assert size.best < START / 5
    size, _ = settled(lambda positions: 5.0 * positions + 100_000)  # what each batch costs is worth sharing
    assert size.best > 2 * START


def test_batches_that_are_not_full_say_nothing() -> None:
    size, taken = settled(lambda positions: 5.0 * positions, waiting=START // 2)
    assert (size.best, set(taken)) == (START, {START // 2})


def test_a_batcher_is_faster_by_it() -> None:
    """Rows of 512 positions that cost least two or three at a time, as large pictures do; at first eight go at once."""
    rows_at_once: list[int] = []

    def answer(rows: Sequence[Any]) -> list[dict[str, Any]]:
        rows_at_once.append(len(rows))
        until = thread_time() + 1e-4 * (1 + len(rows) * (1 + 0.5 * max(0, len(rows) - 3)))
        while thread_time() < until:
            pass
        return [{"value": row} for row in rows]

    async def main() -> None:
        device = Device()
        batcher = Batcher(answer, device, 100_000, lambda _: 512)
        for _ in range(40):
            waiting = batcher.submit(range(64))
            assert [one["value"] for one in await waiting.answered] == list(range(64))
        device.close()

    asyncio.run(main())
    assert rows_at_once[0] == 8
    later = rows_at_once[-60:]
    assert sum(one in (2, 3) for one in later) > 40, later
