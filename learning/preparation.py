"""From a specification and its files to something that can be trained: read, split, fit, encode, build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from learning import checkpoint, low_rank
from learning.architectures import architecture_named, names_for
from learning.blank_rows import without_blanks
from learning.capabilities import (
    Aligned,
    Batched,
    Generative,
    Paced,
    Particular,
    Preprocessing,
    Probed,
    Sequential,
    Timed,
    obstacle,
)
from learning.config import Columns, Resolved, Situation, TrainingSpec, resolve
from learning.data import FileRows, MappedExamples, TableExamples, TensorExamples, encoded_in_files, open_table
from learning.device import is_slow
from learning.drift import part_warnings
from learning.errors import IncompatibleModel, InvalidConfig, rows_from
from learning.foreign import load_base
from learning.interfaces import Batch, Examples, Modality, Task, rows_in
from learning.modalities import MODALITIES
from learning.model import BackboneWithHead, Design, configure, load_backbone, merged
from learning.packing import PackedExamples
from learning.part_remarks import part_remarks
from learning.splits import RowNumbers, require_column, split_rows, take
from learning.tasks import task_named
from learning.unknown_tokens import unknown_warnings

# Encoded rows above this stay on disk.
IN_MEMORY_BYTES = 1 << 30
# Of texts, since they take several times as much while they are encoded, and come from files of any size.
TOKENS_IN_MEMORY_BYTES = 256 << 20
# What takes long to be decoded: if it is too much for memory it is encoded once, into files. Others are in every epoch.
_DECODED = {"image_BCHW", "frame_SF"}
_SAMPLE_ROWS = 100
_FEW_ROWS = 1_000
_ADDED_TO_NOTHING = (
    "lora_rank without a base model: the backbone's weights stay as they were drawn, and only additions to them learn."
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that training needs."""

    design: Design
    network: BackboneWithHead
    train: Examples
    validation: Examples | None
    test: Examples | None
    resolved: Resolved
    device: torch.device
    warnings: list[str] = field(default_factory=list)
    rows: Mapping[str, FileRows] = field(default_factory=dict)  # of each part, as they were uploaded
    fresh_head: bool = True  # whether nothing has trained it, so that it may begin otherwise


def check(spec: TrainingSpec, collect: Callable[[str], AbstractContextManager[object]] = nullcontext) -> None:
    """Raise for what is wrong with a specification before any data is looked at.

    Each check is done within a `collect(field)`, which may keep its error and go on.
    """
    task = task_named(spec.task)
    architecture = None
    with collect("task"):
        if task.kind != spec.kind:
            raise InvalidConfig(
                f'Task "{task.name}" is for {task.kind} jobs, not {spec.kind}.',
                hint=_tasks_of(spec.kind),
                param="task",
            )
    with collect("architecture"):
        architecture = architecture_named(spec.architecture)
        if architecture.modality != task.modality:
            raise InvalidConfig(
                f'Architecture "{architecture.name}" is for {architecture.modality} data, task "{task.name}" for '
                f"{task.modality}.",
                param="architecture",
            )
        why = obstacle(task, architecture)
        if why is not None:
            raise InvalidConfig(
                f'Architecture "{architecture.name}" cannot learn the task "{task.name}": {why}.',
                hint=f"Architectures for it: {', '.join(names_for(task))}.",
                param="architecture",
            )
    with collect("task_config"):
        configure(task.Config, spec.task_config, "task_config")
    if architecture is not None:
        with collect("architecture"):
            configure(architecture.Config, spec.architecture_config, "architecture")
    with collect("preprocessing"):
        chosen = configure(
            MODALITIES[task.modality].Config, {**_usual_preprocessing(task), **spec.preprocessing}, "preprocessing"
        )
        if isinstance(task, Particular):
            task.check_preprocessing(chosen)
    with collect("hyperparameters"):
        _check_batch_size(task, spec.hyperparameters.batch_size)
        if spec.hyperparameters.head_initialization == "linear-probe" and not isinstance(task, Probed):
            raise InvalidConfig(
                f'hyperparameters.head_initialization is "linear-probe", but the task "{task.name}" has no head that '
                "tells classes apart, which a logistic regression could begin.",
                hint='Leave it out, or set it to "random".',
                param="hyperparameters.head_initialization",
            )
    with collect("compare"):
        if spec.compare and spec.kind == "pretrain":
            raise InvalidConfig(
                "compare is for finetune jobs: it trains the same network from scratch.", param="compare"
            )


