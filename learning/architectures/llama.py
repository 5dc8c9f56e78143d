"""LLaMA (Touvron et al. 2023, arXiv 2302.13971) on packed rows: positions are turns of queries and keys, feed-forward
layers are gated, norms are root mean squares, and linear layers have no bias.

Weights are named and laid out as in Transformers' LlamaForCausalLM or, where queries and keys are normalised (Henry et
al. 2020, arXiv 2010.04245), its Qwen3ForCausalLM, which open what is saved here. S positions of all rows together,
B rows, H heads, C heads of keys and values, K width of a head, W inner width.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from learning.architectures.decoder import Block, Decoder, usual_defaults
from learning.architectures.key_value_cache import Arrival, KeyValueCache
from learning.architectures.packed_attention import Groups, attend, read_by_several
from learning.architectures.quick_dropout import QuickDropout
from learning.architectures.transformer import TransformerConfig
from learning.config import Defaults, Situation
from learning.modalities.text import TextState
from learning.modalities.tokenization import FIRST, LAST, PADDING

_DEVIATION = 0.02
_MULTIPLE = 32  # of which inner widths are, so that products are quick


class LlamaConfig(TransformerConfig):
    """Size of the network, and what its relatives do otherwise."""

    key_value_heads: int | None = Field(
        None,
        ge=1,
        le=128,
        description="Heads of keys and values, each for equally many attention heads (Ainslie et al. 2023); default: "
        "one for each.",
    )
    head_width: int | None = Field(
        None, ge=2, le=512, multiple_of=2, description="Features of a head; default: width by heads."
    )
    inner_width: int | None = Field(
        None, ge=1, le=65_536, description="Features within a feed-forward layer; default: eight thirds of the width."
    )
    query_key_norm: bool = Field(
        True, description="Normalise queries and keys before they meet, as Qwen3 does and LLaMA does not."
    )
    rotary_base: float = Field(10_000.0, gt=1, le=1e9, description="How slowly the slowest turn turns.")
    norm_epsilon: float = Field(1e-6, gt=0, le=1e-3, description="What norms add to the mean square.")

    @model_validator(mode="after")
    def _heads_share_keys(self) -> LlamaConfig:
        _, width, heads = self.shape()
        if heads % (self.key_value_heads or heads):
            raise ValueError(f"{self.key_value_heads} key_value_heads do not divide the {heads} heads")
        if self.head_width is None and width // heads % 2:
            raise ValueError(
                f"{heads} heads of {width // heads} features cannot turn; set head_width to an even number"
            )
        return self

    def sizes(self) -> Sizes:
        """Return the sizes of a layer."""
        _, width, heads = self.shape()
        inner = self.inner_width or -(-8 * width // (3 * _MULTIPLE)) * _MULTIPLE
        return Sizes(width, heads, self.key_value_heads or heads, self.head_width or width // heads, inner)


class Sizes(NamedTuple):
    """Widths and heads of a layer."""

    width: int
    heads: int
    key_value_heads: int
    head_width: int
    inner_width: int


class Turns(NamedTuple):
    """Cosines and sines by which the two halves of heads turn at each position, (S, 1, K / 2)."""

    cosine_S1L: Tensor
    sine_S1L: Tensor

    def of(self, heads_SHK: Tensor) -> Tensor:
        """Return heads turned by where they stand (Su et al. 2021, arXiv 2104.09864)."""
        first_SHL, second_SHL = heads_SHK.chunk(2, -1)
        cosine_S1L, sine_S1L = self.cosine_S1L.to(heads_SHK.dtype), self.sine_S1L.to(heads_SHK.dtype)
        return torch.cat(
            [
                torch.addcmul(first_SHL * cosine_S1L, second_SHL, sine_S1L, value=-1),
                torch.addcmul(second_SHL * cosine_S1L, first_SHL, sine_S1L),
            ],
            -1,
        )


class HeadNorm(nn.RMSNorm):
    """A norm of each head, in the arithmetic of its input: torch has no kernel for mixed ones."""

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised heads."""
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return functional.rms_norm(x, self.normalized_shape, weight, self.eps)


