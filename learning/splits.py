"""Which rows are for training, validation and test. Imports no torch, so that an upload's own split can be checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from learning.config import Split
from learning.errors import InvalidData, InvalidRow, UnknownName, did_you_mean
from learning.spill import taken

RowNumbers = NDArray[np.int64]  # from 0
_PARTS = ("train", "validation", "test")
_FEW_ROWS = 100


def require_column(table: pa.Table, name: str, param: str) -> None:
    """Raise UnknownName with the columns there are and the likely one."""
    if name not in table.column_names:
        raise UnknownName(
            f'Column "{name}" not found.{did_you_mean(name, table.column_names)}',
            hint=f"Columns: {', '.join(table.column_names)}.",
            param=param,
        )


def require_values(table: pa.Table, name: str, said: str, param: str) -> None:
    """Raise InvalidRow for the first row without a value in a column that must have one in each."""
    column = table.column(name)
    if column.null_count:
        row = int(pc.index(column.is_null(), True).as_py())
        raise InvalidRow(row, f', column "{name}": {said}.', hint="Fill in or remove the row.", param=param)


@dataclass(frozen=True, slots=True)
class Parts:
    """Row numbers of each part, ascending."""

    train: RowNumbers
    validation: RowNumbers
    test: RowNumbers


def split_rows(table: pa.Table, split: Split, label: str | None, in_order: bool = False) -> Parts:
    """Assign rows to parts: by a given column, else by shares, whole groups together, classes in proportion.

    Rows `in_order` are not mixed, unless they are in groups: the first are for training, the last for the test.
    """
    if split.column is not None:
        return _given_parts(table, split.column)
    rows = table.num_rows
    validation = split.validation if isinstance(split.validation, float) else (0.2 if rows >= _FEW_ROWS else 0.0)
    if in_order and split.group is None:
        held_out = _counts(rows, validation, split.test)
        return _parts(np.repeat(np.array([0, 1, 2], dtype=np.int8), [rows - sum(held_out), *held_out]))
    generator = np.random.default_rng(split.seed)
    if split.group is not None:
        require_column(table, split.group, "split.group")
        groups = table.column(split.group).combine_chunks().dictionary_encode().indices
        units = groups.fill_null(-1).to_numpy(zero_copy_only=False)
    labelled = label and not pa.types.is_nested(table.schema.field(label).type)
    part_N = np.zeros(rows, dtype=np.int8)
    if split.group is None and not (split.stratify and label and labelled):
        # Tens of millions of rows are only looked at once here: each copy of their numbers is hundreds of megabytes.
        mixed, held = generator.permutation(rows), _counts(rows, validation, split.test)
        part_N[mixed[: held[0]]] = 1
        part_N[mixed[held[0] : sum(held)]] = 2
        return _parts(part_N)
    if split.group is None:
        units = np.arange(rows)
    strata = _codes(table, label) if split.group is None and label else np.zeros(rows)
    for stratum in np.unique(strata):
        own_units = generator.permutation(np.unique(units[strata == stratum]))
        held = _counts(len(own_units), validation, split.test)
        part_N[np.isin(units, own_units[: held[0]])] = 1
        part_N[np.isin(units, own_units[held[0] : sum(held)])] = 2
    return _parts(part_N)


def _counts(units: int, validation: float, test: float) -> tuple[int, int]:
    return round(units * validation), round(units * test)


def _codes(table: pa.Table, label: str) -> NDArray[np.int64]:
    codes = table.column(label).combine_chunks().dictionary_encode().indices.fill_null(-1)
    numbers: NDArray[np.int64] = codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _given_parts(table: pa.Table, column: str) -> Parts:
    require_column(table, column, "split.column")
    names = table.column(column).cast(pa.string()).to_pylist()
    wrong = next((row for row, name in enumerate(names) if name not in _PARTS), None)
    if wrong is not None:
        raise InvalidRow(
            wrong,
            f', column "{column}": "{names[wrong]}" is no part.',
            hint=f"Write one of {', '.join(_PARTS)}.",
            param="split.column",
        )
    return _parts(np.array([_PARTS.index(name) for name in names], dtype=np.int8))


def _parts(part_N: NDArray[np.int8]) -> Parts:
    train, validation, test = (np.flatnonzero(part_N == part) for part in range(3))
    if len(train) == 0:
        raise InvalidData("The split leaves no rows for training.", hint="Lower split.validation or split.test.")
    return Parts(train, validation, test)


def take(table: pa.Table, rows: RowNumbers) -> pa.Table:
    """Return the rows of a part; without a copy when they are one after the other, in a file when they are many."""
    return table if len(rows) == table.num_rows else taken(table, rows)
