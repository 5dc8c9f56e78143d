"""How the next token is chosen, and what a caller may ask of a text that a model writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from learning.interfaces import PredictionOptions

_MOST_STOPS = 16
_MOST_LOOKED_AT = 1_024  # of a large vocabulary, whose shares take longer to sort than a small network computes
StopString = Annotated[str, Field(min_length=1, max_length=200)]


class GenerationOptions(PredictionOptions):
    """How a text goes on, and when it ends."""

    max_new_tokens: int = Field(
        64, ge=1, le=100_000, description="Most tokens to write; never more than the model has positions left."
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=10,
        description="0 takes the likeliest token each time, 1 draws as the model says.",
    )
    top_k: int | None = Field(None, ge=1, description="Draw among so many of the likeliest tokens.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw among the likeliest tokens that have this share of probability."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=10, description="Above 1, tokens that stand in the text already become less likely."
    )
    stop: StopString | Annotated[tuple[StopString, ...], Field(max_length=_MOST_STOPS)] = Field(
        (), description="A string, or several, before the first of which the text ends."
    )
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="The same seed draws the same text; default: another one each time."
    )

    @field_validator("temperature")
    @classmethod
    def _is_no_division_by_nothing(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError("a temperature is 0 or at least 0.01")
        return value

    def asked(self, row: Any) -> Any:
        """Return a prompt with these options."""
        return row.asked(self)

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings before which a text ends."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop


def generator_of(options: GenerationOptions) -> torch.Generator:
    """Return where draws come from."""
    generator = torch.Generator()
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed)
    return generator


def choose(logits_V: Tensor, seen: Iterable[int], options: GenerationOptions, generator: torch.Generator) -> int:
    """Return the next token; `seen` are those of the text so far."""
    if options.repetition_penalty != 1:
        logits_V = _penalised(logits_V, seen, options.repetition_penalty)
    if options.temperature == 0:
        return int(logits_V.argmax())
    share_V = (logits_V.double() / options.temperature).softmax(0)
    token_K = None
    if options.top_k is not None or options.top_p < 1:
        share_V, token_K = _likeliest(share_V, options)
    total_K = share_V.cumsum(0)
    draw = torch.rand((), dtype=torch.float64, generator=generator) * total_K[-1]
    place = min(int(torch.searchsorted(total_K, draw, right=True)), len(total_K) - 1)
    return place if token_K is None else int(token_K[place])


def _likeliest(share_V: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor]:
    """Return the shares of the tokens to draw among, and their numbers, the likeliest first."""
    size = min(len(share_V), options.top_k or _MOST_LOOKED_AT)
    top_K, token_K = share_V.topk(size)
    if options.top_k is None and size < len(share_V) and float(top_K.sum()) < options.top_p:
        top_K, token_K = share_V.sort(descending=True)
    # The fewest tokens that have top_p together; what is before each must be less than that.
    whole = float(top_K.sum()) if options.top_k is not None else 1.0
    kept = int((top_K.cumsum(0) - top_K < options.top_p * whole).sum())
    return top_K[:kept], token_K[:kept]


def _penalised(logits_V: Tensor, seen: Iterable[int], penalty: float) -> Tensor:
    """Return the logits with those of tokens seen lowered (Keskar et al. 2019, arXiv 1909.05858)."""
    token_S = torch.tensor(sorted(set(seen)), device=logits_V.device)
    before_S = logits_V[token_S]
    return logits_V.index_copy(0, token_S, torch.where(before_S > 0, before_S / penalty, before_S * penalty))
