"""Loaded models: on demand, each once, the least recently used leaving when memory is short."""

from __future__ import annotations

import asyncio
import ctypes
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from service.batching import Batcher
from service.errors import ApiError
from service.library import importing
from store.artifacts import ArtifactStore
from store.models import Version
from store.records import ArtifactRecord

if TYPE_CHECKING:
    from learning.prediction import Predictor

LOADERS = 2  # models read from the disk at a time
Files = Mapping[str, ArtifactRecord]


@dataclass(eq=False, slots=True)
class Loaded:
    """A version in memory, with the queue in front of it."""

    version_id: str
    project: str
    ref: str
    predictor: Predictor
    batcher: Batcher
    load_ms: float
    loaded_at: float
    last_used: float
    pinned: bool = False
    users: int = 0  # requests that are being answered
    is_dropped: bool = False

    @property
    def bytes(self) -> int:
        """Memory of its weights."""
        size: int = self.predictor.bytes
        return size


class Predictors:
    """The predictors of one process under a memory budget."""

    def __init__(self, artifacts: ArtifactStore, budget_bytes: int, most_waiting: int) -> None:
        self.budget_bytes = budget_bytes
        self._artifacts = artifacts
        self._most_waiting = most_waiting
        self._loaded: dict[str, Loaded] = {}
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._bytes_loading: dict[str, int] = {}
        self._loads: Counter[str] = Counter()
        self._loaders = CapacityLimiter(LOADERS)
        self._lock = threading.Lock()
        # One for the process, not one for each model: two at once on the same cores answer fewer in all.
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")

    def take(self, version_id: str) -> Loaded | None:
        """Return a version that is in memory, in use until it is given back, or None."""
        with self._lock:
            loaded = self._loaded.get(version_id)
            if loaded is not None:
                loaded.users += 1
                loaded.last_used = time.time()
            return loaded

    def give_back(self, loaded: Loaded) -> None:
        """End a use."""
        with self._lock:
            loaded.users -= 1
            is_last = loaded.is_dropped and not loaded.users
        if is_last:
            self._device.submit(return_memory)

    async def use(self, version: Version, project: str, files: Files) -> tuple[Loaded, float]:
        """Return a version in use and the milliseconds that loading it took, 0 when it was there already.

        Whoever comes first loads, and the others wait for that. 503 when there is no room, since what is pinned or
        answering stays. Who is cancelled leaves the others, and the loading, alone.
        """
        version_id, load_ms = version.record.id, 0.0
        while (loaded := self.take(version_id)) is None:
            if version_id not in self._loading:
                self._loading[version_id] = asyncio.create_task(self._load(version, project, files))
            load_ms = (await asyncio.shield(self._loading[version_id])).load_ms
        return loaded, load_ms

    async def _load(self, version: Version, project: str, files: Files) -> Loaded:
        version_id, size = version.record.id, sum(file.bytes for file in files.values())
        try:
            with self._lock:
                self._bytes_loading[version_id] = size
            loaded = await to_thread.run_sync(self._load_now, version, project, files, size, limiter=self._loaders)
            with self._lock:
                self._loaded[version_id] = loaded
                self._loads[version_id] += 1
            return loaded
        finally:
            with self._lock:
                self._bytes_loading.pop(version_id, None)
            del self._loading[version_id]

    def _load_now(self, version: Version, project: str, files: Files, size: int) -> Loaded:
        started = time.perf_counter()
        self._make_room(version, size)
        loaded = self._read(version, project, files)
        loaded.load_ms = (time.perf_counter() - started) * 1000
        return loaded

    def _read(self, version: Version, project: str, files: Files) -> Loaded:
        with importing:
            from learning.prediction import Predictor

        with tempfile.TemporaryDirectory(prefix="anneal-model-") as directory:
            self._artifacts.copy_to(files, Path(directory))
            predictor = Predictor(Path(directory))
        batcher = Batcher(predictor.answer, self._device, self._most_waiting)
        if (row := predictor.example()) is not None:
            batcher.warm(row)
        now = time.time()
        return Loaded(version.record.id, project, version.ref, predictor, batcher, 0.0, now, now)

    def _make_room(self, version: Version, size: int) -> None:
        """Drop what was used least recently until there is room; 503 when what may not leave fills the budget."""
        with self._lock:
            loading = sum(other for key, other in self._bytes_loading.items() if key != version.record.id)
            needed = size + loading + sum(loaded.bytes for loaded in self._loaded.values()) - self.budget_bytes
            leaving: list[Loaded] = []
            for loaded in sorted(self._loaded.values(), key=lambda one: one.last_used):
                if needed <= 0:
                    break
                if not loaded.pinned and not loaded.users:
                    leaving.append(loaded)
                    needed -= loaded.bytes
            if needed > 0:
                raise self._no_room(version, size)
            for loaded in leaving:
                self._drop(loaded)
        if leaving:
            leaving.clear()
            return_memory()

    def _no_room(self, version: Version, size: int) -> ApiError:
        pinned = sum(loaded.bytes for loaded in self._loaded.values() if loaded.pinned)
        return ApiError(
            503,
            "no_memory_for_model",
            f"{version.ref} needs {size} bytes of memory; the budget is {self.budget_bytes}, of which pinned models "
            f"hold {pinned}, and models that are answering stay.",
            hint="Try again later, unload a pinned model, or raise ANNEAL_PREDICTOR_MEMORY_BYTES on the server.",
            retry_after_s=2,
        )

    def _drop(self, loaded: Loaded) -> None:
        loaded.is_dropped = True
        self._loaded.pop(loaded.version_id, None)

    def pin(self, loaded: Loaded, pinned: bool) -> None:
        """Keep a version in memory whatever else is wanted, or let it go again."""
        loaded.pinned = pinned

    def unload(self, version_id: str) -> bool:
        """Forget a version, pinned or not, and return whether it was loaded; what it is answering it answers."""
        with self._lock:
            loaded = self._loaded.get(version_id)
            if loaded is None:
                return False
            self._drop(loaded)
        del loaded
        return_memory()
        return True

    def ledger(self) -> list[tuple[Loaded, int]]:
        """Return what is loaded, the most recently used first, and how often each was loaded."""
        with self._lock:
            found = sorted(self._loaded.values(), key=lambda loaded: -loaded.last_used)
            return [(loaded, self._loads[loaded.version_id]) for loaded in found]

    def close(self) -> None:
        """End the device's thread."""
        self._device.shutdown(wait=False, cancel_futures=True)


def return_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps what was freed below its threshold for mapping, which grows up to 32 MiB with what was mapped before:
    without this, a process stays as large as its largest models were.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves
    if trim is not None:
        trim(0)
