"""Memory of models that have left, given back to the system; of glibc's allocator, since others do so by themselves.

glibc keeps what was freed below its threshold for mapping, which grows up to 32 MiB with what was mapped before:
without this, a process stays as large as its largest models were.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from functools import cache

# From malloc.h.
_ARENA_MAX = -8
# An owner is freed right after it was told that nobody holds it; a thread that began at once was often earlier.
_AFTER_S = 0.1


def share_one_arena() -> None:
    """Let all threads that begin from now on have their memory from one place.

    Of an arena of a thread's own, what lies at its top is not given back when it is asked for, but only once it is
    larger than twice the threshold: a model that another thread has read stayed resident with up to 64 MiB.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def return_after(owner: object) -> None:
    """Give freed memory back to the system once nobody holds `owner` any more."""
    weakref.finalize(owner, _return_soon).atexit = False


def _return_soon() -> None:
    timer = threading.Timer(_AFTER_S, _return)
    timer.daemon = True
    timer.start()


def _return() -> None:
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
