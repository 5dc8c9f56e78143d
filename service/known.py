"""Which version a key's holder means by a ref: read once, and known until something in the database has changed.

A revoked key or a moved alias is seen by the next request in every process: each request is checked against the
database's stamp, read after the request has come. Requests that come together share one look at it, and where it has
changed, which it does with every heartbeat, one reading of what it was asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread

from service.authorization import authorize
from store import models
from store.database import Database
from store.keys import Principal
from store.models import Version
from store.records import ArtifactRecord
from store.stamp import Stamp

MOST = 4096
PREDICT = "predict"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A version and who may ask it."""

    caller: Principal
    version: Version
    files: dict[str, ArtifactRecord]
    until: float  # on the monotonic clock, when the key expires
    version_id: str
    task: str
    about: dict[str, str | int | None]  # the version as an answer names it

    @classmethod
    def of(cls, caller: Principal, version: Version, files: dict[str, ArtifactRecord], looked_at: float) -> Meaning:
        """Return what was just read."""
        record = version.record
        about: dict[str, str | int | None] = {
            "name": version.model.name,
            "version": record.number,
            "alias": version.alias,
        }
        until = math.inf if caller.expires_in_s is None else looked_at + caller.expires_in_s
        return cls(caller, version, files, until, record.id, record.task, about)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read after the stamp had a value, and holds as long as it has."""

    stamp: Hashable
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is being read since the stamp had a value."""

    stamp: Hashable
    task: asyncio.Task[Meaning]


class Known:
    """What one process knows; belongs to its event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stamp = Stamp(database.engine)
        self._value: Hashable = None
        self._read: dict[bytes, _Read] = {}
        self._readings: dict[bytes, _Reading] = {}
        self._is_fresh = False  # the stamp was read after every request came that can ask now
        self._look_ahead: asyncio.Task[None] | None = None
        self._one_look = asyncio.Lock()
        self._thread = CapacityLimiter(1)

    async def of(self, authorization: str, ref: str, scope: str = PREDICT) -> Meaning:
        """Return what a ref means to the holder of a key with a scope; raises what an unknown key or ref raises."""
        await self.refresh()
        key = _key(authorization.encode("latin-1", "replace"), ref, scope)
        if (meaning := self._recall(key)) is not None:
            return meaning
        reading = self._readings.get(key)
        # One that began before the latest commit may not have seen it.
        if reading is None or reading.stamp != self._value:
            look_up = partial(self._look_up, authorization, ref, scope)
            reading = _Reading(self._value, asyncio.create_task(self._learn(key, self._value, look_up)))
            reading.task.add_done_callback(_hear)
            self._readings[key] = reading
        return await asyncio.shield(reading.task)  # who is cancelled leaves it to the others

    async def recall(self, authorization: bytes, ref: str) -> Meaning | None:
        """Return what a ref means for predictions if it has had a meaning before; else nothing is looked up."""
        if _key(authorization, ref, PREDICT) not in self._read:
            return None
        try:
            return await self.of(authorization.decode("latin-1"), ref)
        except Exception:  # whatever it was, who asks again is told
            return None

    def recall_at_once(self, authorization: bytes, ref: str) -> Meaning | None:
        """Return what a ref means for predictions if that is known, and known to be so without waiting.

        To be called of what has come from the network by what the loop runs afterwards (`call_soon`), as tasks are.
        """
        if not self._stamp.is_immediate:
            return None
        self._look()
        return self._recall(_key(authorization, ref, PREDICT))

    def _recall(self, key: bytes) -> Meaning | None:
        read = self._read.get(key)
        if read is None or read.stamp != self._value or read.meaning.until < time.monotonic():
            return None
        return read.meaning

    async def _learn(self, key: bytes, stamp: Hashable, look_up: Callable[[], Meaning]) -> Meaning:
        try:
            meaning = await to_thread.run_sync(look_up)
        except BaseException:
            self._read.pop(key, None)
            raise
        finally:
            # A later one has taken its place if somebody has committed meanwhile.
            if (reading := self._readings.get(key)) is not None and reading.stamp == stamp:
                del self._readings[key]
        if len(self._read) >= MOST:
            self._read.clear()
        self._read[key] = _Read(stamp, meaning)
        return meaning

    async def refresh(self) -> None:
        """Make sure that the stamp was read after this call."""
        if not self._stamp.is_immediate:
            if self._look_ahead is None:
                self._look_ahead = asyncio.create_task(self._look_in_turn())
            await asyncio.shield(self._look_ahead)
        else:
            self._look()

    def _look(self) -> None:
        if self._is_fresh:
            return
        self._value = self._stamp.read()
        self._is_fresh = True
        # The loop runs what is ready, then looks at the network, then runs this before anything that came from there:
        # whoever asks until then had sent the request before the reading.
        asyncio.get_running_loop().call_soon(self._grow_stale)

    def _grow_stale(self) -> None:
        self._is_fresh = False

    async def _look_in_turn(self) -> None:
        async with self._one_look:
            self._look_ahead = None  # who comes from here on needs a later look
            self._value = await to_thread.run_sync(self._stamp.read, limiter=self._thread)

    def _look_up(self, authorization: str, ref: str, scope: str) -> Meaning:
        now = time.monotonic()
        with self._database.read() as session:
            caller = authorize(session.connection(), authorization, scope)
            version = models.resolve(session, caller.project, ref)
            files = models.loadable(session, version.record.id)
        return Meaning.of(caller, version, files, now)

    def close(self) -> None:
        """Give the connection up."""
        self._stamp.close()


def _hear(reading: asyncio.Task[Meaning]) -> None:
    """Take note of a failure that everybody who waited for it may have left behind."""
    if not reading.cancelled():
        reading.exception()


def _key(authorization: bytes, ref: str, scope: str) -> bytes:
    # Not the header itself: secrets are not kept, and a comparison of digests tells nothing by its time.
    return hashlib.sha256(b"%b\0%b" % (authorization, f"{scope}\0{ref}".encode("utf-8", "replace"))).digest()
