"""Loaded models: on demand, each once, the least recently used leaving when memory is short."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from service.batching import Batcher, Batching
from service.continuous_batching import ContinuousBatcher
from service.device import Device
from service.errors import ApiError
from service.freed_memory import return_after, share_one_arena
from service.library import importing
from store.artifacts import ArtifactStore
from store.models import Version
from store.records import ArtifactRecord

if TYPE_CHECKING:
    from learning.prediction import Predictor

# What a model takes beside what its files hold, as seen with many small ones.
OVERHEAD_BYTES = 50_000
LOADERS = 2  # models read from the disk at a time
# How long a model that is to be loaded waits for others to end what they are answering, since they leave then.
LONGEST_WAIT_FOR_ROOM_S = 10.0
Files = Mapping[str, ArtifactRecord]


@dataclass(eq=False, slots=True)
class Loaded:
    """A version in memory, with the queue in front of it."""

    version_id: str
    project: str
    ref: str
    predictor: Predictor
    batcher: Batching
    parsers: CapacityLimiter  # threads that read inputs
    embedder: Batcher  # of the same rows' features
    bytes: int  # of memory, about
    load_ms: float
    loaded_at: float
    last_used: float
    pinned: bool = False
    users: int = 0  # requests that are being answered


@dataclass(eq=False, slots=True)
class _Loading:
    """A version on its way into memory, and how many requests wait for it."""

    task: asyncio.Task[Loaded]
    users: int = 0

    @property
    def is_done(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


def bytes_of(files: Files) -> int:
    """Return the memory that a model of these files is counted with."""
    return OVERHEAD_BYTES + sum(file.bytes for file in files.values())


class Predictors:
    """The predictors of one process under a memory budget; belongs to its event loop."""

    def __init__(self, artifacts: ArtifactStore, budget_bytes: int, most_waiting: int) -> None:
        share_one_arena()
        self.budget_bytes = budget_bytes
        self._artifacts = artifacts
        self._most_waiting = most_waiting
        self._loaded: dict[str, Loaded] = {}
        self._leaving: set[Loaded] = set()  # not to be had any more, but still answering
        self._loading: dict[str, _Loading] = {}
        self._bytes_loading: dict[str, int] = {}
        self._loads: Counter[str] = Counter()
        self._loaders = CapacityLimiter(LOADERS)
        # More of them than cores only take turns with the loop and the device.
        self._parsers = CapacityLimiter(os.cpu_count() or 1)
        self._changed = asyncio.Event()  # something has left, or may
        self._device = Device()

    def take(self, version_id: str) -> Loaded | None:
        """Return a version that is in memory, in use until it is given back, or None."""
        loaded = self._loaded.get(version_id)
        if loaded is not None:
            loaded.users += 1
            loaded.last_used = time.time()
        return loaded

    def give_back(self, loaded: Loaded) -> None:
        """End a use."""
        loaded.users -= 1
        if not loaded.users and loaded in self._leaving:
            self._leaving.remove(loaded)
            self._changed.set()

    async def use(self, version: Version, project: str, files: Files) -> tuple[Loaded, float]:
        """Return a version in use and the milliseconds that loading it took, 0 when it was there already.

        Whoever comes first loads, and the others wait for that. 503 when there is no room beside what is pinned. Who is
        cancelled leaves the others, and the loading, alone.
        """
        if (loaded := self.take(version.record.id)) is not None:
            return loaded, 0.0
        loading = self._loading.get(version.record.id) or self._begin(version, project, files)
        loading.users += 1
        try:
            loaded = await asyncio.shield(loading.task)
        except asyncio.CancelledError:
            if loading.is_done:
                self.give_back(loading.task.result())
            loading.users -= 1
            raise
        return loaded, loaded.load_ms

    def _begin(self, version: Version, project: str, files: Files) -> _Loading:
        loading = _Loading(asyncio.create_task(self._load(version, project, files)))
        loading.task.add_done_callback(_hear)
        self._loading[version.record.id] = loading
        return loading

    async def _load(self, version: Version, project: str, files: Files) -> Loaded:
        started = time.perf_counter()
        version_id, size = version.record.id, bytes_of(files)
        try:
            await self._reserve(version, size)
            loaded = await to_thread.run_sync(self._read, version, project, files, limiter=self._loaders)
            loaded.load_ms = (time.perf_counter() - started) * 1000
            # Theirs from now on: else somebody who wants room could take it away before they have had their turn.
            loaded.users = self._loading[version_id].users
            self._loaded[version_id] = loaded
            self._loads[version_id] += 1
            return loaded
        finally:
            self._bytes_loading.pop(version_id, None)
            del self._loading[version_id]
            self._changed.set()

    def _read(self, version: Version, project: str, files: Files) -> Loaded:
        with importing:
            from learning.prediction import Predictor

        with tempfile.TemporaryDirectory(prefix="anneal-model-") as directory:
            self._artifacts.copy_to(files, Path(directory))
            predictor = Predictor(Path(directory))
        return_after(predictor)
        cost, positions = (None, None) if predictor.parses_at_once else (predictor.cost, predictor.positions)
        batcher: Batching
        if predictor.is_stepwise:
            batcher = ContinuousBatcher(predictor.steps, predictor.computing, self._device, self._most_waiting)
        else:
            batcher = Batcher(predictor.answer, self._device, self._most_waiting, cost)
        if (row := predictor.example()) is not None:
            batcher.warm(row)
        now = time.time()
        return Loaded(
            version.record.id,
            project,
            version.ref,
            predictor,
            batcher,
            self._parsers,
            Batcher(predictor.embed, self._device, self._most_waiting, positions),
            bytes_of(files),
            0.0,
            loaded_at=now,
            last_used=now,
        )

    async def _reserve(self, version: Version, size: int) -> None:
        """Keep memory for a version that is to be loaded, once what leaves for it has left."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_FOR_ROOM_S):
                while not self._make_room(version, size):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._no_room(version, size) from None
        self._bytes_loading[version.record.id] = size

    def _make_room(self, version: Version, size: int) -> bool:
        """Drop what was used least recently, and return whether there is room now; 503 when there never will be."""
        pinned = sum(loaded.bytes for loaded in self._loaded.values() if loaded.pinned)
        if pinned + size > self.budget_bytes:
            raise self._no_room(version, size)
        needed = size + sum(self._bytes_loading.values()) + self._bytes_loaded() - self.budget_bytes
        for loaded in sorted(self._loaded.values(), key=lambda one: one.last_used):
            if needed > 0 and not loaded.pinned:
                needed -= loaded.bytes
                self._drop(loaded)
        return needed + sum(loaded.bytes for loaded in self._leaving) <= 0

    def _bytes_loaded(self) -> int:
        return sum(loaded.bytes for loaded in self._loaded.values())

    def _no_room(self, version: Version, size: int) -> ApiError:
        pinned = sum(loaded.bytes for loaded in self._loaded.values() if loaded.pinned)
        return ApiError(
            503,
            "no_memory_for_model",
            f"{version.ref} needs {size} bytes of memory; the budget is {self.budget_bytes}, of which pinned models "
            f"hold {pinned}, and models that are answering stay until they have.",
            hint="Try again later, unload a pinned model, or raise ANNEAL_PREDICTOR_MEMORY_BYTES on the server.",
            retry_after_s=2,
        )

    def _drop(self, loaded: Loaded) -> None:
        del self._loaded[loaded.version_id]
        if loaded.users:
            self._leaving.add(loaded)

    def pin(self, loaded: Loaded, pinned: bool) -> None:
        """Keep a version in memory whatever else is wanted, or let it go again."""
        loaded.pinned = pinned
        self._changed.set()

    def unload(self, version_id: str) -> bool:
        """Forget a version, pinned or not, and return whether it was loaded; what it is answering it answers."""
        loaded = self._loaded.get(version_id)
        if loaded is not None:
            self._drop(loaded)
            self._changed.set()
        return loaded is not None

    def ledger(self) -> list[tuple[Loaded, int]]:
        """Return what is loaded, the most recently used first, and how often each was loaded."""
        found = sorted(self._loaded.values(), key=lambda loaded: -loaded.last_used)
        return [(loaded, self._loads[loaded.version_id]) for loaded in found]

    @property
    def used_bytes(self) -> int:
        """Memory of all that is loaded, what leaves included."""
        return self._bytes_loaded() + sum(loaded.bytes for loaded in self._leaving)

    def close(self) -> None:
        """End the device's thread."""
        self._device.close()


def _hear(loading: asyncio.Task[Loaded]) -> None:
    """Take note of a failure that everybody who waited for it may have left behind."""
    if not loading.cancelled():
        loading.exception()
