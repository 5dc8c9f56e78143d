"""Write a text as another, such as a sentence in another language (Sutskever et al. 2014; Vaswani et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.errors import InvalidData, InvalidRow
from learning.interfaces import (
    Batch,
    EncoderDecoder,
    Examples,
    InputWarning,
    Kind,
    Link,
    Network,
    PackedFeatures,
    Part,
    Target,
)
from learning.modalities import tokenization
from learning.modalities.text import Text, TextConfig, TextState, texts_in
from learning.packing import PackedExamples
from learning.product_rows import NO_TARGET, with_spare_rows, with_spare_targets
from learning.tasks import token_costs
from learning.tasks.beam_search import BeamOptions, BeamSearch, Source, translate
from learning.tasks.classification import only_target
from learning.tasks.generation import Language
from learning.translation_scores import bleu, chrf

# Rows that are translated to measure a part, evenly spread over it, and how many of them at once.
_MOST_EXAMINED = 2_000
_AT_ONCE = 256
# Training rows by which the usual length of a target is found, the share of them that are longer, and what is allowed
# beyond it: of a short source a target may well be longer.
_MEASURED = 5_000
_LONGER = 0.01
_ALLOWANCE = 10


class TranslationConfig(Config):
    """How targets are learned."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Share of the target spread over all tokens.")


class TranslationState(Config):
    """The column of targets, the tokens before and behind one, those that are never written, how many hardly any target
    has for each token of its source, and the configuration.
    """

    target: str
    begin: int
    end: int
    banned: tuple[int, ...]
    longest_ratio: float | None = None
    label_smoothing: float

    def most_tokens(self, source_tokens: int) -> int | None:
        """Return how many tokens of a target are written unless others are asked for; None where that is not known."""
        return None if self.longest_ratio is None else math.ceil(self.longest_ratio * source_tokens) + _ALLOWANCE


class TargetHead(nn.Module):
    """Scores of all tokens by their embeddings, and one number for each that is part of the backbone."""

    def forward(self, features_UD: Tensor, embedding_VD: Tensor, bias_V: Tensor) -> Tensor:
        """Return logits of the tokens, (U, V)."""
        return functional.linear(features_UD, embedding_VD, bias_V)


class _Pair(NamedTuple):
    """Tokens of a source, cut to fit, and of its target; the target as it is."""

    source: list[int]
    target: list[int]
    text: str


class PairExamples(PackedExamples):
    """Pairs in memory; beside what is learned from them, each source's tokens and its target's text."""

    def __init__(self, pairs: Sequence[_Pair], state: TranslationState, device: torch.device) -> None:
        super().__init__(_packed(pairs, state), device)
        self.sources = [pair.source for pair in pairs]
        self.texts = [pair.text for pair in pairs]


