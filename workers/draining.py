"""How the worker's main process tells its pool processes to let go of their jobs.

A pipe made before the fork: the main process alone holds the write end, so that closing it - on SIGTERM, or by dying
in whatever way - is seen by every pool process as the end of the file. No signal handler, no shared memory.
"""

from __future__ import annotations

import os
import select


class DrainSignal:
    """One end in the main process, the other in each pool process."""

    def __init__(self) -> None:
        self._read_end, write_end = os.pipe()
        self._write_end: int | None = write_end

    def forked(self) -> None:
        """Call in a pool process after the fork: give up the write end."""
        self._close()

    def request(self) -> None:
        """Call in the main process, once or again: ask every pool process to drain."""
        self._close()

    def _close(self) -> None:
        # Never twice: the number may belong to another file by then.
        write_end, self._write_end = self._write_end, None
        if write_end is not None:
            os.close(write_end)

    def requested(self) -> bool:
        """Return whether draining was asked for, or the main process is gone."""
        readable, _, _ = select.select([self._read_end], [], [], 0)
        return bool(readable)
