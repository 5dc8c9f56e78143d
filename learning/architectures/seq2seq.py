"""The transformer of Vaswani et al. 2017 (arXiv 1706.03762) on packed pairs: it reads a text whole and writes another.

Weights are named and laid out as in Transformers' MarianMTModel, or BartForConditionalGeneration, which opens what is
saved here. S positions of all sources together, U of all targets, B rows, H heads, K width of a head, W four times the
width D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from learning.architectures.key_value_cache import Arrival, PairMemory
from learning.architectures.packed_attention import Groups, attend, read_by_several
from learning.architectures.packed_pairs import Crossing, Side, attend_across
from learning.architectures.quick_dropout import QuickDropout
from learning.architectures.transformer import TransformerConfig, read_by_length
from learning.config import Defaults, Situation
from learning.interfaces import Batch, EncoderDecoder, PackedFeatures
from learning.modalities.text import TextState
from learning.modalities.tokenization import FIRST, LAST, PADDING
from learning.product_rows import spare_rows

_LONGEST_WAVE = 10_000.0
_NO_POSITIONS = 2  # rows of BART's table of positions that are never used, at its beginning
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "swish": functional.silu,
}
# What is written first, before any token of a text.
_STARTS = {"marian": PADDING, "bart": LAST}
_THEIRS: dict[str, dict[str, Any]] = {
    "marian": {"model_type": "marian", "architectures": ["MarianMTModel"]},
    "bart": {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
}


class Seq2SeqConfig(TransformerConfig):
    """Size of the network: of its encoder and its decoder each."""

    decoder_layers: int | None = Field(None, ge=1, le=96, description="Layers that write, if not as many as read.")
    activation: Literal["gelu", "relu", "swish"] = Field(
        "gelu", description="Non-linearity of the network on each position."
    )
    scale_embedding: bool = Field(
        True, description="Multiply embeddings by the root of the width before positions are added."
    )
    layout: Literal["marian", "bart"] = Field(
        "marian",
        description="How places become numbers: by waves, as in Marian; or by embeddings that are learned, with a norm "
        "behind them, as in BART.",
    )


class Attention(nn.Module):
    """Queries of some positions, keys and values of the same or of others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, hidden_SD: Tensor, groups: Groups, arrival: Arrival | None, *, causal: bool) -> Tensor:
        """Return what each position gathers from its row, (S, D); an arrival takes the keys and values."""
        hidden_SD = read_by_several(hidden_SD)
        key_SD, value_SD = self._known(hidden_SD, arrival)
        gathered_SD: Tensor = self.out_proj(
            attend(self.q_proj(hidden_SD), key_SD, value_SD, groups, self.heads, causal=causal)
        )
        return gathered_SD

    def across(self, hidden_UD: Tensor, read_SD: Tensor, crossing: Crossing, arrival: Arrival | None) -> Tensor:
        """Return what each position gathers from what was read, (U, D)."""
        key_SD, value_SD = self._known(read_SD, arrival)
        gathered_UD: Tensor = self.out_proj(
            attend_across(self.q_proj(hidden_UD), key_SD, value_SD, crossing, self.heads)
        )
        return gathered_UD

    def step(self, hidden_BD: Tensor, memory: PairMemory, layer: int, seen_B11T: Tensor | None) -> Tensor:
        """Return what one more position of each row gathers from those before it, (B, D)."""
        key_BHK, value_BHK = (part.view(len(part), self.heads, -1) for part in self._known(hidden_BD, None))
        return self._found(hidden_BD, *memory.written.extend(layer, key_BHK, value_BHK), seen_B11T)

    def step_across(self, hidden_BD: Tensor, memory: PairMemory, layer: int, filled_B11T: Tensor | None) -> Tensor:
        """Return what one more position of each row gathers from what was read, (B, D)."""
        return self._found(hidden_BD, *memory.read.all_of(layer), filled_B11T)

    def _known(self, hidden_SD: Tensor, arrival: Arrival | None) -> tuple[Tensor, Tensor]:
        hidden_SD = read_by_several(hidden_SD)
        key_SD, value_SD = self.k_proj(hidden_SD), self.v_proj(hidden_SD)
        if arrival is not None:
            arrival.fill(key_SD, value_SD, self.heads)
        return key_SD, value_SD

    def _found(self, hidden_BD: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, mask_B11T: Tensor | None) -> Tensor:
        query_BH1K = self.q_proj(hidden_BD).view(len(hidden_BD), self.heads, 1, -1).to(key_BHTK.dtype)
        found_BH1K = functional.scaled_dot_product_attention(query_BH1K, key_BHTK, value_BHTK, attn_mask=mask_B11T)
        gathered_BD: Tensor = self.out_proj(found_BH1K.reshape(hidden_BD.shape))
        return gathered_BD


