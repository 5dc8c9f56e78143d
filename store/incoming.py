"""A file on its way in: written beside, counted against a cap, hashed, then synced and renamed, or gone."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from store.errors import TooLarge

_SYNC_BYTES = 16 << 20
# From here on hashing is worth a thread of its own beside writing: each takes as long as the other.
_BOTH_BYTES = 1 << 20


class _WriteBack:
    """Syncs a file while more is written to it, so that neither more, nor the sync at the end, waits for all of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def start(self) -> None:
        """Begin a sync once the last one has ended; what went wrong with that one is raised here."""
        self.check()
        self._thread = threading.Thread(target=self._run, name="write-back", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:  # told once for a descriptor: the sync at the end would say that all is well
            self._error = error

    def wait(self) -> None:
        """Return once nothing is being synced: the file may be closed."""
        if self._thread is not None:
            self._thread.join()

    def check(self) -> None:
        """Wait, and raise what went wrong."""
        self.wait()
        if self._error is not None:
            raise self._error


class Incoming:
    """One file that is being received; constant memory, whatever its size."""

    def __init__(self, file: IO[bytes], max_bytes: int | None, hint: str | None) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._hint = hint
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self._write_back = _WriteBack(file.fileno())
        self._hashing = ThreadPoolExecutor(1, "hashing")  # its thread starts with the first work
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
        if len(chunk) < _BOTH_BYTES:
            self._digest.update(chunk)
            self._file.write(chunk)
        else:
            hashed = self._hashing.submit(self._digest.update, chunk)
            try:
                self._file.write(chunk)
            finally:
                hashed.result()
        self._unsynced += len(chunk)
        if self._unsynced >= _SYNC_BYTES:
            self._unsynced = 0
            self._file.flush()
            self._write_back.start()

    def keep(self, target: Path) -> None:
        """Sync the file and give it its name, replacing what is there: readers keep the file they opened."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file.flush()
        self._write_back.check()
        os.fsync(self._file.fileno())
        Path(self._file.name).rename(target)
        _sync_directory(target.parent)

    def settle(self) -> None:
        """Wait until nothing is done with the file any more, so that it may be closed."""
        self._write_back.wait()
        self._hashing.shutdown()


@contextmanager
def receiving(directory: Path, *, max_bytes: int | None = None, hint: str | None = None) -> Iterator[Incoming]:
    """Open a file in `directory` for bytes to come; what is not kept when the block ends is deleted."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=directory, delete=False) as file:
        incoming = Incoming(file, max_bytes, hint)
        try:
            yield incoming
        finally:
            incoming.settle()
            Path(file.name).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
