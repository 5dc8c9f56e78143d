"""Pretrain on running text: the network says how it goes on, token by token (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.interfaces import (
    Batch,
    CausalBackbone,
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
from learning.modalities.text import TextConfig, TextState, given_text
from learning.product_rows import NO_TARGET, with_spare_rows, with_spare_targets
from learning.tasks import text_blocks, token_costs
from learning.tasks.generation import Generation, Language, Prompt, write
from learning.tasks.sampling import GenerationOptions

# Of a beginning that is longer than the model can read, so much of the positions is kept free for what follows.
_FREE_SHARE = 4


class NextTokenConfig(Config):
    """What the rows are to each other."""

    rows: Literal["auto", "lines", "documents"] = Field(
        "auto",
        description='Lines of one text, or documents that have nothing to do with each other; "auto": documents if '
        "there is the end of a line within a row.",
    )


class NextTokenState(Config):
    """What rows are, the tokens before and behind a text, and those that are never written."""

    rows: Literal["lines", "documents", "pairs"]
    target: str | None = None
    begin: int
    end: int
    banned: tuple[int, ...]


class NextTokenHead(nn.Module):
    """Scores of all tokens by their embeddings, as GPT-2 has them: no weights of its own."""

    def forward(self, features_SD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Return logits of the tokens, (S, V)."""
        return functional.linear(features_SD, embedding_VD)


