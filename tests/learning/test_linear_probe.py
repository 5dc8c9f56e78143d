"""A head that begins as a logistic regression on what the backbone makes of the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import CLASSES, IMAGES, NUMBERS, SOUNDS, TEXTS, Recorder, run, spec_of, table_for, write
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from learning import checkpoint
from learning.errors import InvalidConfig
from learning.linear_probe import regress

STILL = {"max_steps": 1, "learning_rate": 1e-12, "batch_size": 10}  # what is measured is how the head begins


def probing(task: str, tmp_path: Path, **hyperparameters: Any) -> Any:
    tables = {"train": write(table_for(task), tmp_path / "rows.arrow")}
    given = {"head_initialization": "linear-probe", "linear_probe_c": 10.0, **hyperparameters}
    # No batch norm: its statistics, of which a fresh network has none, would change with the first step.
    more = {"architecture": "flatten-mlp"} if task == IMAGES else {}
    return spec_of(task, **more, hyperparameters=given, split={"validation": 0.0}), tables


@pytest.mark.parametrize(("classes", "strength"), [(2, 0.01), (2, 1.0), (4, 0.01), (4, 1.0)])
def test_scikit_learn_finds_the_same(classes: int, strength: float) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(3, [1, 5, 0.1, 2, 1], (60, 5))
    inputs[:, 4] = 7  # which says nothing, and does not vary
    labels = np.arange(60) % classes
    inputs[:, 0] += labels
    weights = np.where(labels == 0, 2.0, 1.0)
    scaler = StandardScaler().fit(inputs)
    peer = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(scaler.transform(inputs), labels, weights)
    weight_CW, bias_C = regress(
        torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(weights), len(peer.coef_), strength
    )
    wanted = peer.decision_function(scaler.transform(inputs)).reshape(60, -1)
    found = (torch.from_numpy(inputs) @ weight_CW.T + bias_C).numpy()
    # Of several classes one number may be added to all logits.
    centred = [logits - logits.mean(1, keepdims=True) if classes > 2 else logits for logits in (found, wanted)]
    np.testing.assert_allclose(*centred, atol=1e-4)


@pytest.mark.parametrize("task", [CLASSES, TEXTS, IMAGES, SOUNDS])
def test_every_modality_begins_knowing_its_rows_better(task: str, tmp_path: Path) -> None:
    spec, tables = probing(task, tmp_path, **STILL)
    begun = run(spec, tables, tmp_path / "probe").metrics["train"]
    spec, _ = probing(task, tmp_path, **STILL, head_initialization="random")
    drawn = run(spec, tables, tmp_path / "drawn").metrics["train"]
    assert begun["loss"] < 0.9 * drawn["loss"]
    assert begun["accuracy"] > 0.7


@pytest.mark.parametrize("stop", [1, 5])  # while the probe reads its rows, and later
def test_a_run_goes_on_where_it_was_stopped(stop: int, tmp_path: Path) -> None:
    spec, tables = probing(TEXTS, tmp_path, epochs=3, batch_size=10)
    whole = run(spec, tables, tmp_path / "whole")
    stopped = run(spec, tables, tmp_path / "stopped", Recorder(stop_after=stop))
    state = checkpoint.read(stopped.outcome.checkpoint)
    assert (state.position.step > 0) == (stop > 1)
    resumed = run(spec, tables, tmp_path / "resumed", resume=state, fitted=stopped.prepared.design)
    assert all(torch.equal(resumed.outcome.weights[name], tensor) for name, tensor in whole.outcome.weights.items())


def test_a_head_that_was_trained_stays(tmp_path: Path) -> None:
    spec, tables = probing(TEXTS, tmp_path, epochs=1, batch_size=10)
    before = run(spec, tables, tmp_path / "before")
    spec, _ = probing(TEXTS, tmp_path, **STILL, linear_probe_c=1e-4)
    after = run(spec, tables, tmp_path / "after", start=before.outcome.checkpoint)
    torch.testing.assert_close(
        after.outcome.weights["head.linear.weight"], before.outcome.weights["head.linear.weight"]
    )


def test_a_task_without_classes_is_refused(tmp_path: Path) -> None:
    spec, tables = probing(NUMBERS, tmp_path)
    with pytest.raises(InvalidConfig) as refusal:
        run(spec, tables, tmp_path / "run")
    assert refusal.value.param == "hyperparameters.head_initialization"
