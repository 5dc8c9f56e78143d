"""What tasks share that say one thing of a whole text: what stands for it, and the tokens hidden in training."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Config
from learning.interfaces import Batch, Network, PackedFeatures
from learning.modalities.text import TextState
from learning.tasks.masking import Maskable, Masker

Pooling = Literal["mean", "first", "last"]


class PooledTextConfig(Config):
    """How a text becomes one vector, and how texts are changed while they are learned from."""

    pooling: Pooling = Field(
        "mean", description="What stands for a text: the mean of its tokens, or the first or last token."
    )
    vector_length: float | None = Field(
        None,
        gt=0,
        le=1_000,
        description="Length that every text's vector is given before the last layer, so that its direction alone "
        "decides; default: as it is. 10 suits models made for comparing sentences.",
    )
    token_masking: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Share of tokens hidden in training, so that no single word decides. Of a base model whose "
        "tokenizer has neither a mask nor an unknown token, as GPT-2's, none are.",
    )

    def read(self, inputs: TextState) -> dict[str, Any]:
        """Return the fields of a PooledTextState for texts encoded under `inputs`."""
        return {
            "pooling": self.pooling,
            "vector_length": self.vector_length,
            "token_masking": self.token_masking,
            "maskable": Maskable.if_possible(inputs),
        }


class PooledTextState(Config):
    """How texts are read."""

    pooling: Pooling
    vector_length: float | None = None
    token_masking: float
    maskable: Maskable


class TextHead(nn.Module):
    """One linear layer on what stands for a text."""

    def __init__(self, width: int, outputs: int, state: PooledTextState) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.masker = Masker(state.maskable)
        self._pooling, self._length = state.pooling, state.vector_length

    def forward(self, features: PackedFeatures) -> Tensor:
        """Return outputs, (B, outputs)."""
        pool = {"mean": features.pooled, "first": features.first, "last": features.last}[self._pooling]
        vector_BD = pool()
        if self._length is not None:
            vector_BD = self._length * functional.normalize(vector_BD.float(), dim=1)
        outputs: Tensor = self.linear(vector_BD)
        return outputs


def partly_hidden(batch: Batch, network: Network, state: PooledTextState) -> Batch:
    """Return a batch as a network whose head is a TextHead reads it: in training with some tokens hidden."""
    if not network.training or not state.token_masking:
        return batch
    masker, token_S = cast("TextHead", network.head).masker, batch["token_S"]
    return {**batch, "token_S": masker.mask(token_S, masker.draw(token_S, state.token_masking))}
