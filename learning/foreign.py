"""A directory that Transformers saved, as a base model: config.json, model.safetensors, and what texts or images need.

Read as JSON and safetensors; no code and no pickle of a foreign directory is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from learning.architectures.bert import Bert, BertConfig
from learning.architectures.gpt import Gpt
from learning.architectures.llama import Llama, LlamaConfig
from learning.architectures.resnet import ResNet, ResNetConfig
from learning.architectures.seq2seq import Seq2Seq, Seq2SeqConfig
from learning.architectures.transformer import TransformerConfig
from learning.config import Columns, described
from learning.errors import IncompatibleModel
from learning.foreign_tokenizers import tokenizer_of
from learning.foreign_weights import check, stored
from learning.foreign_weights import read as load_stored
from learning.interfaces import Architecture
from learning.modalities.image import IMAGENET, PREPROCESSOR_FILE, Image, ImageConfig, ImageState
from learning.modalities.text import Text, TextConfig, TextState
from learning.modalities.tokenization import LAST, PADDING
from learning.model import CONFIG_FILE, WEIGHTS_FILE, Design, load
from learning.model_files import TOKENIZER_FILE, read_object
from learning.tasks.contrastive_images import ContrastiveImages
from learning.tasks.denoising import Denoising
from learning.tasks.masked_tokens import MaskedTokens
from learning.tasks.next_token_prediction import NextTokenPrediction
from learning.undrawn import undrawn

# Where BERT's head for hidden tokens is found.
HEADS = {
    "cls.predictions.transform.dense.weight": "head.dense.weight",
    "cls.predictions.transform.dense.bias": "head.dense.bias",
    "cls.predictions.transform.LayerNorm.weight": "head.norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "head.norm.bias",
    "cls.predictions.bias": "head.bias",
}
# What only relatives of BART have, or old checkpoints of it that are laid out otherwise.
_NO_OTHER_BART = {
    "tie_word_embeddings": True,
    "normalize_before": False,
    "add_final_layer_norm": False,
    "normalize_embedding": True,
    "static_position_embeddings": False,
    "extra_pos_embeddings": 2,
}
# What a checkpoint may lack, since it is then 0: one of BART without a head for writing has none.
_MAY_BE_ZERO = ("final_logits_bias",)
_SHOWN = 5
_MOST_POSITIONS = 8_192  # the most that texts may have here; rotary positions are no weights


class Foreign(NamedTuple):
    """A model that was read: its weights are the backbone's, and the head's if all of those are there."""

    design: Design
    weights: dict[str, Tensor]
    remarks: list[str]
    width: int  # of the backbone


def load_base(directory: Path) -> tuple[Design, dict[str, Tensor]]:
    """Return a base model's design and weights, ours or Transformers'; IncompatibleModel when it is neither."""
    try:
        config = json.loads((directory / CONFIG_FILE).read_text())
        if "format_version" in config or "model_type" not in config:
            return load(directory)
        return read(directory, config)[:2]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise IncompatibleModel(
            f"No model can be read here: {error}",
            hint=f"A Transformers model needs {CONFIG_FILE} and {WEIGHTS_FILE}, and one on texts {TOKENIZER_FILE}.",
            param="base_model",
        ) from None


def read(directory: Path, config: dict[str, Any]) -> Foreign:
    """Return the model that Transformers saved with this config.json; IncompatibleModel says what does not fit."""
    if config["model_type"] not in _DESIGNS:
        raise IncompatibleModel(
            f'A Transformers model of the type "{str(config["model_type"])[:80]}" cannot be a base model.',
            hint=f"Types: {', '.join(_DESIGNS)}.",
            param="base_model",
        )
    design = _DESIGNS[config["model_type"]](config, directory)
    with undrawn():  # shapes alone: what a config.json asks for may be larger than any memory
        network = design.build()
    prefix = f"{network.backbone.prefix}."
    found = stored(directory, lambda name: _today(name, prefix))
    whole = network.state_dict()
    of_backbone = {name: tensor for name, tensor in whole.items() if name.startswith(prefix)}
    of_head = {name: tensor for name, tensor in whole.items() if name not in of_backbone}
    zero = {name: tensor for name, tensor in of_backbone.items() if name.endswith(_MAY_BE_ZERO) and name not in found}
    check(found, {name: tensor for name, tensor in of_backbone.items() if name not in zero})
    wanted, remarks = [name for name in of_backbone if name not in zero], list[str]()
    if of_head and all(name in found and found[name].shape == tensor.shape for name, tensor in of_head.items()):
        wanted += of_head
    elif of_head:
        remarks.append(
            f"The weights have no head for {design.task.name}: it begins afresh; only further pretraining notices."
        )
    unused = sorted(found[name].name for name in found.keys() - set(wanted))
    if unused:
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        remarks.append(f"Not part of a base model, and left out: {', '.join(unused[:_SHOWN])}{more}.")
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in zero.items()}
    return Foreign(design, {**load_stored(found, wanted), **zeros}, remarks, network.backbone.width)


def _today(name: str, prefix: str) -> str:
    """Return what a weight is called here: with the backbone's prefix, and as it is today in the oldest checkpoints."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return HEADS.get(name) or (name if name.startswith(prefix) else f"{prefix}{name}")


