"""Every hyperparameter, declared once: type, bounds, unit, one sentence.

The request's JSON Schema, the documentation and the checkpoint derive from these classes. This file imports no torch,
so that the service can describe and check a request before anything heavy is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Auto = Literal["auto"]


class Config(BaseModel):
    """Immutable once made; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# How pydantic names the alternatives of a union within a path; who reads it asked for a field.
_UNION_TAG = re.compile(r"str|dict|int|float|bool|.*\[.*|constrained-.*|function-.*|[A-Z]\w*")


def field_names(path: Iterable[int | str]) -> list[str]:
    """Return a path of pydantic's as the names and numbers that lead to a field."""
    return [str(part) for part in path if not _UNION_TAG.fullmatch(str(part))]


def what_is_wrong(message: str) -> str:
    """Return a message of pydantic's without what it puts before our own."""
    return message.removeprefix("Value error, ")


def described(error: ValidationError) -> str:
    """Return the first thing that is wrong as a sentence: where, which value, and what it has to be."""
    first = error.errors()[0]
    where, said = ".".join(field_names(first["loc"])), what_is_wrong(first["msg"])
    return f"{where} is {first['input']!r:.80}: {said}." if where else f"{said}."


class Hyperparameters(Config):
    """How a network is trained. Any field that allows "auto" is resolved from the data; the job shows the result."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] | Auto = Field(
        "auto",
        description='Passes over the training rows; "auto": by the architecture, so that there are enough steps.',
    )
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = Field(
        None, description="Optimizer steps after which training ends even if epochs remain."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = Field("auto", description="Rows per optimizer step.")
    learning_rate: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto",
        description='Highest step size of the schedule; "auto": by the architecture.',
    )
    backbone_learning_rate_factor: float = Field(
        1.0, ge=0, le=1, description="The backbone's learning rate as a share of the head's; 0 freezes it."
    )
    layer_learning_rate_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the learning rate of the layer above that each layer of the backbone has, from the head "
        "down.",
    )
    unfreeze_every_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="Train the head alone at first, and after every so many epochs one more layer of the backbone, "
        "from the head down; where the head has no weights, as of tasks that write, begin with the top layer. Default: "
        "all from the start.",
    )
    head_initialization: Literal["random", "linear-probe"] = Field(
        "random",
        description="Weights that a classifier's head begins with: drawn at random, or those of a logistic regression "
        "on what the backbone makes of the training rows before it is trained.",
    )
    linear_probe_c: float = Field(
        0.01,
        gt=0,
        le=1e6,
        description="Inverse strength of the L2 regularisation of that logistic regression, as in scikit-learn.",
    )
    lora_rank: Annotated[int, Field(ge=1, le=1_024)] | None = Field(
        None,
        description="Train additions of this rank to the backbone's linear layers instead of its weights; they are "
        "merged into the model at the end.",
    )
    lora_scale: float = Field(2.0, gt=0, le=1_000, description="Factor of the additions that lora_rank asks for.")
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = Field(
        "adamw",
        description="Rule that turns gradients into steps; muon takes orthogonal steps with the matrices of the "
        "backbone's linear layers, and adamw's with everything else.",
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum of sgd; the others ignore it.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="Decay of the two moment estimates of adam and adamw."
    )
    weight_decay: float = Field(
        0.01, ge=0, le=10, description="Decoupled for adamw and muon, added to the gradient otherwise."
    )
    schedule: Literal["constant", "linear", "cosine", "step", "one-cycle"] = Field(
        "cosine", description="How the learning rate goes from its highest value to its last."
    )
    warmup_fraction: float = Field(
        0.05, ge=0, lt=1, description="Share of all steps over which the learning rate rises from 0."
    )
    final_learning_rate_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Last learning rate of linear, cosine and one-cycle, as a share of the highest.",
    )
    step_every_epochs: int = Field(10, ge=1, le=100_000, description="Epochs between two drops of the step schedule.")
    step_factor: float = Field(0.1, gt=0, lt=1, description="Factor of each drop of the step schedule.")
    evaluate_every_epochs: Annotated[int, Field(ge=1, le=100_000)] | Auto = Field(
        "auto", description='Epochs between two evaluations; "auto": so that there are about fifty.'
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto",
        description='Share of units silenced in training after each hidden layer; "auto": by the architecture.',
    )
    gradient_clip: float | None = Field(None, gt=0, le=1e6, description="Largest norm of all gradients together.")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto",
        description="Share that each step keeps of a moving average of the weights, which is measured and served "
        'instead of the last ones; 0: no average; "auto": by the task.',
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the forward pass.")


class EarlyStopping(Config):
    """Stop when the validation rows no longer improve; needs validation rows."""

    patience: int = Field(10, ge=1, le=100_000, description="Evaluations without improvement before stopping.")
    min_delta: float = Field(0.0, ge=0, le=1e6, description="Smallest change that counts as improvement.")


class Checkpointing(Config):
    """How often a run saves what it needs to go on, and how much of that is kept."""

    every_s: float = Field(30.0, ge=1, le=86_400, description="Seconds of training between two checkpoints.")
    every_steps: int | None = Field(None, ge=1, le=100_000_000, description="Also one after every so many steps.")
    keep_last: int = Field(2, ge=1, le=100, description="Newest checkpoints of each run that are kept.")
    keep_best: int = Field(1, ge=0, le=100, description="Checkpoints with the best validation score kept beside them.")


class Split(Config):
    """Which rows are for training, validation and test when they are not given as datasets of their own."""

    train: float | None = Field(
        None, gt=0, le=1, description="Share of rows to learn from; default: what validation and test leave."
    )
    validation: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto",
        description='Share of rows held out to choose by; "auto": 0.2, but 0 under 100 rows, and under 1,000 rows '
        "when there are test rows and no early stopping.",
    )
    test: float = Field(0.0, ge=0, lt=1, description="Share of rows held out to report on.")
    stratify: bool = Field(True, description="Keep the share of each class in every part (classification only).")
    group: str | None = Field(None, description="Column whose equal values stay in the same part.")
    column: str | None = Field(
        None,
        description='Column that names each row\'s part: "train", "validation" or "test"; wins over shares.',
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the assignment.")

    @model_validator(mode="before")
    @classmethod
    def _train_decides(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("validation", "auto") != "auto":
            return given
        train, test = given.get("train"), given.get("test") or 0.0
        if not isinstance(train, int | float) or not isinstance(test, int | float):
            return given
        return {**given, "validation": max(0.0, round(1 - train - test, 9))}

    @model_validator(mode="after")
    def _some_rows_train(self) -> Split:
        if self.train is not None and isinstance(self.validation, float):
            together = self.train + self.validation + self.test
            if abs(together - 1) > 1e-6:
                raise ValueError(
                    f"train, validation and test must be 1 together, not {together:g}; leave one of them out"
                )
        share = self.validation if isinstance(self.validation, float) else 0.0
        if share + self.test >= 1:
            raise ValueError("validation and test together leave no rows for training; lower one of them")
        return self


class Columns(Config):
    """Which columns are learned from and which are predicted."""

    target: str | None = Field(None, description="Column to predict.")
    targets: tuple[str, ...] | None = Field(None, description="Columns to predict, where a task allows several.")
    text: str | None = Field(None, description="Column with the text, for tasks on text; default: the only one.")
    inputs: tuple[str, ...] | None = Field(None, description="Columns to learn from; default: all that are no target.")
    ignore: tuple[str, ...] = Field((), description="Columns left out of the inputs.")

    @model_validator(mode="after")
    def _one_way(self) -> Columns:
        if self.target is not None and self.targets is not None:
            raise ValueError('give "target" or "targets", not both')
        for name in self.target_names():
            if name == self.text:
                raise ValueError(f'column "{name}" is to be predicted, so it cannot be the text as well; name another')
            if name in (self.inputs or ()):
                raise ValueError(f'column "{name}" is to be predicted, so it cannot be among the inputs; leave it out')
        return self

    def target_names(self) -> tuple[str, ...]:
        """Return the columns to predict, in order."""
        return self.targets or ((self.target,) if self.target is not None else ())


class TrainingSpec(Config):
    """Everything a training run depends on beside its files."""

    kind: Literal["pretrain", "finetune"]
    task: str
    task_config: dict[str, Any] = Field(default_factory=dict)
    architecture: str
    architecture_config: dict[str, Any] = Field(default_factory=dict)
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    columns: Columns = Columns()
    hyperparameters: Hyperparameters = Hyperparameters()
    early_stopping: EarlyStopping | None = None
    checkpointing: Checkpointing = Checkpointing()
    split: Split = Split()
    compare: bool = False
    serving_precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024)


class Resolved(Config):
    """The numbers behind every "auto", and what follows from them."""

    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    steps_per_epoch: int
    total_steps: int
    evaluate_every_epochs: int
    ema_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a run's defaults depend on."""

    kind: Literal["pretrain", "finetune"]
    rows: int
    weights: int
    optimizer: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What "auto" means: numbers, how many steps and passes there are to be at least and passes at most, and how much
    each step keeps of an average of the weights.
    """

    batch_size: int
    learning_rate: float
    dropout: float
    least_steps: int
    least_epochs: int
    most_epochs: int
    ema_decay: float = 0.0


def resolve(chosen: Hyperparameters, rows: int, defaults: Defaults) -> Resolved:
    """Return the numbers in force for this many training rows."""
    batch_size = defaults.batch_size if chosen.batch_size == "auto" else chosen.batch_size
    steps_per_epoch = count_batches(rows, batch_size)
    passes = min(defaults.most_epochs, max(defaults.least_epochs, -(-defaults.least_steps // steps_per_epoch)))
    epochs: int = passes if chosen.epochs == "auto" else chosen.epochs
    total = epochs * steps_per_epoch
    evaluate_every = chosen.evaluate_every_epochs
    if isinstance(evaluate_every, str):
        evaluate_every = max(1, epochs // 50)
    return Resolved(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=defaults.learning_rate if chosen.learning_rate == "auto" else chosen.learning_rate,
        dropout=defaults.dropout if chosen.dropout == "auto" else chosen.dropout,
        steps_per_epoch=steps_per_epoch,
        total_steps=min(total, chosen.max_steps or total),
        evaluate_every_epochs=evaluate_every,
        ema_decay=defaults.ema_decay if chosen.ema_decay == "auto" else chosen.ema_decay,
    )


def count_batches(rows: int, batch_size: int) -> int:
    """Return the batches of one pass; a last batch of one row is dropped, since nothing can be normalised in it."""
    full, rest = divmod(rows, batch_size)
    return max(1, full + (rest > 1))
