"""What training, validation and test rows given as datasets of their own have to do with each other.

Looked at when a job is prepared: its tables are mapped there anyway, while a request must not read them, and whoever
asks for a dry run gets the same warnings from the rows that it samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learning.row_hashes import overlap
from learning.sampling import sample

_SHOWN = 5
# In standard deviations of the training rows, how far a mean may move; and the share of rows that may move elsewhere.
_FAR, _MOVED = 1.0, 0.3
_FEW_ROWS = 20
_MOST_CATEGORIES = 1_000


def part_warnings(parts: Mapping[str, pa.Table], given: set[str], targets: tuple[str, ...]) -> Iterator[str]:
    """Yield warnings of each part beside the training rows that was given as a dataset of its own."""
    train = parts["train"]
    for name in ("validation", "test"):
        if name in given and parts[name].num_rows and train.num_rows:
            yield from _overlap(name, train, parts[name])
            yield from _drifts(name, train, parts[name], targets)


def _overlap(name: str, train: pa.Table, other: pa.Table) -> Iterator[str]:
    shared = [column for column in train.column_names if column in other.column_names]
    same = [column for column in shared if train.schema.field(column).type == other.schema.field(column).type]
    if not same:
        return
    rows = overlap(train.select(same), other.select(same))
    if rows:
        shown = ", ".join(str(row) for row in rows[:_SHOWN]) + (", …" if len(rows) > _SHOWN else "")
        yield (
            f"{len(rows)} of {other.num_rows} {name} rows also occur in the training rows ({shown}), so {name} metrics "
            "will look better than they are."
        )


def _drifts(name: str, train: pa.Table, other: pa.Table, targets: tuple[str, ...]) -> Iterator[str]:
    first, second = sample(train), sample(other)
    if min(first.num_rows, second.num_rows) < _FEW_ROWS:
        return
    for column in first.column_names:
        if column in second.column_names:
            what = "Target" if column in targets else "Column"
            if how := _drift(first.column(column), second.column(column)):
                yield f'{what} "{column}" differs between the training and the {name} rows: {how}.'


def _drift(first: pa.ChunkedArray, second: pa.ChunkedArray) -> str | None:
    if first.type != second.type or pa.types.is_nested(first.type) or pa.types.is_timestamp(first.type):
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
