"""Small tables and real training runs for the tests of learning."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from learning.config import TrainingSpec
from learning.device import choose_device, pin
from learning.model import save
from learning.preparation import Prepared, prepare
from learning.training import Outcome, Plan, train

CLASSES = "tabular-classification"
NUMBERS = "tabular-regression"
TARGETS = {CLASSES: {"target": "label"}, NUMBERS: {"target": "amount"}}


@dataclass
class Recorder:
    """A callback that remembers, and that asks to stop after so many steps."""

    stop_after: int | None = None
    evaluations: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    progress: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    steps: int = 0

    def on_step(self, progress):
        self.progress.append(progress)

    def on_evaluation(self, split, step, epoch, values):
        self.evaluations.append((split, step, values))

    def on_checkpoint(self, path, position):
        self.checkpoints.append(path)

    def should_stop(self):
        self.steps += 1
        return self.steps == self.stop_after


@dataclass
class Run:
    prepared: Prepared
    outcome: Outcome
    recorder: Recorder

    @property
    def metrics(self) -> dict[str, Any]:
        return self.outcome.position.metrics


def small_table(rows: int = 40, seed: int = 0) -> pa.Table:
    """Two numbers, a small integer, a category, a boolean and a date; both targets follow from them."""
    generator = np.random.default_rng(seed)
    age, income = generator.normal(40, 10, rows), generator.normal(0, 1, rows)
    city = generator.choice(["Basel", "Bern", "Chur"], rows)
    member = generator.integers(0, 2, rows).astype(bool)
    amount = 3 * (age - 40) / 10 + 2 * (city == "Bern") - member
    days = generator.integers(0, 1000, rows)
    return pa.table(
        {
            "age": age,
            "income": income,
            "children": generator.integers(0, 4, rows),
            "city": city,
            "member": member,
            "since": pa.array(days * 86_400_000_000, pa.timestamp("us")),
            "amount": amount,
            "label": np.where(amount > np.median(amount), "high", "low"),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def spec_of(task: str, kind: str = "finetune", **fields: Any) -> TrainingSpec:
    """A specification that leaves the other target out of the inputs."""
    columns = TARGETS.get(task, {})
    ignore = [name for name in ("amount", "label") if name != columns.get("target")]
    fields = {"architecture": "mlp", "columns": {**columns, "ignore": ignore}, **fields}
    return TrainingSpec(kind=kind, task=task, **fields)


def run(
    spec: TrainingSpec,
    tables: dict[str, Path],
    directory: Path,
    recorder: Recorder | None = None,
    resume: Any = None,
    **sources: Path,
) -> Run:
    pin(spec.seed, 1)
    prepared = prepare(spec, tables, device=choose_device("cpu"), **sources)
    recorder = recorder or Recorder()
    plan = Plan(spec.hyperparameters, spec.early_stopping, spec.seed, directory, spec.checkpointing)
    return Run(prepared, train(prepared, plan, recorder, resume), recorder)


def saved(result: Run, directory: Path) -> Path:
    save(result.prepared.design, result.outcome.weights, directory)
    return directory