class Translation:
    """One text as another: learned from pairs of both."""

    name: ClassVar[str] = "translation"
    modality: ClassVar[str] = "text"
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "label"
    writes_another: ClassVar[bool] = True
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "chrf"
    monitor: ClassVar[str] = "loss"
    preprocessing: ClassVar[Mapping[str, Any]] = {"tokenizer": "bytes", "lower_case": False, "exact": True}
    Config: ClassVar[type[TranslationConfig]] = TranslationConfig
    State: ClassVar[type[TranslationState]] = TranslationState
    Options: ClassVar[type[BeamOptions]] = BeamOptions

    def check_preprocessing(self, config: TextConfig) -> None:
        """Raise InvalidConfig for a tokenizer whose tokens do not give the text back."""
        tokenization.check_text_back(config.tokenizer, self.name)

    def fit(self, table: pa.Table, columns: Columns, config: TranslationConfig, inputs: TextState) -> TranslationState:
        """Look up what tokens are; InvalidConfig for a tokenizer whose tokens do not give the text back."""
        target = only_target(self.name, columns)
        tokenization.require_text_back(inputs.opened, self.name)
        begin, end = inputs.token(tokenization.PADDING), inputs.token(tokenization.LAST)
        banned = tuple(token for token in inputs.special_tokens() if token != end)
        return TranslationState(
            target=target, begin=begin, end=end, banned=banned, longest_ratio=_longest_ratio(table, inputs, target),
            label_smoothing=config.label_smoothing,
        )  # fmt: skip

    def examples(self, table: pa.Table, inputs: TextState, state: TranslationState, device: torch.device) -> Examples:
        """Return pairs; InvalidData names the row whose source or target is missing, or too long a target."""
        return PairExamples(list(_pairs(table, inputs, state)), state, device)

    def remarks(
        self, table: pa.Table, inputs: TextState, state: TranslationState, part: Part = "training"
    ) -> list[str]:
        """Say how many sources are cut, and which columns are not read."""
        return Text().remarks(table, Columns(target=state.target), inputs, part)

    def targets(self, table: pa.Table, state: TranslationState, encoded: Batch) -> Batch:
        """Return nothing: targets come with the examples."""
        return {}

    def head(self, width: int, state: TranslationState) -> nn.Module:
        """Return the head that scores tokens."""
        return TargetHead()

    def loss(self, network: Network, batch: Batch, state: TranslationState) -> Tensor:
        """Return the mean cross-entropy of the targets' tokens; in training with some of the target spread."""
        logits_UV, target_U, _ = foretold(network, batch)
        spread = state.label_smoothing if network.training else 0.0
        return functional.cross_entropy(logits_UV.float(), target_U, label_smoothing=spread)

    def link(self, state: TranslationState) -> Link | None:
        """Return None: outputs are by token."""
        return None

    def predict(self, network: Network, batch: Batch, state: TranslationState) -> Tensor:
        """Return of each row how many nats its target cost, how many tokens it has, and how many were right, (B, 3)."""
        logits_UV, target_U, length_B = foretold(network, batch)
        row_U = torch.repeat_interleave(length_B.to(target_U.device))
        return token_costs.by_row(logits_UV[: len(row_U)], target_U[: len(row_U)], row_U, len(length_B))

    def answers(self, predictions: Tensor, state: TranslationState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return how surprising each target is; what models answer is in `generate`."""
        return [{"perplexity": token_costs.perplexity(cost, count)} for cost, count, _ in predictions.tolist()]

    def metrics(self, predictions: Tensor, targets: Batch, state: TranslationState) -> dict[str, Any]:
        """Return perplexity of a token, nats per character, and the share of tokens foretold, each behind the right
        ones before it.
        """
        return token_costs.measured(predictions, targets)

    def examine(
        self,
        network: Network,
        examples: Examples,
        inputs: TextState,
        state: TranslationState,
        check: Callable[[], None],
    ) -> dict[str, Any]:
        """Return chrF and BLEU of what the network writes for some rows, and the share that is exactly right."""
        assert isinstance(examples, PairExamples)
        count = min(_MOST_EXAMINED, len(examples))
        rows = [place * len(examples) // count for place in range(count)]
        rows.sort(key=lambda row: len(examples.sources[row]))
        found: list[str] = []
        for first in range(0, count, _AT_ONCE):
            check()
            some = rows[first : first + _AT_ONCE]
            sources = [_source(examples.sources[row], state) for row in some]
            found += [one["translation"] for one in translate(network, sources, _language(inputs, state))]
        wanted = [examples.texts[row] for row in rows]
        exact = sum(one.strip() == other.strip() for one, other in zip(found, wanted, strict=True)) / count
        return {"chrf": chrf(found, wanted), "bleu": bleu(found, wanted), "exact": exact, "translated_rows": count}

    def parse(
        self, value: Any, index: int, inputs: TextState, state: TranslationState
    ) -> tuple[Source, list[InputWarning]]:
        """Return a source; warns when it is too long to be read whole."""
        row, warnings = Text().parse(value, index, inputs)
        return _source(row.tokens, state), warnings

    def cost(self, row: Source, inputs: TextState) -> int:
        """Return the positions that are read and, probably, written for every beginning."""
        most = row.limit(inputs.max_length)
        return len(row.tokens) + row.options.beam_width * min(most, 2 * len(row.tokens))

    def generate(
        self, network: Network, rows: Sequence[Source], inputs: TextState, state: TranslationState
    ) -> list[dict[str, Any]]:
        """Return translations, why they end, their scores, and how many tokens were read and written."""
        return translate(network, rows, _language(inputs, state))

    def generation(self, network: Network, inputs: TextState, state: TranslationState) -> BeamSearch:
        """Return texts to be written token by token, none yet."""
        return BeamSearch(network, _language(inputs, state))

    def schema(self, state: TranslationState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        count = {"type": "integer", "minimum": 0}
        return {
            "type": "object",
            "properties": {
                "translation": {"type": "string"},
                "score": {"type": "number", "minimum": 0, "maximum": 1},
                "finish_reason": {"type": "string", "enum": ["length", "stop"]},
                "source_tokens": count,
                "target_tokens": count,
            },
        }


def foretold(network: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits_UV and targets of all positions of a batch's targets, and how many each row has; there may be more
    logits and targets behind, of which nothing is learned.
    """
    backbone = cast("EncoderDecoder", network.backbone)
    features: PackedFeatures = backbone(batch)
    target_S = batch["target_S"].long()
    logits_UV = network.head(with_spare_rows(features.features_SD), backbone.embedding_VD, backbone.bias_V)
    target_U = with_spare_targets(target_S[target_S != NO_TARGET], len(logits_UV))
    return logits_UV, target_U, features.length_B


def _source(tokens: list[int], state: TranslationState) -> Source:
    return Source(tokens, state.most_tokens(len(tokens)))


def _longest_ratio(table: pa.Table, inputs: TextState, target: str) -> float | None:
    """Return how many tokens a target has for each of its source, at most, but for one of a hundred rows."""
    some = table.take(np.linspace(0, len(table) - 1, min(len(table), _MEASURED), dtype=np.int64))
    try:
        sources, targets = texts_in(some, inputs.column), texts_in(some, target, param="columns.target")
    except InvalidData:
        return None  # it will be met again, and the row named, where all are read
    read = tokenization.encode(inputs.opened, sources, inputs.max_length)
    written = tokenization.encode_plain(inputs.opened, targets)
    ratios = [len(after) / len(before) for before, after in zip(read, written, strict=True)]
    return round(float(np.quantile(ratios, 1 - _LONGER)), 4) if ratios else None


def _language(inputs: TextState, state: TranslationState) -> Language:
    return Language(inputs.opened, state.end, list(state.banned), inputs.max_length)


def _pairs(table: pa.Table, inputs: TextState, state: TranslationState) -> Iterator[_Pair]:
    sources = texts_in(table, inputs.column)
    targets = texts_in(table, state.target, param="columns.target")
    read = tokenization.encode(inputs.opened, sources, inputs.max_length)
    written = tokenization.encode_plain(inputs.opened, targets)
    for row, (source, target, text) in enumerate(zip(read, written, targets, strict=True)):
        if len(target) >= inputs.max_length:
            raise InvalidRow(
                row,
                f', column "{state.target}": the target has {len(target)} tokens; with the token before a target, '
                f"at most {inputs.max_length} fit.",
                hint="Shorten it, or raise preprocessing.max_length.",
                param="columns.target",
            )
        yield _Pair(source, target, text)


def _packed(pairs: Sequence[_Pair], state: TranslationState) -> Batch:
    tokens, targets = list[int](), list[int]()
    for source, target, _ in pairs:
        tokens += [*source, state.begin, *target]
        targets += [*[NO_TARGET] * len(source), *target, state.end]
    return {
        "token_S": torch.from_numpy(np.array(tokens, dtype=np.int32)),
        "target_S": torch.from_numpy(np.array(targets, dtype=np.int32)),
        "length_B": torch.tensor([len(pair.source) + 1 + len(pair.target) for pair in pairs]),
        "source_length_B": torch.tensor([len(pair.source) for pair in pairs]),
        "target_characters_B": torch.tensor([len(pair.text) for pair in pairs]),
    }
