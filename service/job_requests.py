"""What a caller asks of a job, and what it means: datasets, base model and task checked, options resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from learning.config import Checkpointing, Columns, EarlyStopping, Hyperparameters, Split, TrainingSpec
from learning.errors import InvalidConfig, LearningError, UnknownName
from service import base_models, job_columns
from service.base_models import Base
from service.errors import ApiError
from service.job_columns import Collect
from service.job_devices import check_device
from service.json_values import check_storable
from service.library import importing
from store import datasets, jobs
from store.datasets import Dataset
from store.errors import StoreError
from store.jobs import NewJob
from store.models import NAME
from store.records import CheckpointRecord, JobRecord

if TYPE_CHECKING:
    from learning.interfaces import Task

CHECKPOINT_EVERY_S = 10.0  # of a job that applies a model


def _model_name(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise ValueError("a name is made of a-z, 0-9, '.', '_' and '-', starts with a letter or digit, at most 64 long")
    return name


ModelName = Annotated[str, AfterValidator(_model_name)]


class Request(BaseModel):
    """A request body: unknown fields are refused, so that a typing error is no silent default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StoredRequest(Request):
    """A request body that is kept: what the database cannot give back is refused."""

    @model_validator(mode="before")
    @classmethod
    def _is_storable(cls, data: Any) -> Any:
        check_storable(data)
        return data


class RunOptions(StoredRequest):
    """How a job is run that applies a model to rows or files."""

    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: by the network's size.")
    checkpoint_every_s: float = Field(
        CHECKPOINT_EVERY_S, ge=0.1, le=3600, description="Seconds after which what is done is kept."
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher runs earlier.")
    name: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)


class DatasetParts(Request):
    """Datasets by part, where they are not to be cut out of one."""

    train: str
    validation: str | None = None
    test: str | None = None


class Resources(Request):
    """Where and how long."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: by the network's size.")
    max_runtime_s: float | None = Field(
        None, gt=0, le=10**8, description="Seconds of running, all attempts together, after which the job fails."
    )


class Output(Request):
    """Where the model is registered."""

    model: ModelName | None = Field(None, description="Name in the registry; default: from the dataset and the task.")
    aliases: list[ModelName] = Field(default_factory=list, max_length=16, description="Aliases to move to it.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Arithmetic in which it predicts; what bf16 costs in accuracy is measured and kept with it."
    )


class JobCreate(StoredRequest):
    """A pretrain or finetune job."""

    kind: Literal["pretrain", "finetune"]
    task: str | None = Field(None, description="What to learn; see GET /tasks. Pretraining has a default by the data.")
    task_config: dict[str, Any] = Field(default_factory=dict, description="Options of the task.")
    dataset: str | DatasetParts = Field(description="A dataset's id, or ids by part.")
    architecture: str | dict[str, Any] | None = Field(
        None, description='A name, or {"name": ..., options}; default: the base model\'s, or the first that fits.'
    )
    base_model: str | None = Field(
        None,
        description='Model to start from: "name", "name:3", "name@alias", or the id of the pretrain job that makes it.',
    )
    depends_on: list[str] = Field(
        default_factory=list, max_length=100, description="Jobs that must succeed before this one starts."
    )
    continue_from: str | None = Field(
        None,
        description="Checkpoint to go on from with other hyperparameters or rows; its network, preprocessing and "
        "task_config hold.",
    )
    columns: Columns = Columns()
    preprocessing: dict[str, Any] = Field(default_factory=dict, description="How columns become features.")
    hyperparameters: Hyperparameters = Hyperparameters()
    early_stopping: EarlyStopping | None = None
    checkpointing: Checkpointing = Checkpointing()
    split: Split = Split()
    compare: bool = Field(False, description="Also train the same network from scratch, and say whether it helped.")
    resources: Resources = Resources()
    output: Output = Output()
    seed: int = Field(0, ge=0, le=2**31 - 1)
    priority: int = Field(0, ge=-100, le=100, description="Higher runs earlier.")
    name: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Let an error through with the field that it is about: what is looked up by its id knows no request."""
    try:
        yield
    except (ApiError, LearningError, StoreError) as error:
        error.param = error.param or field or None
        raise


