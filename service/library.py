"""The library `learning` comes with torch, so it is imported when it is first needed: by one thread at a time.

Two threads that import a package's submodules and the package itself wait for each other; Python notices and hands out
modules that are only half there.
"""

from __future__ import annotations

import threading

importing = threading.RLock()


def warm() -> None:
    """Import what the first jobs and predictions need."""
    with importing:
        import learning.estimation
        import learning.prediction
        import learning.preparation  # noqa: F401
