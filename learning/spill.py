"""What is too much for memory, in a file that is gone with the process: arrays that grow, and rows of a table."""

from __future__ import annotations

import math
import mmap
import tempfile
import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)
# Rows above this are written to a file when some of them are taken.
MOST_BYTES = 256 << 20
_MOST_AT_ONCE = 64 << 20


class Growing(Generic[_Number]):
    """An array of rows, all of one shape, that is appended to on the disk, and mapped into memory when it is whole."""

    def __init__(self, dtype: type[_Number] | np.dtype[_Number]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is mapped, or nobody can map it any more
        weakref.finalize(self, self._file.close)
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._row: tuple[int, ...] = ()

    def append(self, values: NDArray[_Number]) -> None:
        """Write values behind the others."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._count += len(values)
        self._row = values.shape[1:]

    def __len__(self) -> int:
        return self._count

    def whole(self) -> NDArray[_Number]:
        """Return all values, mapped; nothing can be appended any more."""
        shape = (self._count, *self._row)
        with self._file as file:
            if not math.prod(shape):
                return np.zeros(shape, dtype=self._dtype)
            file.flush()
            return np.memmap(file, dtype=self._dtype, mode="r+", shape=shape)


def taken(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return some rows, ascending, of a table of a mapped file; in memory if they are few, else in a file as well."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    if table.nbytes * len(rows) <= MOST_BYTES * max(1, table.num_rows):
        return Parted(table).take(rows)
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            for batch in _in_parts(table, rows):
                writer.write_table(batch)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


class Parted:
    """A table whose rows are taken from the parts that they are in: from the whole, all of it would be copied."""

    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._parts = [part for part in table.to_batches() if part.num_rows]
        self._ends = np.array([part.num_rows for part in self._parts], dtype=np.int64).cumsum()

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return some rows, ascending."""
        cuts = np.searchsorted(rows, self._ends)
        found, begin = [], 0
        for place in np.unique(np.searchsorted(self._ends, rows, side="right")).tolist():
            part, cut = self._parts[place], int(cuts[place])
            found.append(part.take(pa.array(rows[begin:cut] - (self._ends[place] - part.num_rows))))
            begin = cut
        return pa.Table.from_batches(found, schema=self._schema)


def _in_parts(table: pa.Table, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
    parted, step = Parted(table), rows_within(table, _MOST_AT_ONCE)
    for begin in range(0, len(rows), step):
        yield parted.take(rows[begin : begin + step])


def rows_within(table: pa.Table, most_bytes: int) -> int:
    """Return how many rows of a table's usual size have so many bytes, one at least."""
    size: int = table.nbytes
    rows: int = table.num_rows
    return max(1, most_bytes * rows // max(1, size))
