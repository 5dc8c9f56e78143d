"""The seam of the library: what a modality, an architecture and a task are to everything else.

Shapes, here and in every file of the package: N rows, B batch, T positions (tokens, patches, frames; 1 for a row of
a table), S all positions of a batch of rows of unequal lengths, one row after the other without padding, D width of the
features, F encoded input features, C classes, K targets, V vocabulary.

Every backbone returns features, so heads, tasks and pretraining combine freely. Pretrain then finetune is: load the
base model's backbone and the state its modality was fitted to, put another task's head on it.
What varies is a file and one line in the table of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import pyarrow as pa
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from learning.config import Columns, Config, Defaults, Situation

Batch = dict[str, Tensor]
"""Tensors by name, inputs and targets together. A name ends in its shape: the first dimension is B, or S in a batch
whose `length_B` says how many of the S positions belong to each row; that one stays on the CPU."""

Kind = Literal["pretrain", "finetune"]
Part = Literal["training", "validation", "test"]  # as the rows of each are called where they are spoken of
CALLED: Mapping[str, Part] = {"train": "training", "validation": "validation", "test": "test"}
# What a task wants to predict: nothing (it learns from the inputs alone), one column of labels, a column of lists of
# labels or a column for each label, columns of numbers, a column of marked objects, or how texts go on, which a column
# says or the texts themselves.
Target = Literal["nothing", "label", "labels", "numbers", "objects", "continuation"]
# How a task's outputs become means; the loss's gradient by the outputs is then (mean - target) / count.
Link = Literal["identity", "sigmoid", "softmax"]


def rows_in(batch: Batch) -> int:
    """Return B."""
    return len(batch["length_B"]) if "length_B" in batch else len(next(iter(batch.values())))


def by_position(name: str) -> bool:
    """Return whether a tensor of a batch has S as its first dimension, by its name."""
    return name.rpartition("_")[2].startswith("S")


class Features(NamedTuple):
    """What a backbone makes of a batch of rows of equal length."""

    features_BTD: Tensor
    mask_BT: Tensor | None = None  # true where a position counts; None: all of them do
    grid: tuple[int, int] | None = None  # rows and columns, where the positions are the cells of an image's grid
    grids_BDHW: tuple[Tensor, ...] = ()  # what an image became on the way, from fine to coarse; the last is the grid

    def pooled(self) -> Tensor:
        """Return the mean over the positions that count, (B, D)."""
        if self.features_BTD.shape[1] == 1:
            return self.features_BTD.squeeze(1)
        if self.mask_BT is None:
            return self.features_BTD.mean(1)
        weights_BT1 = self.mask_BT.unsqueeze(-1).to(self.features_BTD.dtype)
        return (self.features_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp_min(1)


class PackedFeatures(NamedTuple):
    """What a backbone makes of a batch of rows of unequal lengths."""

    features_SD: Tensor
    length_B: Tensor

    def pooled(self) -> Tensor:
        """Return the mean over each row's positions, (B, D)."""
        length_B = self.length_B.to(self.features_SD.device)
        row_S = torch.repeat_interleave(length_B, output_size=len(self.features_SD))
        features_SD = self.features_SD.float()  # sums of many are not for bf16
        sums_BD = features_SD.new_zeros(len(length_B), features_SD.shape[1]).index_add(0, row_S, features_SD)
        return sums_BD / length_B.unsqueeze(1)

    def first(self) -> Tensor:
        """Return the features of each row's first position, (B, D)."""
        starts_B = self.length_B.cumsum(0) - self.length_B
        return self.features_SD[starts_B.to(self.features_SD.device)]

    def last(self) -> Tensor:
        """Return the features of each row's last position, (B, D)."""
        return self.features_SD[(self.length_B.cumsum(0) - 1).to(self.features_SD.device)]


class PackedPredictions(NamedTuple):
    """Predictions for each position of rows of unequal lengths; both on the CPU."""

    values_S: Tensor  # or more dimensions, S the first of them
    length_B: Tensor

    def rows(self) -> tuple[Tensor, ...]:
        """Return the values of each row."""
        rows: tuple[Tensor, ...] = self.values_S.split(self.length_B.tolist())
        return rows


