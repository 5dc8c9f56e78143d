"""Which version a key's holder means by a ref: read once, and known until something in the database has changed.

A revoked key or a moved alias is seen by the next request in every process: each request is checked against the
database's stamp, read after the request has come. Requests that come together share one reading.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Hashable
from dataclasses import dataclass

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


class Known:
    """What one process knows; belongs to its event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stamp = Stamp(database.engine)
        self._value: Hashable = None
        self._meanings: dict[bytes, Meaning] = {}
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
        value = self._value
        meaning = await to_thread.run_sync(self._read, authorization, ref, scope)
        if value == self._value:  # else somebody has committed meanwhile, perhaps after this was read
            if len(self._meanings) >= MOST:
                self._meanings.clear()
            self._meanings[key] = meaning
        return meaning

    async def recall(self, authorization: bytes, ref: str) -> Meaning | None:
        """Return what a ref means for predictions if that is known and still so."""
        key = _key(authorization, ref, PREDICT)
        if key not in self._meanings:
            return None
        await self.refresh()
        return self._recall(key)

    def _recall(self, key: bytes) -> Meaning | None:
        meaning = self._meanings.get(key)
        if meaning is None or meaning.until < time.monotonic():
            return None
        return meaning

    async def refresh(self) -> None:
        """Make sure that the stamp was read after this call."""
        if not self._stamp.is_immediate:
            if self._look_ahead is None:
                self._look_ahead = asyncio.create_task(self._look_in_turn())
            await asyncio.shield(self._look_ahead)
        elif not self._is_fresh:
            self._compare(self._stamp.read())
            self._is_fresh = True
            # The loop runs what is ready, then looks at the network, then runs this before anything that came from
            # there: whoever asks until then had sent the request before the reading.
            asyncio.get_running_loop().call_soon(self._grow_stale)

    def _grow_stale(self) -> None:
        self._is_fresh = False

    async def _look_in_turn(self) -> None:
        async with self._one_look:
            self._look_ahead = None  # who comes from here on needs a later look
            self._compare(await to_thread.run_sync(self._stamp.read, limiter=self._thread))

    def _compare(self, value: Hashable) -> None:
        if value != self._value:
            self._meanings.clear()
            self._value = value

    def _read(self, authorization: str, ref: str, scope: str) -> Meaning:
        now = time.monotonic()
        with self._database.read() as session:
            caller = authorize(session.connection(), authorization, scope)
            version = models.resolve(session, caller.project, ref)
            files = models.loadable(session, version.record.id)
        return Meaning.of(caller, version, files, now)

    def close(self) -> None:
        """Give the connection up."""
        self._stamp.close()


def _key(authorization: bytes, ref: str, scope: str) -> bytes:
    # Not the header itself: secrets are not kept, and a comparison of digests tells nothing by its time.
    return hashlib.sha256(b"%b\0%b" % (authorization, f"{scope}\0{ref}".encode("utf-8", "replace"))).digest()
