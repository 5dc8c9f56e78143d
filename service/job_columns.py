"""Whether a job's columns are there and hold what its task predicts: a dataset's description knows enough to say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def check_targets(task: Task, kind: str, columns: Columns, train: Dataset | None) -> None:
    """Raise when there are too few columns to predict, or too many, or one that does not hold what the task predicts.

    A column that is not there is not judged here, nor is a task for another kind of job.
    """
    names = columns.target_names()
    if train is None or task.kind != kind or task.target == "nothing":
        return
    if not names or (len(names) > 1 and task.target != "numbers"):
        some = "a column" if task.target == "numbers" else "exactly one column"
        raise InvalidConfig(
            f"{task.name} predicts {some}; the job names {len(names) or 'none'}.",
            hint='Set columns={"target": "..."}.',
            param="columns.target",
        )
    types = {name: column.get("type") for name, column in _described(train).items()}
    if task.target == "numbers":
        for name in names:
            if types.get(name, "number") not in NUMBERS:
                raise InvalidData(
                    f'Column "{name}" holds {types[name]} values, which are no numbers.',
                    hint="Predict it with a classification task, or choose another target.",
                    param="columns.target",
                )


def _described(dataset: Dataset) -> Mapping[str, Mapping[str, Any]]:
    return {column["name"]: column for column in (dataset.record.description or {}).get("columns", [])}


def _check_target(name: str, column: Mapping[str, Any]) -> None:
    unique = column.get("unique")
    if unique is not None and unique < 2:
        top = column.get("top") or []
        only = f'only the value "{top[0]["value"]}"' if unique and top else f"{unique} different values"
        raise InvalidData(
            f'Column "{name}" has {only}; there is nothing to predict.',
            hint="Add examples of another class, or choose another target.",
            param="columns.target",
        )
