"""The moving average of a training's weights: against a sum written out, through stops, and in what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CLASSES, IMAGES, THINGS, Recorder, Run, run, spec_of, table_for, write

from learning import checkpoint

DECAY = 0.9
EVERY_STEP = {"every_steps": 1}


def trained(task: str, directory: Path, stop_after: int | None = None, resume: Any = None, **fields: Any) -> Run:
    hyperparameters = {"epochs": 5, "batch_size": 8, "learning_rate": 0.01, "ema_decay": DECAY}
    spec = spec_of(task, **{"hyperparameters": hyperparameters, "split": {"validation": 0.0}, **fields})
    directory.mkdir(exist_ok=True)
    table = write(table_for(task), directory / "rows.arrow")
    return run(spec, {"train": table}, directory / "checkpoints", Recorder(stop_after), resume)


def averaged(steps: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    average = dict(steps[0])
    for number, weights in enumerate(steps[1:], 1):
        kept = min(DECAY, (1 + number) / (10 + number))
        average = {
            name: kept * tensor + (1 - kept) * weights[name] if tensor.is_floating_point() else weights[name]
            for name, tensor in average.items()
        }
    return average


@pytest.mark.parametrize("task", [CLASSES, IMAGES])  # a step of its own, and one with statistics of normalisation
def test_the_model_is_the_average_of_what_the_steps_left(task: str, tmp_path: Path) -> None:
    found = trained(task, tmp_path, checkpointing=EVERY_STEP)
    saved = [checkpoint.read(path) for path in found.recorder.checkpoints]
    steps = [state.weights for state in saved[:-1]]
    assert len(steps) == 25
    wanted = averaged(steps)
    assert set(found.outcome.weights) == set(wanted)
    for name, tensor in found.outcome.weights.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(steps[-1]["head.linear.weight"], found.outcome.weights["head.linear.weight"])
    # What goes on from the last checkpoint, or is promoted from it, has the average too.
    assert all(torch.equal(saved[-1].weights[name], tensor) for name, tensor in found.outcome.weights.items())


def test_a_stop_changes_nothing(tmp_path: Path) -> None:
    whole = trained(IMAGES, tmp_path / "whole")
    part = trained(IMAGES, tmp_path / "part", stop_after=12)
    assert part.outcome.checkpoint is not None
    resumed = trained(IMAGES, tmp_path / "part", resume=checkpoint.read(part.outcome.checkpoint))
    assert all(torch.equal(resumed.outcome.weights[name], tensor) for name, tensor in whole.outcome.weights.items())


def test_the_average_is_what_is_judged_and_kept(tmp_path: Path) -> None:
    fields = {"split": {"validation": 0.25}, "checkpointing": EVERY_STEP}
    found = trained(CLASSES, tmp_path, **fields)
    states = [checkpoint.read(path) for path in found.recorder.checkpoints[:-1]]
    (best,) = (state for state in states if state.position.step == found.outcome.position.best_step)
    assert all(torch.equal(best.average[name], tensor) for name, tensor in found.outcome.weights.items())
    assert any(not torch.equal(best.weights[name], tensor) for name, tensor in found.outcome.weights.items())
    losses = {step: values["loss"] for split, step, values in found.recorder.evaluations if split == "validation"}
    assert found.metrics["validation"]["loss"] == pytest.approx(losses[best.position.step])


def test_detectors_are_averaged_and_others_are_not(tmp_path: Path) -> None:
    hyperparameters = {"epochs": 1}
    things = trained(THINGS, tmp_path / "things", hyperparameters=hyperparameters)
    images = trained(IMAGES, tmp_path / "images", hyperparameters=hyperparameters)
    assert (things.prepared.resolved.ema_decay, images.prepared.resolved.ema_decay) == (0.998, 0.0)
    assert things.outcome.checkpoint is not None
    assert images.outcome.checkpoint is not None
    assert checkpoint.read(things.outcome.checkpoint).average
    assert not checkpoint.read(images.outcome.checkpoint).average
