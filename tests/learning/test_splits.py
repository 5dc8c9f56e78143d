"""Which rows train, choose and test: complete, disjoint, deterministic, in proportion, by group, by column."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from runs import run, small_table, spec_of, write

from learning.config import Split
from learning.data import epoch_order
from learning.errors import InvalidData, UnknownName
from learning.splits import split_rows

SHARES = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4))


def table_of(rows, classes=3):
    generator = np.random.default_rng(rows)
    return pa.table(
        {
            "x": np.arange(rows),
            "label": [f"class {number}" for number in generator.integers(0, classes, rows)],
            "patient": [f"patient {number}" for number in generator.integers(0, max(3, rows // 5), rows)],
        }
    )


def all_rows(parts):
    return np.concatenate([parts.train, parts.validation, parts.test])


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 300), SHARES, st.integers(0, 99), st.sampled_from([None, "patient"]))
def test_every_row_is_in_exactly_one_part(rows, shares, seed, group):
    table = table_of(rows)
    split = Split(validation=shares[0], test=shares[1], seed=seed, group=group)
    parts = split_rows(table, split, "label")
    assert sorted(all_rows(parts)) == list(range(rows))
    again = split_rows(table, split, "label")
    assert [list(getattr(parts, name)) for name in ("train", "validation", "test")] == [
        list(getattr(again, name)) for name in ("train", "validation", "test")
    ]
    for part in (parts.train, parts.validation, parts.test):
        assert list(part) == sorted(part)


def test_shares():
    parts = split_rows(table_of(1000), Split(validation=0.15, test=0.2), None)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (650, 150, 200)


def test_another_seed_is_another_split():
    first, second = (split_rows(table_of(100), Split(test=0.2, seed=seed), None) for seed in (0, 1))
    assert list(first.test) != list(second.test)


@pytest.mark.parametrize(("rows", "held"), [(99, 0), (100, 20), (500, 100)])
def test_auto_holds_out_a_fifth_but_none_of_few(rows, held):
    assert len(split_rows(table_of(rows), Split(), None).validation) == held


def test_classes_keep_their_share():
    table = pa.table({"label": ["rare"] * 20 + ["common"] * 180})
    labels = np.array(table.column("label").to_pylist())
    parts = split_rows(table, Split(validation=0.2, test=0.2), "label")
    counts = [int((labels[part] == "rare").sum()) for part in (parts.train, parts.validation, parts.test)]
    assert counts == [12, 4, 4]


def test_a_group_is_never_divided():
    table = table_of(300)
    patients = np.array(table.column("patient").to_pylist())
    parts = split_rows(table, Split(validation=0.2, test=0.2, group="patient"), "label")
    found = [set(patients[part]) for part in (parts.train, parts.validation, parts.test)]
    assert all(found)
    assert sum(len(part) for part in found) == len(set.union(*found))


def test_a_column_decides():
    table = pa.table({"x": [1, 2, 3, 4], "part": ["test", "train", "validation", "train"]})
    parts = split_rows(table, Split(column="part", test=0.5), None)
    assert (list(parts.train), list(parts.validation), list(parts.test)) == ([1, 3], [2], [0])


def test_a_column_with_another_word_names_its_row():
    table = pa.table({"part": ["train", "dev"]})
    with pytest.raises(InvalidData, match='Row 2, column "part": "dev" is no part'):
        split_rows(table, Split(column="part"), None)


@pytest.mark.parametrize("split", [Split(group="patients"), Split(column="patients")])
def test_a_missing_column_is_guessed(split):
    with pytest.raises(UnknownName, match='Did you mean "patient"'):
        split_rows(table_of(10), split, None)


def test_no_rows_left_to_train():
    with pytest.raises(InvalidData, match="no rows for training"):
        split_rows(pa.table({"part": ["test", "test"]}), Split(column="part"), None)
    with pytest.raises(ValidationError, match="leave no rows for training"):
        Split(validation=0.6, test=0.4)


def test_the_order_of_an_epoch_follows_from_seed_and_epoch():
    first = epoch_order(50, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() == epoch_order(50, seed=1, epoch=0).tolist()
    assert first.tolist() != epoch_order(50, seed=1, epoch=1).tolist()
    assert first.tolist() != epoch_order(50, seed=2, epoch=0).tolist()


def test_of_few_rows_none_are_held_out_where_there_are_test_rows(tmp_path):
    tables = {"train": write(small_table(120), tmp_path / "train.arrow")}
    given = {**tables, "test": write(small_table(30, seed=1), tmp_path / "test.arrow")}
    short = {"hyperparameters": {"max_steps": 2}}
    plain = spec_of("tabular-regression", **short)
    stopping = spec_of("tabular-regression", early_stopping={"patience": 2}, **short)
    rows = {
        name: {part: values["rows"] for part, values in run(spec, files, tmp_path / name).metrics.items()}
        for name, spec, files in (("a", plain, tables), ("b", plain, given), ("c", stopping, given))
    }
    assert rows["a"] == {"train": 96, "validation": 24}
    assert rows["b"] == {"train": 120, "test": 30}
    assert rows["c"] == {"train": 96, "validation": 24, "test": 30}