def _check_batch_size(task: Task, size: int | str) -> None:
    if isinstance(task, Batched) and isinstance(size, int) and size < task.least_batch_size:
        raise InvalidConfig(
            f'hyperparameters.batch_size is {size}: the task "{task.name}" learns from at least '
            f"{task.least_batch_size} rows at once, over which its embeddings are normalised.",
            hint=f'Set it to {task.least_batch_size} or more, 32 say, or to "auto".',
            param="hyperparameters.batch_size",
        )


def _tasks_of(kind: str) -> str:
    from learning.tasks import TASKS

    return f"Tasks for {kind}: {', '.join(name for name, task in TASKS.items() if task.kind == kind)}."


def prepare(
    spec: TrainingSpec,
    tables: Mapping[str, Path],
    *,
    base: Path | None = None,
    start: Path | None = None,
    fitted: Design | None = None,
    device: torch.device,
) -> Prepared:
    """Prepare a run from Arrow files by part ("train", and optionally "validation" and "test").

    With a base model's directory the modality's state and the backbone come from there; with `start`, a checkpoint's
    directory, the whole design and all weights do, to go on with other settings or other rows; else all is new.
    A run that is resumed gives the design that it `fitted` before it was stopped, and nothing is fitted again.
    """
    check(spec)
    parts, cut = _parts(spec, tables, task_named(spec.task))
    parts, numbers, blank = without_blanks(parts, cut, _input_columns(spec), task_named(spec.task))
    with rows_from(numbers.get("train")):
        design, network = _begun(spec, parts["train"], base, start, fitted)
    examples = {
        name: encode_part(design, table, device, numbers.get(name)) for name, table in parts.items() if table.num_rows
    }
    weights = sum(parameter.numel() for parameter in network.parameters())
    resolved = resolve_for(spec, len(examples["train"]), weights)
    design = _with_additions(design, network, spec)
    network.backbone.set_dropout(resolved.dropout)
    return Prepared(
        design=design,
        network=network.to(device),
        train=examples["train"],
        validation=examples.get("validation"),
        test=examples.get("test"),
        resolved=resolved,
        device=device,
        warnings=[
            *part_remarks(design, parts, numbers, _input_columns(spec)),
            *_settings_warnings(spec, parts, device),
            *blank,
            *([_ADDED_TO_NOTHING] if design.low_rank is not None and base is None and start is None else []),
            *unknown_warnings(
                parts,
                design.inputs,
                spec.columns.target_names() if isinstance(design.task, Generative) else (),
                is_given=base is not None or start is not None,
            ),
            *part_warnings(
                parts,
                numbers,
                tables if spec.split.column is None else parts,
                targets=spec.columns.target_names(),
                ignored=_input_columns(spec).ignore,
            ),
        ],
        fresh_head=start is None,
        rows={name: FileRows(tables["train" if name in cut else name], numbers.get(name)) for name in examples},
    )


def _begun(
    spec: TrainingSpec, train: pa.Table, base: Path | None, start: Path | None, fitted: Design | None
) -> tuple[Design, BackboneWithHead]:
    """Return the design and the network as training finds it, in all that a base model or a checkpoint gives."""
    task = task_named(spec.task)
    modality = MODALITIES[task.modality]
    if start is not None:
        return _from_checkpoint(start, spec, task, train)
    if base is None:
        design = fitted or _design(spec, task, modality, train, None)
        return design, design.build()
    base_design, base_weights = load_base(base)
    _check_base(base_design, spec, task)
    design = fitted or _design(spec, task, modality, train, base_design)
    network = design.build()
    load_backbone(network, base_weights)
    return design, network


