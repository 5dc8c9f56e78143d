"""A directory that Transformers saved, as a base model: config.json, model.safetensors, and what texts or images need.

Read as JSON and safetensors; no code and no pickle of a foreign directory is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from learning.architectures.bert import Bert, BertConfig
from learning.architectures.gpt import Gpt
from learning.architectures.resnet import ResNet, ResNetConfig
from learning.architectures.seq2seq import Seq2Seq, Seq2SeqConfig
from learning.architectures.transformer import TransformerConfig
from learning.config import Columns
from learning.errors import IncompatibleModel
from learning.modalities.image import IMAGENET, Image, ImageConfig, ImageState
from learning.modalities.text import Text, TextConfig, TextState
from learning.modalities.tokenization import PADDING
from learning.model import CONFIG_FILE, WEIGHTS_FILE, Design, load
from learning.tasks.contrastive_images import ContrastiveImages
from learning.tasks.denoising import Denoising
from learning.tasks.masked_tokens import MaskedTokens
from learning.tasks.next_token_prediction import NextTokenPrediction

TOKENIZER_FILE, PREPROCESSOR_FILE = "tokenizer.json", "preprocessor_config.json"


def load_base(directory: Path) -> tuple[Design, dict[str, Tensor]]:
    """Return a base model's design and weights, ours or Transformers'; IncompatibleModel when it is neither."""
    try:
        config = json.loads((directory / CONFIG_FILE).read_text())
        if "format_version" in config or "model_type" not in config:
            return load(directory)
        return _read(directory, config)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise IncompatibleModel(
            f"No model can be read here: {error}",
            hint=f"A Transformers model needs {CONFIG_FILE} and {WEIGHTS_FILE}, and one on texts {TOKENIZER_FILE}.",
            param="base_model",
        ) from None


def _read(directory: Path, config: dict[str, Any]) -> tuple[Design, dict[str, Tensor]]:
    if config["model_type"] not in _DESIGNS:
        raise IncompatibleModel(
            f'A Transformers model of the type "{config["model_type"]}" cannot be a base model.',
            hint=f"Types: {', '.join(_DESIGNS)}.",
            param="base_model",
        )
    design = _DESIGNS[config["model_type"]](config, directory)
    backbone = design.architecture.build(design.architecture_config, design.inputs)
    prefix = f"{backbone.prefix}."
    given = {_today(name.removeprefix(prefix)): tensor for name, tensor in load_file(directory / WEIGHTS_FILE).items()}
    # The rest is another task's head, or the pooler; what is missing or of another shape, loading will name.
    known = backbone.state_dict()
    return design, {f"{prefix}{name}": tensor.float() for name, tensor in given.items() if name in known}


def _today(name: str) -> str:
    """Return a weight's name as it is today: the oldest checkpoints call those of the norm otherwise."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _check_fixed(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise IncompatibleModel(
                f"The model has {name} {config[name]!r}; only {value!r} is known here.", param="base_model"
            )


def _bert(config: dict[str, Any], directory: Path) -> Design:
    width = config["hidden_size"]
    _check_fixed(
        config, {"hidden_act": "gelu", "intermediate_size": 4 * width, "layer_norm_eps": 1e-12, "type_vocab_size": 2}
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
    longest = config["n_positions"]
    inputs = _text_inputs(directory, longest, config["vocab_size"])
    task = NextTokenPrediction()
    targets = task.fit(pa.table({}), Columns(), task.Config(rows="documents"), inputs)
    preprocessing = TextConfig(max_length=longest, tokenizer="bytes", lower_case=False, exact=True)
    architecture_config = TransformerConfig(layers=config["n_layer"], width=width, heads=config["n_head"])
    return Design(task, Gpt(), Text(), preprocessing, architecture_config, inputs, targets)


def _marian(config: dict[str, Any], directory: Path) -> Design:
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
            "share_encoder_decoder_embeddings": True,
            "decoder_start_token_id": inputs.token(PADDING),
        },
    )
    architecture_config = Seq2SeqConfig(
        layers=layers,
        decoder_layers=None if config["decoder_layers"] == layers else config["decoder_layers"],
        width=width,
        heads=heads,
        activation=config["activation_function"],
        scale_embedding=config.get("scale_embedding", False),
    )
    task = Denoising()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    preprocessing = TextConfig(max_length=longest, tokenizer="bytes", lower_case=False, exact=True)
    return Design(task, Seq2Seq(), Text(), preprocessing, architecture_config, inputs, targets)


def _text_inputs(directory: Path, longest: int, vocabulary: int) -> TextState:
    inputs = TextState(column="text", tokenizer=(directory / TOKENIZER_FILE).read_text(), max_length=longest)
    if inputs.vocabulary != vocabulary:
        raise IncompatibleModel(
            f"The tokenizer has {inputs.vocabulary} tokens, the network {vocabulary}.", param="base_model"
        )
    return inputs


def _resnet(config: dict[str, Any], directory: Path) -> Design:
    widths, is_basic = tuple(config["hidden_sizes"]), config.get("layer_type") == "basic"
    _check_fixed(
        config,
        {
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "embedding_size": widths[0] if is_basic else 64,
        },
    )
    architecture_config = ResNetConfig(
        size="18" if is_basic else "50", stem="7x7/4", depths=tuple(config["depths"]), widths=widths
    )
    mean, deviation, side = _preprocessing(directory)
    preprocessing = ImageConfig(size=side, fit="crop", normalization="imagenet")
    inputs = ImageState(
        column="image", size=side, fit="crop", background=255, channels=config["num_channels"],
        mean=mean, deviation=deviation,
    )  # fmt: skip
    task = ContrastiveImages()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    return Design(task, ResNet(), Image(), preprocessing, architecture_config, inputs, targets)


def _preprocessing(directory: Path) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return mean, deviation and side of the images that a model learned from; what is not said is as in ImageNet."""
    path = directory / PREPROCESSOR_FILE
    said = json.loads(path.read_text()) if path.exists() else {}
    size = said.get("crop_size") or said.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 224
    mean, deviation = (said.get(name, usual) for name, usual in zip(("image_mean", "image_std"), IMAGENET, strict=True))
    return tuple(mean), tuple(deviation), int(side)


_DESIGNS: dict[str, Callable[[dict[str, Any], Path], Design]] = {
    "bert": _bert,
    "gpt2": _gpt,
    "marian": _marian,
    "megatron-bert": _bert,
    "resnet": _resnet,
}
