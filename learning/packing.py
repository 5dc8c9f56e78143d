"""Rows of unequal lengths without padding: their positions one after the other, and how many belong to each row.

A batch takes rows of similar lengths, so that attention meets few different lengths at once. Which rows meet in which
batch follows from the epoch's order alone, so a run can resume at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.config import count_batches
from learning.interfaces import Batch, PackedPredictions, Predictions, by_position, rows_in

# So many batches' rows are sorted by length together: enough for batches of about one length, and few enough that
# rows meet others in every epoch.
POOL_BATCHES = 64
EVALUATION_POSITIONS = 8192
_EVALUATION_PAIRS = 64


class PackedExamples:
    """Rows that were encoded once, as one long row: kept on the device, or `mapped`, and taken there batch by batch.

    With `next_rows` a batch has the rows behind its own as well, in tensors whose names begin with "next_"; behind the
    last row comes the first.
    """

    def __init__(self, batch: Batch, device: torch.device, *, next_rows: bool = False, mapped: bool = False) -> None:
        self._next_rows = next_rows
        self._length_N = batch["length_B"]
        self._start_N = self._length_N.cumsum(0) - self._length_N
        self._home = torch.device("cpu") if mapped else device
        self._tensors = {name: tensor.to(self._home) for name, tensor in batch.items() if name != "length_B"}
        self._device = device

    def __len__(self) -> int:
        return len(self._length_N)

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches of rows of similar lengths, shortest first, in an order that has nothing to do with length."""
        plan = plan_batches(order_N.numpy(), self._length_N.numpy(), batch_size)
        for rows in plan[start:]:
            yield self._take(torch.from_numpy(rows))

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield every row once, in order unless each comes with the one behind it, or one of `every` rows."""
        if not self._next_rows:
            whole = {**self._tensors, "length_B": self._length_N}
            for piece in pieces(whole if every == 1 else self._rows(torch.arange(0, len(self), every))):
                yield on_device(piece, self._device)
            return
        # Not rows that follow each other: a row would be met as the one behind another, and as itself.
        apart = max(2, -(-len(self) // _EVALUATION_PAIRS))
        for first in range(0, min(apart, len(self)), every):
            yield self._take(torch.arange(first, len(self), apart))

    def _take(self, rows_B: Tensor) -> Batch:
        if not self._next_rows:
            return self._rows(rows_B)
        following = self._rows((rows_B + 1) % len(self))
        return {**self._rows(rows_B), **{f"next_{name}": tensor for name, tensor in following.items()}}

    def _rows(self, rows_B: Tensor) -> Batch:
        length_B = self._length_N[rows_B]
        # Where each position stands in the long row: the row's start, less where it starts in the batch.
        shift_B = self._start_N[rows_B] - (length_B.cumsum(0) - length_B)
        positions = int(length_B.sum())
        index_S = torch.repeat_interleave(shift_B, length_B, output_size=positions) + torch.arange(positions)
        index_S, rows_B = index_S.to(self._home), rows_B.to(self._home)
        batch = {name: tensor[index_S if by_position(name) else rows_B] for name, tensor in self._tensors.items()}
        return on_device({**batch, "length_B": length_B}, self._device)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch's tensors on a device, but `length_B`, by which kernels are chosen."""
    return {name: tensor if name == "length_B" else tensor.to(device) for name, tensor in batch.items()}


def plan_batches(order_N: NDArray[np.int64], length_N: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return the rows of each batch: pools of the order sorted by length, cut, and put in a mixed order again."""
    count = count_batches(len(order_N), batch_size)
    kept = order_N[: count * batch_size]
    batches = []
    for begin in range(0, len(kept), POOL_BATCHES * batch_size):
        pool = kept[begin : begin + POOL_BATCHES * batch_size]
        by_length = np.argsort(length_N[pool], kind="stable")
        cuts = [by_length[cut : cut + batch_size] for cut in range(0, len(pool), batch_size)]
        # The batch whose row comes first in the order comes first: as random as the order is.
        batches += [pool[cut] for cut in sorted(cuts, key=lambda cut: int(cut.min()))]
    return batches


def pieces(batch: Batch) -> Iterator[Batch]:
    """Yield a packed batch in parts of a bounded number of positions, whole rows each; any other as it is."""
    if "length_B" not in batch:
        yield batch
        return
    end_B = batch["length_B"].cumsum(0)
    row = position = 0
    while row < rows_in(batch):
        limit = position + EVALUATION_POSITIONS
        last = max(row + 1, int(torch.searchsorted(end_B, limit, right=True)))
        end = int(end_B[last - 1])
        yield {name: tensor[position:end] if by_position(name) else tensor[row:last] for name, tensor in batch.items()}
        row, position = last, end


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several batches as those of one, on the CPU."""
    packed = [part for part in parts if isinstance(part, PackedPredictions)]
    if packed:
        values_S, length_B = (torch.cat(tensors).cpu() for tensors in zip(*packed, strict=True))
        return PackedPredictions(values_S, length_B)
    return torch.cat([part for part in parts if isinstance(part, Tensor)]).cpu()