Predictions = Tensor | PackedPredictions
"""What a task predicts for a batch: a tensor whose first dimension is B, or values by position."""


class Backbone(nn.Module):
    """Maps a batch to features; what pretraining produces."""

    width: int  # D
    prefix: ClassVar[str] = "backbone"  # of its weights' names in a model's file

    def forward(self, batch: Batch) -> Features | PackedFeatures:
        """Return features of the batch's inputs."""
        raise NotImplementedError

    def set_dropout(self, share: float) -> None:
        """Silence this share of units in training, wherever the network has a place for it."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share


class TokenBackbone(Backbone):
    """A backbone that reads token_S and embeds them by a table that tasks may use for their outputs as well."""

    @property
    def embedding_VD(self) -> Tensor:  # noqa: N802 - a shape
        """Return the table."""
        raise NotImplementedError


class CausalBackbone(TokenBackbone):
    """A token backbone in which a position sees only those before it, and that can go on where it has ended."""

    @property
    def position_bytes(self) -> int:
        """Return the memory that a position which was read takes."""
        raise NotImplementedError

    def remember(self) -> Any:
        """Return a memory with no text in it."""
        raise NotImplementedError

    def begin(self, rows: list[list[int]], cache: Any) -> Tensor:
        """Read the beginnings of B texts more; return the last positions' features, (B, D)."""
        raise NotImplementedError

    def step(self, token_B: Tensor, cache: Any) -> Tensor:
        """Read one more token of each text in the memory; return its features, (B, D)."""
        raise NotImplementedError


class EncoderDecoder(CausalBackbone):
    """One that reads a source first, whole, and then writes another text: of pairs, features are those of the targets.

    A row of a batch of pairs is a source and then its target; `source_length_B` says where it goes over. `begin` reads
    sources and returns the features of the first tokens to be written.
    """

    start: int  # the token before a target

    @property
    def bias_V(self) -> Tensor:  # noqa: N802 - a shape
        """Return what is added to each token's score."""
        raise NotImplementedError


class Network(Protocol):
    """A backbone with a head, as tasks see it."""

    head: nn.Module
    training: bool

    @property
    def backbone(self) -> Backbone:
        """Return the backbone."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """Return the head's outputs for a batch."""
        ...


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something about one prediction input that the caller should know but that is no error."""

    index: int
    code: str
    message: str
    is_empty: bool = False  # there is nothing in the input to know anything by, such as silence


class PredictionOptions(Config):
    """What a caller may ask of the answers: nothing, unless a task says more in a class of its own."""

    def check(self, network: Network, inputs: Any, state: Any) -> None:
        """Raise InvalidConfig for what this model, with what was learned of its inputs and targets, cannot do."""

    def asked(self, row: Any) -> Any:
        """Return a parsed row with what its answer has to be computed by."""
        return row

    def apply(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return one answer as it was asked for."""
        return answer


class Examples(Protocol):
    """Encoded rows, in memory or behind a memory-mapped table."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def batches(self, order_N: Tensor, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one pass of training, which follow from the given order, from number `start` on."""
        ...

    def everything(self, every: int = 1) -> Iterator[Batch]:
        """Yield every row once, as they come, in batches that suit an evaluation; or only one row of `every` rows."""
        ...