class Layer(nn.Module):
    """What layers that read and layers that write have in common: attention to the own text, and what each makes of it.

    The norm comes behind each block.
    """

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = QuickDropout(0.0)
        self._activation = _ACTIVATIONS[activation]

    def _attended(self, hidden_SD: Tensor, found_SD: Tensor) -> Tensor:
        attended_SD: Tensor = self.self_attn_layer_norm(hidden_SD + self.dropout(found_SD))
        return attended_SD

    def _thought(self, hidden_SD: Tensor) -> Tensor:
        wide_SW = self._activation(self.fc1(hidden_SD))
        thought_SD: Tensor = self.final_layer_norm(hidden_SD + self.dropout(self.fc2(wide_SW)))
        return thought_SD


class EncoderLayer(Layer):
    """Attention between all positions of a source, then a network on each."""

    def forward(self, hidden_SD: Tensor, groups: Groups) -> Tensor:
        """Return the layer's output, (S, D)."""
        return self._thought(self._attended(hidden_SD, self.self_attn(hidden_SD, groups, None, causal=False)))


class DecoderLayer(Layer):
    """Attention to the positions before, then to the source, then a network on each."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__(width, heads, activation)
        self.encoder_attn = Attention(width, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        hidden_UD: Tensor,
        groups: Groups,
        read_SD: Tensor,
        crossing: Crossing,
        arrivals: tuple[Arrival, Arrival] | None = None,
    ) -> Tensor:
        """Return the layer's output, (U, D); arrivals take keys and values of targets and of sources."""
        written, read = arrivals or (None, None)
        hidden_UD = self._attended(hidden_UD, self.self_attn(hidden_UD, groups, written, causal=True))
        return self._thought(self._crossed(hidden_UD, self.encoder_attn.across(hidden_UD, read_SD, crossing, read)))

    def step(self, hidden_BD: Tensor, memory: PairMemory, layer: int, masks: tuple[Tensor | None, ...]) -> Tensor:
        """Return the layer's output for one more position of each row, (B, D)."""
        seen_B11T, filled_B11T = masks
        hidden_BD = self._attended(hidden_BD, self.self_attn.step(hidden_BD, memory, layer, seen_B11T))
        found_BD = self.encoder_attn.step_across(hidden_BD, memory, layer, filled_B11T)
        return self._thought(self._crossed(hidden_BD, found_BD))

    def _crossed(self, hidden_UD: Tensor, found_UD: Tensor) -> Tensor:
        crossed_UD: Tensor = self.encoder_attn_layer_norm(hidden_UD + self.dropout(found_UD))
        return crossed_UD


