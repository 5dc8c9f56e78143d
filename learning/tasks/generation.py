"""Texts that go on: several at a time, token by token, each with options, a seed and an end of its own.

They join and leave between tokens, so whoever comes late does not wait for the longest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer

from learning.interfaces import CausalBackbone, Network
from learning.tasks.sampling import GenerationOptions, choose, generator_of

# What texts that are written together may take of memory, and how many they may be.
MOST_BYTES = 512 << 20
MOST_TEXTS = 256
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

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return what tokens say; it ends with U+FFFD when its last character is not whole."""
        return str(self.tokenizer.decode(list(tokens)))


class Pieces:
    """A text that comes token by token, given out in whole characters, and never what may yet be cut off as a stop."""

    def __init__(self, language: Language, stops: Sequence[str]) -> None:
        self._language, self._stops = language, stops
        self._part: list[int] = []  # tokens since the last whole character
        self._held = ""  # may begin a stop string
        self._ready: list[str] = []
        self._given = 0

    def add(self, token: int) -> bool:
        """Take a token; return whether a stop string is there, before which the text ends."""
        self._part.append(token)
        said = self._language.decoded(self._part)
        visible = self._held + said.rstrip(_CUT_CHARACTER)
        cut = min((place for stop in self._stops if (place := visible.find(stop)) >= 0), default=None)
        if cut is not None:
            self._part, self._held = [], ""
            self._ready.append(visible[:cut])
            return True
        if not said.endswith(_CUT_CHARACTER):
            kept = max((_overlap(visible, stop) for stop in self._stops), default=0)
            self._part, self._held = [], visible[len(visible) - kept :]
            self._ready.append(visible[: len(visible) - kept])
        return False

    def end(self) -> None:
        """Give out what is left, but for a character that is not whole."""
        self._ready.append(self._held + self._language.decoded(self._part).rstrip(_CUT_CHARACTER))
        self._part, self._held = [], ""

    def fresh(self) -> str:
        """Return what is new since the last time."""
        new, self._given = "".join(self._ready[self._given :]), len(self._ready)
        return new

    def whole(self) -> str:
        """Return the text so far."""
        return "".join(self._ready)


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may begin a stop string."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


class Continuation:
    """One text on its way."""

    def __init__(self, prompt: Prompt, language: Language) -> None:
        self.prompt = prompt
        self.written: list[int] = []
        self.reason: Literal["length", "stop"] | None = None
        self._end = language.end
        self._limit = prompt.limit(language.positions)
        self._generator = generator_of(prompt.options)
        self._pieces = Pieces(language, prompt.options.stops)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.reason is not None

    def advance(self, logits_V: torch.Tensor) -> int:
        """Choose the next token, and find out whether it is the last."""
        token = choose(logits_V, chain(self.prompt.tokens, self.written), self.prompt.options, self._generator)
        if token == self._end:
            self.reason = "stop"
        else:
            self.written.append(token)
            if self._pieces.add(token):
                self.reason = "stop"
            elif len(self.written) >= self._limit:
                self.reason = "length"
        if self.reason is not None:
            self._pieces.end()
        return token

    def fresh(self) -> str:
        """Return what has been written since the last time, in whole characters."""
        return self._pieces.fresh()

    def answer(self) -> dict[str, Any]:
        """Return the text as a caller gets it."""
        return {
            "text": self._pieces.whole(),
            "finish_reason": self.reason,
            "prompt_tokens": len(self.prompt.tokens),
            "completion_tokens": len(self.written),
        }


class Generation:
    """Texts that one network writes together, none of them read twice."""

    def __init__(self, network: Network, language: Language) -> None:
        self._network, self._language = network, language
        self._backbone = cast("CausalBackbone", network.backbone)
        self._cache = self._backbone.remember()
        self._going: list[Continuation] = []
        self._features_BD: torch.Tensor | None = None  # of the last position of each

    def fitting(self, prompts: Sequence[Prompt]) -> int:
        """Return how many of the next prompts there is room for; one at least while nothing is written."""
        count, widest = len(self._going), max(map(self._places, (text.prompt for text in self._going)), default=0)
        for number, prompt in enumerate(prompts):
            widest = max(widest, self._places(prompt))
            count += 1
            bytes_ = count * widest * self._backbone.position_bytes
            if count > 1 and (count > MOST_TEXTS or bytes_ > MOST_BYTES):
                return number
        return len(prompts)

    def _places(self, prompt: Prompt) -> int:
        return len(prompt.tokens) + prompt.limit(self._language.positions)

    def join(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """Read beginnings, which go on with the others from now on; after an error these are as they were."""
        before = list(self._cache.lengths)
        try:
            features_BD = self._backbone.begin([prompt.tokens for prompt in prompts], self._cache)
        except BaseException:
            self._cache.set_lengths(before)
            raise
        joined = [Continuation(prompt, self._language) for prompt in prompts]
        self._features_BD = features_BD if self._features_BD is None else torch.cat([self._features_BD, features_BD])
        self._going += joined
        return joined

    def leave(self, texts: Collection[Continuation]) -> None:
        """Forget texts that nobody waits for."""
        if gone := set(texts):
            order = self._keep([place for place, text in enumerate(self._going) if text not in gone])
            if order and self._features_BD is not None:
                self._features_BD = self._features_BD[order]

    def step(self) -> list[Continuation]:
        """Write one more token of each text; return those that have ended by it, and left."""
        assert self._features_BD is not None
        logits_BV = self._network.head(self._features_BD, self._backbone.embedding_VD).float()
        logits_BV[:, self._language.banned] = -torch.inf
        token_B = [text.advance(logits_V) for text, logits_V in zip(self._going, logits_BV, strict=True)]
        ended = [text for text in self._going if text.is_done]
        order = list(range(len(token_B)))
        if ended:
            order = self._keep([place for place, text in enumerate(self._going) if not text.is_done])
        if order:
            kept_B = torch.tensor([token_B[place] for place in order], device=self._features_BD.device)
            self._features_BD = self._backbone.step(kept_B, self._cache)
        return ended

    def _keep(self, places: list[int]) -> list[int]:
        """Forget all others; return where those that stay were."""
        if not places:  # give the memory back as well
            self._going, self._features_BD, self._cache = [], None, self._backbone.remember()
            return []
        order: list[int] = self._cache.keep(places)
        self._going = [self._going[place] for place in order]
        return order


def write(network: Network, prompts: Sequence[Prompt], language: Language) -> list[dict[str, Any]]:
    """Return how each beginning goes on."""
    generation, texts = Generation(network, language), list[Continuation]()
    going = 0
    while going or len(texts) < len(prompts):
        if count := generation.fitting(prompts[len(texts) :]):
            texts += generation.join(prompts[len(texts) : len(texts) + count])
            going += count
        going -= len(generation.step())
    return [text.answer() for text in texts]
