"""The library `learning` comes with torch, so it is imported when it is first needed: by one thread at a time.

Two threads that import a package's submodules and the package itself wait for each other; Python notices and hands out
modules that are only half there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from service.collector import lasting
from store.artifacts import Artifact, ArtifactStore
from store.records import ArtifactRecord

if TYPE_CHECKING:
    from learning.model import Design

CONFIG_FILE = "config.json"

importing = threading.RLock()


def read_design(store: ArtifactStore, files: Mapping[str, Artifact | ArtifactRecord]) -> Design:
    """Read what a model is made of, by its files; IncompatibleModel when another release wrote it."""
    with importing:
        from learning.model import Design

    return Design.from_dict(json.loads(store.path(files[CONFIG_FILE].sha256).read_bytes()))


@cache
def warm() -> None:
    """Import what the first jobs and predictions need, unless that was done.

    Called before a transaction that checks what a model or a job is made of: one that waits for an import keeps every
    other writer waiting.
    """
    with importing, lasting():
        import learning.estimation
        import learning.prediction
        import learning.preparation  # noqa: F401
