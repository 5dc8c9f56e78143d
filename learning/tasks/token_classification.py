"""Find the entities of a text: names, places, whatever the tags of the training rows are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.entities import NO_TAG, OUTSIDE, Scheme, Span, Tally, WrongTag, as_iob2, numbered, spans
from learning.errors import InvalidData, InvalidRow
from learning.interfaces import Batch, Kind, Link, Network, PackedFeatures, PackedPredictions, PredictionOptions, Target
from learning.modalities.text import TextState
from learning.modalities.text_rows import NO_WORD, TextRow
from learning.product_rows import with_spare_rows
from learning.splits import require_column
from learning.tasks.classification import only_target
from learning.tasks.masking import Maskable, Masker

_OTHER = "other kinds"


class TokenClassificationConfig(Config):
    """How the tags are written, and what keeps the network from learning rows by heart."""

    scheme: Scheme = Field(
        "iob2",
        description="How entities are tagged: IOB2 begins each with B-, IOB1 only those behind another of their kind; "
        "IOBES (BILOU) also marks the last token and the only one.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all tags.")
    token_masking: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Share of tokens hidden in training, so that what stands around them counts too. Of a base "
        "model whose tokenizer has neither a mask nor an unknown token, as GPT-2's, none are.",
    )


class TokenClassificationState(Config):
    """The column of tags, the kinds of entities, sorted by name, and how texts are read."""

    target: str
    kinds: tuple[str, ...]
    scheme: Scheme
    label_smoothing: float
    token_masking: float
    maskable: Maskable


class TagHead(nn.Module):
    """One linear layer on each token."""

    def __init__(self, width: int, state: TokenClassificationState) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1 + 2 * len(state.kinds))
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.masker = Masker(state.maskable)

    def forward(self, features: PackedFeatures) -> Tensor:
        """Return logits of the tags, (S, C)."""
        outputs_SC: Tensor = self.linear(with_spare_rows(features.features_SD))
        return outputs_SC[: len(features.features_SD)]


class TokenClassification:
    """Tags of a row's words, and the entities that they make; of running text as well."""

    name: ClassVar[str] = "token-classification"
    modality: ClassVar[str] = "text"
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "label"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "f1"
    monitor: ClassVar[str] = "f1"
    Config: ClassVar[type[TokenClassificationConfig]] = TokenClassificationConfig
    State: ClassVar[type[TokenClassificationState]] = TokenClassificationState
    Options: ClassVar[type[PredictionOptions]] = PredictionOptions

    def fit(
        self, table: pa.Table, columns: Columns, config: TokenClassificationConfig, inputs: TextState
    ) -> TokenClassificationState:
        """Collect the kinds of entities; InvalidData names the tag that cannot stand where it does."""
        target = only_target(self.name, columns)
        lists = _tags(table, target, config.scheme)
        kinds = sorted({tag[2:] for tags in lists for tag in tags if tag != "O"})
        if not kinds:
            raise InvalidData(
                f'Column "{target}" has no entity among the training rows: every tag is O.',
                hint="Add rows with entities, or choose another target.",
                param="columns.target",
            )
        return TokenClassificationState(
            target=target,
            kinds=tuple(kinds),
            scheme=config.scheme,
            label_smoothing=config.label_smoothing,
            token_masking=config.token_masking,
            maskable=Maskable.if_possible(inputs),
        )

    def targets(self, table: pa.Table, state: TokenClassificationState, encoded: Batch) -> Batch:
        """Return target_S, the tag of each token and NO_TAG for those of no word, target_first_S, whether it is the
        first of its word, and target_missed_BK: how many entities of each kind cannot be found, because they are cut
        off, or, in the last place, because training knows no such kind.
        """
        lists = _tags(table, state.target, state.scheme)
        _check_lengths(lists, encoded, state.target)
        word_S, words_B = encoded["word_S"].long(), encoded["words_B"]
        numbers, missed_BK = _readable(lists, encoded, state)
        row_S = torch.repeat_interleave(encoded["length_B"])
        place_H = (word_S != NO_WORD).nonzero().squeeze(1)
        word_H = (words_B.cumsum(0) - words_B)[row_S[place_H]] + word_S[place_H]
        first_H = torch.ones(len(word_H), dtype=torch.bool)
        first_H[1:] = word_H[1:] != word_H[:-1]
        tag_H = torch.tensor([number for row in numbers for number in row])[word_H]
        tag_H += ~first_H & (tag_H % 2 == 1)  # a word's other tokens go on with what its first one begins
        target_S = torch.full((len(word_S),), NO_TAG, dtype=torch.int16)
        first_S = torch.zeros(len(word_S), dtype=torch.bool)
        target_S[place_H], first_S[place_H] = tag_H.to(torch.int16), first_H
        return {"target_S": target_S, "target_first_S": first_S, "target_missed_BK": missed_BK}

    def head(self, width: int, state: TokenClassificationState) -> nn.Module:
        """Return a linear layer to the logits of each token's tags."""
        return TagHead(width, state)

    def loss(self, network: Network, batch: Batch, state: TokenClassificationState) -> Tensor:
        """Return the mean cross-entropy of the tokens that have a tag; in training with some tokens hidden."""
        if network.training and state.token_masking:
            masker, token_S = cast("TagHead", network.head).masker, batch["token_S"]
            batch = {**batch, "token_S": masker.mask(token_S, masker.draw(token_S, state.token_masking))}
        target_S = batch["target_S"].long()
        total = functional.cross_entropy(
            network(batch), target_S, ignore_index=NO_TAG, label_smoothing=state.label_smoothing, reduction="sum"
        )
        return total / (target_S != NO_TAG).sum().clamp_min(1)

    def link(self, state: TokenClassificationState) -> Link | None:
        """Return None: outputs are by token."""
        return None

    def predict(self, network: Network, batch: Batch, state: TokenClassificationState) -> PackedPredictions:
        """Return each token's likeliest tag and its probability, (S, 2)."""
        probability_S, tag_S = network(batch).float().softmax(1).max(1)
        return PackedPredictions(torch.stack([tag_S.float(), probability_S], 1), batch["length_B"])

    def answers(
        self, predictions: PackedPredictions, state: TokenClassificationState, rows: Sequence[TextRow]
    ) -> list[dict[str, Any]]:
        """Return the entities of each text; of a list of words its tags too."""
        return [
            _answer(row, values_T2.tolist(), state) for row, values_T2 in zip(rows, predictions.rows(), strict=True)
        ]

    def metrics(
        self, predictions: PackedPredictions, targets: Batch, state: TokenClassificationState
    ) -> dict[str, Any]:
        """Return precision, recall and F1 of whole entities, those of each kind, and the share of words tagged right.

        As seqeval counts: an entity is right when its kind and its first and last word are.
        """
        first_S, lengths = targets["target_first_S"], predictions.length_B.tolist()
        target_W, tag_W = targets["target_S"][first_S].long(), predictions.values_S[first_S, 0].long()
        words = [int(part.sum()) for part in first_S.split(lengths)]
        tally = Tally((*state.kinds, _OTHER))
        for wanted, found in zip(target_W.split(words), tag_W.split(words), strict=True):
            tally.add(spans(wanted.tolist()), spans(found.tolist()))
        tally.add_missed(targets["target_missed_BK"].sum(0).numpy())
        known_W = target_W != NO_TAG
        right = int((target_W == tag_W)[known_W].sum())
        measured = {**tally.metrics(), "accuracy": right / max(1, int(known_W.sum()))}
        if not measured["entities"][_OTHER]["count"]:
            del measured["entities"][_OTHER]
        return measured

    def schema(self, state: TokenClassificationState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        place = {"type": "integer", "minimum": 0}
        entity = {
            "label": {"type": "string", "enum": list(state.kinds)},
            "start": place,
            "end": place,
            "text": {"type": "string"},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
        }
        return {
            "type": "object",
            "properties": {
                "entities": {"type": "array", "items": {"type": "object", "properties": entity}},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}},
            },
        }