def resolve(session: Session, project: str, asked: JobCreate, collect: Collect = naming) -> NewJob | None:
    """Return the job to queue.

    Raises the first thing that is wrong with the request; but each check is done within a `collect(field)`, which may
    keep its error and go on, and then the result means nothing, or is None.
    """
    with importing:
        from learning import preparation  # torch comes with it
        from learning.tasks import task_named

    parts = _parts(session, project, asked, collect)
    base, checkpoint, task = None, None, None
    with collect("base_model"):
        base = base_models.find(session, project, asked.base_model, asked.depends_on)
    if asked.continue_from:
        with collect("continue_from"):
            checkpoint = _checkpoint(session, project, asked.continue_from)
    split = _split(asked, parts.get("train"))
    _check_combination(session, asked, collect)
    with collect("depends_on"):
        jobs.check_dependencies(session, project, asked.depends_on)
    with collect("task"):
        task = task_named(asked.task or _default_task(parts, _architecture_name(asked, base)))
    if "train" in parts:
        job_columns.check(asked.columns, split, parts["train"], collect)
    if task is None:
        return None
    job_columns.check_for(task, asked.kind, asked.columns, parts.get("train"), collect)
    architecture = ""
    options: dict[str, Any] = {}
    with collect("architecture"):
        _check_base(base, task.modality)
        architecture, options = _architecture(session, asked, base, checkpoint, task)
    if not architecture or "train" not in parts:
        return None
    spec = _specification(asked, split, task.name, architecture, options)
    preparation.check(spec, collect)
    request = asked.model_dump(mode="json", exclude_unset=True)
    request["output"] = {
        **asked.output.model_dump(),
        "model": asked.output.model or _default_name(parts, asked, task.name),
    }
    return NewJob(
        kind=asked.kind,
        project=project,
        task=task.name,
        name=asked.name,
        spec={**request, "seed": asked.seed},
        resolved=spec.model_dump(mode="json"),
        datasets={role: dataset.record.id for role, dataset in parts.items()},
        base_version_id=base.version_id if base else None,
        base_job_id=base.job_id if base else None,
        depends_on=tuple(dict.fromkeys([*asked.depends_on, *(base.depends_on if base else ())])),
        max_runtime_s=asked.resources.max_runtime_s,
        start_checkpoint_id=checkpoint.id if checkpoint else None,
        priority=asked.priority,
        user_metadata=asked.metadata,
    )


def _split(asked: JobCreate, train: Dataset | None) -> Split:
    """Return the request's split, or the one that came with the dataset if the request has none."""
    given = train.record.options.get("split") if train else None
    return Split.model_validate(given) if given and "split" not in asked.model_fields_set else asked.split


def _specification(
    asked: JobCreate, split: Split, task: str, architecture: str, options: dict[str, Any]
) -> TrainingSpec:
    return TrainingSpec(
        kind=asked.kind,
        task=task,
        task_config=asked.task_config,
        architecture=architecture,
        architecture_config=options,
        preprocessing=asked.preprocessing,
        columns=asked.columns,
        hyperparameters=asked.hyperparameters,
        early_stopping=asked.early_stopping,
        checkpointing=asked.checkpointing,
        split=split,
        compare=asked.compare,
        serving_precision=asked.output.precision,
        seed=asked.seed,
        device=asked.resources.device,
        threads=asked.resources.threads,
    )


def resolved(session: Session, project: str, asked: JobCreate) -> NewJob:
    """Return the job to queue; raises the first thing that is wrong with the request."""
    new = resolve(session, project, asked)
    assert new is not None  # whatever is wrong was raised
    return new


def _parts(session: Session, project: str, asked: JobCreate, collect: Collect) -> dict[str, Dataset]:
    given = asked.dataset
    ids = {"train": given} if isinstance(given, str) else given.model_dump(exclude_none=True)
    parts = {}
    for role, dataset_id in ids.items():
        with collect("dataset" if isinstance(given, str) else f"dataset.{role}"):
            parts[role] = ready_dataset(datasets.get(session, project, dataset_id), role)
    return parts


def ready_dataset(dataset: Dataset, role: str) -> Dataset:
    """Return a dataset that is ready; 409 otherwise."""
    if dataset.status != datasets.READY:
        raise ApiError(
            409,
            "dataset_not_ready",
            f"Dataset {dataset.record.id} ({role}) is {dataset.status}, not ready.",
            hint=f"See GET /api/v1/datasets/{dataset.record.id}?wait=30.",
            param="dataset",
        )
    return dataset


