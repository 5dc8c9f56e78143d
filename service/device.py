"""What computes long batches: one thread for the process, which two models would only share."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

# As much as the embedded workers, so that neither predictions nor trainings starve.
NICENESS = 5


class Device:
    """One thread, and the turns of those who want it, first come, first served; belongs to the event loop."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="device", initializer=_yield_to_loop)
        self._turns: deque[Callable[[], None]] = deque()
        self._is_busy = False

    def take_turn(self, turn: Callable[[], None]) -> None:
        """Call `turn` when the device is free, perhaps now; it is the caller's until `free` is called."""
        if self._is_busy:
            self._turns.append(turn)
        else:
            self._is_busy = True
            turn()

    def free(self) -> None:
        """Let the next one have the device."""
        if self._turns:
            self._turns.popleft()()
        else:
            self._is_busy = False

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown(wait=False, cancel_futures=True)


def _yield_to_loop() -> None:
    """Let the event loop have the core first: it needs it for a moment, a batch for as long as there is work."""
    if sys.platform == "linux":  # where a thread has a niceness of its own
        with suppress(OSError):  # where that is forbidden, batches are only as nice as the loop
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
