"""Write texts as those of the training rows go on: plain ones, or completions of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from learning.config import Columns
from learning.errors import InvalidConfig, InvalidRow
from learning.interfaces import Batch, Examples, Kind, Part, Target
from learning.modalities import tokenization
from learning.modalities.text import TextState, texts_in
from learning.packing import PackedExamples
from learning.product_rows import NO_TARGET
from learning.tasks.next_token_prediction import NextTokenConfig, NextTokenPrediction, NextTokenState


class _Pair(NamedTuple):
    """Tokens of a prompt, cut at its beginning to fit, and of its completion; the completion's characters."""

    prompt: list[int]
    completion: list[int]
    characters: int
    is_cut: bool


class TextGeneration(NextTokenPrediction):
    """Go on with a text: as plain texts do, or as a column of completions says."""

    name: ClassVar[str] = "text-generation"
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "continuation"

    def fit(self, table: pa.Table, columns: Columns, config: NextTokenConfig, inputs: TextState) -> NextTokenState:
        """Find out what the rows are: prompts with completions where there is a target."""
        state = super().fit(table, columns, config, inputs)
        names = columns.target_names()
        if not names:
            return state
        if len(names) > 1:
            raise InvalidConfig(
                f"{self.name} learns completions of one column; the job names {len(names)}.",
                hint='Set columns={"text": "prompt", "target": "completion"}, or no target for plain texts.',
                param="columns.target",
            )
        if config.rows != "auto":
            raise InvalidConfig(
                "task_config.rows is for plain texts; with a target, each row is a prompt with its completion.",
                hint="Leave task_config.rows or columns.target out.",
                param="task_config.rows",
            )
        return self._state("pairs", inputs, names[0])

    def examples(self, table: pa.Table, inputs: TextState, state: NextTokenState, device: torch.device) -> Examples:
        """Return blocks of running text, or prompts with their completions, of which only these are learned."""
        if state.rows != "pairs":
            return super().examples(table, inputs, state, device)
        return PackedExamples(_packed(list(_pairs(table, inputs, state)), state), device)

    def remarks(self, table: pa.Table, inputs: TextState, state: NextTokenState, part: Part = "training") -> list[str]:
        """Say which columns are not read, and how many prompts are cut."""
        found = super().remarks(table, inputs, state, part)
        if state.rows != "pairs":
            return found
        cut = sum(pair.is_cut for pair in _pairs(table, inputs, state))
        if cut:
            found.append(
                f"{cut} of {table.num_rows} {part} rows have more than {inputs.max_length} tokens; the beginnings of "
                "their prompts are not read. Raise preprocessing.max_length, or shorten the prompts."
            )
        return found


def _pairs(table: pa.Table, inputs: TextState, state: NextTokenState) -> Iterator[_Pair]:
    """Iterate over the rows; InvalidData names the one whose completion is missing or longer than a model can write."""
    assert state.target is not None
    prompts = texts_in(table, inputs.column, may_be_blank=True)
    completions = texts_in(table, state.target, may_be_blank=True, param="columns.target")
    encoded = (tokenization.encode_plain(inputs.opened, texts) for texts in (prompts, completions))
    most = inputs.max_length  # of what is read: the token that begins a text, the prompt, the completion but its end
    for row, (prompt, completion, text) in enumerate(zip(*encoded, completions, strict=True)):
        room = most - 1 - len(completion)
        if room < 0:
            raise InvalidRow(
                row,
                f', column "{state.target}": the completion has {len(completion)} tokens; with the token that '
                f"begins a text, at most {most} fit.",
                hint="Shorten it, or raise preprocessing.max_length.",
                param="columns.target",
            )
        kept = prompt[len(prompt) - room :] if len(prompt) > room else prompt
        yield _Pair(kept, completion, len(text), len(kept) < len(prompt))


def _packed(pairs: list[_Pair], state: NextTokenState) -> Batch:
    tokens, targets = [], []
    for prompt, completion, *_ in pairs:
        tokens += [state.begin, *prompt, *completion]
        targets += [*[NO_TARGET] * len(prompt), *completion, state.end]
    return {
        "token_S": torch.from_numpy(np.array(tokens, dtype=np.int32)),
        "target_S": torch.from_numpy(np.array(targets, dtype=np.int32)),
        "length_B": torch.tensor([1 + len(pair.prompt) + len(pair.completion) for pair in pairs]),
        "target_characters_B": torch.tensor([pair.characters for pair in pairs]),
    }