def _checkpoint(session: Session, project: str, checkpoint_id: str) -> CheckpointRecord:
    # A foreign project's checkpoint is as good as none.
    checkpoint = session.scalar(
        select(CheckpointRecord)
        .join(JobRecord, CheckpointRecord.job_id == JobRecord.id)
        .where(CheckpointRecord.id == checkpoint_id, JobRecord.project == project, JobRecord.kind != jobs.PREDICT)
    )
    if checkpoint is None:
        raise UnknownName(
            f'No checkpoint "{checkpoint_id}".',
            hint="List a job's with GET /api/v1/jobs/{id}/checkpoints.",
            param="continue_from",
        )
    return checkpoint


def _check_combination(session: Session, asked: JobCreate, collect: Collect) -> None:
    with collect("resources.device"):
        check_device(session, asked.resources.device)
    for error in _combination_errors(asked):
        with collect(error.param or ""):
            raise error


def _combination_errors(asked: JobCreate) -> Iterator[InvalidConfig]:
    if asked.kind == "finetune" and asked.task is None:
        yield InvalidConfig("A finetune job needs a task.", hint="See GET /api/v1/tasks.", param="task")
    if asked.preprocessing and (asked.base_model or asked.continue_from):
        yield InvalidConfig(
            "The preprocessing comes with the base model or the checkpoint.",
            hint="Leave preprocessing out.",
            param="preprocessing",
        )
    if asked.task_config and asked.continue_from:
        yield InvalidConfig(
            "The task's settings come with the checkpoint.",
            hint="Leave task_config out. To learn with other ones, give the checkpoint's model as base_model.",
            param="task_config",
        )
    if asked.base_model is not None and asked.continue_from is not None:
        yield InvalidConfig("base_model and continue_from exclude each other.", param="continue_from")
    if asked.compare and asked.base_model is None:
        yield InvalidConfig(
            "compare trains the same network from scratch beside the pretrained one, so it needs a base_model.",
            hint='Name one, such as "base_model": "my-base".',
            param="compare",
        )


def _default_task(parts: Mapping[str, Dataset], architecture: str | None) -> str:
    with importing:
        from learning.architectures import ARCHITECTURES
        from learning.tasks import default_pretraining

    description = (parts["train"].record.description or {}) if "train" in parts else {}
    candidates = [candidate["task"] for candidate in description.get("task_candidates", [])]
    return default_pretraining(candidates, ARCHITECTURES.get(architecture or ""))


def _architecture_name(asked: JobCreate, base: Base | None) -> str | None:
    """Return the architecture that is certain before the task is, if one is."""
    if base is not None:
        return base.architecture
    return asked.architecture.get("name") if isinstance(asked.architecture, dict) else asked.architecture


def _check_base(base: Base | None, modality: str) -> None:
    if base is not None and base.modality != modality:
        raise ApiError(
            422,
            "incompatible_model",
            f"Base model {base.ref} learned from {base.modality} data; this task is for {modality} data.",
            hint="Choose a base model of the same modality.",
            param="base_model",
        )


def _architecture(
    session: Session, asked: JobCreate, base: Base | None, checkpoint: CheckpointRecord | None, task: Task
) -> tuple[str, dict[str, Any]]:
    with importing:
        from learning.architectures import default_for

    given = asked.architecture
    if given is None:
        if base is not None:
            return base.architecture, {}
        if checkpoint is not None:
            return _trained_as(session, checkpoint)
        return default_for(task), {}
    if base is not None or checkpoint is not None:
        raise InvalidConfig(
            "The architecture comes with the base model or the checkpoint.",
            hint="Leave architecture out.",
            param="architecture",
        )
    if isinstance(given, str):
        return given, {}
    options = dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InvalidConfig('architecture needs a "name".', hint="See GET /api/v1/architectures.", param="architecture")
    return name, options


def _trained_as(session: Session, checkpoint: CheckpointRecord) -> tuple[str, dict[str, Any]]:
    made_by = session.get_one(JobRecord, checkpoint.job_id).resolved or {}
    return made_by["architecture"], made_by["architecture_config"]


def _default_name(parts: Mapping[str, Dataset], asked: JobCreate, task: str) -> str:
    stem = re.sub(r"[^a-z0-9._-]+", "-", parts["train"].record.name.lower()).strip("-._") or "model"
    return f"{stem[:40]}-{'base' if asked.kind == 'pretrain' else task}"[:64]