class Modality(Protocol):
    """A kind of input: how raw columns become tensors."""

    name: ClassVar[str]

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the Config class."""
        ...

    @property
    def State(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the State class."""
        ...

    def fit(self, table: pa.Table, columns: Columns, config: Any) -> BaseModel:
        """Fit scaling, vocabularies and the like on the training rows; the result is JSON."""
        ...

    def reuse(self, table: pa.Table, columns: Columns, state: Any) -> BaseModel:
        """Return a base model's state for these rows; IncompatibleModel when they lack what it reads."""
        ...

    def encode(self, table: pa.Table, state: Any) -> Batch:
        """Return the rows' input tensors; InvalidData names the row and the column that do not fit."""
        ...

    def remarks(self, table: pa.Table, columns: Columns, state: Any, part: Part = "training") -> list[str]:
        """Return what to warn about a part's rows: what of them is not used. Columns are those of the training rows."""
        ...

    def files(self, state: Any) -> dict[str, str]:
        """Return the text files that other libraries want beside the weights, by name."""
        ...

    def column_names(self, state: Any) -> tuple[str, ...]:
        """Return the columns that `encode` reads."""
        ...

    def parse(self, value: Any, index: int, state: Any) -> tuple[Any, list[InputWarning]]:
        """Return one prediction input as a row, and what to warn about; InvalidInput says what does not fit."""
        ...

    def assemble(self, rows: Sequence[Any], state: Any) -> Batch:
        """Return parsed rows' input tensors: what `encode` makes of the same values in a table."""
        ...

    def positions(self, row: Any) -> int:
        """Return T of a parsed row: what it costs beside others."""
        ...

    def shown(self, row: Any, state: Any) -> dict[str, Any]:
        """Return what the network sees of a parsed row, as JSON for a person to look at."""
        ...

    def schema(self, state: Any) -> dict[str, Any]:
        """Return the JSON Schema of one prediction input, with an example."""
        ...


class Architecture(Protocol):
    """A family of networks with its configuration."""

    name: ClassVar[str]
    modality: ClassVar[str]

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the Config class."""
        ...

    def build(self, config: Any, state: Any) -> Backbone:
        """Return a freshly initialised backbone for inputs encoded under the modality's state."""
        ...

    def defaults(self, situation: Situation) -> Defaults:
        """Return what "auto" means for so many rows and weights."""
        ...

    def foreign_config(self, config: Any, state: Any) -> dict[str, Any]:
        """Return the configuration by which Transformers opens the backbone; empty when it has no such class."""
        ...


class Task(Protocol):
    """What is to be learned: targets, head, loss, metrics, answers."""

    name: ClassVar[str]
    modality: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the Config class."""
        ...

    @property
    def State(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the State class."""
        ...

    @property
    def Options(self) -> type[PredictionOptions]:  # noqa: N802 - a class
        """Return the class of what a caller may ask of the answers."""
        ...

    target: ClassVar[Target]
    stratified: ClassVar[bool]  # whether a split keeps the shares of the target's values
    score: ClassVar[str]  # the metric by which two models are compared; higher is better
    monitor: ClassVar[str]  # the metric that chooses the best step; "loss" is minimised, anything else maximised

    def fit(self, table: pa.Table, columns: Columns, config: Any, inputs: Any) -> BaseModel:
        """Fit labels and the like on the training rows; `inputs` is the modality's state. The result is JSON."""
        ...

    def targets(self, table: pa.Table, state: Any, encoded: Batch) -> Batch:
        """Return the rows' target tensors beside their encoded inputs; InvalidData names the row that has none."""
        ...

    def head(self, width: int, state: Any) -> nn.Module:
        """Return a fresh head from Features to outputs."""
        ...

    def loss(self, network: Network, batch: Batch, state: Any) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        ...

    def link(self, state: Any) -> Link | None:
        """Return the canonical link when the loss is plainly its own, so that its gradient is known; else None."""
        ...

    def predict(self, network: Network, batch: Batch, state: Any) -> Predictions:
        """Return predictions of the batch's rows."""
        ...

    def answers(self, predictions: Any, state: Any, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the predictions for parsed rows as the JSON that a caller gets."""
        ...

    def metrics(self, predictions: Any, targets: Batch, state: Any) -> dict[str, Any]:
        """Return named numbers for predictions beside their targets."""
        ...

    def schema(self, state: Any) -> dict[str, Any]:
        """Return the JSON Schema of one answer."""
        ...


class Callback(Protocol):
    """What the trainer tells and asks; four methods, no more."""

    def on_step(self, progress: dict[str, Any]) -> None:
        """Hear where training is, a few times a second."""
        ...

    def on_evaluation(self, split: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Hear what was measured."""
        ...

    def on_checkpoint(self, path: Path, position: Any) -> None:
        """Hear that a checkpoint is whole on the disk."""
        ...

    def should_stop(self) -> bool:
        """Return true to stop at the next step; asked after every one."""
        ...