class Attention(nn.Module):
    """Queries, keys and values of each position; attention to those before it, and to itself."""

    def __init__(self, sizes: Sizes, config: LlamaConfig) -> None:
        super().__init__()
        self.sizes = sizes
        queries, keys = sizes.heads * sizes.head_width, sizes.key_value_heads * sizes.head_width
        self.q_proj = nn.Linear(sizes.width, queries, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(sizes.width, keys, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(queries, sizes.width, bias=False)
        self.q_norm, self.k_norm = (
            HeadNorm(sizes.head_width, config.norm_epsilon) if config.query_key_norm else nn.Identity()
            for _ in range(2)
        )
        self.dropout = QuickDropout(0.0)

    def forward(self, hidden_SD: Tensor, turns: Turns, groups: Groups, arrival: Arrival | None) -> Tensor:
        """Return what each position gathers, (S, D); an arrival takes the keys and values."""
        query_SHK, key_SCK, value_SCK = self._parts(hidden_SD, turns)
        if arrival is not None:
            arrival.fill(key_SCK.flatten(1), value_SCK.flatten(1), self.sizes.key_value_heads)
        if (shared := self.sizes.heads // self.sizes.key_value_heads) > 1:
            key_SCK, value_SCK = (part.repeat_interleave(shared, 1) for part in (key_SCK, value_SCK))
        query_SD, key_SD, value_SD = (part.flatten(1) for part in (query_SHK, key_SCK, value_SCK))
        return self._out(attend(query_SD, key_SD, value_SD, groups, self.sizes.heads, causal=True))

    def step(
        self, hidden_BD: Tensor, turns: Turns, cache: KeyValueCache, layer: int, seen_B11T: Tensor | None
    ) -> Tensor:
        """Return what one more position of each row gathers, (B, D)."""
        query_BHK, key_BCK, value_BCK = self._parts(hidden_BD, turns)
        keys_BCTK, values_BCTK = cache.extend(layer, key_BCK, value_BCK)
        found_BH1K = functional.scaled_dot_product_attention(
            query_BHK.unsqueeze(2), keys_BCTK, values_BCTK, attn_mask=seen_B11T, enable_gqa=True
        )
        return self._out(found_BH1K.flatten(1))

    def _parts(self, hidden_SD: Tensor, turns: Turns) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by head, the first two normalised and turned."""
        hidden_SD = read_by_several(hidden_SD)
        query_SHK, key_SCK, value_SCK = (
            project(hidden_SD).unflatten(1, (-1, self.sizes.head_width))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return turns.of(self.q_norm(query_SHK)), turns.of(self.k_norm(key_SCK)), value_SCK

    def _out(self, found_SD: Tensor) -> Tensor:
        gathered_SD: Tensor = self.dropout(self.o_proj(found_SD))
        return gathered_SD


class Mlp(nn.Module):
    """The gated network on each position (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner_width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner_width, width, bias=False)
        self.dropout = QuickDropout(0.0)

    def forward(self, hidden_SD: Tensor) -> Tensor:
        """Return what each position makes of itself, (S, D)."""
        hidden_SD = read_by_several(hidden_SD)
        wide_SW = functional.silu(self.gate_proj(hidden_SD)) * self.up_proj(hidden_SD)
        thought_SD: Tensor = self.dropout(self.down_proj(wide_SW))
        return thought_SD


class LlamaBlock(Block):
    """Attention between positions, then a network on each."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        sizes = config.sizes()
        self.input_layernorm, self.post_attention_layernorm = (
            nn.RMSNorm(sizes.width, config.norm_epsilon) for _ in range(2)
        )
        self.self_attn = Attention(sizes, config)
        self.mlp = Mlp(sizes.width, sizes.inner_width)

    def forward(self, hidden_SD: Tensor, place: Turns, groups: Groups, arrival: Arrival | None = None) -> Tensor:
        """Return the block's output, (S, D)."""
        hidden_SD = hidden_SD + self.self_attn(self.input_layernorm(hidden_SD), place, groups, arrival)
        return self._thought(hidden_SD)

    def step(
        self, hidden_BD: Tensor, place: Turns, cache: KeyValueCache, layer: int, seen_B11T: Tensor | None
    ) -> Tensor:
        """Return the block's output for one more position of each row, (B, D)."""
        hidden_BD = hidden_BD + self.self_attn.step(self.input_layernorm(hidden_BD), place, cache, layer, seen_B11T)
        return self._thought(hidden_BD)

    def _thought(self, hidden_SD: Tensor) -> Tensor:
        thought_SD: Tensor = hidden_SD + self.mlp(self.post_attention_layernorm(hidden_SD))
        return thought_SD


class LlamaBackbone(Decoder):
    """Token embeddings and blocks that know of positions by how queries and keys turn."""

    prefix: ClassVar[str] = "model"

    def __init__(self, vocabulary: int, config: LlamaConfig) -> None:
        super().__init__()
        layers, self.width, _ = config.shape()
        sizes = config.sizes()
        self.embed_tokens = nn.Embedding(vocabulary, self.width)
        self.dropout = QuickDropout(0.0)
        self.layers = nn.ModuleList(LlamaBlock(config) for _ in range(layers))
        self.norm = nn.RMSNorm(self.width, config.norm_epsilon)
        self.recompute = config.activation_checkpointing
        self.position_floats = 2 * layers * sizes.key_value_heads * sizes.head_width
        self._head_width, self._base = sizes.head_width, config.rotary_base
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # The more layers add to a position, the less each does.
                adds = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=_DEVIATION / (2 * layers) ** 0.5 if adds else _DEVIATION)

    @property
    def embedding_VD(self) -> Tensor:  # noqa: N802 - a shape
        """Return the token embeddings."""
        return self.embed_tokens.weight

    def embed(self, token_S: Tensor, position_S: Tensor) -> tuple[Tensor, Turns]:
        """Return the first block's input, (S, D), and by how much heads turn at each position."""
        hidden_SD: Tensor = self.dropout(self.embed_tokens(token_S))
        exponents = torch.arange(0, self._head_width, 2, device=token_S.device) / self._head_width
        angle_SL = torch.outer(position_S.float(), self._base**-exponents)
        return hidden_SD, Turns(angle_SL.cos().unsqueeze(1), angle_SL.sin().unsqueeze(1))

    def blocks(self) -> nn.ModuleList:
        """Return the blocks."""
        return self.layers

    def normed(self, hidden_SD: Tensor) -> Tensor:
        """Return the features of the last block's output, (S, D)."""
        normed_SD: Tensor = self.norm(hidden_SD)
        return normed_SD


class Llama:
    """Transformer decoder of today's language models, in the layout of Hugging Face's LlamaForCausalLM and Qwen3's."""

    name: ClassVar[str] = "llama"
    modality: ClassVar[str] = "text"
    causal: ClassVar[bool] = True
    Config: ClassVar[type[LlamaConfig]] = LlamaConfig

    def build(self, config: LlamaConfig, state: TextState) -> LlamaBackbone:
        """Return a network for texts encoded under `state`."""
        return LlamaBackbone(state.vocabulary, config)

    def defaults(self, situation: Situation) -> Defaults:
        """Return many steps for pretraining, fewer for finetuning."""
        return usual_defaults(situation)

    def foreign_config(self, config: LlamaConfig, state: TextState) -> dict[str, Any]:
        """Return the config.json of a Qwen3ForCausalLM, or a LlamaForCausalLM where queries are as they come."""
        layers, _, _ = config.shape()
        sizes = config.sizes()
        kind, name = ("qwen3", "Qwen3ForCausalLM") if config.query_key_norm else ("llama", "LlamaForCausalLM")
        return {
            "model_type": kind,
            "architectures": [name],
            "vocab_size": state.vocabulary,
            "max_position_embeddings": state.max_length,
            "hidden_size": sizes.width,
            "intermediate_size": sizes.inner_width,
            "num_hidden_layers": layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.key_value_heads,
            "head_dim": sizes.head_width,
            "hidden_act": "silu",
            "rms_norm_eps": config.norm_epsilon,
            "rope_theta": config.rotary_base,  # where versions of Transformers before 5 look
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
            "initializer_range": _DEVIATION,
            "tie_word_embeddings": True,
            "bos_token_id": state.token(FIRST),
            "eos_token_id": state.token(LAST),
            "pad_token_id": state.opened.token_to_id(PADDING),
        }
