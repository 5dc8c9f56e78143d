"""BERT (Devlin et al. 2019, arXiv 1810.04805) on packed rows: nothing is computed for padding, since there is none.

Weights are named and laid out as in Transformers' BertModel or, with the norm before each block (Shoeybi et al. 2019,
arXiv 1909.08053), its MegatronBertModel, which open what is saved here. S positions of all rows together, G rows of one
length, T that length, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from learning.architectures.packed_attention import Groups, attend, read_by_several
from learning.architectures.quick_dropout import QuickDropout
from learning.architectures.transformer import TransformerConfig, read_by_length
from learning.config import Defaults, Situation
from learning.interfaces import Batch, PackedFeatures, TokenBackbone
from learning.modalities.text import TextState

_DEVIATION, _EPSILON = 0.02, 1e-12


class BertConfig(TransformerConfig):
    """Size and order of the layers."""

    norm: Literal["post", "pre"] = Field(
        "post",
        description="Normalise after each block, as BERT does, or before it, as Megatron-LM's does.",
    )


class Embeddings(nn.Module):
    """Token, position and (always the first) segment embeddings, summed, and normalised if nothing behind does that."""

    def __init__(self, vocabulary: int, positions: int, width: int, norm_first: bool) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.Identity() if norm_first else _norm(width)
        self.dropout = QuickDropout(0.0)

    def forward(self, token_S: Tensor, position_S: Tensor) -> Tensor:
        """Return the embedded tokens, (S, D)."""
        words_SD = self.word_embeddings(token_S)
        places_SD = functional.embedding(
            position_S, self.position_embeddings.weight + self.token_type_embeddings.weight[0]
        )
        embedded_SD: Tensor = self.dropout(self.LayerNorm(words_SD + places_SD))
        return embedded_SD


class SelfAttention(nn.Module):
    """Queries, keys and values of each position; attention within each row."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.heads = heads

    def forward(self, hidden_SD: Tensor, groups: Groups) -> Tensor:
        """Return what each position gathers, (S, D)."""
        hidden_SD = read_by_several(hidden_SD)
        return attend(self.query(hidden_SD), self.key(hidden_SD), self.value(hidden_SD), groups, self.heads)


class Output(nn.Module):
    """The linear layer that ends a block, its dropout, and its norm unless that comes first."""

    def __init__(self, inputs: int, width: int, norm_first: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.Identity() if norm_first else _norm(width)
        self.dropout = QuickDropout(0.0)


class Attention(nn.Module):
    """A block of attention."""

    def __init__(self, width: int, heads: int, norm_first: bool) -> None:
        super().__init__()
        self.self = SelfAttention(width, heads)
        self.ln = _norm(width) if norm_first else nn.Identity()
        self.output = Output(width, width, norm_first)


class Intermediate(nn.Module):
    """The wide layer of a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 4 * width)


class Layer(nn.Module):
    """Attention between positions, then a network on each."""

    def __init__(self, width: int, heads: int, norm_first: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, norm_first)
        self.intermediate = Intermediate(width)
        self.ln = _norm(width) if norm_first else nn.Identity()
        self.output = Output(4 * width, width, norm_first)

    def forward(self, hidden_SD: Tensor, groups: Groups) -> Tensor:
        """Return the layer's output, (S, D). Of the norms of a block, the one before or the one behind is none."""
        block = self.attention
        hidden_SD = block.output.LayerNorm(hidden_SD + self._gather(block.ln(hidden_SD), groups))
        thought_SD: Tensor = self.output.LayerNorm(hidden_SD + self._think(self.ln(hidden_SD)))
        return thought_SD

    def _gather(self, hidden_SD: Tensor, groups: Groups) -> Tensor:
        block = self.attention.output
        gathered_SD: Tensor = block.dropout(block.dense(self.attention.self(hidden_SD, groups)))
        return gathered_SD

    def _think(self, hidden_SD: Tensor) -> Tensor:
        wide_SW = functional.gelu(self.intermediate.dense(hidden_SD))
        thought_SD: Tensor = self.output.dropout(self.output.dense(wide_SW))
        return thought_SD


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        layers, width, heads = config.shape()
        norm_first = config.norm == "pre"
        self.layer = nn.ModuleList(Layer(width, heads, norm_first) for _ in range(layers))
        self.ln = _norm(width) if norm_first else nn.Identity()
        self.recompute = config.activation_checkpointing

    def forward(self, hidden_SD: Tensor, groups: Groups) -> Tensor:
        """Return the last layer's output, (S, D)."""
        for layer in self.layer:
            if self.recompute and self.training:
                hidden_SD = checkpoint(layer, hidden_SD, groups, use_reentrant=False)
            else:
                hidden_SD = layer(hidden_SD, groups)
        normed_SD: Tensor = self.ln(hidden_SD)
        return normed_SD


class BertBackbone(TokenBackbone):
    """Embeddings and encoder; features of every token."""

    prefix: ClassVar[str] = "bert"

    def __init__(self, vocabulary: int, positions: int, config: BertConfig) -> None:
        super().__init__()
        _, self.width, _ = config.shape()
        self.embeddings = Embeddings(vocabulary, positions, self.width, config.norm == "pre")
        self.encoder = Encoder(config)
        self.apply(_initialise)

    @property
    def embedding_VD(self) -> Tensor:  # noqa: N802 - a shape
        """Return the token embeddings."""
        return self.embeddings.word_embeddings.weight

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_SD of token_S in the order of the rows."""
        return read_by_length(batch, self._read)

    def _read(self, token_S: Tensor, position_S: Tensor, groups: Groups) -> Tensor:
        encoded_SD: Tensor = self.encoder(self.embeddings(token_S, position_S), groups)
        return encoded_SD


class Bert:
    """Transformer encoder that reads whole texts at once, in the layout of Hugging Face's BertModel."""

    name: ClassVar[str] = "bert"
    modality: ClassVar[str] = "text"
    Config: ClassVar[type[BertConfig]] = BertConfig

    def build(self, config: BertConfig, state: TextState) -> BertBackbone:
        """Return a network for texts encoded under `state`."""
        return BertBackbone(state.vocabulary, state.max_length, config)

    def defaults(self, situation: Situation) -> Defaults:
        """Return many steps for pretraining, and enough for a fresh head when finetuning."""
        if situation.kind == "pretrain":
            return Defaults(64 if situation.rows >= 2_000 else 32, 1e-3, 0.1, 2_000, 3, 400)
        return Defaults(32 if situation.rows >= 200 else 16, 5e-4, 0.1, 500, 5, 100)

    def foreign_config(self, config: BertConfig, state: TextState) -> dict[str, Any]:
        """Return the config.json of a BertModel, or of a MegatronBertModel where the norm comes first."""
        layers, width, heads = config.shape()
        kind, name = ("bert", "BertModel") if config.norm == "post" else ("megatron-bert", "MegatronBertModel")
        return {
            "model_type": kind,
            "architectures": [name],
            "vocab_size": state.vocabulary,
            "max_position_embeddings": state.max_length,
            "type_vocab_size": 2,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "hidden_act": "gelu",
            "layer_norm_eps": _EPSILON,
            "initializer_range": _DEVIATION,
            "pad_token_id": 0,
        }


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=_EPSILON)


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), as BERT does; torch's own are too large for embeddings that are outputs too."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_DEVIATION)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
