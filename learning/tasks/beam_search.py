"""The likeliest texts that a source becomes, several sources at a time: token by token, each with a beam of beginnings.

Texts join and leave between tokens, so whoever comes late does not wait for the longest. R rows, one for each beginning
of each text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from pydantic import Field

from learning.errors import InvalidConfig
from learning.interfaces import EncoderDecoder, Network, PredictionOptions
from learning.modalities.text import TextState
from learning.tasks.generation import MOST_BYTES, MOST_TEXTS, Language, Pieces

Reason = Literal["length", "stop"]
# Of what is kept of one text and all of its beginnings. Growing takes up to four times that for a while.
_MOST_BYTES_ALONE = 4 * MOST_BYTES


class BeamOptions(PredictionOptions):
    """How the likeliest text is looked for, and how long it may be."""

    beam_width: int = Field(
        1,
        ge=1,
        le=32,
        description="Beginnings that are followed at once; 1 takes the likeliest token each time, as metrics are "
        "measured.",
    )
    length_penalty: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Beginnings of different lengths are compared by their log-probability over the length to this "
        "power: 0 prefers short texts, more than 1 long ones; of no effect on a beam of 1.",
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Most tokens to write, as far as the model can; default: what hardly any target of a source so "
        "long had, and ten more.",
    )

    def check(self, network: Network, inputs: TextState, state: Any) -> None:
        """Refuse a beam whose beginnings would take too much memory if a text were as long as it may be."""
        backbone = cast("EncoderDecoder", network.backbone)
        longest = Source([], state.most_tokens(inputs.max_length), self)
        positions = inputs.max_length + longest.limit(inputs.max_length)
        room = max(1, _MOST_BYTES_ALONE // (positions * backbone.position_bytes))
        if self.beam_width > room:
            raise InvalidConfig(
                f"parameters.beam_width: {self.beam_width} beginnings of up to {positions} tokens, read and written, "
                f"take {self.beam_width * positions * backbone.position_bytes >> 20} MiB in this model; at most "
                f"{_MOST_BYTES_ALONE >> 20} are given to one text.",
                hint=f"Ask for a beam_width of at most {room}, or for fewer max_new_tokens.",
                param="parameters.beam_width",
            )

    def asked(self, row: Any) -> Any:
        """Return a source with these options."""
        return replace(row, options=self)


@dataclass(frozen=True)
class Source:
    """A text that is read, how many tokens are written where nothing is asked for, and what was asked for."""

    tokens: list[int]
    usual: int | None = None
    options: BeamOptions = field(default_factory=BeamOptions)

    def limit(self, positions: int) -> int:
        """Return how many tokens can be written: as many as are asked for, or usual, or as have a position."""
        return min(self.options.max_new_tokens or self.usual or positions, positions - 1)


class Beginning(NamedTuple):
    """Tokens written so far, and the logarithm of their probability."""

    tokens: list[int]
    score: float


class Ended(NamedTuple):
    """A text that has ended, and what it is compared by."""

    worth: float
    tokens: list[int]
    score: float
    length: int  # with the token that ends it, if that was written
    reason: Reason


class Translating:
    """One text on its way."""

    def __init__(self, source: Source, language: Language) -> None:
        self.source = source
        self.live = [Beginning([], 0.0)]
        self.ended: list[Ended] = []
        self.is_done = False
        self._width = source.options.beam_width
        self._penalty = source.options.length_penalty
        # What comes to no end where it should have goes round in circles, and is sure of every token.
        self._whole_first = source.options.max_new_tokens is None
        self._language = language
        self._limit = source.limit(language.positions)
        self._pieces = Pieces(language, ())

    @property
    def looked_at(self) -> int:
        """How many of the likeliest tokens of each beginning matter: as many may end as go on."""
        return 2 * self._width if self._width > 1 else 1

    def advance(self, likeliest: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, int]]:
        """Take the likeliest next tokens of each live beginning, with the logarithms of their probabilities; return the
        beginnings that go on, as the number of the one before and its next token.
        """
        length = len(self.live[0].tokens) + 1
        found = [
            (self.live[row].score + score, row, token)
            for row, tokens in enumerate(likeliest)
            for token, score in tokens
        ]
        found = sorted(found, key=lambda one: -one[0])[: self.looked_at]
        going: list[tuple[float, int, int]] = []
        for rank, (score, row, token) in enumerate(found):
            is_end = token == self._language.end
            if is_end or length == self._limit:
                if rank < self._width:
                    tokens = self.live[row].tokens if is_end else [*self.live[row].tokens, token]
                    self._end(tokens, score, length, "stop" if is_end else "length")
            elif len(going) < self._width:
                going.append((score, row, token))
        if not going or self._cannot_improve(going[0][0], length):
            self._finish()
            return []
        self.live = [Beginning([*self.live[row].tokens, token], score) for score, row, token in going]
        if self._width == 1:
            self._pieces.add(going[0][2])
        return [(row, token) for _, row, token in going]

    def _end(self, tokens: list[int], score: float, length: int, reason: Reason) -> None:
        self.ended.append(Ended(score / length**self._penalty, tokens, score, length, reason))
        self.ended = sorted(self.ended, key=self._rank)[: self._width]

    def _rank(self, one: Ended) -> tuple[bool, float]:
        return self._whole_first and one.reason == "length", -one.worth

    def _cannot_improve(self, best: float, length: int) -> bool:
        """Return whether as many have ended as are followed, and the best that goes on is worth no more than any."""
        full = len(self.ended) == self._width
        return full and (self._width == 1 or best / length**self._penalty <= self.ended[-1].worth)

    def _finish(self) -> None:
        self.is_done = True
        if self._width > 1:
            for token in self.ended[0].tokens:
                self._pieces.add(token)
        elif self.ended[0].reason == "length":
            self._pieces.add(self.ended[0].tokens[-1])
        self._pieces.end()

    def fresh(self) -> str:
        """Return what has been written since the last time, in whole characters; of a beam, all of it at the end."""
        return self._pieces.fresh()

    def answer(self) -> dict[str, Any]:
        """Return the text as a caller gets it, with the geometric mean of its tokens' probabilities."""
        best = self.ended[0] if self.ended else Ended(0.0, self.live[0].tokens, self.live[0].score, 1, "length")
        return {
            "translation": self._pieces.whole(),
            "score": math.exp(best.score / best.length),
            "finish_reason": best.reason,
            "source_tokens": len(self.source.tokens),
            "target_tokens": len(best.tokens),
        }


