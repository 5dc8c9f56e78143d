"""Loaded models: on demand, each once, the least recently used leaving when memory is short."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from store.artifacts import ArtifactStore
from store.records import ArtifactRecord

if TYPE_CHECKING:
    from learning.prediction import Predictor


@dataclass(slots=True)
class _Slot:
    """One version's place: whoever comes first loads, the others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    predictor: Predictor | None = None
    bytes: int = 0


class Predictors:
    """The predictors of one process under a memory budget."""

    def __init__(self, artifacts: ArtifactStore, budget_bytes: int) -> None:
        self._artifacts = artifacts
        self._budget_bytes = budget_bytes
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version_id: str, files: Mapping[str, ArtifactRecord], size: int) -> tuple[Predictor, float]:
        """Return a version's predictor and the milliseconds it took to load, 0 when it was there already.

        A predictor that is answering keeps living until it has answered, even when it is dropped here meanwhile.
        """
        with self._lock:
            slot = self._slots.setdefault(version_id, _Slot())
            self._slots.move_to_end(version_id)
        with slot.lock:
            if slot.predictor is not None:
                return slot.predictor, 0.0
            try:
                slot.predictor = self._load(files)
            except BaseException:
                with self._lock:
                    self._slots.pop(version_id, None)
                raise
            slot.bytes = size
            loaded = slot.predictor
        self._make_room(version_id)
        return loaded, loaded.load_ms

    def _load(self, files: Mapping[str, ArtifactRecord]) -> Predictor:
        from learning.prediction import Predictor

        with tempfile.TemporaryDirectory(prefix="anneal-model-") as directory:
            self._artifacts.copy_to(files, Path(directory))
            return Predictor(Path(directory))

    def _make_room(self, newest: str) -> None:
        with self._lock:
            total = sum(slot.bytes for slot in self._slots.values())
            for version_id, slot in list(self._slots.items()):
                if total <= self._budget_bytes:
                    return
                if version_id != newest and slot.predictor is not None:  # one that is being loaded stays
                    total -= self._slots.pop(version_id).bytes
