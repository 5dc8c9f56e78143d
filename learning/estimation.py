"""What a run would take, found by preparing it on some of its rows and taking a few steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pyarrow as pa
import torch

from learning.config import Resolved, TrainingSpec
from learning.data import epoch_order, open_table
from learning.interfaces import rows_in
from learning.optimization import make_stepper
from learning.preparation import IN_MEMORY_BYTES, Prepared, prepare, resolve_for
from learning.splits import take

SAMPLE_ROWS = 5_000
TRIAL_S = 0.2
# What the imports of a training process take, and the copies of each weight: itself, gradient, two moments, the best;
# a moving average is one more.
PROCESS_BYTES = 370 << 20
COPIES = 5
# How far off the trial may be: an idle machine and one that has other work, evaluations, checkpoints.
FASTER, SLOWER, START_S = 0.6, 3.0, 2.0


@dataclass(frozen=True, slots=True)
class Range:
    """Between what a number will lie."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take on this machine's processor; `sampled` when not all rows were looked at."""

    resolved: Resolved
    train_rows: int
    weights: int
    seconds: Range
    memory_bytes: Range
    sampled: bool
    warnings: list[str]


def estimate(
    spec: TrainingSpec, tables: Mapping[str, Path], *, base: Path | None = None, start: Path | None = None
) -> Estimate:
    """Prepare on at most SAMPLE_ROWS rows of each part, and time some steps; raises what preparing raises."""
    with TemporaryDirectory(prefix="anneal-estimate-") as directory:
        samples = {part: _sample(path, Path(directory) / f"{part}.arrow") for part, path in tables.items()}
        prepared = prepare(
            spec,
            {part: path for part, (path, _) in samples.items()},
            base=base,
            start=start,
            device=torch.device("cpu"),
        )
        share = samples["train"][1]
        rows = round(len(prepared.train) / share)
        weights = sum(parameter.numel() for parameter in prepared.network.parameters())
        resolved = resolve_for(spec, rows, weights)
        step_s, row_bytes = _trial(prepared, spec)
    runs = 2 if spec.compare else 1
    train_s = resolved.total_steps * step_s * runs
    data = min(rows * row_bytes, IN_MEMORY_BYTES)
    needed = PROCESS_BYTES + data + (COPIES + bool(resolved.ema_decay)) * weights * 4
    return Estimate(
        resolved=resolved,
        train_rows=rows,
        weights=weights,
        seconds=Range(FASTER * train_s, SLOWER * train_s + START_S * runs),
        memory_bytes=Range(0.8 * needed, 1.5 * needed),
        sampled=share < 1,
        warnings=prepared.warnings,
    )


def _sample(path: Path, target: Path) -> tuple[Path, float]:
    """Return a file with some rows from all over a table, and their share of it; a small table itself."""
    table = open_table(path)
    if table.num_rows <= SAMPLE_ROWS:
        return path, 1.0
    chosen = take(table, np.linspace(0, table.num_rows - 1, SAMPLE_ROWS).astype(np.int64))
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, chosen.schema) as writer:
        writer.write_table(chosen)
    return target, SAMPLE_ROWS / table.num_rows


def _trial(prepared: Prepared, spec: TrainingSpec) -> tuple[float, int]:
    """Return the seconds of a step and the bytes of an encoded row."""
    stepper = make_stepper(prepared.design, prepared.network.train(), spec.hyperparameters)
    size = prepared.resolved.batch_size
    began = taken = 0.0
    steps = -1  # the first one builds what the others use
    row_bytes = 0
    while taken < TRIAL_S:
        for batch in prepared.train.batches(epoch_order(len(prepared.train), spec.seed, 0), size):
            if steps == 0:
                began = perf_counter()
            row_bytes = sum(tensor.nbytes for tensor in batch.values()) // rows_in(batch)
            stepper(batch, 1e-6)
            steps += 1
            taken = perf_counter() - began if steps > 0 else 0.0
            if taken >= TRIAL_S:
                break
    return taken / steps, row_bytes
