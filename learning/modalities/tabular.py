"""Rows of a table: numbers scaled, categories one-hot, dates taken apart; all fitted on the training rows only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from learning.config import Columns, Config
from learning.errors import IncompatibleModel, InvalidData
from learning.interfaces import Batch, InputWarning, Part
from learning.modalities.tabular_columns import (
    CategoryColumn,
    DateColumn,
    NumberColumn,
    fit_category,
    fit_date,
    fit_number,
)
from learning.modalities.tabular_inputs import ROW_TYPES, parse_row, row_schema
from learning.splits import require_column

Column = Annotated[NumberColumn | CategoryColumn | DateColumn, Field(discriminator="kind")]


class TabularConfig(Config):
    """How columns become features."""

    scaling: Literal["clipped", "standard", "min-max", "quantile", "none"] = Field(
        "clipped",
        description='Numbers to mean 0 and deviation 1 ("standard"), the same with outliers drawn in smoothly below 3 '
        'deviations ("clipped"), to [0, 1], to a normal distribution by rank, or as they are.',
    )
    max_categories: int = Field(
        64,
        ge=1,
        le=4096,
        description="Most frequent values of a category that get a feature; the rest share one.",
    )
    integer_levels: int = Field(
        32,
        ge=0,
        le=4096,
        description="Integers with at most this many values, each seen ten times on average, are categories too.",
    )


class TabularState(Config):
    """What was fitted: one entry per input column, in order."""

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """F, the number of features of an encoded row."""
        return sum(column.width for column in self.columns)

    def blocks(self) -> list[slice]:
        """Return where each column's features lie, in order of the columns."""
        stops = np.cumsum([column.width for column in self.columns]).tolist()
        return [slice(stop - column.width, stop) for stop, column in zip(stops, self.columns, strict=True)]


class Tabular:
    """Columns of numbers, categories, booleans and dates."""

    name: ClassVar[str] = "tabular"
    Config: ClassVar[type[TabularConfig]] = TabularConfig
    State: ClassVar[type[TabularState]] = TabularState

    def fit(self, table: pa.Table, columns: Columns, config: TabularConfig) -> TabularState:
        """Fit every input column; InvalidData when there is none."""
        names = input_names(table, columns)
        if not names:
            raise InvalidData("No input columns are left.", hint="Ignore fewer columns.", param="columns")
        return TabularState(columns=tuple(_fit_column(name, table.column(name), config) for name in names))

    def reuse(self, table: pa.Table, columns: Columns, state: TabularState) -> TabularState:
        """Return the state as it is; every column must be there, and none of them to be predicted."""
        for column in state.columns:
            if column.name in columns.target_names():
                raise IncompatibleModel(
                    f'The base model learned from column "{column.name}", which this job is to predict.',
                    hint="Pretrain without that column (columns.ignore), then finetune.",
                    param="columns.target",
                )
            require_column(table, column.name, "base_model")
        return state

    def remarks(self, table: pa.Table, columns: Columns, state: TabularState, part: Part = "training") -> list[str]:
        """Name the columns that a base model does not know."""
        if part != "training":
            return []
        known = {*self.column_names(state), *columns.target_names(), *columns.ignore}
        unused = [name for name in columns.inputs or table.column_names if name not in known]
        if not unused:
            return []
        return [f"The base model does not know these columns, which are not used: {', '.join(unused)}."]

    def files(self, state: TabularState) -> dict[str, str]:
        """Return none."""
        return {}

    def encode(self, table: pa.Table, state: TabularState) -> Batch:
        """Return inputs_BF, float32."""
        inputs_BF = np.zeros((table.num_rows, state.width), dtype=np.float32)
        for column, block in zip(state.columns, state.blocks(), strict=True):
            column.encode(table.column(column.name), inputs_BF[:, block])
        return {"inputs_BF": torch.from_numpy(inputs_BF)}

    def column_names(self, state: TabularState) -> tuple[str, ...]:
        """Return the input columns."""
        return tuple(column.name for column in state.columns)

    def parse(self, value: Any, index: int, state: TabularState) -> tuple[dict[str, Any], list[InputWarning]]:
        """Return one object of column values, checked."""
        return parse_row(value, index, state.columns)

    def assemble(self, rows: Sequence[dict[str, Any]], state: TabularState) -> Batch:
        """Return inputs_BF of parsed rows."""
        columns = {
            column.name: pa.array([row[column.name] for row in rows], type=ROW_TYPES[column.kind])
            for column in state.columns
        }
        return self.encode(pa.table(columns), state)

    def positions(self, row: Any) -> int:
        """Return one: a row of a table is one position."""
        return 1

    def shown(self, row: dict[str, Any], state: TabularState) -> dict[str, Any]:
        """Return the features that each column becomes."""
        features_F = self.assemble([row], state)["inputs_BF"][0]
        blocks = zip(self.column_names(state), state.blocks(), strict=True)
        return {"features": {name: features_F[block].tolist() for name, block in blocks}}

    def schema(self, state: TabularState) -> dict[str, Any]:
        """Return the JSON Schema of a row."""
        return row_schema(state.columns)


def input_names(table: pa.Table, columns: Columns) -> list[str]:
    """Return the input columns in order: those named, or all that are neither target nor ignored."""
    if columns.inputs is not None:
        return list(columns.inputs)
    left_out = {*columns.target_names(), *columns.ignore}
    return [name for name in table.column_names if name not in left_out]


def _fit_column(name: str, values: pa.ChunkedArray, config: TabularConfig) -> Column:
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return fit_date(name, values)
    if pa.types.is_string(values.type) or pa.types.is_boolean(values.type):
        return fit_category(name, values, config.max_categories)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InvalidData(
            f'Column "{name}" has the type {values.type}, which is no tabular input.',
            hint=f'Ignore it with columns.ignore=["{name}"].',
            param="columns",
        )
    levels = _levels(values, config.integer_levels) if pa.types.is_integer(values.type) else ()
    return fit_number(name, values, config.scaling, levels)


def _levels(values: pa.ChunkedArray, most: int) -> tuple[int, ...]:
    distinct = sorted(value for value in values.unique().to_pylist() if value is not None)
    few = 2 < len(distinct) <= most and len(values) >= 10 * len(distinct)
    return tuple(distinct) if few and not math.isinf(float(distinct[-1])) else ()
