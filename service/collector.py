"""Python's collector, kept out of what stays until the end of the process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Leave what there is when the block ends alone for ever, and do not search it while it is being made.

    The application and the libraries that it imports are a million objects, of which nothing ever becomes garbage. A
    full collection searches all of them, which every request that comes meanwhile waits for.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
