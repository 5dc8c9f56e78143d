"""What held-out rows have to do with the training rows: rows that are in both, and columns that are another way there.

Looked at where the user says which rows are which: parts given as datasets of their own, or named in a column. Rows
that are held out by chance differ by chance only, and which of them repeat is counted with the dataset.

For a job this is done when it is prepared: its tables are mapped there anyway, while a request must not read them, and
whoever asks for a dry run gets the same warnings from the rows that it samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learning.dataset_warnings import DatasetWarning
from learning.media_types import file_column
from learning.row_hashes import file_hashes, hashes_in, table_hashes
from learning.sampling import sample, sample_numbers
from learning.splits import Parts, RowNumbers

_SHOWN = 5
# In standard deviations of the training rows, how far a mean may move; and the share of rows that may move elsewhere.
_FAR, _MOVED = 1.0, 0.3
_FEW_ROWS = 20
_MOST_CATEGORIES = 1_000


def part_warnings(
    parts: Mapping[str, pa.Table],
    numbers: Mapping[str, RowNumbers],
    compared: Collection[str],
    *,
    targets: Collection[str],
    ignored: Collection[str],
) -> Iterator[str]:
    """Yield warnings of each of the `compared` parts beside the training rows.

    `numbers` are those, from 0, of a part's rows in the file that it was cut out of, and `ignored` are the columns that
    nothing is learned from, among them one that says which part a row is of.
    """
    train = parts["train"].drop_columns([name for name in ignored if name in parts["train"].column_names])
    for name in ("validation", "test"):
        if name in compared and parts[name].num_rows and train.num_rows:
            yield from _overlap(name, train, parts[name], numbers.get(name))
            for warning in _drifts(name, sample(train), sample(parts[name]), targets):
                yield warning.message


def split_warnings(
    path: Path, table: pa.Table, parts: Parts, column: str, target: str | None
) -> Iterator[DatasetWarning]:
    """Yield warnings of the parts of one dataset, an Arrow file and its table, that a column names.

    Whole rows are read batch by batch, and their hashes held.
    """
    left_out = {column, file_column(table.schema)}
    others = [place for place, name in enumerate(table.column_names) if name not in left_out]
    if not others or not (len(parts.validation) or len(parts.test)):
        return
    found = file_hashes(path, table.schema, others)
    known = found[parts.train]
    plain = table.select([place for place in others if _comparable(table.schema.types[place])])
    first = plain.take(sample_numbers(parts.train))
    for name, rows in (("validation", parts.validation), ("test", parts.test)):
        if len(rows):
            again = rows[hashes_in(known, found[rows])] + 1
            if len(again):
                yield DatasetWarning("rows_in_both_parts", _in_both(name, again, len(rows)))
            yield from _drifts(name, first, plain.take(sample_numbers(rows)), {target})


def _overlap(name: str, train: pa.Table, other: pa.Table, numbers: RowNumbers | None) -> Iterator[str]:
    named = file_column(train.schema)
    shared = [column for column in train.column_names if column in other.column_names and column != named]
    same = [column for column in shared if train.schema.field(column).type == other.schema.field(column).type]
    if not same:
        return
    known, asked = (table_hashes(table.select(same)) for table in (train, other))
    again = np.flatnonzero(hashes_in(known, asked))
    if len(again):
        yield _in_both(name, (again if numbers is None else numbers[again]) + 1, other.num_rows)


def _in_both(name: str, rows: RowNumbers, of: int) -> str:
    shown = ", ".join(str(row) for row in rows[:_SHOWN]) + (", …" if len(rows) > _SHOWN else "")
    return (
        f"{len(rows)} of {of} {name} rows also occur in the training rows ({shown}), so {name} metrics "
        "will look better than they are."
    )


def _drifts(name: str, first: pa.Table, second: pa.Table, targets: Collection[str | None]) -> Iterator[DatasetWarning]:
    if min(first.num_rows, second.num_rows) < _FEW_ROWS:
        return
    for column in first.column_names:
        if column in second.column_names:
            what = "Target" if column in targets else "Column"
            if how := _drift(first.column(column), second.column(column)):
                message = f'{what} "{column}" differs between the training and the {name} rows: {how}.'
                yield DatasetWarning("drift", message, column)


def _comparable(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind) and not pa.types.is_timestamp(kind)


def _drift(first: pa.ChunkedArray, second: pa.ChunkedArray) -> str | None:
    if first.type != second.type or not _comparable(first.type):
        return None
    if pa.types.is_integer(first.type) or pa.types.is_floating(first.type):
        return _moved_mean(first, second)
    return _moved_shares(first, second)


def _moved_mean(first: pa.ChunkedArray, second: pa.ChunkedArray) -> str | None:
    means = [pc.mean(values).as_py() for values in (first, second)]
    spread = pc.stddev(first).as_py()
    if None in means or not spread or abs(means[1] - means[0]) <= _FAR * spread:
        return None
    return f"the mean is {means[0]:.4g} and {means[1]:.4g}, with a standard deviation of {spread:.4g}"


def _moved_shares(first: pa.ChunkedArray, second: pa.ChunkedArray) -> str | None:
    values = pa.concat_arrays([pc.unique(first), pc.unique(second)]).unique()
    # Sentences and names are different ones everywhere.
    if len(values) > min(_MOST_CATEGORIES, len(first) // 5):
        return None
    shares = []
    for column in (first, second):
        places = pc.index_in(column.combine_chunks(), value_set=values).to_numpy(zero_copy_only=False)
        shares.append(np.bincount(places, minlength=len(values)) / len(column))
    apart = shares[1] - shares[0]
    if apart.clip(min=0).sum() <= _MOVED:
        return None
    most = int(np.argmax(np.abs(apart)))
    value = values[most].as_py()
    shown = "no value" if value is None else f'"{value}"'
    return f"{shares[0][most]:.0%} and {shares[1][most]:.0%} of the rows have {shown}"
