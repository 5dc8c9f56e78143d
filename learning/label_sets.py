"""The labels of rows that may have several: a column of lists, or for each label a column that says which have it.

N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from learning.errors import InvalidData, InvalidRow
from learning.splits import require_column, require_values

Booleans = NDArray[np.bool_]
Counts = NDArray[np.int64]

_NOT_LABELLED = "no labels"


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Which row has which label: places of rows beside the labels, of lists; or a mask for each of some columns."""

    rows: int
    row_L: Counts
    label_L: pa.Array
    columns: tuple[str, ...] | None = None  # the labels, where each is a column

    def names(self) -> tuple[str, ...]:
        """Return the labels: the columns, or what stands in the lists, sorted."""
        return self.columns or tuple(sorted(self.label_L.unique().to_pylist()))

    def among(self, labels: Sequence[str]) -> tuple[Booleans, Counts]:
        """Return has_NK, which of some labels each row has, and other_N, how many it has that are none of them."""
        place_L = pc.index_in(self.label_L, value_set=pa.array(labels, pa.string()))
        is_known_L = place_L.is_valid().to_numpy(zero_copy_only=False)
        place_L = place_L.fill_null(0).to_numpy(zero_copy_only=False)
        has_NK = np.zeros((self.rows, len(labels)), dtype=bool)
        has_NK[self.row_L[is_known_L], place_L[is_known_L]] = True
        others = self.label_L.filter(pa.array(~is_known_L)).to_pylist()
        pairs = set(zip(self.row_L[~is_known_L].tolist(), others, strict=True))
        other_N = np.bincount(np.array([row for row, _ in pairs], dtype=np.int64), minlength=self.rows)
        return has_NK, other_N


def label_sets(table: pa.Table, targets: Sequence[str]) -> LabelSets:
    """Return the rows' labels; InvalidData for columns that hold none, InvalidRow names a row that does not say."""
    for name in targets:
        require_column(table, name, "columns.target")
    if len(targets) == 1 and pa.types.is_list(table.schema.field(targets[0]).type):
        return _of_lists(table, targets[0])
    return _of_columns(table, targets)


def _of_lists(table: pa.Table, target: str) -> LabelSets:
    kind = table.schema.field(target).type
    if not pa.types.is_string(kind.value_type):
        raise _no_labels(target, kind)
    hint = "; a row that has none of the labels has an empty list, []"
    require_values(table, target, _NOT_LABELLED + hint, "columns.target")
    column = table.column(target)
    lengths = pc.list_value_length(column).to_numpy()
    label_L = pc.list_flatten(column)
    label_L = label_L.combine_chunks() if isinstance(label_L, pa.ChunkedArray) else label_L
    row_L = np.repeat(np.arange(table.num_rows), lengths)
    empty_L = pc.fill_null(pc.equal(label_L, ""), True).to_numpy(zero_copy_only=False)
    if empty_L.any():
        row = int(row_L[empty_L.argmax()])
        raise InvalidRow(
            row,
            f', column "{target}": one of its labels is empty.',
            hint="Remove it from the list, or name it.",
            param="columns.target",
        )
    return LabelSets(table.num_rows, row_L, label_L)


def _of_columns(table: pa.Table, targets: Sequence[str]) -> LabelSets:
    rows, labels = [], []
    for place, name in enumerate(targets):
        has_N = _says(table, name)
        rows.append(np.flatnonzero(has_N))
        labels.append(np.full(len(rows[-1]), place))
    names = pa.array(list(targets), pa.string())
    return LabelSets(table.num_rows, np.concatenate(rows), names.take(pa.array(np.concatenate(labels))), tuple(targets))


def _says(table: pa.Table, name: str) -> Booleans:
    """Return which rows have the label that a column of true and false, or of 1 and 0, is about."""
    kind = table.schema.field(name).type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        raise _no_labels(name, kind)
    require_values(table, name, _NOT_LABELLED, "columns.target")
    values_N = table.column(name).to_numpy()
    wrong_N = ~np.isin(values_N, (0, 1))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise InvalidRow(
            row,
            f', column "{name}": {values_N[row]} says neither that the label is there, as 1 or true, nor that it is '
            "not, as 0 or false.",
            hint="Correct the row, or choose other targets.",
            param="columns.target",
        )
    has_N: Booleans = values_N.astype(bool)
    return has_N


def _no_labels(name: str, kind: pa.DataType) -> InvalidData:
    return InvalidData(
        f'Column "{name}" holds {kind} values, which are no lists of labels.',
        hint=f'Upload the file with column_types={{"{name}": "strings"}} if its cells are like ["cat", "dog"] or '
        "cat|dog; or name several columns of 0 and 1 as columns.targets. For one label a row there are other tasks.",
        param="columns.target",
    )
