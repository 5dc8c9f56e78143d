"""From what a network hears at each position to a transcript: its tokens, its words, and when each is heard.

A transcript may come stretch by stretch, and what has come stays. T positions of a stretch, K of the likeliest tokens
of each, L characters.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from learning import ctc
from learning.character_model import EDGE, CharacterModel
from learning.errors import InvalidConfig
from learning.interfaces import Batch, Network, PackedFeatures, PackedPredictions, PredictionOptions
from learning.modalities.audio import AudioRow
from learning.transcripts import words_with_places

# Of each position so many tokens are kept: all of an alphabet, and of Chinese those that anybody could have meant.
_KEPT = 40


class HasModel(Protocol):
    """What a model has learned of transcripts."""

    @property
    def model(self) -> CharacterModel | None:
        """Return what is known of the language."""
        ...


class TranscriptOptions(PredictionOptions):
    """How a transcript is looked for."""

    beam_width: int = Field(
        1,
        ge=1,
        le=100,
        description="Beginnings of a transcript that are followed at once, each with all of the ways to say it; 1: "
        "only the likeliest way, as metrics are measured.",
    )
    language_weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="How much counts, beside what is heard, what the model's transcripts and sentences say of a text's "
        "characters; for a beam_width of more than 1.",
    )
    character_bonus: float = Field(
        0.0,
        ge=-10,
        le=10,
        description="Nats that each character is worth, since a language_weight makes long texts less likely.",
    )

    @model_validator(mode="after")
    def _a_beam_weighs(self) -> TranscriptOptions:
        if self.beam_width == 1 and (self.language_weight or self.character_bonus):
            raise ValueError(
                "language_weight and character_bonus choose among the beginnings of a beam; set a beam_width of 2 or "
                "more, such as 16"
            )
        return self

    def check(self, network: Network, inputs: Any, state: HasModel) -> None:
        """Refuse to weigh a language of which nothing is kept."""
        if self.language_weight and state.model is None:
            raise InvalidConfig(
                f"parameters.language_weight: {self.language_weight} was asked for, but this model knows nothing of "
                "its texts: it was trained with a task_config.language_order of 0.",
                hint="Leave language_weight out, or train with a language_order such as 5.",
                param="parameters.language_weight",
            )

    def asked(self, row: AudioRow) -> AudioRow:
        """Return a parsed recording with these options."""
        return row._replace(asked=self)


class Heard(NamedTuple):
    """The likeliest tokens of some positions, the likeliest first, and the logarithms of their probabilities."""

    token_TK: ctc.Integers
    log_TK: ctc.Floats

    @classmethod
    def of(cls, values_TK2: Tensor) -> Heard:
        """Return what a task predicts for a recording's positions."""
        return cls(values_TK2[..., 0].long().numpy(), values_TK2[..., 1].double().numpy())

    def before(self, position: int) -> Heard:
        """Return what is heard before a position, counted from the end where it is negative."""
        return Heard(self.token_TK[:position], self.log_TK[:position])

    def behind(self, position: int) -> Heard:
        """Return what is heard from a position on."""
        return Heard(self.token_TK[position:], self.log_TK[position:])

    def silence(self) -> ctc.Floats:
        """Return the logarithm of the probability of the blank at each position, (T,)."""
        found: ctc.Floats = ctc.emissions(np.array([ctc.BLANK]), *self)[:, 0]
        return found


def likeliest_tokens(network: Network, batch: Batch) -> PackedPredictions:
    """Return each position's likeliest tokens with the logarithms of their probabilities, (S, K, 2)."""
    log_SV, length_B = cast("PackedFeatures", network(batch))
    log_SK, token_SK = log_SV.topk(min(_KEPT, log_SV.shape[1]), 1)
    return PackedPredictions(torch.stack([token_SK.float(), log_SK], 2), length_B)


class Transcript:
    """A text that is being written down."""

    def __init__(
        self,
        text_of: Callable[[list[int]], str],
        options: TranscriptOptions,
        model: CharacterModel | None,
    ) -> None:
        self._text_of, self._options, self._model = text_of, options, model
        self._text = ""  # a character for each token
        self._first: list[int] = []
        self._last: list[int] = []
        self._log_T = np.empty(0)

    @property
    def text(self) -> str:
        """The text so far, as it is shown."""
        return " ".join(self._text.split())

    def add(self, heard: Heard, *, is_last: bool) -> None:
        """Write down what is heard next."""
        for _ in self.adding(heard, is_last=is_last):
            pass

    def adding(self, heard: Heard, *, is_last: bool) -> Iterator[None]:
        """Write down what is heard next, and stop every few milliseconds where there is a beam."""
        tokens = yield from self._decoded(heard, is_last)
        path = ctc.align(tokens, *heard)
        before = len(self._log_T)
        self._first += (path.first_L + before).tolist()
        self._last += (path.last_L + before).tolist()
        self._text += self._text_of(tokens)
        self._log_T = np.concatenate([self._log_T, path.log_T])

    def _decoded(self, heard: Heard, is_last: bool) -> Generator[None, None, list[int]]:
        options = self._options
        if options.beam_width == 1:
            return ctc.best_path(heard.token_TK[:, 0])
        weighs = options.language_weight or options.character_bonus
        search = ctc.Search(options.beam_width, self._language(is_last) if weighs else None)
        for _ in search.hearing(*heard):
            yield
        return search.best()

    def _language(self, is_last: bool) -> ctc.Language:
        options, model, text_of = self._options, self._model, self._text_of
        known = 0 if model is None else model.known
        before = self._text[max(0, len(self._text) - known) :]

        def language(prefix: tuple[int, ...], token: int | None) -> float:
            said = 0.0
            if model is not None and (token is not None or is_last):
                character = EDGE if token is None else text_of([token])
                context = before + text_of(list(prefix[max(0, len(prefix) - known) :]))
                said = options.language_weight * model.log(context, character)
            return said + (options.character_bonus if token is not None else 0.0)

        return language

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return the text, its score, and its words with their times, where a position takes so many seconds."""
        path = ctc.Alignment(np.array(self._first, int), np.array(self._last, int), self._log_T)
        words = []
        for word, start, end in words_with_places(self._text):
            first, last = self._first[start], self._last[end - 1]
            words.append(
                {
                    "word": word,
                    "start": first * seconds,
                    "end": (last + 1) * seconds,
                    "score": path.score(first, last),
                }
            )
        return {"text": self.text, "score": path.score(0, len(self._log_T) - 1), "words": words}
