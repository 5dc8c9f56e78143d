"""Models without training: random weights, registered straight into a product's store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from servers import Stack
from support import stack_database

from learning.architectures.mlp import Mlp, MlpConfig
from learning.config import Columns
from learning.modalities.tabular import Tabular, TabularConfig
from learning.model import Design, save
from learning.tasks.classification import ClassificationConfig
from learning.tasks.tabular_classification import TabularClassification
from store import models
from store.artifacts import ArtifactStore

INPUT = {f"x{n}": 0.5 * n for n in range(10)}


def register(stack: Stack, name: str, hidden: tuple[int, ...] = (10,), aliases: tuple[str, ...] = ()) -> int:
    """Register a version for rows of ten numbers and return its bytes."""
    generator = np.random.default_rng(0)
    rows = pa.table({**{column: generator.normal(size=50) for column in INPUT}, "label": ["a", "b"] * 25})
    modality, task, columns = Tabular(), TabularClassification(), Columns(target="label")
    inputs = modality.fit(rows, columns, TabularConfig())
    targets = task.fit(rows, columns, ClassificationConfig(), inputs)
    design = Design(task, Mlp(), modality, TabularConfig(), MlpConfig(hidden_sizes=hidden), inputs, targets)
    artifacts, database = ArtifactStore(stack.data_dir / "artifacts"), stack_database(stack)
    with tempfile.TemporaryDirectory() as directory:
        save(design, design.build().state_dict(), Path(directory))
        stored = {path.name: artifacts.add(path) for path in Path(directory).iterdir()}
    with database.write() as session:
        for artifact in stored.values():
            artifacts.register(session, artifact)
        session.flush()
        files = {path: artifact.sha256 for path, artifact in stored.items()}
        new = models.NewVersion(name, "task", task.name, "mlp", "tabular", {}, {}, files, aliases)
        models.register(session, "default", None, new)
    database.close()
    return sum(artifact.bytes for artifact in stored.values())
