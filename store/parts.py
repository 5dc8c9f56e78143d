"""The parts of uploads as files: a part is there when its file has its name, and then it is whole and on the disk."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from store.artifacts import CHUNK_BYTES, age_s
from store.errors import NotFound
from store.incoming import Incoming, receiving

_LOCK = "lock"


class PartStore:
    """A directory with one directory for each open upload; ids come from rows, never from a caller."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def receive(self, upload_id: str, max_bytes: int) -> AbstractContextManager[Incoming]:
        """Open a file for a part's bytes; TooLarge as soon as they are more than the part has."""
        hint = "Cut the file as the upload's part_bytes says; only the last part is shorter."
        return receiving(self._directory / upload_id / "incoming", max_bytes=max_bytes, hint=hint)

    def keep(self, incoming: Incoming, upload_id: str, number: int) -> None:
        """Make what was received the part of that number; NotFound when the upload was ended meanwhile."""
        try:
            incoming.keep(self._part(upload_id, number))
        except FileNotFoundError:
            raise gone(upload_id) from None

    def sizes(self, upload_id: str) -> dict[int, int]:
        """Return the bytes of each part that is there, by its number."""
        found = {}
        with suppress(FileNotFoundError), os.scandir(self._directory / upload_id) as entries:
            for entry in entries:
                if entry.name.isdecimal():
                    found[int(entry.name)] = entry.stat().st_size
        return found

    def chunks(self, upload_id: str, count: int) -> Iterator[bytes]:
        """Iterate over the bytes of the first `count` parts, in constant memory."""
        for number in range(1, count + 1):
            try:
                with self._part(upload_id, number).open("rb") as file:
                    yield from iter(lambda: file.read(CHUNK_BYTES), b"")
            except FileNotFoundError:
                raise gone(upload_id) from None

    @contextmanager
    def locked(self, upload_id: str) -> Iterator[bool]:
        """Say whether nobody else is joining these parts, in any process, and keep others out until the block ends."""
        directory = self._directory / upload_id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, upload_id: str) -> None:
        """Delete an upload's parts."""
        shutil.rmtree(self._directory / upload_id, ignore_errors=True)

    def ids(self) -> list[str]:
        """Return the uploads that have a directory."""
        return sorted(path.name for path in self._directory.iterdir()) if self._directory.is_dir() else []

    def remove_leftovers(self, upload_id: str, grace_s: float) -> None:
        """Delete half-received parts that nobody has written to for a while."""
        for path in (self._directory / upload_id / "incoming").glob("*"):
            with suppress(FileNotFoundError):
                if age_s(path) > grace_s:
                    path.unlink()

    def _part(self, upload_id: str, number: int) -> Path:
        return self._directory / upload_id / str(number)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def gone(upload_id: str) -> NotFound:
    """Return the error for an upload that is not there."""
    return NotFound(f'No upload "{upload_id}".', hint="Start one with POST /api/v1/uploads.")
