"""Hashes of rows and columns, to find rows that repeat and to estimate how many different values there are.

A hash has 64 bits: among ten million rows two different ones are taken for the same with a chance of three in a
million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from learning.media_types import file_column

if TYPE_CHECKING:
    import duckdb

Hashes = NDArray[np.uint64]

_BATCH_ROWS = 65_536
# So many hashes are held at once; a table with more rows is gone through several times.
HELD = 16_000_000
_SHOWN = 10
# Of the hashes of a column so many are kept, the smallest; their density says how many there are, within one percent.
_SMALLEST = 16_384


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many rows repeat an earlier one, and the numbers of the first of them, from 1."""

    count: int = 0
    rows: list[int] = field(default_factory=list)


class Distinct:
    """Estimates how many different hashes there are from the smallest ones."""

    def __init__(self) -> None:
        self._smallest: Hashes = np.zeros(0, dtype=np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Look at some hashes."""
        if len(self._smallest) == _SMALLEST:
            hashes = hashes[hashes < self._smallest[-1]]
        if len(hashes):
            self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[:_SMALLEST]

    @property
    def count(self) -> int:
        """About how many different hashes were seen; exact while there are few."""
        if len(self._smallest) < _SMALLEST:
            return len(self._smallest)
        return round((_SMALLEST - 1) * 2.0**64 / float(self._smallest[-1]))


@contextmanager
def bounded_connection(scratch: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database of nothing, with one thread and bounded memory; it may spill to the directory `scratch`."""
    # Imported here because it costs every start of a process.
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": "256MB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=settings) as connection:
        if scratch is not None:
            connection.execute("SET temp_directory = ?", [str(scratch)])
        connection.execute("SET enable_external_access = false")
        yield connection


def hashes(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, groups: Sequence[Sequence[int]]
) -> Iterator[pa.RecordBatch]:
    """Yield, for each group of columns by position, a column of their values' hashes."""
    # Positions instead of names: a caller's text never becomes part of a query.
    plain = pa.schema([(f"c{position}", column.type) for position, column in enumerate(schema)])
    renamed = (pa.record_batch(batch.columns, schema=plain) for batch in batches)
    wanted = ", ".join(f"hash({', '.join(f'c{position}' for position in group)})" for group in groups)
    with bounded_connection() as connection:
        connection.register("part", pa.RecordBatchReader.from_batches(plain, renamed))
        yield from connection.sql(f"SELECT {wanted} FROM part").to_arrow_reader(_BATCH_ROWS)  # noqa: S608


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file, read and not mapped: each is gone from memory once it is used."""
    with pa.OSFile(str(path), "rb") as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def look(
    path: Path, schema: pa.Schema, num_rows: int, many: Sequence[int], report: Callable[[float], None]
) -> tuple[Duplicates, dict[int, int]]:
    """Return the rows of an Arrow file that repeat, and the estimated distinct values of the columns in `many`.

    The same picture or recording repeats itself under another file name.
    """
    passes = -(-num_rows // HELD)
    distinct = {position: Distinct() for position in many}
    named = file_column(schema)
    every = [position for position, name in enumerate(schema.names) if name != named]
    count = 0
    repeated: list[Hashes] = []
    for number in range(passes):
        held = _Held(number, passes, num_rows)
        groups = [every, *([position] for position in (many if number == 0 else ()))]
        for batch in hashes(read_batches(path), schema, groups):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            held.add(columns[0])
            for position, values in zip(many, columns[1:], strict=False):
                distinct[position].add(values)
            report((number + held.seen / num_rows) / (passes + 1))
        again = held.repeated()
        count += again[0]
        repeated.append(again[1])
    rows = _first_rows(path, schema, every, np.concatenate(repeated)) if count else []
    return Duplicates(count, rows), {position: found.count for position, found in distinct.items()}


class _Held:
    """The hashes of one pass: those that leave its number when divided by the number of passes.

    When there is no room for more, each is kept once; if that is not enough, more room is made.
    """

    def __init__(self, number: int, passes: int, num_rows: int) -> None:
        self._number, self._passes = np.uint64(number), np.uint64(passes)
        # A share of a pass is not even; a little more is nearly always enough.
        self._hashes: Hashes = np.empty(num_rows if passes == 1 else HELD + HELD // 8, dtype=np.uint64)
        self._count = 0
        self._again = 0
        self._repeated: Hashes = np.zeros(0, dtype=np.uint64)
        self.seen = 0

    def add(self, hashes: Hashes) -> None:
        self.seen += len(hashes)
        mine = hashes if self._passes == 1 else hashes[hashes % self._passes == self._number]
        if self._count + len(mine) > len(self._hashes):
            self._keep_once()
        if (missing := self._count + len(mine) - len(self._hashes)) > 0:
            self._hashes = np.concatenate([self._hashes, np.empty(missing + HELD // 8, dtype=np.uint64)])
        self._hashes[self._count : self._count + len(mine)] = mine
        self._count += len(mine)

    def _keep_once(self) -> None:
        held = self._hashes[: self._count]
        held.sort()
        same = held[1:] == held[:-1]
        again = held[1:][same]
        self._again += len(again)
        self._repeated = np.unique(np.concatenate([self._repeated, again]))
        if len(again):
            once = held[np.concatenate([[True], ~same])]
            self._count = len(once)
            self._hashes[: self._count] = once

    def repeated(self) -> tuple[int, Hashes]:
        """Return how many rows repeat an earlier one, and the hashes that occur more than once."""
        self._keep_once()
        return self._again, self._repeated


def _first_rows(path: Path, schema: pa.Schema, columns: Sequence[int], repeated: Hashes) -> list[int]:
    found: list[int] = []
    seen: set[int] = set()
    row = 0
    for batch in hashes(read_batches(path), schema, [columns]):
        values = batch.column(0).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.isin(values, repeated)).tolist():
            value = int(values[place])
            if value in seen:
                found.append(row + place + 1)
                if len(found) == _SHOWN:
                    return found
            seen.add(value)
        row += len(values)
    return found


def hashes_in(known: Hashes, asked: Hashes) -> NDArray[np.bool_]:
    """Return which of the hashes that are `asked` for are among the `known` ones."""
    if not len(known):
        return np.zeros(len(asked), dtype=bool)
    ordered = np.sort(known)
    places = np.searchsorted(ordered, asked)
    np.minimum(places, len(ordered) - 1, out=places)
    found: NDArray[np.bool_] = ordered[places] == asked
    return found


def table_hashes(table: pa.Table) -> Hashes:
    """Return each row's hash."""
    batches = iter(table.to_batches(max_chunksize=_BATCH_ROWS))
    return _all_hashes(batches, table.schema, range(table.num_columns))


def file_hashes(path: Path, schema: pa.Schema, columns: Sequence[int]) -> Hashes:
    """Return the hash of each row of an Arrow file, by the columns at these positions."""
    return _all_hashes(read_batches(path), schema, columns)


def _all_hashes(batches: Iterator[pa.RecordBatch], schema: pa.Schema, columns: Sequence[int]) -> Hashes:
    found = [batch.column(0).to_numpy(zero_copy_only=False) for batch in hashes(batches, schema, [columns])]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)
