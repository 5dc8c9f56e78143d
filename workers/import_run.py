"""What an import job's child does: read a foreign model within limits, check it, write a model's directory of it."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch

from learning import model
from learning.capabilities import Writer
from learning.errors import InvalidModel, LearningError
from learning.model_import import import_model
from learning.prediction import Predictor
from workers.child import Channel
from workers.ingestion_run import CPU_SECONDS, limit

# Weights are mapped and then copied, and torch's own libraries count too.
MEMORY_BYTES = 24 << 30


def run_import(channel: Channel) -> int:
    """Import the model; returns the exit code."""
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    limit(resource.RLIMIT_CPU, CPU_SECONDS)
    limit(resource.RLIMIT_CORE, 0)
    torch.set_num_threads(1)
    given = channel.assignment
    source, root = Path(given.files["source"]), given.files.get("root")
    leads_out = root is not None and not source.resolve().is_relative_to(Path(root).resolve())
    if leads_out or not source.exists():
        raise InvalidModel(f'There is nothing at "{given.spec["filename"]}".', hint="Look at the path.")

    def report(phase: str, fraction: float) -> None:
        channel.send("progress", phase=phase, fraction=fraction, updated_at=time.time())

    gathered, directory = Path(given.directory) / "gathered", Path(given.directory) / "model"
    found = import_model(source, given.spec["filename"], gathered, Path(root) if root else None, report)
    report("writing", 0.7)
    model.save(found.design, found.weights, directory)
    report("trying", 0.9)
    _try_out(directory)
    task = found.design.task
    channel.send(
        "result",
        files={path.name: str(path) for path in sorted(directory.iterdir())},
        version_kind="base" if task.kind == "pretrain" else "task",
        task=task.name,
        architecture=found.design.architecture.name,
        modality=found.design.modality.name,
        model_type=found.model_type,
        warnings=found.warnings,
    )
    return 0


def _try_out(directory: Path) -> None:
    """Compute one example, for what cannot do that is no model; InvalidModel says why."""
    try:
        predictor = Predictor(directory)
        if (row := predictor.example()) is not None:
            # One pass suffices: what writes would write as much as it may.
            (predictor.embed if isinstance(predictor.design.task, Writer) else predictor.answer)([row])
    except (LearningError, MemoryError, OSError):
        raise
    except Exception as error:  # whatever a network of such sizes raises, it would again
        raise InvalidModel(
            f"The model does not compute: {error}", hint="config.json and the weights must be of the same model."
        ) from None