def _answer(row: TextRow, values: list[list[float]], state: TokenClassificationState) -> dict[str, Any]:
    units = row.units
    entities = []
    tags = ["O"] * len(row.words.spans) if row.words is not None else None
    for kind, first, end in spans([int(values[unit.place][0]) for unit in units]):
        label, part = state.kinds[kind], units[first:end]
        start, stop = part[0].start, part[-1].end
        scores = [values[unit.place][1] for unit in part]
        entities.append(
            {
                "label": label,
                "start": start,
                "end": stop,
                "text": row.covered(start, stop),
                "score": sum(scores) / len(scores),
            }
        )
        if tags is not None:
            tags[start:stop] = [f"B-{label}"] + [f"I-{label}"] * (stop - start - 1)
    return {"entities": entities, "tags": tags}


def _tags(table: pa.Table, target: str, scheme: Scheme) -> list[list[str]]:
    """Return the rows' tags as IOB2; InvalidData names the row and the place of one that cannot stand there."""
    require_column(table, target, "columns.target")
    kind = table.schema.field(target).type
    if not (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)):
        raise InvalidData(
            f'Column "{target}" holds {kind} values, which are no lists of tags.',
            hint="Choose a column whose rows are lists of tags, one for each token.",
            param="columns.target",
        )
    lists = []
    for row, tags in enumerate(table.column(target).to_pylist()):
        if tags is None:
            raise InvalidRow(
                row, f', column "{target}": no tags.', hint="Fill in or remove the row.", param="columns.target"
            )
        try:
            lists.append(as_iob2(tags, scheme))
        except WrongTag as wrong:
            raise InvalidRow(
                row,
                f', column "{target}", position {wrong.position + 1}: {wrong.reason}.',
                hint=f'Correct the tag, or set task_config.scheme if the tags are not "{scheme}".',
                param="columns.target",
            ) from None
    return lists


