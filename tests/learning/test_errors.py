"""What is wrong with a job is said with the column, the value and the way out."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from runs import CLASSES, NUMBERS, run, saved, small_table, spec_of, write

from learning import checkpoint
from learning.config import Hyperparameters, TrainingSpec
from learning.errors import (
    CorruptCheckpoint,
    IncompatibleModel,
    InvalidConfig,
    InvalidData,
    LearningError,
    UnknownName,
    did_you_mean,
)
from learning.model import load
from learning.preparation import check
from learning.training import Diverged

SHORT = {"max_steps": 3}


@pytest.fixture
def path(tmp_path):
    return write(small_table(), tmp_path / "train.arrow")


def caught(spec: TrainingSpec, path, tmp_path, **sources) -> LearningError:
    with pytest.raises(LearningError) as error:
        run(spec, {"train": path}, tmp_path / "run", **sources)
    assert error.value.to_dict()["retryable"] is False
    return error.value


def with_column(name, values, tmp_path):
    table = small_table()
    return write(table.set_column(table.column_names.index(name), name, [values]), tmp_path / "changed.arrow")


def test_a_target_that_is_not_there(path, tmp_path):
    error = caught(spec_of(CLASSES, columns={"target": "lable"}), path, tmp_path)
    assert isinstance(error, UnknownName)
    assert error.message == 'Column "lable" not found. Did you mean "label"?'
    assert "Columns: age, income" in error.hint
    assert error.param == "columns.target"


@pytest.mark.parametrize("task", [CLASSES, NUMBERS])
def test_no_target_at_all(task, path, tmp_path):
    assert isinstance(caught(spec_of(task, columns={}), path, tmp_path), InvalidConfig)


def test_a_target_with_one_class(tmp_path):
    path = with_column("label", ["high"] * 40, tmp_path)
    error = caught(spec_of(CLASSES), path, tmp_path)
    assert isinstance(error, InvalidData)
    assert error.message.startswith('Column "label" has only the class "high" among the training rows')


def test_a_target_without_values(tmp_path):
    path = with_column("label", pa.array([None] * 40, pa.string()), tmp_path)
    assert "no value at all" in caught(spec_of(CLASSES), path, tmp_path).message


def test_a_label_that_training_never_saw(path, tmp_path):
    test = with_column("label", ["high"] * 39 + ["middle"], tmp_path)
    with pytest.raises(InvalidData, match=r"Row 40, column \"label\": 'middle', but training has the labels high, low"):
        run(spec_of(CLASSES), {"train": path, "test": test}, tmp_path / "run")


def test_too_many_classes_are_a_number(tmp_path):
    values = np.random.default_rng(0).normal(size=2000)
    path = write(pa.table({"x": values, "y": values}), tmp_path / "wide.arrow")
    error = caught(spec_of(CLASSES, columns={"target": "y"}), path, tmp_path)
    assert "which is no label" in error.message
    assert "tabular-regression" in error.hint


def test_a_number_that_never_varies_or_is_no_number(path, tmp_path):
    same = with_column("amount", [1.0] * 40, tmp_path)
    assert "the same value in every training row" in caught(spec_of(NUMBERS), same, tmp_path).message
    error = caught(spec_of(NUMBERS, columns={"target": "label"}), path, tmp_path)
    assert "which are no numbers" in error.message
    assert "classification" in error.hint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"positive_label": "hihg"}, 'Did you mean "high"'),
        ({"class_weights": {"hihg": 2.0}}, 'Did you mean "high"'),
        ({"label_smoothing": 1.0}, "task_config.label_smoothing: Input should be less than 1; got 1.0"),
        ({"weights": 1}, "task_config.weights: Extra inputs are not permitted"),
    ],
)
def test_options_of_the_task(values, message, path, tmp_path):
    error = caught(spec_of(CLASSES, task_config=values), path, tmp_path)
    assert isinstance(error, InvalidConfig)
    assert message in error.message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 0, 11, "fast", None])
def test_a_learning_rate_out_of_range(value):
    with pytest.raises(ValidationError, match="learning_rate"):
        Hyperparameters(learning_rate=value)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"weight_decay": float("nan")},
        {"betas": (0.9, 1.0)},
        {"momentum": 1.0},
        {"dropout": 1.0},
        {"schedule": "cosin"},
        {"gradient_clip": 0},
        {"warmup_fraction": 1},
        {"learning_rates": 0.1},
    ],
)
def test_hyperparameters_out_of_range(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        Hyperparameters(**values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "tabular-clasification"}, 'Did you mean "tabular-classification"'),
        ({"architecture": "mpl"}, 'Did you mean "mlp"'),
        ({"kind": "pretrain"}, 'Task "tabular-classification" is for finetune jobs, not pretrain'),
        ({"architecture_config": {"hidden_sizes": [0]}}, "architecture.hidden_sizes.0: "),
        ({"preprocessing": {"scaling": "minmax"}}, "preprocessing.scaling: Input should be 'clipped'"),
        ({"task": "masked-features", "kind": "pretrain", "compare": True}, "compare is for finetune jobs"),
    ],
)
def test_a_specification_is_checked_before_any_data(fields, message):
    spec = TrainingSpec(**{"kind": "finetune", "task": CLASSES, "architecture": "mlp", **fields})
    with pytest.raises(LearningError) as error:
        check(spec)
    assert message in error.value.message


def test_a_base_model_of_other_columns_or_of_the_target(path, tmp_path):
    pretraining = TrainingSpec(kind="pretrain", task="masked-features", architecture="mlp", hyperparameters=SHORT)
    base = saved(run(pretraining, {"train": path}, tmp_path / "a"), tmp_path / "base")
    known = caught(spec_of(CLASSES), path, tmp_path, base=base)
    assert isinstance(known, IncompatibleModel)
    assert known.message == 'The base model learned from column "label", which this job is to predict.'
    less = spec_of("masked-features", kind="pretrain", hyperparameters=SHORT)
    base = saved(run(less, {"train": path}, tmp_path / "b"), tmp_path / "other")
    renamed = small_table().rename_columns(["years", *small_table().column_names[1:]])
    missing = caught(spec_of(CLASSES), write(renamed, tmp_path / "renamed.arrow"), tmp_path, base=base)
    assert missing.message == 'Column "age" not found.'
    assert missing.param == "base_model"


def test_a_base_model_warns_of_columns_that_it_does_not_use(path, tmp_path):
    columns = {"inputs": ("age", "city")}
    spec = TrainingSpec(
        kind="pretrain", task="masked-features", architecture="mlp", columns=columns, hyperparameters=SHORT
    )
    base = saved(run(spec, {"train": path}, tmp_path / "a"), tmp_path / "base")
    tuned = run(spec_of(CLASSES, hyperparameters=SHORT), {"train": path}, tmp_path / "b", base=base)
    assert "not used: income, children, member, since" in tuned.prepared.warnings[0]


def test_a_directory_that_is_no_model(tmp_path):
    with pytest.raises(IncompatibleModel, match="No model can be read here"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"format_version": 99}')
    with pytest.raises(IncompatibleModel, match="format version 99"):
        load(tmp_path)


def test_training_that_diverges_says_so(path, tmp_path):
    wild = {"learning_rate": 10, "optimizer": "sgd", "dropout": 0, "epochs": 50}
    spec = spec_of(
        NUMBERS,
        hyperparameters={**wild, "schedule": "constant"},
        architecture_config={"hidden_sizes": [32, 32]},
        preprocessing={"scaling": "none"},
    )
    error = caught(spec, path, tmp_path)
    assert isinstance(error, Diverged)
    assert "learning_rate" in error.hint


def test_early_stopping_without_validation_rows_warns(path, tmp_path):
    spec = spec_of(CLASSES, early_stopping={}, hyperparameters=SHORT)
    result = run(spec, {"train": path}, tmp_path / "run")
    assert result.prepared.warnings == ["early_stopping has no effect: there are no validation rows."]


def test_a_checkpoint_with_a_changed_byte(path, tmp_path):
    written = run(spec_of(CLASSES, hyperparameters=SHORT), {"train": path}, tmp_path / "run").outcome.checkpoint
    weights = written / "state.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptCheckpoint, match="does not match its checksum"):
        checkpoint.read(written)


@pytest.mark.parametrize(("name", "found"), [("AGE", "age"), ("incmoe", "income"), ("zzz", None)])
def test_did_you_mean(name, found):
    assert did_you_mean(name, ["age", "income"]) == (f' Did you mean "{found}"?' if found else "")
