"""GPT-2 (Radford et al. 2019) on packed rows: a position sees those before it, so the network can go on with a text.

Weights are named and laid out as in Transformers' GPT2LMHeadModel, which opens what is saved here. S positions of all
rows together, B rows, H heads, K width of a head, W four times the width D.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from learning.architectures.decoder import Block, Decoder, usual_defaults
from learning.architectures.key_value_cache import Arrival, KeyValueCache
from learning.architectures.packed_attention import Groups, attend
from learning.architectures.quick_dropout import QuickDropout
from learning.architectures.transformer import TransformerConfig
from learning.config import Defaults, Situation
from learning.modalities.text import TextState
from learning.modalities.tokenization import FIRST, LAST, PADDING

_DEVIATION, _EPSILON = 0.02, 1e-5


class Projection(nn.Linear):
    """A linear layer whose weight is laid out as GPT-2's, inputs by outputs."""

    inputs_first: ClassVar[bool] = True

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.normal_(self.weight, std=_DEVIATION)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs of each position."""
        return torch.addmm(self.bias, input, self.weight)


class Attention(nn.Module):
    """Queries, keys and values of each position; attention to those before it, and to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.c_attn = Projection(width, 3 * width)
        self.c_proj = Projection(width, width)
        self.dropout = QuickDropout(0.0)
        self.heads = heads

    def forward(self, hidden_SD: Tensor, groups: Groups, arrival: Arrival | None) -> Tensor:
        """Return what each position gathers, (S, D); an arrival takes the keys and values."""
        query_SD, key_SD, value_SD = self.c_attn(hidden_SD).chunk(3, 1)
        if arrival is not None:
            arrival.fill(key_SD, value_SD, self.heads)
        return self._out(attend(query_SD, key_SD, value_SD, groups, self.heads, causal=True))

    def step(self, hidden_BD: Tensor, cache: KeyValueCache, layer: int, seen_B11T: Tensor | None) -> Tensor:
        """Return what one more position of each row gathers, (B, D)."""
        query_BHK, key_BHK, value_BHK = (
            part.view(len(part), self.heads, -1) for part in self.c_attn(hidden_BD).chunk(3, 1)
        )
        keys_BHTK, values_BHTK = cache.extend(layer, key_BHK, value_BHK)
        found_BH1K = functional.scaled_dot_product_attention(
            query_BHK.unsqueeze(2), keys_BHTK, values_BHTK, attn_mask=seen_B11T
        )
        return self._out(found_BH1K.reshape(hidden_BD.shape))

    def _out(self, found_SD: Tensor) -> Tensor:
        gathered_SD: Tensor = self.dropout(self.c_proj(found_SD))
        return gathered_SD


class Mlp(nn.Module):
    """The network on each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = Projection(width, 4 * width)
        self.c_proj = Projection(4 * width, width)
        self.dropout = QuickDropout(0.0)

    def forward(self, hidden_SD: Tensor) -> Tensor:
        """Return what each position makes of itself, (S, D)."""
        wide_SW = functional.gelu(self.c_fc(hidden_SD), approximate="tanh")
        thought_SD: Tensor = self.dropout(self.c_proj(wide_SW))
        return thought_SD


class GptBlock(Block):
    """Attention between positions, then a network on each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, eps=_EPSILON) for _ in range(2))
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width)

    def forward(self, hidden_SD: Tensor, place: None, groups: Groups, arrival: Arrival | None = None) -> Tensor:
        """Return the block's output, (S, D)."""
        hidden_SD = hidden_SD + self.attn(self.ln_1(hidden_SD), groups, arrival)
        thought_SD: Tensor = hidden_SD + self.mlp(self.ln_2(hidden_SD))
        return thought_SD

    def step(
        self, hidden_BD: Tensor, place: None, cache: KeyValueCache, layer: int, seen_B11T: Tensor | None
    ) -> Tensor:
        """Return the block's output for one more position of each row, (B, D)."""
        hidden_BD = hidden_BD + self.attn.step(self.ln_1(hidden_BD), cache, layer, seen_B11T)
        thought_BD: Tensor = hidden_BD + self.mlp(self.ln_2(hidden_BD))
        return thought_BD


class GptBackbone(Decoder):
    """Token and position embeddings, and blocks with norms before them."""

    prefix: ClassVar[str] = "transformer"

    def __init__(self, vocabulary: int, positions: int, config: TransformerConfig) -> None:
        super().__init__()
        layers, self.width, heads = config.shape()
        self.wte = nn.Embedding(vocabulary, self.width)
        self.wpe = nn.Embedding(positions, self.width)
        self.drop = QuickDropout(0.0)
        self.h = nn.ModuleList(GptBlock(self.width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(self.width, eps=_EPSILON)
        self.recompute = config.activation_checkpointing
        self.position_floats = 2 * layers * self.width
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=_DEVIATION)
        for name, weight in self.named_parameters():
            if name.endswith("c_proj.weight"):  # the more layers add to a position, the less each does
                nn.init.normal_(weight, std=_DEVIATION / (2 * layers) ** 0.5)

    @property
    def embedding_VD(self) -> Tensor:  # noqa: N802 - a shape
        """Return the token embeddings."""
        return self.wte.weight

    def embed(self, token_S: Tensor, position_S: Tensor) -> tuple[Tensor, None]:
        """Return the first block's input, (S, D), in which the places are already."""
        hidden_SD: Tensor = self.drop(self.wte(token_S) + self.wpe(position_S))
        return hidden_SD, None

    def blocks(self) -> nn.ModuleList:
        """Return the blocks."""
        return self.h

    def normed(self, hidden_SD: Tensor) -> Tensor:
        """Return the features of the last block's output, (S, D)."""
        normed_SD: Tensor = self.ln_f(hidden_SD)
        return normed_SD


class Gpt:
    """Transformer decoder that goes on with texts, in the layout of Hugging Face's GPT2LMHeadModel."""

    name: ClassVar[str] = "gpt"
    modality: ClassVar[str] = "text"
    causal: ClassVar[bool] = True
    Config: ClassVar[type[TransformerConfig]] = TransformerConfig

    def build(self, config: TransformerConfig, state: TextState) -> GptBackbone:
        """Return a network for texts encoded under `state`."""
        return GptBackbone(state.vocabulary, state.max_length, config)

    def defaults(self, situation: Situation) -> Defaults:
        """Return many steps for pretraining, fewer for finetuning."""
        return usual_defaults(situation)

    def foreign_config(self, config: TransformerConfig, state: TextState) -> dict[str, Any]:
        """Return the config.json of a GPT2LMHeadModel."""
        layers, width, heads = config.shape()
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": state.vocabulary,
            "n_positions": state.max_length,
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": _EPSILON,
            "initializer_range": _DEVIATION,
            "tie_word_embeddings": True,
            "bos_token_id": state.token(FIRST),
            "eos_token_id": state.token(LAST),
            "pad_token_id": state.token(PADDING),
        }
