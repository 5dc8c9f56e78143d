"""A directory that Transformers saved, as a base model: config.json, model.safetensors, tokenizer.json.

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
from learning.config import Columns
from learning.errors import IncompatibleModel
from learning.modalities.text import Text, TextConfig, TextState
from learning.model import CONFIG_FILE, WEIGHTS_FILE, Design, load
from learning.tasks.masked_tokens import MaskedTokens

TOKENIZER_FILE = "tokenizer.json"


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
            hint=f"A Transformers model needs {CONFIG_FILE}, {WEIGHTS_FILE} and {TOKENIZER_FILE}.",
            param="base_model",
        ) from None


def _read(directory: Path, config: dict[str, Any]) -> tuple[Design, dict[str, Tensor]]:
    if config["model_type"] not in _DESIGNS:
        raise IncompatibleModel(
            f'A Transformers model of the type "{config["model_type"]}" cannot be a base model.',
            hint=f"Types: {', '.join(_DESIGNS)}.",
            param="base_model",
        )
    design = _DESIGNS[config["model_type"]](config, (directory / TOKENIZER_FILE).read_text())
    backbone = design.architecture.build(design.architecture_config, design.inputs)
    prefix = f"{backbone.prefix}."
    given = {_today(name.removeprefix(prefix)): tensor for name, tensor in load_file(directory / WEIGHTS_FILE).items()}
    # The rest is another task's head, or the pooler; what is missing or of another shape, loading will name.
    known = backbone.state_dict()
    return design, {f"{prefix}{name}": tensor.float() for name, tensor in given.items() if name in known}


def _today(name: str) -> str:
    """Return a weight's name as it is today: the oldest checkpoints call those of the norm otherwise."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _bert(config: dict[str, Any], tokenizer: str) -> Design:
    width = config["hidden_size"]
    fixed = {"hidden_act": "gelu", "intermediate_size": 4 * width, "layer_norm_eps": 1e-12, "type_vocab_size": 2}
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise IncompatibleModel(
                f"The model has {name} {config[name]!r}; only {value!r} is known here.", param="base_model"
            )
    architecture_config = BertConfig(
        layers=config["num_hidden_layers"],
        width=width,
        heads=config["num_attention_heads"],
        norm="post" if config["model_type"] == "bert" else "pre",
    )
    longest = config["max_position_embeddings"]
    inputs = TextState(column="text", tokenizer=tokenizer, max_length=longest)
    if inputs.vocabulary != config["vocab_size"]:
        raise IncompatibleModel(
            f"The tokenizer has {inputs.vocabulary} tokens, the network {config['vocab_size']}.", param="base_model"
        )
    task = MaskedTokens()
    targets = task.fit(pa.table({}), Columns(), task.Config(), inputs)
    preprocessing = TextConfig(max_length=longest)
    return Design(task, Bert(), Text(), preprocessing, architecture_config, inputs, targets)


_DESIGNS: dict[str, Callable[[dict[str, Any], str], Design]] = {"bert": _bert, "megatron-bert": _bert}
