"""From a request's body to a file: the next bytes come while the last ones are being written, in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from anyio import CancelScope, to_thread
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from store.incoming import Incoming

# Hashing and writing a mebibyte takes longer than handing it to a thread. While one is being written the next may grow:
# a disk that syncs makes a writer wait for a tenth of a second, in which the network goes on.
_LEAST_BYTES = 1 << 20
_MOST_BYTES = 16 << 20


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """Iterate over a body as it comes; 400 when the caller hangs up within it."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise HTTPException(400) from None


@asynccontextmanager
async def opened(receiving: AbstractContextManager[Incoming]) -> AsyncIterator[Incoming]:
    """Open and close a file in a thread: making one, or deleting a large one, may have to wait for the disk."""
    file = await to_thread.run_sync(receiving.__enter__)
    try:
        yield file
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(receiving.__exit__, None, None, None)


class Pour:
    """Writes to a file in a thread, one batch at a time; everything is written when the block ends in order."""

    def __init__(self, file: Incoming) -> None:
        self._file = file
        self._batch = bytearray()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; what went wrong with earlier ones, such as a full disk, is raised here."""
        self._batch += chunk
        idle = self._writing is None or self._writing.done()
        if len(self._batch) >= (_LEAST_BYTES if idle else _MOST_BYTES):
            await self._start()

    async def _start(self) -> None:
        await self._written()
        batch, self._batch = self._batch, bytearray()
        self._writing = asyncio.create_task(to_thread.run_sync(self._file.write, batch))

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self._start()
            await self._written()
        elif self._writing is not None:
            # The file is closed next: nobody may be writing to it any more.
            await asyncio.wait([self._writing])
            self._writing.exception()
