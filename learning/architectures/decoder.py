"""What decoders on packed rows have in common: blocks, one behind the other, in which a position sees those before it.

S positions of all rows together, B rows, D width. A place is what blocks know of where a position stands, made once for
all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learning.architectures.key_value_cache import Arrival, KeyValueCache
from learning.architectures.packed_attention import Groups
from learning.architectures.transformer import read_by_length
from learning.config import Defaults, Situation
from learning.interfaces import Batch, CausalBackbone, PackedFeatures


def usual_defaults(situation: Situation) -> Defaults:
    """Return many steps for pretraining, fewer for finetuning."""
    if situation.kind == "pretrain":
        return Defaults(32 if situation.rows >= 256 else 8, 2e-3, 0.0, 2_000, 3, 100)
    return Defaults(32 if situation.rows >= 200 else 16, 5e-4, 0.1, 500, 5, 100)


class Block(nn.Module):
    """Attention to the positions before, then a network on each."""

    @abstractmethod
    def forward(self, hidden_SD: Tensor, place: Any, groups: Groups, arrival: Arrival | None = None) -> Tensor:
        """Return the block's output, (S, D); an arrival takes the keys and values."""

    @abstractmethod
    def step(self, hidden_BD: Tensor, place: Any, cache: KeyValueCache, layer: int, seen_B11T: Tensor | None) -> Tensor:
        """Return the block's output for one more position of each row, (B, D)."""


class Decoder(CausalBackbone):
    """Embeddings and blocks; features of every token, of which each knows those before it."""

    recompute: bool
    position_floats: int  # a position's keys and values in all layers

    @abstractmethod
    def embed(self, token_S: Tensor, position_S: Tensor) -> tuple[Tensor, Any]:
        """Return the first block's input, (S, D), and the places."""

    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """Return the blocks, each a Block."""

    @abstractmethod
    def normed(self, hidden_SD: Tensor) -> Tensor:
        """Return the features of the last block's output, (S, D)."""

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_SD of token_S in the order of the rows."""
        return read_by_length(batch, self._read)

    @property
    def position_bytes(self) -> int:
        """Return the memory of a position's keys and values, in fp32."""
        return 4 * self.position_floats

    def remember(self) -> KeyValueCache:
        """Return a memory with no text in it."""
        return KeyValueCache(self.embedding_VD.device)

    def begin(self, rows: list[list[int]], cache: KeyValueCache) -> Tensor:
        """Read the beginnings of texts, at least one token each, behind those in the cache; return the features of the
        last ones, (B, D).
        """
        device = self.embedding_VD.device
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        length_B = torch.tensor([len(rows[row]) for row in order])
        token_S = torch.tensor([token for row in order for token in rows[row]], device=device)
        groups = Groups.of(length_B)
        arrival = cache.arrive([len(row) for row in rows], order)
        features_SD = self._read(token_S, groups.positions().to(device), groups, arrival)
        back_B = torch.tensor(order, device=device).argsort()
        return features_SD[(length_B.cumsum(0) - 1).to(device)][back_B]

    def step(self, token_B: Tensor, cache: KeyValueCache) -> Tensor:
        """Read one more token of each text; return its features, (B, D)."""
        cache.make_place()
        (hidden_BD, place), seen_B11T = self.embed(token_B, cache.length_B), cache.seen()
        for number, block in enumerate(self.blocks()):
            hidden_BD = cast("Block", block).step(hidden_BD, place, cache, number, seen_B11T)
        cache.set_lengths([length + 1 for length in cache.lengths])
        return self.normed(hidden_BD)

    def _read(self, token_S: Tensor, position_S: Tensor, groups: Groups, arrival: Arrival | None = None) -> Tensor:
        hidden_SD, place = self.embed(token_S, position_S)
        for block in self.blocks():
            if self.recompute and self.training:
                hidden_SD = checkpoint(block, hidden_SD, place, groups, use_reentrant=False)
            else:
                hidden_SD = block(hidden_SD, place, groups, arrival)
        return self.normed(hidden_SD)
