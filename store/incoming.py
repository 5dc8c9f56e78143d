"""A file on its way in: written beside, counted against a cap, hashed, then synced and renamed, or gone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from store.errors import TooLarge

# Written back to the disk while more is coming, so that the sync at the end does not have to wait for all of it.
_SYNC_BYTES = 64 << 20


class Incoming:
    """One file that is being received; constant memory, whatever its size."""

    def __init__(self, file: IO[bytes], max_bytes: int | None, hint: str | None) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._hint = hint
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """The digest of what has come so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; TooLarge as soon as they pass the cap."""
        self.bytes += len(chunk)
        if self._max_bytes is not None and self.bytes > self._max_bytes:
            raise TooLarge(f"The body is larger than {self._max_bytes} bytes.", hint=self._hint)
        self._digest.update(chunk)
        self._file.write(chunk)
        self._unsynced += len(chunk)
        if self._unsynced >= _SYNC_BYTES:
            self._unsynced = 0
            self._file.flush()
            os.fdatasync(self._file.fileno())

    def keep(self, target: Path) -> None:
        """Sync the file and give it its name, replacing what is there: readers keep the file they opened."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        Path(self._file.name).rename(target)
        _sync_directory(target.parent)


@contextmanager
def receiving(directory: Path, *, max_bytes: int | None = None, hint: str | None = None) -> Iterator[Incoming]:
    """Open a file in `directory` for bytes to come; what is not kept when the block ends is deleted."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=directory, delete=False) as file:
        try:
            yield Incoming(file, max_bytes, hint)
        finally:
            Path(file.name).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
