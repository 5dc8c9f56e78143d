"""The worked case: 1000 examples of 10 features, 80/20, scaled to [0, 1], a 10-10-1 network, adjusted and continued."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from runs import run, saved, write
from sklearn.metrics import accuracy_score, recall_score

from learning.config import TrainingSpec
from learning.prediction import Predictor

FEATURES = [f"x{number}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    generator = np.random.default_rng(0)
    inputs = generator.uniform(-5, 20, (1000, 10))
    score = (inputs - inputs.mean(0)) @ generator.normal(size=10) + generator.normal(0, 4, 1000)
    columns = {name: inputs[:, number] for number, name in enumerate(FEATURES)}
    table = pa.table({**columns, "ill": np.where(score > 0, "yes", "no")})
    return write(table, tmp_path_factory.mktemp("data") / "cases.arrow")


def spec_of(batch_normalization=False, **fields):
    return TrainingSpec(
        **{
            "kind": "finetune",
            "task": "tabular-classification",
            "architecture": "mlp",
            "architecture_config": {
                "hidden_sizes": [10],
                "activation": "sigmoid",
                "batch_normalization": batch_normalization,
            },
            "preprocessing": {"scaling": "min-max"},
            "columns": {"target": "ill"},
            "split": {"validation": 0.0, "test": 0.2},
            **fields,
        }
    )


@pytest.mark.parametrize("batch_normalization", [False, True])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_from_random_weights(batch_normalization, schedule, path, tmp_path):
    spec = spec_of(batch_normalization, hyperparameters={"schedule": schedule, "epochs": 40, "step_every_epochs": 15})
    result = run(spec, {"train": path}, tmp_path / "run")
    assert (result.metrics["train"]["rows"], result.metrics["test"]["rows"]) == (800, 200)
    inputs = result.prepared.train.tensors["inputs_BF"]
    assert inputs.shape == (800, 10)
    assert inputs.amin(0).tolist() == [0] * 10
    assert inputs.amax(0).tolist() == [1] * 10
    linear = [tuple(m.weight.shape) for m in result.prepared.network.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(10, 10), (1, 10)]
    assert any(isinstance(m, torch.nn.BatchNorm1d) for m in result.prepared.network.modules()) is batch_normalization
    assert result.metrics["test"]["accuracy"] > 0.9


def test_accuracy_and_recall_are_those_of_the_served_answers(path, tmp_path):
    result = run(spec_of(hyperparameters={"epochs": 40}), {"train": path}, tmp_path / "run")
    predictor = Predictor(saved(result, tmp_path / "model"))
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    answers = [answer["label"] for answer in predictor.predict(table.select(FEATURES).to_pylist()).outputs]
    truth = table.column("ill").to_pylist()
    # Rows of both parts together: the confusion matrices add up.
    counts = sum(np.array(values["confusion_matrix"]["counts"]) for values in result.metrics.values())
    assert accuracy_score(truth, answers) == pytest.approx(counts.trace() / 1000)
    assert recall_score(truth, answers, pos_label="yes") == pytest.approx(counts[1, 1] / counts[1].sum())
    for values in result.metrics.values():
        (right, wrong), (missed, found) = values["confusion_matrix"]["counts"]
        assert values["accuracy"] == pytest.approx((right + found) / values["rows"])
        assert values["recall"] == pytest.approx(found / (found + missed))
        assert values["precision"] == pytest.approx(found / (found + wrong))


def test_from_pretrained_weights(path, tmp_path):
    pretraining = spec_of(
        kind="pretrain", task="masked-features", columns={"ignore": ("ill",)}, hyperparameters={"epochs": 10}
    )
    base = saved(run(pretraining, {"train": path}, tmp_path / "a"), tmp_path / "base")
    result = run(spec_of(hyperparameters={"epochs": 40}), {"train": path}, tmp_path / "b", base=base)
    assert result.metrics["test"]["accuracy"] > 0.9


def test_not_good_enough_so_adjust_and_continue(path, tmp_path):
    slow = {"epochs": 3, "learning_rate": 1e-3, "schedule": "constant"}
    first = run(spec_of(hyperparameters=slow), {"train": path}, tmp_path / "first")
    checkpoint = first.outcome.checkpoint
    untouched = spec_of(hyperparameters={**slow, "max_steps": 1, "learning_rate": 1e-10})
    again = run(untouched, {"train": path}, tmp_path / "again", start=checkpoint)
    assert again.metrics["test"]["loss"] == pytest.approx(first.metrics["test"]["loss"], abs=1e-5)
    adjusted = spec_of(hyperparameters={"epochs": 40, "learning_rate": 0.02, "schedule": "one-cycle"})
    better = run(adjusted, {"train": path}, tmp_path / "better", start=checkpoint)
    assert better.prepared.design.inputs == first.prepared.design.inputs
    assert better.metrics["test"]["accuracy"] > max(0.9, first.metrics["test"]["accuracy"])
