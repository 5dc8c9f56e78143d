"""Texts that go on: several at a time, token by token, each with options, a seed and an end of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer

from learning.interfaces import CausalBackbone, Network
from learning.tasks.sampling import GenerationOptions, choose, generator_of

# Positions remembered at a time, those of the longest text for each text.
_MOST_POSITIONS = 8_192
# A token of bytes may be a quarter of a character.
_TOKENS_OF_CHARACTER = 4
_CUT_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, and what was asked of the rest."""

    tokens: list[int]
    options: GenerationOptions = field(default_factory=GenerationOptions)

    def asked(self, options: GenerationOptions) -> Prompt:
        """Return the same beginning with other options."""
        return replace(self, options=options)

    def limit(self, positions: int) -> int:
        """Return how many tokens can be written: as many as are asked for, or as there are positions left."""
        return max(0, min(self.options.max_new_tokens, positions - len(self.tokens)))


@dataclass(frozen=True, slots=True)
class Language:
    """What a model's tokens are: their texts, the one that ends a text, those never written, and the most of a text."""

    tokenizer: Tokenizer
    end: int
    banned: list[int]
    positions: int

    def text(self, tokens: Sequence[int]) -> str:
        """Return what tokens say; a character that is not whole yet is left out."""
        return str(self.tokenizer.decode(list(tokens))).rstrip(_CUT_CHARACTER)


class Continuation:
    """One text on its way."""

    def __init__(self, prompt: Prompt, language: Language) -> None:
        self.prompt = prompt
        self.written: list[int] = []
        self.reason: Literal["length", "stop"] | None = None
        self._language = language
        self._limit = prompt.limit(language.positions)
        self._generator = generator_of(prompt.options)
        self._stops = prompt.options.stops
        self._window = _TOKENS_OF_CHARACTER * max(map(len, self._stops), default=0) + 1

    def advance(self, logits_V: torch.Tensor) -> int:
        """Choose the next token, and find out whether it is the last."""
        seen = [*self.prompt.tokens, *self.written]
        token = choose(logits_V, seen, self.prompt.options, self._generator)
        if token == self._language.end:
            self.reason = "stop"
            return token
        self.written.append(token)
        if self._stops and self._cut(self._language.text(self.written[-self._window :])) is not None:
            self.reason = "stop"
        elif len(self.written) >= self._limit:
            self.reason = "length"
        return token

    def answer(self) -> dict[str, Any]:
        """Return the text as a caller gets it."""
        text = self._language.text(self.written)
        cut = self._cut(text)
        return {
            "text": text if cut is None else text[:cut],
            "finish_reason": self.reason,
            "prompt_tokens": len(self.prompt.tokens),
            "completion_tokens": len(self.written),
        }

    def _cut(self, text: str) -> int | None:
        return min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=None)


def write(network: Network, prompts: Sequence[Prompt], language: Language) -> list[dict[str, Any]]:
    """Return how each beginning goes on, none of it read twice."""
    return [answer for some in _together(prompts, language.positions) for answer in _write(network, some, language)]


def _write(network: Network, prompts: Sequence[Prompt], language: Language) -> list[dict[str, Any]]:
    backbone = cast("CausalBackbone", network.backbone)
    texts = [Continuation(prompt, language) for prompt in prompts]
    going = texts
    features_BD, cache = backbone.begin([prompt.tokens for prompt in prompts], _capacity(prompts, language.positions))
    while going:
        logits_BV = network.head(features_BD, backbone.embedding_VD).float()
        logits_BV[:, language.banned] = -torch.inf
        token_B = torch.tensor([text.advance(logits_V) for text, logits_V in zip(going, logits_BV, strict=True)])
        kept = [place for place, text in enumerate(going) if text.reason is None]
        if len(kept) < len(going):
            going = [going[place] for place in kept]
            kept_B = torch.tensor(kept, dtype=torch.long)
            token_B = token_B[kept_B]
            if kept:
                cache.keep(kept_B.to(features_BD.device))
        if going:
            features_BD = backbone.step(token_B.to(features_BD.device), cache)
    return [text.answer() for text in texts]


def _capacity(prompts: Sequence[Prompt], positions: int) -> int:
    return max(len(prompt.tokens) + prompt.limit(positions) for prompt in prompts)


def _together(prompts: Sequence[Prompt], positions: int) -> Iterator[Sequence[Prompt]]:
    """Yield the prompts in parts that can be remembered at a time."""
    begin = 0
    for end in range(1, len(prompts) + 1):
        part = prompts[begin : end + 1]
        if end == len(prompts) or len(part) * _capacity(part, positions) > _MOST_POSITIONS:
            yield prompts[begin:end]
            begin = end