def _check_lengths(lists: list[list[str]], encoded: Batch, target: str) -> None:
    if "words_B" not in encoded:
        raise InvalidData(
            f'The text is running text, but "{target}" has a tag for each token.',
            hint="Name a column whose rows are lists of tokens: columns.text.",
            param="columns.text",
        )
    for row, (tags, words) in enumerate(zip(lists, encoded["words_B"].tolist(), strict=True)):
        if len(tags) != words:
            raise InvalidRow(
                row,
                f' has {words} tokens, but {len(tags)} tags in column "{target}".',
                hint="Give each token one tag.",
                param="columns.target",
            )


def _readable(
    lists: list[list[str]], encoded: Batch, state: TokenClassificationState
) -> tuple[list[list[int]], Tensor]:
    """Return the tags as numbers, NO_TAG where an entity cannot be found, and how many of each kind cannot."""
    known = {kind: number for number, kind in enumerate(state.kinds)}
    missed_BK = torch.zeros(len(lists), len(known) + 1, dtype=torch.int64)
    numbers = [numbered(tags, known) for tags in lists]
    last_words = [int(part.max(initial=NO_WORD)) for part in np.split(encoded["word_S"].numpy(), _ends(encoded))]
    for row, (tags, found, last) in enumerate(zip(lists, numbers, last_words, strict=True)):
        missed_BK[row, -1] = sum(tag[0] == "B" and number == NO_TAG for tag, number in zip(tags, found, strict=True))
        for kind, start, end in _cut(found, last):
            missed_BK[row, kind] += 1
            found[start:end] = [NO_TAG] * (end - start)
    return numbers, missed_BK


def _ends(encoded: Batch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    ends: np.ndarray[tuple[int], np.dtype[np.int64]] = encoded["length_B"].cumsum(0)[:-1].numpy()
    return ends


def _cut(numbers: list[int], last: int) -> list[Span]:
    """Return the entities that are not read to their end."""
    if last + 1 == len(numbers) or all(number == OUTSIDE for number in numbers[last + 1 :]):
        return []
    return [span for span in spans(numbers) if span.end > last + 1]
