"""Datasets as memory-mapped tables, and the order in which training sees rows.

Nothing here is limited by memory: a table is mapped, not read, and the order of any epoch follows from the seed and
the epoch's number alone, so a run can resume at any step without remembering an order.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from learning.config import count_batches
from learning.errors import rows_from
from learning.interfaces import Batch
from learning.packing import on_device, pieces
from learning.spill import Growing, Parted
from learning.splits import RowNumbers

_LONG = 2**63 - 1
EVALUATION_ROWS = 4096
_ENCODED_AT_ONCE = 64 << 20
_MOST_OF_DISK = 0.5
_EVALUATION_BYTES, _LEAST_EVALUATION_ROWS = 4 << 20, 16


def open_table(path: Path) -> pa.Table:
    """Map an Arrow file into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of an Arrow file, all or those with some numbers, read only when they are asked for."""

    path: Path
    numbers: RowNumbers | None = None

    def __len__(self) -> int:
        return open_table(self.path).num_rows if self.numbers is None else len(self.numbers)

    def taken(self, places: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
        """Return some by their places, each with its number in the file, from 1."""
        rows = [place if self.numbers is None else int(self.numbers[place]) for place in places]
        ascending = sorted(set(rows))
        found = Parted(open_table(self.path)).take(np.array(ascending, np.int64)).to_pylist()
        by_row = dict(zip(ascending, found, strict=True))
        return [(row + 1, by_row[row]) for row in rows]


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation of an epoch; it depends on nothing but its arguments."""
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed) & _LONG)
    return torch.randperm(rows, generator=generator)


class TensorExamples:
    """Rows of equal length that fit in memory: encoded once, kept on the device, reordered once an epoch."""

    def __init__(self, tensors: Batch, device: torch.device) -> None:
        self.tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        self._device = device

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield views of the reordered rows: no copy and no loader process per batch."""
        count = count_batches(len(order_N), batch_size)
        order_N = order_N.to(self._device)
        columns = [tensor.index_select(0, order_N).split(batch_size) for tensor in self.tensors.values()]
        names = tuple(self.tensors)
        for batch in zip(*(column[start:count] for column in columns), strict=True):
            yield dict(zip(names, batch, strict=True))

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield every row once, in order, or one of `every` rows."""
        row_bytes = sum(tensor.nbytes for tensor in self.tensors.values()) // max(1, len(self))
        row_N = torch.arange(0, len(self), every)
        yield from self.batches(row_N, evaluation_size(len(row_N), row_bytes))


class MappedExamples(TensorExamples):
    """Rows of equal length in files: encoded once, each batch is taken from where it lies."""

    def __init__(self, tensors: Batch, device: torch.device) -> None:
        super().__init__(tensors, torch.device("cpu"))
        self._device = device

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield copies of a batch's rows."""
        for number in range(start, count_batches(len(order_N), batch_size)):
            row_B = order_N[number * batch_size : (number + 1) * batch_size]
            yield on_device({name: tensor[row_B] for name, tensor in self.tensors.items()}, self._device)


def encoded_in_files(table: pa.Table, encode: Callable[[pa.Table], Batch], row_bytes: float) -> Batch | None:
    """Return the tensors of all rows, mapped from files that are gone with the process; None if these had no room."""
    if row_bytes * table.num_rows > _MOST_OF_DISK * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    files: dict[str, Growing[Any]] = {}
    step = max(1, int(_ENCODED_AT_ONCE / row_bytes))
    for begin in range(0, table.num_rows, step):
        with rows_from(range(begin, table.num_rows)):
            part = encode(table.slice(begin, step))
        for name, tensor in part.items():
            files.setdefault(name, Growing(tensor.numpy().dtype)).append(tensor.numpy())
    return {name: torch.from_numpy(file.whole()) for name, file in files.items()}


class TableExamples:
    """Rows that do not fit in memory: each batch is taken from the mapped table and encoded."""

    def __init__(
        self,
        table: pa.Table,
        encode: Callable[[pa.Table], Batch],
        device: torch.device,
        numbers: RowNumbers | None = None,
    ) -> None:
        self._table = table
        self._parted = Parted(table)
        self._encode = encode
        self._device = device
        self._numbers = numbers

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield one batch after the other."""
        indices = order_N.numpy()
        for number in range(start, count_batches(len(indices), batch_size)):
            rows = np.sort(indices[number * batch_size : (number + 1) * batch_size])
            with rows_from(self._numbers), rows_from(rows):
                batch = self._encode(self._parted.take(rows))
            yield on_device(batch, self._device)

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield every row once, in order, or one of `every` rows."""
        row_bytes = sum(tensor.nbytes for tensor in self._encode(self._table.slice(0, 1)).values())
        whole = range(0, len(self), every)
        size = evaluation_size(len(whole), row_bytes)
        for start in range(0, len(whole), size):
            rows = whole[start : start + size]
            with rows_from(self._numbers), rows_from(rows):
                taken = self._table.slice(start, size) if every == 1 else self._parted.take(np.array(rows))
                encoded = self._encode(taken)
            for batch in pieces(encoded):
                yield on_device(batch, self._device)


def evaluation_size(rows: int, row_bytes: int = 0) -> int:
    """Return a batch size that leaves no last batch of one row, which training drops and evaluation must not.

    Rows of many bytes, such as images, come in smaller batches: what a network makes of them is larger still.
    """
    size = max(_LEAST_EVALUATION_ROWS, min(EVALUATION_ROWS, _EVALUATION_BYTES // max(1, row_bytes)))
    return size + 1 if rows % size == 1 else size
