"""A model: what it is made of, its network, and the directory it is saved in.

A directory holds config.json, model.safetensors and what the modality adds, such as tokenizer.json. Where Transformers
has the network's class, it opens the directory too. Weights are safetensors only; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_bytes
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from learning import low_rank
from learning.architectures import architecture_named
from learning.capabilities import Classifying, Exported, ForeignClassifier, Pyramidal, Renamed, Spatial, Writer
from learning.config import described, field_names, what_is_wrong
from learning.errors import IncompatibleModel, InvalidConfig
from learning.interfaces import Architecture, Backbone, Batch, InputWarning, Modality, Task
from learning.low_rank import LowRank
from learning.modalities import MODALITIES
from learning.tasks import task_named

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class BackboneWithHead(nn.Module):
    """The network that is trained and served."""

    backbone: Backbone
    head: nn.Module

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        # Registered under the name that its weights have in files, and found under one name whatever that is.
        self.add_module(backbone.prefix, backbone)
        self.__dict__["backbone"] = backbone
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        """Return the head's outputs for a batch."""
        outputs: Tensor = self.head(self.backbone(batch))
        return outputs

    def train(self, mode: bool = True) -> Self:
        """Let dropout act and batch normalisation count, or not; what is frozen of the backbone never counts."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
                module.eval()
        return self


@dataclass(frozen=True, slots=True)
class Design:
    """Everything about a model but its weights: the pieces, their configuration, and what was fitted."""

    task: Task
    architecture: Architecture
    modality: Modality
    preprocessing: BaseModel  # what the modality's state was fitted under
    architecture_config: BaseModel
    inputs: BaseModel  # the modality's state
    targets: BaseModel  # the task's state
    precision: Literal["fp32", "bf16"] = "fp32"  # of the products when it predicts
    low_rank: LowRank | None = None  # additions to the backbone while it is trained

    def build(self) -> BackboneWithHead:
        """Return a freshly initialised network, without low-rank additions."""
        backbone = self.architecture.build(self.architecture_config, self.inputs)
        if isinstance(self.task, Spatial) and isinstance(self.architecture, Pyramidal):
            levels = self.architecture.levels(self.architecture_config, self.inputs)
            return BackboneWithHead(backbone, self.task.head_on(levels, self.targets))
        return BackboneWithHead(backbone, self.task.head(backbone.width, self.targets))

    def parse(self, value: Any, index: int) -> tuple[Any, list[InputWarning]]:
        """Return one prediction input as a row, and what to warn about; InvalidInput says what does not fit."""
        if isinstance(self.task, Writer):
            return self.task.parse(value, index, self.inputs, self.targets)
        return self.modality.parse(value, index, self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the design as JSON, with what Transformers reads beside it."""
        return {
            **self._foreign_config(),
            "format_version": FORMAT_VERSION,
            "task": self.task.name,
            "architecture": self.architecture.name,
            "modality": self.modality.name,
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "architecture_config": self.architecture_config.model_dump(mode="json"),
            "inputs": self.inputs.model_dump(mode="json"),
            "targets": self.targets.model_dump(mode="json"),
            "precision": self.precision,
            **({"low_rank": self.low_rank.model_dump()} if self.low_rank else {}),
        }

    def _foreign_config(self) -> dict[str, Any]:
        """Return what Transformers reads: of the backbone, and of a head that it has on this architecture too."""
        config = self.architecture.foreign_config(self.architecture_config, self.inputs)
        if not config or not isinstance(self.architecture, ForeignClassifier) or not isinstance(self.task, Classifying):
            return config
        labels = self.task.softmax_labels(self.targets)
        if not labels:
            return config
        return {
            **config,
            "architectures": [self.architecture.foreign_classifier],
            "problem_type": "single_label_classification",
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
        }

    def names_in_files(self) -> dict[str, str]:
        """Return the names in files of those weights that have others in the network."""
        names = dict(self.architecture.foreign_names) if isinstance(self.architecture, Renamed) else {}
        if isinstance(self.architecture, ForeignClassifier) and "id2label" in self._foreign_config():
            names |= self.architecture.foreign_head
        return names

    def files(self) -> dict[str, str]:
        """Return the text files that a model's directory has beside its configuration and weights, by name."""
        if isinstance(self.task, Exported):
            return self.modality.files(self.task.exported(self.inputs, self.targets))
        return self.modality.files(self.inputs)

    def recipe(self) -> dict[str, Any]:
        """Return the fields of a training specification that make the same network anew."""
        return {
            "architecture": self.architecture.name,
            "architecture_config": self.architecture_config.model_dump(mode="json"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Design:
        """Return the design that `to_dict` wrote; IncompatibleModel when it does not read."""
        if config.get("format_version") != FORMAT_VERSION:
            raise IncompatibleModel(
                f"The model has format version {config.get('format_version')!r}; this release reads {FORMAT_VERSION}.",
                hint="Serve it with the release that made it, or train it again.",
            )
        try:
            task = task_named(config["task"])
            architecture = architecture_named(config["architecture"])
            modality = MODALITIES[config["modality"]]
            return cls(
                task=task,
                architecture=architecture,
                modality=modality,
                preprocessing=modality.Config.model_validate(config["preprocessing"]),
                architecture_config=architecture.Config.model_validate(config["architecture_config"]),
                inputs=modality.State.model_validate(config["inputs"]),
                targets=task.State.model_validate(config["targets"]),
                precision=config.get("precision", "fp32"),
                low_rank=LowRank.model_validate(config["low_rank"]) if "low_rank" in config else None,
            )
        except ValidationError as error:
            said = f"{error.title}: {described(error)}"
            raise IncompatibleModel(f"The model's {CONFIG_FILE} does not fit this release: {said}") from None
        except KeyError as error:
            raise IncompatibleModel(f"The model's {CONFIG_FILE} does not fit this release: {error}") from None


def configure(schema: type[BaseModel], values: dict[str, Any], param: str) -> BaseModel:
    """Return checked options; InvalidConfig names the first field that is wrong, its value and its bounds."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([param, *field_names(first["loc"])])
        raise InvalidConfig(
            f"{where}: {what_is_wrong(first['msg'])}; got {first['input']!r}.",
            hint=f"Known options: {', '.join(schema.model_fields)}." if first["type"] == "extra_forbidden" else None,
            param=where,
        ) from None


def save(design: Design, weights: dict[str, Tensor], directory: Path) -> None:
    """Write a model directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in design.files().items():
        (directory / name).write_text(text)
    (directory / CONFIG_FILE).write_text(json.dumps(design.to_dict(), indent=1, allow_nan=False))
    names = design.names_in_files()
    save_file(
        {names.get(name, name): tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
        directory / WEIGHTS_FILE,
    )


def load(directory: Path) -> tuple[Design, dict[str, Tensor]]:
    """Read a model directory; IncompatibleModel when it is none of ours or is damaged."""
    try:
        design = Design.from_dict(json.loads((directory / CONFIG_FILE).read_text()))
        names = names_here(design)
        return merged(
            design, {names.get(name, name): tensor for name, tensor in load_file(directory / WEIGHTS_FILE).items()}
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise IncompatibleModel(f"No model can be read here: {error}") from None


def names_here(design: Design) -> dict[str, str]:
    """Return the names in the network of those weights that have others in files; older files may lack those."""
    return {in_file: name for name, in_file in design.names_in_files().items()}


def merged(design: Design, weights: dict[str, Tensor]) -> tuple[Design, dict[str, Tensor]]:
    """Return the same model without low-rank additions: they are added to the weights that they belong to."""
    if design.low_rank is None:
        return design, weights
    return replace(design, low_rank=None), low_rank.merge(weights, design.low_rank)


def merged_file(design: Design, content: bytes) -> tuple[Design, Iterator[bytes]]:
    """Return what `merged` does of the bytes of a checkpoint's weights, as the bytes of a file that `load` reads."""
    plain, weights = merged(design, load_bytes(content))
    names = plain.names_in_files()
    return plain, iter([save_bytes({names.get(name, name): tensor for name, tensor in weights.items()})])


def load_backbone(network: BackboneWithHead, weights: dict[str, Tensor]) -> None:
    """Copy a base model's backbone into a network; IncompatibleModel names the first tensor that does not fit."""
    prefix = f"{network.backbone.prefix}."
    own = network.backbone.state_dict()
    given = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    for name in sorted(own.keys() | given.keys()):
        found = tuple(given[name].shape) if name in given else "nothing"
        wanted = tuple(own[name].shape) if name in own else "nothing"
        if found != wanted:
            raise IncompatibleModel(f'The base model\'s "{name}" has the shape {found}, but {wanted} is needed.')
    network.backbone.load_state_dict(given)
