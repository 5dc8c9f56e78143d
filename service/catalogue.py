"""What can be asked for: tasks, architectures and formats with the JSON Schema of their options."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from learning.config import Checkpointing, EarlyStopping, Hyperparameters, Split
from service.dataset_requests import UploadOptions
from service.dependencies import JobsKey, Listing
from service.library import importing

router = APIRouter(tags=["catalogue"])


class TaskEntry(BaseModel):
    """A task."""

    name: str
    kind: Literal["pretrain", "finetune"]
    modality: str
    description: str
    options: dict[str, Any]


class ArchitectureEntry(BaseModel):
    """An architecture."""

    name: str
    modality: str
    description: str
    options: dict[str, Any]


class FormatEntry(BaseModel):
    """A file format."""

    name: str
    suffixes: list[str]
    description: str
    options: dict[str, Any]


def _sentence(thing: object) -> str:
    return (inspect.getdoc(type(thing)) or "").split("\n", 1)[0]


@router.get("/tasks")
def list_tasks(_: JobsKey) -> Listing[TaskEntry]:
    """Return what can be learned."""
    with importing:
        from learning.tasks import TASKS  # torch comes with it: not before somebody asks

    return Listing[TaskEntry].of(
        [
            TaskEntry(
                name=task.name,
                kind=task.kind,
                modality=task.modality,
                description=_sentence(task),
                options=task.Config.model_json_schema(),
            )
            for task in TASKS.values()
        ]
    )


@router.get("/architectures")
def list_architectures(_: JobsKey) -> Listing[ArchitectureEntry]:
    """Return the families of networks."""
    with importing:
        from learning.architectures import ARCHITECTURES

    return Listing[ArchitectureEntry].of(
        [
            ArchitectureEntry(
                name=architecture.name,
                modality=architecture.modality,
                description=_sentence(architecture),
                options=architecture.Config.model_json_schema(),
            )
            for architecture in ARCHITECTURES.values()
        ]
    )


@router.get("/architectures/{name}/schema")
def architecture_schema(name: str, _: JobsKey) -> dict[str, Any]:
    """Return the JSON Schemas of everything that can be set for an architecture: default, bounds, unit, sentence."""
    with importing:
        from learning.architectures import architecture_named
        from learning.modalities import MODALITIES

    architecture = architecture_named(name)
    return {
        "architecture": architecture.Config.model_json_schema(),
        "preprocessing": MODALITIES[architecture.modality].Config.model_json_schema(),
        "hyperparameters": Hyperparameters.model_json_schema(),
        "early_stopping": EarlyStopping.model_json_schema(),
        "checkpointing": Checkpointing.model_json_schema(),
        "split": Split.model_json_schema(),
    }


@router.get("/formats")
def list_formats(_: JobsKey) -> Listing[FormatEntry]:
    """Return the file formats that can be uploaded."""
    with importing:
        from learning.formats import FORMATS  # pyarrow comes with it

    return Listing[FormatEntry].of(
        [
            FormatEntry(
                name=form.name,
                suffixes=list(form.suffixes),
                description=_sentence(form),
                options=UploadOptions.model_json_schema(),
            )
            for form in FORMATS.values()
        ]
    )