def _with_additions(design: Design, network: BackboneWithHead, spec: TrainingSpec) -> Design:
    """Make the low-rank additions that are asked for, if any, and return the design with them."""
    design = replace(design, low_rank=low_rank.asked(spec.hyperparameters))
    if design.low_rank is not None:
        low_rank.adapt(network.backbone, design.low_rank)
    return design


def resolve_for(spec: TrainingSpec, rows: int, weights: int) -> Resolved:
    """Return the numbers in force for so many training rows and weights."""
    situation = Situation(spec.kind, rows, weights, spec.hyperparameters.optimizer)
    defaults, task = architecture_named(spec.architecture).defaults(situation), task_named(spec.task)
    if isinstance(task, Paced):
        defaults = task.defaults(defaults, situation)
    return resolve(spec.hyperparameters, rows, defaults)


def _parts(
    spec: TrainingSpec, tables: Mapping[str, Path], task: Task
) -> tuple[dict[str, pa.Table], dict[str, RowNumbers]]:
    """Return each part's rows, and for those cut out of the training file which of its rows they are."""
    opened = {name: open_table(path) for name, path in tables.items()}
    whole = opened["train"]
    for name in spec.columns.target_names():
        require_column(whole, name, "columns.target")
    for name in (*(spec.columns.inputs or ()), *spec.columns.ignore):
        require_column(whole, name, "columns.inputs")
    if spec.columns.text is not None:
        require_column(whole, spec.columns.text, "columns.text")
    split = spec.split
    # A part that is given as a dataset of its own is not cut out of the training rows as well.
    if "validation" in opened and split.column is None:
        split = split.model_copy(update={"validation": 0.0})
    if "test" in opened and split.column is None:
        split = split.model_copy(update={"test": 0.0})
        # Of few rows none can be spared to choose by, when others say how good the model is.
        if whole.num_rows < _FEW_ROWS and split.validation == "auto" and spec.early_stopping is None:
            split = split.model_copy(update={"validation": 0.0})
    label = spec.columns.target if task.stratified else None
    rows = split_rows(whole, split, label, _goes_on(task, spec))
    given = {name: table for name, table in opened.items() if name != "train"}
    numbers = {name: getattr(rows, name) for name in ("train", "validation", "test") if name not in given}
    return {**{name: take(whole, part) for name, part in numbers.items()}, **given}, numbers


def _goes_on(task: Task, spec: TrainingSpec) -> bool:
    """Return whether a row has to do with the one behind it, so that what is held out is the end."""
    if isinstance(task, Sequential):
        return task.with_next_rows(configure(task.Config, spec.task_config, "task_config"))
    # Texts go on from row to row; pairs of a prompt and a completion do not.
    return isinstance(task, Generative) and not spec.columns.target_names()


def _from_checkpoint(start: Path, spec: TrainingSpec, task: Task, table: pa.Table) -> tuple[Design, BackboneWithHead]:
    saved = checkpoint.read(start)
    design = Design.from_dict(saved.design)
    if design.task.name != task.name:
        raise IncompatibleModel(
            f'The checkpoint is of task "{design.task.name}", this job\'s is "{task.name}".',
            hint="Continue with the checkpoint's task, or use its model as base_model.",
            param="continue_from",
        )
    _check_base(design, spec, task)
    design = replace(design, inputs=design.modality.reuse(table, spec.columns, design.inputs))
    design, weights = merged(design, saved.best_weights or saved.average or saved.weights)
    network = design.build()
    network.load_state_dict(weights)
    return design, network


def _check_base(base: Design, spec: TrainingSpec, task: Task) -> None:
    if base.modality.name != task.modality:
        raise IncompatibleModel(
            f'The base model learned from {base.modality.name} data, but task "{task.name}" is for {task.modality}.',
            hint="Choose a base model of the same modality.",
            param="base_model",
        )
    if base.architecture.name != spec.architecture:
        raise IncompatibleModel(
            f'The base model is a "{base.architecture.name}", not a "{spec.architecture}".',
            hint="Leave architecture out: it comes with the base model.",
            param="architecture",
        )


