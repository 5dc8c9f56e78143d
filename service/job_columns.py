"""Whether a job's columns are there and hold what its task predicts: a dataset's description knows enough to say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from learning.config import Columns, Split
from learning.errors import InvalidConfig, InvalidData, UnknownName, did_you_mean
from store.datasets import Dataset

if TYPE_CHECKING:
    from learning.interfaces import Task

# Called with the field that an error is about unless it says so itself.
Collect = Callable[[str], AbstractContextManager[object]]
NUMBERS = ("integer", "number")
FLAGS = ("boolean", "integer")  # of columns each of which is a label
# What tasks predict that may predict several columns.
_SEVERAL: dict[str, str] = {
    "numbers": "a column",
    "labels": "a column of lists of labels, or a column for each label",
}
MEDIA: dict[str, str] = {"image": "images", "audio": "recordings", "objects": "marked objects"}


def check(columns: Columns, split: Split, train: Dataset, collect: Collect) -> None:
    """Say what is wrong with the columns that a job names, and with a target that never varies."""
    known = _described(train)
    named = {
        "columns.target": columns.target_names(),
        "columns.inputs": columns.inputs or (),
        "columns.ignore": columns.ignore,
        "columns.text": (columns.text,) if columns.text else (),
        "split.group": (split.group,) if split.group else (),
        "split.column": (split.column,) if split.column else (),
    }
    for param, names in named.items():
        for name in names:
            with collect(param):
                if name not in known:
                    raise UnknownName(
                        f'Column "{name}" not found.{did_you_mean(name, known)}',
                        hint=f"Columns: {', '.join(known)}.",
                        param=param,
                    )
    with collect("columns.inputs"):
        if columns.inputs is not None and not columns.inputs:
            raise InvalidConfig(
                "columns.inputs is empty, so there is nothing to learn from.",
                hint="Name the columns to learn from, or leave columns.inputs out to take all that are not ignored.",
                param="columns.inputs",
            )
    for name in columns.target_names():
        with collect("columns.target"):
            _check_target(name, known.get(name, {}))


def check_for(task: Task, kind: str, columns: Columns, train: Dataset | None, collect: Collect) -> None:
    """Say what of the columns does not fit the task; a task for another kind of job is not judged here."""
    if train is None or task.kind != kind:
        return
    with collect("columns.target"):
        if task.target != "nothing":
            _check_targets(task, columns.target_names(), train)
    with collect("columns"):
        _check_inputs(task, columns, train)


def _check_targets(task: Task, names: Sequence[str], train: Dataset) -> None:
    if not names and task.target == "continuation":
        return  # texts are their own targets
    if not names or (len(names) > 1 and task.target not in _SEVERAL):
        some = _SEVERAL.get(task.target, "exactly one column")
        raise InvalidConfig(
            f"{task.name} predicts {some}; the job names {len(names) or 'none'}.",
            hint='Set columns={"target": "..."}.',
            param="columns.target",
        )
    types = {name: column.get("type") for name, column in _described(train).items()}
    if task.target == "objects" and types.get(names[0], "objects") != "objects":
        marked = [name for name, kind in types.items() if kind == "objects"]
        raise InvalidData(
            f'Column "{names[0]}" holds {types[names[0]]} values, which are no marked objects.',
            hint=f"Predict {', '.join(marked)}." if marked else "Upload images with annotations in COCO's form.",
            param="columns.target",
        )
    if task.target == "labels":
        _check_labels(names, types)
    if task.target == "numbers":
        for name in names:
            if types.get(name, "number") not in NUMBERS:
                raise InvalidData(
                    f'Column "{name}" holds {types[name]} values, which are no numbers.',
                    hint="Predict it with a classification task, or choose another target.",
                    param="columns.target",
                )


def _check_labels(names: Sequence[str], types: Mapping[str, Any]) -> None:
    wanted = ("strings", *FLAGS) if len(names) == 1 else FLAGS
    for name in names:
        if types.get(name, wanted[0]) not in wanted:
            several = "" if len(names) == 1 else "; of several targets each is a label, and says of a row 1 or 0"
            raise InvalidData(
                f'Column "{name}" holds {types[name]} values, which are no lists of labels{several}.',
                hint=f'Upload the file with column_types={{"{name}": "strings"}} if its cells are like ["cat", "dog"] '
                "or cat|dog, or predict one label a row with another task."
                if types[name] == "string" and len(names) == 1
                else "Choose a column of lists, or columns of true and false or of 1 and 0.",
                param="columns.target",
            )


def _check_inputs(task: Task, columns: Columns, train: Dataset) -> None:
    known = _described(train)
    left_out = {*columns.target_names(), *columns.ignore}
    read = [name for name in known if name not in left_out] if columns.inputs is None else columns.inputs
    types = {name: known.get(name, {}).get("type") for name in read}
    if not types:
        return  # nothing to read is told of elsewhere
    hint = "Choose a task for the data (the dataset's task_candidates)"
    if task.modality in MEDIA and task.modality not in types.values():
        wanted = MEDIA[task.modality]
        raise InvalidData(
            f"{task.name} learns from {wanted}, and no column to read holds any.",
            hint=f"{hint}, or upload {wanted} as a zip archive.",
            param="columns",
        )
    media = {name: MEDIA[kind] for name, kind in types.items() if isinstance(kind, str) and kind in MEDIA}
    if task.modality == "tabular" and media:
        name, held = next(iter(media.items()))
        raise InvalidData(
            f'Column "{name}" holds {held}, from which {task.name} cannot learn.',
            hint=f"{hint}, or list the column in columns.ignore.",
            param="columns",
        )


def _described(dataset: Dataset) -> Mapping[str, Mapping[str, Any]]:
    return {column["name"]: column for column in (dataset.record.description or {}).get("columns", [])}


def _check_target(name: str, column: Mapping[str, Any]) -> None:
    unique = column.get("unique")
    if unique is not None and unique < 2 and column.get("type") != "objects":  # things may always be at one place
        top = column.get("top") or []
        same = f'only the value "{top[0]["value"]}"' if top else "the same value in every row"
        only = same if unique else "no value at all"
        raise InvalidData(
            f'Column "{name}" has {only}; there is nothing to predict.',
            hint="Add examples of another class, or choose another target.",
            param="columns.target",
        )