class BeamSearch:
    """Texts that one network writes together, no source read twice."""

    def __init__(self, network: Network, language: Language) -> None:
        self._network, self._language = network, language
        self._backbone = cast("EncoderDecoder", network.backbone)
        self._memory = self._backbone.remember()
        self._going: list[Translating] = []
        self._features_RD: torch.Tensor | None = None  # of the next token of each beginning

    def fitting(self, sources: Sequence[Source]) -> int:
        """Return how many of the next sources there is room for; one at least while nothing is written."""
        taken = [text.source for text in self._going]
        rows, widest = sum(map(_width, taken), 0), max(map(self._places, taken), default=0)
        for number, source in enumerate(sources):
            rows, widest = rows + _width(source), max(widest, self._places(source))
            bytes_ = rows * widest * self._backbone.position_bytes
            if (taken or number) and (rows > MOST_TEXTS or bytes_ > MOST_BYTES):
                return number
        return len(sources)

    def _places(self, source: Source) -> int:
        return len(source.tokens) + source.limit(self._language.positions)

    def join(self, sources: Sequence[Source]) -> list[Translating]:
        """Read sources, whose texts are written with the others from now on; after an error these are as they were."""
        before = self._memory.rows()
        try:
            features_BD = self._backbone.begin([source.tokens for source in sources], self._memory)
        except BaseException:
            self._memory.cut(before)
            raise
        joined = [Translating(source, self._language) for source in sources]
        self._features_RD = features_BD if self._features_RD is None else torch.cat([self._features_RD, features_BD])
        self._going += joined
        return joined

    def leave(self, texts: Collection[Translating]) -> None:
        """Forget texts that nobody waits for."""
        if not texts:
            return
        gone, kept, row = set(texts), list[int](), 0
        for text in self._going:
            if text not in gone:
                kept += range(row, row + len(text.live))
            row += len(text.live)
        self._going = [text for text in self._going if text not in gone]
        if self._keep(kept) and self._features_RD is not None:
            self._features_RD = self._features_RD[kept]

    def step(self) -> list[Translating]:
        """Write one more token of each text; return those that have ended by it, and left."""
        likeliest = self._likeliest()
        rows, tokens, first = list[int](), list[int](), 0
        for text in self._going:
            count = len(text.live)
            for row, token in text.advance(likeliest[first : first + count]):
                rows.append(first + row)
                tokens.append(token)
            first += count
        ended = [text for text in self._going if text.is_done]
        self._going = [text for text in self._going if not text.is_done]
        if self._keep(rows):
            token_R = torch.tensor(tokens, device=self._backbone.embedding_VD.device)
            self._features_RD = self._backbone.step(token_R, self._memory)
        return ended

    def _likeliest(self) -> list[list[tuple[int, float]]]:
        """Return of each row as many of the likeliest tokens as its text looks at, with their log-probabilities."""
        assert self._features_RD is not None
        backbone = self._backbone
        logits_RV = self._network.head(self._features_RD, backbone.embedding_VD, backbone.bias_V).float()
        logits_RV[:, self._language.banned] = -torch.inf
        most = min(max(text.looked_at for text in self._going), logits_RV.shape[1])
        log_RK, token_RK = logits_RV.log_softmax(1).topk(most, 1)
        looked_at = [text.looked_at for text in self._going for _ in text.live]
        pairs = zip(token_RK.tolist(), log_RK.tolist(), looked_at, strict=True)
        return [list(zip(tokens[:count], logs[:count], strict=True)) for tokens, logs, count in pairs]

    def _keep(self, rows: list[int]) -> bool:
        """Go on with these rows, if any; else give the memory back."""
        if rows:
            self._memory.select(rows)
        else:
            self._features_RD, self._memory = None, self._backbone.remember()
        return bool(rows)


def _width(source: Source) -> int:
    return source.options.beam_width


def translate(network: Network, sources: Sequence[Source], language: Language) -> list[dict[str, Any]]:
    """Return what each source becomes."""
    search, texts = BeamSearch(network, language), list[Translating]()
    going = 0
    while going or len(texts) < len(sources):
        if count := search.fitting(sources[len(texts) :]):
            texts += search.join(sources[len(texts) : len(texts) + count])
            going += count
        going -= len(search.step())
    return [text.answer() for text in texts]