def _design(spec: TrainingSpec, task: Task, modality: Modality, train: pa.Table, base: Design | None) -> Design:
    architecture = architecture_named(spec.architecture)
    columns = _input_columns(spec)
    if base is not None:
        preprocessing, architecture_config = base.preprocessing, base.architecture_config
        inputs = modality.reuse(train, columns, base.inputs)
    else:
        given = {**_usual_preprocessing(task), **spec.preprocessing}
        preprocessing = configure(modality.Config, given, "preprocessing")
        inputs = modality.fit(train, columns, preprocessing)
        architecture_config = configure(architecture.Config, spec.architecture_config, "architecture")
    task_config = configure(task.Config, spec.task_config, "task_config")
    targets = task.fit(train, spec.columns, task_config, inputs)
    return Design(task, architecture, modality, preprocessing, architecture_config, inputs, targets)


def _usual_preprocessing(task: Task) -> Mapping[str, Any]:
    return task.preprocessing if isinstance(task, Preprocessing) else {}


def _input_columns(spec: TrainingSpec) -> Columns:
    """Return the columns with those that only steer the split left out of the inputs."""
    steering = tuple(name for name in (spec.split.group, spec.split.column) if name is not None)
    return spec.columns.model_copy(update={"ignore": (*spec.columns.ignore, *steering)})


def encode_part(design: Design, table: pa.Table, device: torch.device, numbers: RowNumbers | None = None) -> Examples:
    """Return encoded rows: in memory when they fit, else from files or encoded batch by batch.

    `numbers` are those of the rows in the file that they are from, for InvalidRow to name.
    """
    if isinstance(design.task, Generative):
        with rows_from(numbers):
            return design.task.examples(table, design.inputs, design.targets, device)

    def encoded_with_targets(rows: pa.Table, encoded: Batch) -> Batch:
        targets = design.task.targets(rows, design.targets, encoded)
        if isinstance(design.task, Aligned) and isinstance(design.architecture, Timed):
            stride = design.architecture.stride
            position_B = torch.div(encoded["length_B"] + stride - 1, stride, rounding_mode="floor")
            design.task.check_room(targets, position_B, design.targets)
        return {**encoded, **targets}

    def encode_inputs(rows: pa.Table) -> Batch:
        return design.modality.encode(rows, design.inputs)

    def encode(rows: pa.Table) -> Batch:
        return encoded_with_targets(rows, encode_inputs(rows))

    targets: Any = design.targets
    with rows_from(numbers):
        sample = encode(table.slice(0, _SAMPLE_ROWS))
        row_bytes = sum(tensor.nbytes for tensor in sample.values()) / rows_in(sample)
        next_rows = isinstance(design.task, Sequential) and design.task.with_next_rows(targets.config)
        most = TOKENS_IN_MEMORY_BYTES if "token_S" in sample else IN_MEMORY_BYTES
        if row_bytes * table.num_rows > most:
            if next_rows:
                raise InvalidConfig(
                    f"{table.num_rows} rows are too many to be learned from together with the rows behind them, for "
                    "which they must be in memory.",
                    hint='Use fewer rows, or positives "readings".',
                    param="task_config.positives",
                )
            inputs = encoded_in_files(table, encode_inputs, row_bytes) if _DECODED & sample.keys() else None
            if inputs is None:
                return TableExamples(table, encode, device, numbers)
            found = encoded_with_targets(table, inputs)
            return PackedExamples(found, device, mapped=True) if "length_B" in found else MappedExamples(found, device)
        encoded = encode(table)
    if "length_B" not in encoded:
        return TensorExamples(encoded, device)
    return PackedExamples(encoded, device, next_rows=next_rows)


def _settings_warnings(spec: TrainingSpec, parts: Mapping[str, pa.Table], device: torch.device) -> list[str]:
    warnings = []
    if spec.early_stopping is not None and not parts["validation"].num_rows:
        warnings.append("early_stopping has no effect: there are no validation rows.")
    if is_slow(spec.hyperparameters.precision, device):
        warnings.append("This processor has no bf16 instructions, so bf16 is many times slower than fp32 here.")
    return warnings