class Layers(nn.Module):
    """Layers, one after the other; in BART's layout also what its side knows of positions, `learned` many."""

    def __init__(self, layers: list[Layer], width: int, learned: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.embed_positions = None if learned is None else nn.Embedding(learned + _NO_POSITIONS, width)
        self.layernorm_embedding = None if learned is None else nn.LayerNorm(width)
        if self.embed_positions is not None:
            nn.init.normal_(self.embed_positions.weight, std=0.02)

    def placed(self, embedded_SD: Tensor, position_S: Tensor, waves_TD: Tensor) -> Tensor:
        """Return embeddings of tokens with that of their positions added, (S, D)."""
        if self.embed_positions is None or self.layernorm_embedding is None:
            return embedded_SD + waves_TD[position_S]
        placed_SD: Tensor = self.layernorm_embedding(embedded_SD + self.embed_positions(position_S + _NO_POSITIONS))
        return placed_SD


class Seq2SeqBackbone(EncoderDecoder):
    """One table of embeddings, an encoder and a decoder; features of each token of a target that is to come."""

    prefix: ClassVar[str] = "model"
    waves_TD: Tensor

    def __init__(self, vocabulary: int, positions: int, start: int, config: Seq2SeqConfig) -> None:
        super().__init__()
        layers, self.width, heads = config.shape()
        shape = (self.width, heads, config.activation)
        learned = (self.width, positions if config.layout == "bart" else None)
        self.shared = nn.Embedding(vocabulary, self.width)
        self.encoder = Layers([EncoderLayer(*shape) for _ in range(layers)], *learned)
        self.decoder = Layers([DecoderLayer(*shape) for _ in range(config.decoder_layers or layers)], *learned)
        self.final_logits_bias = nn.Parameter(torch.zeros(1, vocabulary))
        self.dropout = QuickDropout(0.0)
        self.start = start
        self._scale = math.sqrt(self.width) if config.scale_embedding else 1.0
        self._recompute = config.activation_checkpointing
        self.register_buffer("waves_TD", _waves(positions, self.width), persistent=False)
        nn.init.normal_(self.shared.weight, std=self.width**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def embedding_VD(self) -> Tensor:  # noqa: N802 - a shape
        """Return the token embeddings."""
        return self.shared.weight

    @property
    def bias_V(self) -> Tensor:  # noqa: N802 - a shape
        """Return what is added to each token's score."""
        return self.final_logits_bias[0]

    def forward(self, batch: Batch) -> PackedFeatures:
        """Return features_UD of the targets of pairs, in the order of the rows; of sources alone, those of these."""
        if "source_length_B" not in batch:
            return read_by_length(batch, self._encode)
        token_S, length_B, source_length_B = _with_spare_pair(batch)
        target_length_B, start_B = length_B - source_length_B, length_B.cumsum(0) - length_B
        source = Side.of(source_length_B, start_B, token_S.device)
        target = Side.of(target_length_B, start_B + source_length_B, token_S.device)
        read_SD = self._encode(token_S[source.index_S], self._place(source), source.groups)
        crossing = Crossing.of(source_length_B, target_length_B).to(token_S.device)
        token_U = token_S[target.index_S].masked_fill(target.position_S == 0, self.start)
        written_UD = self._embed(token_U, self._place(target), self.decoder)
        written_UD = self._decode(written_UD, target.groups, read_SD, crossing)
        target_length_B = target_length_B[: len(batch["length_B"])]
        return PackedFeatures(target.in_order(written_UD)[: int(target_length_B.sum())], target_length_B)

    @property
    def position_bytes(self) -> int:
        """Return the memory of a position's keys and values, in fp32."""
        return 2 * len(self.decoder.layers) * self.width * 4

    def remember(self) -> PairMemory:
        """Return a memory with no text in it."""
        return PairMemory(self.shared.weight.device)

    def begin(self, rows: list[list[int]], cache: PairMemory) -> Tensor:
        """Read sources, at least one token each, behind those in the memory; return the features of the first tokens to
        be written, (B, D).
        """
        device = self.shared.weight.device
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        lengths = [len(row) for row in rows]
        length_B, one_B = torch.tensor([lengths[row] for row in order]), torch.ones(len(rows), dtype=torch.long)
        token_S = torch.tensor(list(chain.from_iterable(rows[row] for row in order)), device=device)
        groups, ones = Groups.of(length_B), Groups.of(one_B)
        read_SD = self._encode(token_S, groups.positions().to(device), groups)
        arrivals = cache.arrive(lengths, order)
        start_B = torch.full((len(rows),), self.start, device=device)
        crossing = Crossing.of(length_B, one_B).to(device)
        written_BD = self._embed(start_B, torch.zeros_like(start_B), self.decoder)
        written_BD = self._decode(written_BD, ones, read_SD, crossing, arrivals)
        return written_BD[torch.tensor(order, device=device).argsort()]

    def step(self, token_B: Tensor, cache: PairMemory) -> Tensor:
        """Write one more token of each text; return the features of the next ones, (B, D)."""
        written = cache.written
        written.make_place()
        hidden_BD = self._embed(token_B, written.length_B, self.decoder)
        masks = (written.seen(), cache.read.filled())
        for number, layer in enumerate(self.decoder.layers):
            hidden_BD = cast("DecoderLayer", layer).step(hidden_BD, cache, number, masks)
        written.set_lengths([length + 1 for length in written.lengths])
        return hidden_BD

    def _embed(self, token_S: Tensor, position_S: Tensor, side: Layers) -> Tensor:
        placed_SD = side.placed(self.shared(token_S) * self._scale, position_S, self.waves_TD)
        embedded_SD: Tensor = self.dropout(placed_SD)
        return embedded_SD

    def _place(self, side: Side) -> Tensor:
        """Return where positions stand in their rows; the spare pair may be longer than a row can be."""
        return side.position_S.clamp_max(len(self.waves_TD) - 1)

    def _encode(self, token_S: Tensor, position_S: Tensor, groups: Groups) -> Tensor:
        hidden_SD = self._embed(token_S, position_S, self.encoder)
        for layer in self.encoder.layers:
            hidden_SD = self._through(layer, hidden_SD, groups)
        return hidden_SD

    def _decode(
        self,
        hidden_UD: Tensor,
        groups: Groups,
        read_SD: Tensor,
        crossing: Crossing,
        arrivals: tuple[Arrival, Arrival] | None = None,
    ) -> Tensor:
        for layer in self.decoder.layers:
            hidden_UD = self._through(layer, hidden_UD, groups, read_SD, crossing, arrivals)
        return hidden_UD

    def _through(self, layer: nn.Module, *inputs: Any) -> Tensor:
        is_twice = self._recompute and self.training
        found_SD: Tensor = checkpoint(layer, *inputs, use_reentrant=False) if is_twice else layer(*inputs)
        return found_SD


def _with_spare_pair(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens and lengths of pairs and of their sources, with one pair more if spare rows are of use to either
    side.
    """
    token_S, length_B, source_length_B = batch["token_S"], batch["length_B"], batch["source_length_B"].cpu()
    sources = int(source_length_B.sum())
    counts = (sources, len(token_S) - sources)
    if not any(spare_rows(count, token_S.device) for count in counts):
        return token_S, length_B, source_length_B
    read, written = (spare_rows(count, token_S.device, least=1) for count in counts)
    token_S = functional.pad(token_S, (0, read + written))
    length_B = functional.pad(length_B, (0, 1), value=read + written)
    return token_S, length_B, functional.pad(source_length_B, (0, 1), value=read)


class Seq2Seq:
    """Transformer that reads one text and writes another, as Hugging Face's MarianMTModel or BART lays it out."""

    name: ClassVar[str] = "seq2seq"
    modality: ClassVar[str] = "text"
    writes_another: ClassVar[bool] = True
    foreign_names: ClassVar[Mapping[str, str]] = {"model.final_logits_bias": "final_logits_bias"}
    Config: ClassVar[type[Seq2SeqConfig]] = Seq2SeqConfig

    def build(self, config: Seq2SeqConfig, state: TextState) -> Seq2SeqBackbone:
        """Return a network for texts encoded under `state`."""
        return Seq2SeqBackbone(state.vocabulary, state.max_length, state.token(_STARTS[config.layout]), config)

    def defaults(self, situation: Situation) -> Defaults:
        """Return many steps, since whole texts are to be written."""
        if situation.kind == "pretrain":
            return Defaults(64 if situation.rows >= 2_000 else 16, 1e-3, 0.1, 2_000, 3, 100)
        return Defaults(64 if situation.rows >= 2_000 else 16, 1e-3, 0.1, 2_000, 10, 100)

    def foreign_config(self, config: Seq2SeqConfig, state: TextState) -> dict[str, Any]:
        """Return the config.json of a MarianMTModel, or of a BartForConditionalGeneration."""
        layers, width, heads = config.shape()
        sides = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
        decoder = {**sides, "layers": config.decoder_layers or layers}
        return {
            **_THEIRS[config.layout],
            "vocab_size": state.vocabulary,
            "decoder_vocab_size": state.vocabulary,
            "max_position_embeddings": state.max_length,
            "d_model": width,
            **{f"encoder_{name}": value for name, value in sides.items()},
            **{f"decoder_{name}": value for name, value in decoder.items()},
            "activation_function": config.activation,
            "scale_embedding": config.scale_embedding,
            "share_encoder_decoder_embeddings": True,
            "tie_word_embeddings": True,
            "is_encoder_decoder": True,
            "pad_token_id": state.token(PADDING),
            "decoder_start_token_id": state.token(_STARTS[config.layout]),
            **({"bos_token_id": state.token(FIRST)} if config.layout == "bart" else {}),
            "eos_token_id": state.token(LAST),
            "forced_eos_token_id": None,
        }


def _waves(positions: int, width: int) -> Tensor:
    """Return sines of each position in the first half of the features, cosines in the second, (T, D)."""
    frequency_K = _LONGEST_WAVE ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    angle_TK = torch.arange(positions, dtype=torch.float64).unsqueeze(1) * frequency_K
    return torch.cat([angle_TK.sin(), angle_TK.cos()], 1).float()
