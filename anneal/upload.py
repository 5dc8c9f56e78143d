"""A file on its way to the service, with somebody watching."""

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

UploadCallback = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all)."""


class WatchedFile(io.RawIOBase):
    """A file that reports how far it has been read; a retry rewinds it, and the report with it."""

    def __init__(self, file: BinaryIO, callback: UploadCallback | None) -> None:
        self._file = file
        self._callback = callback
        self._bytes = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes and report the position."""
        chunk = self._file.read(size)
        if self._callback:
            self._callback(self._file.tell(), self._bytes)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def fileno(self) -> int:
        """Return the descriptor, from which the length is taken."""
        return self._file.fileno()


def watching(path: Path, progress: bool | UploadCallback) -> AbstractContextManager[UploadCallback | None]:
    """Open what watches an upload: a bar on stderr for True, the given callback, or nothing."""
    if progress is True:
        from anneal.progress import upload_bar

        return upload_bar(path.name)
    return nullcontext(progress if callable(progress) else None)
