"""Datasets as memory-mapped tables, their split, and the order in which training sees rows.

Nothing here is limited by memory: a table is mapped, not read, and the order of any epoch follows from the seed and
the epoch's number alone, so a run can resume at any step without remembering an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.config import Split, count_batches
from learning.errors import InvalidData, UnknownName, did_you_mean
from learning.interfaces import Batch
from learning.packing import pieces

_PARTS = ("train", "validation", "test")
_FEW_ROWS = 100
_LONG = 2**63 - 1
EVALUATION_ROWS = 4096


def open_table(path: Path) -> pa.Table:
    """Map an Arrow file into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def require_column(table: pa.Table, name: str, param: str) -> None:
    """Raise UnknownName with the columns there are and the likely one."""
    if name not in table.column_names:
        raise UnknownName(
            f'Column "{name}" not found.{did_you_mean(name, table.column_names)}',
            hint=f"Columns: {', '.join(table.column_names)}.",
            param=param,
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """Row numbers of each part, ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(table: pa.Table, split: Split, label: str | None) -> Parts:
    """Assign rows to parts: by a given column, else by shares, whole groups together, classes in proportion."""
    if split.column is not None:
        return _given_parts(table, split.column)
    rows = table.num_rows
    validation = split.validation if isinstance(split.validation, float) else (0.2 if rows >= _FEW_ROWS else 0.0)
    generator = np.random.default_rng(split.seed)
    if split.group is not None:
        require_column(table, split.group, "split.group")
        groups = table.column(split.group).combine_chunks().dictionary_encode().indices
        units = groups.fill_null(-1).to_numpy(zero_copy_only=False)
    else:
        units = np.arange(rows)
    strata = _codes(table, label) if split.stratify and label and split.group is None else np.zeros(rows)
    part_N = np.zeros(rows, dtype=np.int8)
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
        raise InvalidData(
            f'Row {wrong + 1}, column "{column}": "{names[wrong]}" is no part.',
            hint=f"Write one of {', '.join(_PARTS)}.",
            param="split.column",
        )
    return _parts(np.array([_PARTS.index(name) for name in names], dtype=np.int8))


def _parts(part_N: NDArray[np.int8]) -> Parts:
    train, validation, test = (np.flatnonzero(part_N == part) for part in range(3))
    if len(train) == 0:
        raise InvalidData("The split leaves no rows for training.", hint="Lower split.validation or split.test.")
    return Parts(train, validation, test)


def take(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return the rows of a part; the whole table without a copy when that is what it is."""
    return table if len(rows) == table.num_rows else table.take(rows)


def epoch_order(rows: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation of an epoch; it depends on nothing but its arguments."""
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed) & _LONG)
    return torch.randperm(rows, generator=generator)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch's tensors on a device, but `length_B`, by which kernels are chosen."""
    return {name: tensor if name == "length_B" else tensor.to(device) for name, tensor in batch.items()}


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

    def everything(self) -> Iterator[Batch]:
        """Yield every row once, in order."""
        yield from self.batches(torch.arange(len(self)), evaluation_size(len(self)))


class TableExamples:
    """Rows that do not fit in memory: each batch is taken from the mapped table and encoded."""

    def __init__(self, table: pa.Table, encode: Callable[[pa.Table], Batch], device: torch.device) -> None:
        self._table = table
        self._encode = encode
        self._device = device

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield one batch after the other."""
        indices = order_N.numpy()
        for number in range(start, count_batches(len(indices), batch_size)):
            rows = np.sort(indices[number * batch_size : (number + 1) * batch_size])
            yield on_device(self._encode(self._table.take(rows)), self._device)

    def everything(self) -> Iterator[Batch]:
        """Yield every row once, in order."""
        size = evaluation_size(len(self))
        for start in range(0, len(self), size):
            for batch in pieces(self._encode(self._table.slice(start, size))):
                yield on_device(batch, self._device)


def evaluation_size(rows: int) -> int:
    """Return a batch size that leaves no last batch of one row, which training drops and evaluation must not."""
    return EVALUATION_ROWS + 1 if rows % EVALUATION_ROWS == 1 else EVALUATION_ROWS
