"""The short way from a prediction's inputs to a network's outputs equals the way of tables and modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from learning.architectures.mlp import Mlp, MlpConfig
from learning.config import Columns
from learning.modalities.tabular import Tabular, TabularConfig
from learning.modalities.tabular_rows import RowEncoder
from learning.model import Design, save
from learning.prediction import Predictor
from learning.tasks.classification import ClassificationConfig
from learning.tasks.regression import RegressionConfig
from learning.tasks.tabular_classification import TabularClassification
from learning.tasks.tabular_regression import TabularRegression

ROWS = 60
COLUMNS = Columns(target="label", inputs=("height", "age", "level", "colour", "member"))
# What stands for everything that can be strange about a row.
INPUTS: list[dict[str, Any]] = [
    {"height": 1.5, "age": 30, "level": 2, "colour": "red", "member": True},
    {"height": None, "age": 1e6, "level": 99, "colour": "green", "member": None},
    {"height": -3.25, "age": None, "level": None, "colour": None, "member": False},
    {"height": 0, "age": 7.5, "level": 3, "colour": "blue", "member": "true", "unasked": 1},
]


def table() -> pa.Table:
    generator = np.random.default_rng(0)
    heights = generator.normal(size=ROWS).tolist()
    heights[3] = None
    return pa.table(
        {
            "height": heights,
            "age": generator.normal(40, 10, size=ROWS),
            "level": pa.array([n % 4 for n in range(ROWS)]),
            "colour": [("red", "blue", "yellow")[n % 3] for n in range(ROWS)],
            "member": [n % 2 == 0 for n in range(ROWS)],
            "label": [("no", "yes", "perhaps")[n % 3] for n in range(ROWS)],
            "price": generator.normal(size=ROWS),
        }
    )


def predictor(
    directory: Path, scaling: str = "clipped", task: Any = None, target: str = "label", **options: Any
) -> Predictor:
    rows, modality, config = table(), Tabular(), TabularConfig(scaling=scaling)
    task = task or TabularClassification()
    columns = COLUMNS.model_copy(update={"target": target})
    inputs = modality.fit(rows, columns, config)
    asked = ClassificationConfig() if task.name == "tabular-classification" else RegressionConfig()
    mlp = MlpConfig(hidden_sizes=(6, 6), **options)
    design = Design(task, Mlp(), modality, config, mlp, inputs, task.fit(rows, columns, asked, inputs))
    torch.manual_seed(0)
    network = design.build()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    save(design, network.state_dict(), directory)
    return Predictor(directory)


def by_table(loaded: Predictor, inputs: list[Any]) -> list[dict[str, Any]]:
    """Answer the long way, on the same weights."""
    modality, state, task = loaded.design.modality, loaded.design.inputs, loaded.design.task
    rows = [modality.parse(value, index, state)[0] for index, value in enumerate(inputs)]
    with torch.inference_mode():
        batch = modality.assemble(rows, state)
        return task.answers(task.predict(loaded._network, batch, loaded.design.targets), loaded.design.targets, rows)


@pytest.mark.parametrize("scaling", ["clipped", "standard", "min-max", "none"])
def test_encoding_equals_the_table_s(tmp_path: Path, scaling: str) -> None:
    loaded = predictor(tmp_path, scaling)
    modality, state = loaded.design.modality, loaded.design.inputs
    rows = [modality.parse(value, index, state)[0] for index, value in enumerate(INPUTS)]
    expected = modality.assemble(rows, state)["inputs_BF"]
    encoded = RowEncoder(state).encode(loaded.parse(INPUTS).rows)
    assert np.array_equal(encoded, expected.numpy())


@pytest.mark.parametrize("options", [{}, {"batch_normalization": True}, {"residual": True}, {"activation": "tanh"}])
@pytest.mark.parametrize("scaling", ["clipped", "quantile"])
def test_answers_equal_the_network_s(tmp_path: Path, options: dict[str, Any], scaling: str) -> None:
    loaded = predictor(tmp_path, scaling, **options)
    for answer, expected in zip(loaded.predict(INPUTS).outputs, by_table(loaded, INPUTS), strict=True):
        assert answer is not None
        assert answer["label"] == expected["label"]
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], rel=1e-5)


def test_regression(tmp_path: Path) -> None:
    loaded = predictor(tmp_path, task=TabularRegression(), target="price")
    values = [answer["value"] for answer in loaded.predict(INPUTS).outputs if answer is not None]
    assert values == pytest.approx([answer["value"] for answer in by_table(loaded, INPUTS)], rel=1e-5)


def test_a_batch_equals_its_rows_alone(tmp_path: Path) -> None:
    loaded = predictor(tmp_path)
    inputs = INPUTS * 700  # more than numpy is given at once
    together = loaded.predict(inputs).outputs
    alone = [loaded.predict([value]).outputs[0] for value in INPUTS]
    for answer, expected in zip(together, alone * 700, strict=True):
        assert answer is not None
        assert expected is not None
        assert answer["score"] == pytest.approx(expected["score"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": "1.5"}, '"1.5" is not a number'),
        ({"height": True}, "True is not a number"),
        ({"height": float("inf")}, "inf is not a number"),
        ({"height": float("nan")}, "nan is not a number"),
        ({"height": [1]}, "is not a number"),
        ({"colour": 5}, "5 is not a string"),
        ({"colour": ["red"]}, "is not a string"),
        ({"member": 1}, "1 is not true or false"),
    ],
)
def test_what_is_wrong_is_still_seen(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    result = predictor(tmp_path).predict([INPUTS[0], {**INPUTS[0], **changes}, INPUTS[0]])
    assert [output is None for output in result.outputs] == [False, True, False]
    assert said in result.errors[0].message
    assert result.errors[0].index == 1


def test_an_unknown_category_still_warns(tmp_path: Path) -> None:
    (warning,) = predictor(tmp_path).predict(INPUTS).warnings
    assert (warning.index, warning.code) == (1, "unknown_category")


def test_options_of_a_classification(tmp_path: Path) -> None:
    loaded = predictor(tmp_path)
    asked = ({}, {"top_k": 2}, {"probabilities": False})
    whole, two, none = (loaded.predict(INPUTS[:1], loaded.options(options)).outputs[0] for options in asked)
    assert whole is not None
    assert two is not None
    assert list(two["probabilities"].items()) == list(whole["probabilities"].items())[:2]
    assert none == {"label": whole["label"], "score": whole["score"]}
