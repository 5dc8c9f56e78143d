"""Running text as blocks of equal length: rows are put together, and none of what they say is lost or padded.

N tokens of the whole, T of a block, S of a batch's blocks, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.config import count_batches
from learning.errors import InvalidData, rows_from
from learning.interfaces import Batch
from learning.modalities import tokenization
from learning.modalities.text import TextState, texts_in
from learning.packing import EVALUATION_POSITIONS
from learning.spill import Growing, rows_within

_MOST_AT_ONCE = 2 << 20  # bytes of text whose tokens are in memory as Python has them
# An odd number by which blocks begin elsewhere in each pass (Knuth 1998, The Art of Computer Programming 3, 6.4).
_SPREAD = 2_654_435_761
# Evaluation has a number for each position and token of the vocabulary.
_MOST_SCORES = 1 << 25


class RunningText(NamedTuple):
    """Tokens, the first of which is only read; where each of R rows ends among them, and the characters up to there."""

    token_N: NDArray[np.int32]
    end_R: NDArray[np.int64]
    characters_R: NDArray[np.int64]


class TextBlocks:
    """One long text, cut so that in training every pass cuts elsewhere, and in evaluation every token counts once."""

    def __init__(self, text: RunningText, inputs: TextState, device: torch.device) -> None:
        """Cut to the model's positions; InvalidData when there is no text."""
        if len(text.token_N) < 2:
            raise InvalidData("There is no text to learn from: every row is empty.", param="columns.text")
        self._token_N = torch.from_numpy(text.token_N).to(device)
        self._end_R, self._characters_R = text.end_R, text.characters_R
        self._predicted = len(text.token_N) - 1
        self._length = min(inputs.max_length, self._predicted)
        self._at_once = max(1, min(EVALUATION_POSITIONS, _MOST_SCORES // inputs.vocabulary) // self._length)
        self._count = math.ceil(self._predicted / self._length)

    def __len__(self) -> int:
        return self._count

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches of blocks in the given order, all shifted by what follows from that order."""
        shift = int(order_N[:8].sum()) * _SPREAD % self._length
        begin_N = (order_N * self._length + shift).clamp_max(self._predicted - self._length)
        for number in range(start, count_batches(len(begin_N), batch_size)):
            yield self._blocks(begin_N[number * batch_size : (number + 1) * batch_size], self._length)

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield each token once as a target, or those of one of `every` blocks, with the characters that each block's
        targets stand for.
        """
        whole = self._predicted // self._length
        for block_B in torch.arange(0, whole, every).split(self._at_once):
            yield self._counted(block_B * self._length, self._length)
        if every == 1 and (rest := self._predicted - whole * self._length):
            yield self._counted(torch.tensor([whole * self._length]), rest)

    def _blocks(self, begin_B: Tensor, length: int) -> Batch:
        place_S = (begin_B.unsqueeze(1) + torch.arange(length)).flatten().to(self._token_N.device)
        return {
            "token_S": self._token_N[place_S],
            "target_S": self._token_N[place_S + 1],
            "length_B": torch.full((len(begin_B),), length),
        }

    def _counted(self, begin_B: Tensor, length: int) -> Batch:
        first, last = (
            self._characters_before(np.searchsorted(self._end_R, end, side="right"))
            for end in (begin_B.numpy() + 1, begin_B.numpy() + length + 1)
        )
        return {**self._blocks(begin_B, length), "target_characters_B": torch.from_numpy(last - first)}

    def _characters_before(self, row_B: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(row_B > 0, self._characters_R[np.maximum(row_B, 1) - 1], 0)


def rows_of(table: pa.Table, column: str) -> Literal["lines", "documents"]:
    """Return what the rows are: documents if there is the end of a line within one, else lines of one text."""
    beginning = table.slice(0, rows_within(table.select([column]), _MOST_AT_ONCE))
    found = any("\n" in text for text in texts_in(beginning, column, may_be_blank=True))
    return "documents" if found else "lines"


def require_text(table: pa.Table, column: str) -> None:
    """Raise InvalidData when no row has anything but spaces: the ends of lines alone are not worth learning."""
    step = rows_within(table.select([column]), _MOST_AT_ONCE)
    for begin in range(0, table.num_rows, step):
        with rows_from(range(begin, table.num_rows)):
            if any(text.strip() for text in texts_in(table.slice(begin, step), column, may_be_blank=True)):
                return
    raise InvalidData(
        f'There is no text to learn from: column "{column}" is blank in every training row.',
        hint="Fill in the texts, or name another column with columns.text.",
        param="columns.text",
    )


def cut(table: pa.Table, inputs: TextState, rows: Literal["lines", "documents"], device: torch.device) -> TextBlocks:
    """Return a column's texts as blocks: as lines of one text, or each with its own beginning and end."""
    first, last = inputs.token(tokenization.FIRST), inputs.token(tokenization.LAST)
    tokens, ends, characters = Growing(np.int32), Growing(np.int64), Growing(np.int64)
    if rows == "lines":
        tokens.append(np.array([first], dtype=np.int32))
    read, step = 0, rows_within(table.select([inputs.column]), _MOST_AT_ONCE)
    for begin in range(0, table.num_rows, step):
        part = table.slice(begin, step)
        with rows_from(range(begin, table.num_rows)):
            texts = texts_in(part, inputs.column, may_be_blank=True)
        if rows == "lines":
            texts = [f"{text}\n" for text in texts]
            if begin + len(texts) == table.num_rows:
                texts[-1] = texts[-1][:-1]
        found = [
            ids if rows == "lines" else [first, *ids, last] for ids in tokenization.encode_plain(inputs.opened, texts)
        ]
        ends.append(np.array([len(ids) for ids in found], dtype=np.int64).cumsum() + len(tokens))
        counted = np.array([len(text) for text in texts], dtype=np.int64).cumsum() + read
        characters.append(counted)
        read = int(counted[-1])
        for ids in found:
            tokens.append(np.array(ids, dtype=np.int32))
    return TextBlocks(RunningText(tokens.whole(), ends.whole(), characters.whole()), inputs, device)