def _check_fixed(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise IncompatibleModel(
                f"The model has {name} {config[name]!r}; only {value!r} is known here.", param="base_model"
            )


def _bert(config: dict[str, Any], directory: Path) -> Design:
    width = config["hidden_size"]
    _check_fixed(
        config,
        {
            "hidden_act": "gelu",
            "intermediate_size": 4 * width,
            "layer_norm_eps": 1e-12,
            "type_vocab_size": 2,
            "position_embedding_type": "absolute",
            "is_decoder": False,
        },
    )
    architecture_config = BertConfig(
        layers=config["num_hidden_layers"],
        width=width,
        heads=config["num_attention_heads"],
        norm="post" if config["model_type"] == "bert" else "pre",
    )
    longest = config["max_position_embeddings"]
    inputs = _text_inputs(directory, longest, config["vocab_size"])
    task = MaskedTokens()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    preprocessing = TextConfig(max_length=longest)
    return Design(task, Bert(), Text(), preprocessing, architecture_config, inputs, targets)


def _gpt(config: dict[str, Any], directory: Path) -> Design:
    width = config["n_embd"]
    _check_fixed(
        config,
        {
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
            "tie_word_embeddings": True,
        },
    )
    if config.get("n_inner") not in (None, 4 * width):
        _check_fixed(config, {"n_inner": 4 * width})
    architecture_config = TransformerConfig(layers=config["n_layer"], width=width, heads=config["n_head"])
    inputs = _text_inputs(directory, config["n_positions"], config["vocab_size"])
    return _decoder(Gpt(), architecture_config, inputs)


def _decoder(architecture: Architecture, architecture_config: BaseModel, inputs: TextState) -> Design:
    task = NextTokenPrediction()
    targets = task.fit(pa.table({}), Columns(), task.Config(rows="documents"), inputs)
    preprocessing = TextConfig(max_length=inputs.max_length, tokenizer="bytes", lower_case=False, exact=True)
    return Design(task, architecture, Text(), preprocessing, architecture_config, inputs, targets)


# What is not written by Transformers where it is as usual.
_USUAL_DECODER = {"num_key_value_heads": None, "head_dim": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
_USUAL_QWEN3 = {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768}
_USUAL_LLAMA = {"max_position_embeddings": 2_048}


def _llama(config: dict[str, Any], directory: Path) -> Design:
    is_qwen3 = config["model_type"] == "qwen3"
    config = {**_USUAL_DECODER, **(_USUAL_QWEN3 if is_qwen3 else _USUAL_LLAMA), **config}
    rotary = config.get("rope_parameters") or {}
    if rotary.get("rope_type", "default") != "default" or config.get("rope_scaling") is not None:
        name = "rope_parameters" if config.get("rope_scaling") is None else "rope_scaling"
        raise IncompatibleModel(
            f"The model has {name} {config[name]!r}; only rotary positions as they are, unscaled, are known here.",
            param="base_model",
        )
    _check_fixed(
        config,
        {
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
        },
    )
    longest = min(config["max_position_embeddings"], _MOST_POSITIONS)
    architecture_config = LlamaConfig(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        key_value_heads=config["num_key_value_heads"],
        head_width=config["head_dim"],
        inner_width=config["intermediate_size"],
        query_key_norm=is_qwen3,
        rotary_base=rotary.get("rope_theta") or config.get("rope_theta", 10_000.0),
        norm_epsilon=config["rms_norm_eps"],
    )
    return _decoder(Llama(), architecture_config, _text_inputs(directory, longest, config["vocab_size"]))


def _seq2seq(config: dict[str, Any], directory: Path) -> Design:
    layout = config["model_type"]
    width, heads, layers = config["d_model"], config["encoder_attention_heads"], config["encoder_layers"]
    longest = config["max_position_embeddings"]
    inputs = _text_inputs(directory, longest, config["vocab_size"])
    activations = ("gelu", "relu", "swish")
    if config["activation_function"] not in activations:
        _check_fixed(config, {"activation_function": activations[0]})
    _check_fixed(
        config,
        {
            "encoder_ffn_dim": 4 * width,
            "decoder_ffn_dim": 4 * width,
            "decoder_attention_heads": heads,
            **(
                {"share_encoder_decoder_embeddings": True, "decoder_start_token_id": inputs.token(PADDING)}
                if layout == "marian"
                else {**_NO_OTHER_BART, "decoder_start_token_id": inputs.token(LAST)}
            ),
        },
    )
    architecture_config = Seq2SeqConfig(
        layers=layers,
        decoder_layers=None if config["decoder_layers"] == layers else config["decoder_layers"],
        width=width,
        heads=heads,
        activation=config["activation_function"],
        scale_embedding=config.get("scale_embedding", False),
        layout=layout,
    )
    task = Denoising()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    preprocessing = TextConfig(max_length=longest, tokenizer="bytes", lower_case=False, exact=True)
    return Design(task, Seq2Seq(), Text(), preprocessing, architecture_config, inputs, targets)


def _text_inputs(directory: Path, longest: int, vocabulary: int) -> TextState:
    inputs = TextState(column="text", tokenizer=tokenizer_of(directory), max_length=longest)
    highest = max(inputs.opened.get_vocab().values(), default=0)
    if inputs.vocabulary != vocabulary or highest >= vocabulary:
        raise IncompatibleModel(
            f"The tokenizer has {inputs.vocabulary} tokens, numbered up to {highest}; the network knows {vocabulary}.",
            hint="The tokenizer must be the model's own; a network with more rows than tokens is not read.",
            param="base_model",
        )
    return inputs


def _resnet(config: dict[str, Any], directory: Path) -> Design:
    widths, is_basic = tuple(config["hidden_sizes"]), config.get("layer_type") == "basic"
    architecture_config = ResNetConfig(
        size="18" if is_basic else "50", stem="7x7/4", depths=tuple(config["depths"]), widths=widths
    )
    _check_fixed(
        config,
        {
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "embedding_size": widths[0] if is_basic else 64,
        },
    )
    mean, deviation, side = _preprocessing(directory)
    try:
        preprocessing = ImageConfig(size=side, fit="crop", normalization="imagenet")
        inputs = ImageState(
            column="image", size=side, fit="crop", background=255, channels=config["num_channels"],
            mean=mean, deviation=deviation,
        )  # fmt: skip
    except ValidationError as error:
        raise IncompatibleModel(
            f"{PREPROCESSOR_FILE}, or what is usual where it says nothing, and num_channels of {CONFIG_FILE} do not "
            f"fit: {described(error)}",
            param="base_model",
        ) from None
    task = ContrastiveImages()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    return Design(task, ResNet(), Image(), preprocessing, architecture_config, inputs, targets)


def _preprocessing(directory: Path) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return mean, deviation and side of the images that a model learned from; what is not said is as in ImageNet."""
    path = directory / PREPROCESSOR_FILE
    said = read_object(path) if path.exists() else {}
    try:
        size = said.get("crop_size") or said.get("size") or {}
        side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 224
        mean, deviation = (
            tuple(said.get(name, usual)) for name, usual in zip(("image_mean", "image_std"), IMAGENET, strict=True)
        )
        return mean, deviation, int(side)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IncompatibleModel(f"{PREPROCESSOR_FILE} is not understood: {error}.", param="base_model") from None


_DESIGNS: dict[str, Callable[[dict[str, Any], Path], Design]] = {
    "bart": _seq2seq,
    "bert": _bert,
    "gpt2": _gpt,
    "llama": _llama,
    "marian": _seq2seq,
    "megatron-bert": _bert,
    "qwen3": _llama,
    "resnet": _resnet,
}
