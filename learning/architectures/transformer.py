"""What transformers on packed rows of tokens have in common: their sizes, and the order in which rows are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from learning.architectures.packed_attention import Groups
from learning.config import Config
from learning.interfaces import Batch, PackedFeatures
from learning.product_rows import spare_rows

_HEAD_WIDTH = 64
# Layers and width by size; those of Turc et al. 2019 (arXiv 1908.08962).
_SIZES = {"tiny": (2, 128), "small": (4, 256), "medium": (8, 512), "base": (12, 768)}


class TransformerConfig(Config):
    """Size of the network."""

    size: Literal["tiny", "small", "medium", "base"] = Field(
        "small", description="2 layers of width 128, 4 of 256, 8 of 512, or 12 of 768."
    )
    layers: int | None = Field(None, ge=1, le=96, description="Layers, if not as many as the size has.")
    width: int | None = Field(
        None, ge=16, le=8_192, multiple_of=16, description="Features of a token, if not as many as the size has."
    )
    heads: int | None = Field(
        None, ge=1, le=128, description="Attention heads, which divide the width; default: one for each 64 features."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute each layer twice in training instead of remembering it: less memory, a third slower.",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> TransformerConfig:
        _, width, heads = self.shape()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width, {width}; set heads to one of its divisors")
        return self

    def shape(self) -> tuple[int, int, int]:
        """Return layers, width and heads."""
        layers, width = _SIZES[self.size]
        width = self.width or width
        return self.layers or layers, width, self.heads or _usual_heads(width)


def _usual_heads(width: int) -> int:
    """Return how many heads have 64 features each, or the next fewer that divide the width."""
    return next(heads for heads in range(max(1, width // _HEAD_WIDTH), 0, -1) if width % heads == 0)


def read_by_length(batch: Batch, read: Callable[[Tensor, Tensor, Groups], Tensor]) -> PackedFeatures:
    """Return features_SD of token_S in the order of the rows; `read` gets tokens and positions, shortest rows first."""
    token_S, length_B = batch["token_S"], batch["length_B"]
    groups = Groups.of(length_B)
    position_S = groups.positions().to(token_S.device)
    order_S = None if groups.order_S is None else groups.order_S.to(token_S.device)
    if order_S is not None:
        token_S = token_S[order_S]
    if spare := spare_rows(len(token_S), token_S.device):
        groups = groups.with_spare(spare)
        token_S, position_S = (functional.pad(part_S, (0, spare)) for part_S in (token_S, position_S))
    features_SD = read(token_S, position_S, groups)
    back_S = slice(len(batch["token_S"])) if order_S is None else order_S.argsort()
    return PackedFeatures(features_SD[back_S], length_B)
