"""What a training job's child does: one run, or with `compare` two, then the model's directory and the verdict."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from learning import checkpoint, device, model, precision
from learning.checkpoint import Position
from learning.comparison import compare
from learning.config import TrainingSpec
from learning.preparation import Prepared, prepare
from learning.training import Outcome, Plan, train
from workers.child import Channel
from workers.illustration import draw

_FREE = {
    "head_initialization": "random",
    "lora_rank": None,
    "unfreeze_every_epochs": None,
    "layer_learning_rate_decay": 1.0,
}


def run_training(channel: Channel) -> bool:
    """Train what is assigned; returns False when stopped at a checkpoint on request."""
    given = channel.assignment
    spec = TrainingSpec.model_validate(given.spec)
    name = _run_name(spec, given.base, given.start)
    prepared, outcome = _run(channel, spec, name, base=given.base)
    if not outcome.finished:
        return False
    comparison = None
    if spec.compare:
        # The same network and preparation as the base model's, or the comparison would be of something else.
        # Nothing holds back a backbone that knows nothing yet.
        free = {**spec.hyperparameters.model_dump(), **_FREE}
        twin_spec = {**given.spec, **prepared.design.recipe(), "compare": False, "hyperparameters": free}
        alike = TrainingSpec.model_validate(twin_spec)
        _, twin = _run(channel, alike, "scratch", base=None)
        if not twin.finished:
            return False
        comparison = compare(prepared.design.task, outcome.position.metrics, twin.position.metrics)
    directory = Path(given.directory) / "model"
    low = _measured_low(spec, prepared, outcome)
    design, weights = model.merged(prepared.design, outcome.weights)
    model.save(replace(design, precision=spec.serving_precision), weights, directory)
    prepared.warnings.extend(draw(prepared, outcome, directory))
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    channel.send(
        "result",
        run=name,
        files={path.relative_to(directory).as_posix(): str(path) for path in files},
        task=prepared.design.task.name,
        architecture=prepared.design.architecture.name,
        modality=prepared.design.modality.name,
        metrics=outcome.position.metrics | low,
        comparison=comparison,
        warnings=prepared.warnings,
    )
    return True


def _measured_low(spec: TrainingSpec, prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """Return what predicting in bf16 costs, under that name, if the model is to; warn where it is slow."""
    if spec.serving_precision == "fp32":
        return {}
    if device.is_slow("bf16", prepared.device):
        prepared.warnings.append(
            "This processor has no bf16 instructions, so a model that predicts in bf16 is many times slower here."
        )
    parts = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    return {"bf16": precision.measured(prepared.design, prepared.network, parts, outcome.position.metrics)}


def _run_name(spec: TrainingSpec, base: str | None, start: str | None) -> str:
    if start is not None:
        return "continued"
    if base is not None:
        return "pretrained"
    return "pretrain" if spec.kind == "pretrain" else "scratch"


def _run(channel: Channel, spec: TrainingSpec, name: str, base: str | None) -> tuple[Prepared, Outcome]:
    given = channel.assignment
    target = device.choose_device(spec.device)
    device.pin(spec.seed, spec.threads)
    channel.send("progress", phase="preparing", run=name, fraction=0.0)
    saved = checkpoint.read(Path(given.resume[name])) if name in given.resume else None
    prepared = prepare(
        spec,
        {part: Path(path) for part, path in given.files.items()},
        base=Path(base) if base else None,
        start=Path(given.start) if given.start else None,
        fitted=model.Design.from_dict(saved.design) if saved else None,
        device=target,
    )
    # As many threads as before, whatever this machine has: another number gives other bits.
    threads = spec.threads or (saved.environment.get("threads") if saved else None)
    device.pin(spec.seed, threads, prepared.network)
    environment = device.describe(target)
    if saved is not None and (changed := device.differences(saved.environment, environment)):
        prepared.warnings.append(
            f"Run {name} went on at step {saved.position.step} in another environment, so its last digits may differ "
            f"from an undisturbed run's: {'; '.join(changed)}."
        )
    if name != "scratch" or not spec.compare:
        channel.send("resolved", environment=environment, spec=_resolved(spec, prepared))
    plan = Plan(
        hyperparameters=spec.hyperparameters,
        early_stopping=spec.early_stopping,
        seed=spec.seed,
        checkpoints=Path(given.directory) / "checkpoints" / name,
        checkpointing=spec.checkpointing,
    )
    return prepared, train(prepared, plan, _Reporter(channel, name), saved)


def _resolved(spec: TrainingSpec, prepared: Prepared) -> dict[str, Any]:
    """Return the specification with a number behind every "auto"."""
    numbers = prepared.resolved.model_dump()
    whole = spec.model_dump(mode="json")
    whole["hyperparameters"] |= {name: value for name, value in numbers.items() if name in whole["hyperparameters"]}
    return whole


class _Reporter:
    """The trainer's callback: tells the supervisor, and the log."""

    def __init__(self, channel: Channel, run: str) -> None:
        self._channel = channel
        self._run = run

    def on_step(self, progress: dict[str, Any]) -> None:
        """Send progress."""
        self._channel.send("progress", phase="training", run=self._run, updated_at=time.time(), **progress)

    def on_evaluation(self, split: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Send what was measured; what JSON cannot say is null."""
        clean = {name: _finite(value) for name, value in values.items()}
        self._channel.send("metrics", run=self._run, split=split, step=step, epoch=epoch, values=clean)
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in clean.items() if isinstance(value, float))
        print(f"{self._run} step {step} {split}: {numbers}", file=sys.stderr, flush=True)  # noqa: T201

    def on_checkpoint(self, path: Path, position: Position) -> None:
        """Send where the checkpoint lies; the supervisor publishes it."""
        root = Path(self._channel.assignment.directory)
        self._channel.send(
            "checkpoint",
            run=self._run,
            step=position.step,
            finished=position.finished,
            score=position.score,
            metrics=position.metrics,
            files=[str(file.relative_to(root)) for file in sorted(path.iterdir())],
        )

    def should_stop(self) -> bool:
        """Return whether the supervisor asked for a stop."""
        return self._channel.stop_requested


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
