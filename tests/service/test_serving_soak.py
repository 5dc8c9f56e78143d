"""Long runs against one API process: many more models than memory, and promotions under load. Run with -m slow."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import pytest
from registered import INPUT, register
from servers import Stack

from service.predictors import OVERHEAD_BYTES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MODELS, ROOM, CONNECTIONS = 100, 10, 16
ZIPF_S = float(os.environ.get("ANNEAL_TEST_ZIPF_S", "60"))
SOAK_S, PROMOTE_EVERY_S, LOAD = float(os.environ.get("ANNEAL_TEST_SOAK_S", "600")), 5.0, 0.8


@dataclass(slots=True)
class Answer:
    """One answer: when its request was sent and it was whole, its status, and who gave it."""

    ref: str
    sent: float
    came: float
    status: int
    state: str
    version: int  # that answered; there are millions of answers, of which no more is kept


class Connection:
    """One kept-open connection."""

    def __init__(self, stack: Stack) -> None:
        self._port, self._key = stack.port, stack.key

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def predict(self, ref: str) -> Answer:
        """Ask for one row."""
        body = json.dumps({"inputs": [INPUT]})
        sent = time.monotonic()
        self._writer.write(
            f"POST /api/v1/models/{ref}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        content = await self._reader.readexactly(int(headers["content-length"]))
        status = int(head.split()[1])
        came, said = time.monotonic(), json.loads(content)
        version = said["model"]["version"] if status == HTTPStatus.OK else 0
        return Answer(ref, sent, came, status, headers.get("model-state", ""), version)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    """An API with a hundred models and memory for ten of them."""
    stack = Stack(tmp_path_factory.mktemp("crowded"))
    stack.directory.mkdir(exist_ok=True)
    try:
        for arguments in (("migrations", "upgrade"), ("service", "--ensure-key")):
            assert stack.run(*arguments).returncode == 0
        sizes = [register(stack, f"m{n}") + OVERHEAD_BYTES for n in range(MODELS)]
        budget = ROOM * max(sizes) + min(sizes) // 2
        stack.environment["ANNEAL_PREDICTOR_MEMORY_BYTES"] = str(budget)
        yield stack.up(workers=False), budget
    finally:
        stack.down()


def simulated(refs: list[str], room: int) -> float:
    """Return the share of requests that find their model when the least recently used leaves."""
    held: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for ref in refs:
        hits += ref in held
        held[ref] = None
        held.move_to_end(ref)
        if len(held) > room:
            held.popitem(last=False)
    return hits / len(refs)


@pytest.mark.parametrize("clients", [4, 1])
def test_a_hundred_models_and_memory_for_ten(crowded: tuple[Stack, int], clients: int) -> None:
    """Nobody is refused, and who asks alone finds the models in memory that LRU keeps there.

    Of several, each that waits for a model takes room from the others, and two that wait for the same are both cold.
    """
    stack, budget = crowded
    draw = random.Random(0)
    weights = [1 / rank for rank in range(1, MODELS + 1)]
    refs, answers, used = list[str](), list[Answer](), list[int]()

    async def ask(until: float) -> None:
        async with Connection(stack) as connection:
            while time.monotonic() < until:
                refs.append(f"m{draw.choices(range(MODELS), weights)[0]}")
                answers.append(await connection.predict(refs[-1]))

    async def watch(until: float) -> None:
        headers = {"Authorization": f"Bearer {stack.key}"}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=30) as client:
            while time.monotonic() < until:
                used.append((await client.get("/api/v1/models:loaded")).json()["used_bytes"])
                await asyncio.sleep(0.25)

    async def main() -> None:
        until = time.monotonic() + ZIPF_S
        # Fewer at a time than there is room for: else two models that leave for each other are no one's fault.
        await asyncio.gather(watch(until), *(ask(until) for _ in range(clients)))

    asyncio.run(main())
    hits, expected = sum(one.state == "loaded" for one in answers) / len(answers), simulated(refs, ROOM)
    print(f"\n{len(answers)} requests, hit ratio {hits:.4f}, by LRU {expected:.4f}; {max(used)} of {budget} bytes")
    assert Counter(one.status for one in answers) == {200: len(answers)}
    assert hits == pytest.approx(expected, abs=0.01) if clients == 1 else hits < expected + 0.01
    assert max(used) <= budget


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("promoted"))
    try:
        stack.up(workers=False)
        register(stack, "live", aliases=("production",))
        yield stack
    finally:
        stack.down()


async def paced(stack: Stack, seconds: float, next_at: Callable[[], float], answers: list[Answer]) -> None:
    """Ask as often as `next_at` says, from one connection."""
    until = time.monotonic() + seconds
    async with Connection(stack) as connection:
        while (now := time.monotonic()) < until:
            if (due := next_at()) > now:
                await asyncio.sleep(due - now)
            answers.append(await connection.predict("live@production"))


def capacity(stack: Stack) -> float:
    """Return the requests a second that all connections together get answered."""
    answers: list[Answer] = []

    async def main() -> None:
        await asyncio.gather(*(paced(stack, 5, lambda: 0.0, answers) for _ in range(CONNECTIONS)))

    asyncio.run(main())
    return len(answers) / 5


def test_promotions_under_load(promoted: Stack) -> None:
    rate = LOAD * capacity(promoted)
    answers: list[Answer] = []
    # When the alias may have begun to point at each version: from just before it was moved.
    moves: list[tuple[float, float]] = [(0.0, 0.0)]
    turn = iter(range(1 << 62))
    began = time.monotonic()

    async def promote() -> None:
        headers = {"Authorization": f"Bearer {promoted.key}"}
        async with httpx.AsyncClient(base_url=f"{promoted.url}/api/v1", headers=headers, timeout=30) as client:
            while time.monotonic() + PROMOTE_EVERY_S < began + SOAK_S:
                await asyncio.sleep(PROMOTE_EVERY_S)
                await asyncio.to_thread(register, promoted, "live")
                before = time.monotonic()
                moved = await client.put("/models/live/aliases/production", json={"version": len(moves) + 1})
                assert moved.status_code == 200, moved.text
                moves.append((before, time.monotonic()))

    async def main() -> None:
        asks = (paced(promoted, SOAK_S, lambda: began + next(turn) / rate, answers) for _ in range(CONNECTIONS))
        await asyncio.gather(promote(), *asks)

    asyncio.run(main())
    stale = [one for one in answers if not held(moves, one)]
    took = sorted(one.came - one.sent for one in answers)
    print(
        f"\n{len(answers)} requests at {len(answers) / SOAK_S:.0f}/s of {rate:.0f}/s wanted, {len(moves) - 1} "
        f"promotions; p50 {took[len(took) // 2] * 1e3:.2f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.2f} ms"
    )
    assert Counter(one.status for one in answers) == {200: len(answers)}
    assert stale == []
    assert len(moves) > SOAK_S / PROMOTE_EVERY_S / 2
    assert len(answers) > 0.9 * rate * SOAK_S


def held(moves: list[tuple[float, float]], answer: Answer) -> bool:
    """Return whether the answer is from a version that held the alias at some time between question and answer."""
    first = bisect_right([done for _, done in moves], answer.sent)  # surely moved before it was sent
    last = bisect_right([begun for begun, _ in moves], answer.came)  # perhaps moved before it came
    return first <= answer.version <= last
