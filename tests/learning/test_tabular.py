"""Rows of a table become features: fitted on the training rows only, and every value that does not fit is explained."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from runs import run, small_table, spec_of, write
from scipy import stats
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from learning.config import Columns
from learning.errors import InvalidData, InvalidInput
from learning.modalities.tabular import Tabular, TabularConfig, TabularState

TABULAR = Tabular()


def fitted(columns: dict, **config) -> tuple[TabularState, pa.Table]:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    return TABULAR.fit(table, Columns(), TabularConfig(**config)), table


def encoded(table, state):
    return TABULAR.encode(table, state)["inputs_BF"].numpy()


def test_standard_and_min_max_are_scikit_learn_s():
    values = np.random.default_rng(0).normal(5, 3, (50, 2))
    columns = {"a": values[:, 0], "b": values[:, 1]}
    for scaling, scaler in (("standard", StandardScaler()), ("min-max", MinMaxScaler())):
        state, table = fitted(columns, scaling=scaling)
        assert encoded(table, state) == pytest.approx(scaler.fit_transform(values), abs=1e-5)


def test_min_max_of_later_rows_may_leave_the_range():
    state, _ = fitted({"a": [0.0, 10.0]}, scaling="min-max")
    assert encoded(pa.table({"a": [20.0]}), state).item() == 2.0


def test_clipped_is_standard_near_the_middle_and_below_three_far_out():
    values = np.append(np.random.default_rng(1).normal(0, 1, 999), 1e6)
    state, table = fitted({"a": values}, scaling="clipped")
    features = encoded(table, state)[:, 0]
    assert abs(features).max() < 3
    assert (np.diff(features[np.argsort(values)]) >= 0).all()
    plain, table = fitted({"a": [-1.0, -0.5, 0.5, 1.0]}, scaling="clipped")
    assert encoded(table, plain)[2, 0] == pytest.approx(0.5 / np.std([-1, -0.5, 0.5, 1]), rel=0.03)


def test_quantile_makes_any_distribution_normal():
    values = np.random.default_rng(2).lognormal(0, 2, 2000)
    state, table = fitted({"a": values}, scaling="quantile")
    features = encoded(table, state)[:, 0]
    wanted = stats.norm.ppf(stats.rankdata(values) / 2001)
    inner = abs(wanted) < 2  # the table of quantiles is coarse in the tails
    assert features[inner] == pytest.approx(wanted[inner], abs=0.1)
    assert abs(encoded(pa.table({"a": [-1e9, 1e9]}), state)).max() < 3.2


def test_none_leaves_numbers_as_they_are():
    state, table = fitted({"a": [1.5, -2.0]}, scaling="none")
    assert encoded(table, state)[:, 0].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("scaling", ["clipped", "standard", "min-max", "quantile", "none"])
def test_constant_and_empty_columns_stay_finite(scaling):
    empty = pa.array([None, None, None], pa.float64())
    state, table = fitted(pa.table({"same": [4.0, 4.0, 4.0], "empty": empty}), scaling=scaling)
    assert np.isfinite(encoded(table, state)).all()


def test_a_missing_number_is_the_centre_and_says_so():
    state, table = fitted({"a": [1.0, None, 3.0]}, scaling="standard")
    assert encoded(table, state) == pytest.approx(np.array([[-1, 0], [0, 1], [1, 0]], dtype=np.float32))


def test_a_small_integer_gets_a_feature_per_value():
    state, table = fitted({"grade": [1, 2, 3] * 20}, scaling="standard", integer_levels=5)
    assert encoded(table, state)[:3, 1:].tolist() == np.eye(3).tolist()
    unseen = encoded(pa.table({"grade": [7]}), state)
    assert unseen[0, 1:].tolist() == [0, 0, 0]
    assert fitted({"grade": [1, 2, 3] * 20}, integer_levels=0)[0].width == 1
    assert fitted({"grade": [1, 2, 3]})[0].width == 1  # each value too seldom


def test_categories_share_a_feature_beyond_the_most_frequent():
    state, table = fitted({"city": ["b", "a", "a", "c", None]}, max_categories=2)
    assert state.columns[0].values == ("a", "b")
    assert encoded(table, state).argmax(1).tolist() == [1, 0, 0, 2, 2]


def test_booleans_are_true_and_false():
    state, table = fitted({"member": [True, False, None]})
    assert encoded(table, state).argmax(1).tolist() == [1, 0, 2]
    rows, warnings = TABULAR.parse({"member": True}, 0, state)
    assert (rows, warnings) == ({"member": "true"}, [])


def test_dates_give_trend_season_weekday_and_hour():
    monday_noon = datetime(2024, 1, 1, 12)  # stored without a zone
    table = pa.table({"at": pa.array([monday_noon, datetime(2024, 7, 4), None], pa.timestamp("us"))})
    state, _ = fitted(table)
    features = encoded(table, state)
    assert features[0, 0] == pytest.approx(-1)
    assert features[:2, 5:12].argmax(1).tolist() == [0, 3]  # Monday and Thursday
    assert features[0, 3:5] == pytest.approx([0, -1], abs=1e-5)  # noon
    assert features[1, 3:5] == pytest.approx([0, 1], abs=1e-5)  # midnight
    assert features[0, 2] == pytest.approx(1, abs=0.01)  # the turn of the year
    assert features[2].tolist() == [0] * 12 + [1]


def test_a_date_with_a_zone_counts_in_utc():
    table = pa.table({"at": pa.array([datetime(2024, 1, 1), datetime(2024, 1, 9)], pa.timestamp("us"))})
    state, _ = fitted(table)
    row, _ = TABULAR.parse({"at": "2024-01-05T01:30:00+02:00"}, 0, state)
    assert row["at"] == datetime(2024, 1, 4, 23, 30, tzinfo=UTC).replace(tzinfo=None)


def test_an_unknown_category_is_answered_with_a_warning():
    state, _ = fitted({"city": ["Basel", "Bern"]})
    row, warnings = TABULAR.parse({"city": "Bren"}, 4, state)
    assert row == {"city": "Bren"}
    assert [(warning.index, warning.code) for warning in warnings] == [(4, "unknown_category")]
    assert 'Did you mean "Bern"?' in warnings[0].message
    assert TABULAR.assemble([row], state)["inputs_BF"].numpy().argmax() == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"age": 3}, 'Input 2: column "aged" is missing. Did you mean "age"?'),
        ({"aged": "old"}, 'Input 2, column "aged": "old" is not a number.'),
        ({"aged": True}, 'Input 2, column "aged": True is not a number.'),
        ({"aged": float("nan")}, 'Input 2, column "aged": nan is not a number.'),
        ([1, 2], "Input 2 is not an object with a value for each column."),
    ],
)
def test_an_input_that_does_not_fit_is_explained(value, message):
    state, _ = fitted({"aged": [1.0, 2.0]})
    with pytest.raises(InvalidInput) as caught:
        TABULAR.parse(value, 2, state)
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize(("column", "value"), [("city", 5), ("at", "tomorrow"), ("at", 20240101)])
def test_other_kinds_of_columns_refuse_too(column, value):
    at = pa.array([datetime(2024, 1, 1)], pa.timestamp("us"))
    state, _ = fitted(pa.table({"city": ["Bern"], "at": at}))
    with pytest.raises(InvalidInput, match=f'column "{column}"'):
        TABULAR.parse({"city": "Bern", "at": "2024-01-01", column: value}, 0, state)


def test_null_is_always_allowed():
    state, _ = fitted(small_table())
    row, warnings = TABULAR.parse(dict.fromkeys(TABULAR.column_names(state)), 0, state)
    assert warnings == []
    assert np.isfinite(TABULAR.assemble([row], state)["inputs_BF"].numpy()).all()


@pytest.mark.parametrize("scaling", ["clipped", "standard", "min-max", "quantile"])
def test_nothing_is_fitted_on_held_out_rows(scaling, tmp_path):
    """The same training rows beside other held-out rows give the same state, whatever those hold."""
    table, states = small_table(200), []
    parts = ["train"] * 150 + ["validation"] * 25 + ["test"] * 25
    for factor in (1, 1000):
        age = table.column("age").to_numpy().copy()
        age[150:] *= factor
        city = table.column("city").to_pylist()[:150] + [f"city {factor}"] * 50
        changed = table.drop_columns(["age", "city"]).append_column("age", [age]).append_column("city", [city])
        path = write(changed.append_column("part", [parts]), tmp_path / f"{factor}.arrow")
        spec = spec_of(
            "tabular-classification",
            split={"column": "part"},
            preprocessing={"scaling": scaling},
            hyperparameters={"max_steps": 1},
        )
        states.append(run(spec, {"train": path}, tmp_path / f"run{factor}").prepared.design.inputs)
    assert states[0] == states[1]


def test_columns_choose_the_inputs():
    table = small_table()
    named = TABULAR.fit(table, Columns(target="label", inputs=("age", "city")), TabularConfig())
    assert TABULAR.column_names(named) == ("age", "city")
    rest = TABULAR.fit(table, Columns(target="label", ignore=("amount", "since")), TabularConfig())
    assert TABULAR.column_names(rest) == ("age", "income", "children", "city", "member")
    with pytest.raises(InvalidData, match="No input columns are left"):
        TABULAR.fit(table.select(["label"]), Columns(target="label"), TabularConfig())


def test_a_column_of_another_type_says_how_to_ignore_it():
    table = pa.table({"pixels": [[1, 2], [3, 4]]})
    with pytest.raises(InvalidData, match='Column "pixels" has the type list') as caught:
        TABULAR.fit(table, Columns(), TabularConfig())
    assert 'columns.ignore=["pixels"]' in caught.value.hint