class NextTokenPrediction:
    """Foretell the next token of a text; makes a base model, which writes."""

    name: ClassVar[str] = "next-token-prediction"
    modality: ClassVar[str] = "text"
    kind: ClassVar[Kind] = "pretrain"
    target: ClassVar[Target] = "nothing"
    causal: ClassVar[bool] = True
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "accuracy"
    monitor: ClassVar[str] = "loss"
    preprocessing: ClassVar[Mapping[str, Any]] = {"tokenizer": "bytes", "lower_case": False, "exact": True}
    Config: ClassVar[type[NextTokenConfig]] = NextTokenConfig
    State: ClassVar[type[NextTokenState]] = NextTokenState
    Options: ClassVar[type[GenerationOptions]] = GenerationOptions

    def check_preprocessing(self, config: TextConfig) -> None:
        """Raise InvalidConfig for a tokenizer whose tokens do not give the text back."""
        tokenization.check_text_back(config.tokenizer, self.name)

    def fit(self, table: pa.Table, columns: Columns, config: NextTokenConfig, inputs: TextState) -> NextTokenState:
        """Find out what the rows are; InvalidConfig for a tokenizer whose tokens do not give the text back.

        InvalidData when all rows are blank.
        """
        tokenization.require_text_back(inputs.opened, self.name)
        if table.num_rows and not columns.target_names():  # a model from elsewhere comes without rows
            text_blocks.require_text(table, inputs.column)
        rows = text_blocks.rows_of(table, inputs.column) if config.rows == "auto" else config.rows
        return self._state(rows, inputs)

    def _state(
        self, rows: Literal["lines", "documents", "pairs"], inputs: TextState, target: str | None = None
    ) -> NextTokenState:
        begin, end = inputs.token(tokenization.FIRST), inputs.token(tokenization.LAST)
        # Lines have no end that could be learned, since there is one text.
        banned = tuple(token for token in inputs.special_tokens() if token != end or rows == "lines")
        return NextTokenState(rows=rows, target=target, begin=begin, end=end, banned=banned)

    def examples(self, table: pa.Table, inputs: TextState, state: NextTokenState, device: torch.device) -> Examples:
        """Return blocks of the running text."""
        assert state.rows != "pairs"
        return text_blocks.cut(table, inputs, state.rows, device)

    def remarks(self, table: pa.Table, inputs: TextState, state: NextTokenState, part: Part = "training") -> list[str]:
        """Say which columns are not read."""
        if part != "training":
            return []
        unused = [name for name in table.column_names if name not in (inputs.column, state.target)]
        return [f"Only text is read; these columns are not used: {', '.join(unused)}."] if unused else []

    def exported(self, inputs: TextState, state: NextTokenState) -> TextState:
        """Return the tokenizer with nothing behind a prompt, which is to go on, and before it what `parse` puts there.

        One from elsewhere that puts no end behind a text is as its makers have it.
        """
        first = None if state.rows == "lines" else tokenization.FIRST
        tokenizer = tokenization.for_prompts(inputs.tokenizer, first)
        return TextState(column=inputs.column, tokenizer=tokenizer, max_length=inputs.max_length)

    def targets(self, table: pa.Table, state: NextTokenState, encoded: Batch) -> Batch:
        """Return nothing: targets come with the examples."""
        return {}

    def head(self, width: int, state: NextTokenState) -> nn.Module:
        """Return the head that scores tokens."""
        return NextTokenHead()

    def loss(self, network: Network, batch: Batch, state: NextTokenState) -> Tensor:
        """Return the mean cross-entropy of the next tokens."""
        logits_PV, target_P, _ = _foretold(network, batch, state)
        return functional.cross_entropy(logits_PV.float(), target_P)

    def link(self, state: NextTokenState) -> Link | None:
        """Return None: outputs are by token."""
        return None

    def predict(self, network: Network, batch: Batch, state: NextTokenState) -> Tensor:
        """Return of each row how many nats its targets cost, how many they are, and how many were foretold, (B, 3)."""
        logits_PV, target_P, place_P = _foretold(network, batch, state)
        length_B = batch["length_B"].to(place_P.device)
        row_P = torch.repeat_interleave(length_B)[place_P]
        return token_costs.by_row(logits_PV[: len(row_P)], target_P[: len(row_P)], row_P, len(length_B))

    def answers(self, predictions: Tensor, state: NextTokenState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return how surprising each row is; what models answer is in `generate`."""
        return [{"perplexity": token_costs.perplexity(cost, count)} for cost, count, _ in predictions.tolist()]

    def metrics(self, predictions: Tensor, targets: Batch, state: NextTokenState) -> dict[str, Any]:
        """Return perplexity of a token, nats per character, and the share of tokens foretold."""
        return token_costs.measured(predictions, targets)

    def parse(
        self, value: Any, index: int, inputs: TextState, state: NextTokenState
    ) -> tuple[Prompt, list[InputWarning]]:
        """Return the beginning of a text, which may be empty; warns of characters that are unknown or not read."""
        given = given_text(value, index, inputs)
        text = given if isinstance(given, str) else " ".join(given)
        (tokens,) = tokenization.encode_plain(inputs.opened, [text.encode("utf-8", "replace").decode()])
        warnings = []
        if unknown := tokens.count(inputs.token(tokenization.UNKNOWN)):
            message = f'Input {index}, "{inputs.column}": {unknown} characters are unknown to the model.'
            warnings.append(InputWarning(index, "unknown_characters", message))
        # A text that is one of many begins with a token of its own; so does one that has no other beginning.
        before = [state.begin] if state.rows != "lines" or not tokens else []
        if len(before) + len(tokens) >= inputs.max_length:
            room = inputs.max_length - len(before) - max(1, inputs.max_length // _FREE_SHARE)
            message = f'Input {index}, "{inputs.column}": only the last {room} of {len(tokens)} tokens are read.'
            warnings.append(InputWarning(index, "truncated", message))
            tokens = tokens[-room:]
        return Prompt([*before, *tokens]), warnings

    def cost(self, row: Prompt, inputs: TextState) -> int:
        """Return the positions that are read and written."""
        return len(row.tokens) + row.limit(inputs.max_length)

    def generate(
        self, network: Network, rows: Sequence[Prompt], inputs: TextState, state: NextTokenState
    ) -> list[dict[str, Any]]:
        """Return how texts go on, why they end, and how many tokens were read and written."""
        return write(network, rows, _language(inputs, state))

    def generation(self, network: Network, inputs: TextState, state: NextTokenState) -> Generation:
        """Return texts to be written token by token, none yet."""
        return Generation(network, _language(inputs, state))

    def schema(self, state: NextTokenState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        count = {"type": "integer", "minimum": 0}
        return {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "finish_reason": {"type": "string", "enum": ["length", "stop"]},
                "prompt_tokens": count,
                "completion_tokens": count,
            },
        }


def _language(inputs: TextState, state: NextTokenState) -> Language:
    return Language(inputs.opened, state.end, list(state.banned), inputs.max_length)


def _foretold(network: Network, batch: Batch, state: NextTokenState) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits_PV and targets of the P positions whose next token is learned, and where they stand; there may be
    more logits and targets behind, of which nothing is learned.
    """
    backbone = cast("CausalBackbone", network.backbone)
    features: PackedFeatures = backbone(batch)
    features_SD, target_S = features.features_SD, batch["target_S"].long()
    if state.rows == "pairs":
        place_P = (target_S != NO_TARGET).nonzero().squeeze(1)
        features_SD, target_S = features_SD[place_P], target_S[place_P]
    else:
        place_P = torch.arange(len(target_S), device=target_S.device)
    logits_PV = network.head(with_spare_rows(features_SD), backbone.embedding_VD)
    return logits_PV, with_spare_targets(target_S, len(logits_PV)), place_P
