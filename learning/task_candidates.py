"""Which tasks a table's columns suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learning.statistics import Column

# An integer column with more distinct values than this is a quantity rather than a code for classes.
FEW_VALUES = 20


@dataclass(frozen=True, slots=True)
class TaskCandidate:
    """A task that could be trained, its target column if it has one, and why."""

    task: str
    target: str | None
    reason: str


def task_candidates(columns: Sequence[Column], num_rows: int) -> list[TaskCandidate]:
    """Return the supervised candidates, last column first, and then pretraining."""
    supervised = [found for column in reversed(columns) if (found := _candidate(column, num_rows))]
    reason = f"the {len(columns)} columns can be learned from without a target"
    return [*supervised, TaskCandidate("masked-features", None, reason)]


def _candidate(column: Column, num_rows: int) -> TaskCandidate | None:
    present = num_rows - column.missing
    if column.unique < 2:
        return None
    what = f'"{column.name}" is {"an" if column.type == "integer" else "a"} {column.type} column'
    reason = f"{what} with {column.unique} distinct values in {present} rows"
    few = column.unique <= FEW_VALUES if column.type == "integer" else True
    # Values that hardly ever repeat are names or sentences, not classes.
    if column.type in {"string", "boolean", "integer"} and few and 2 * column.unique <= present:
        return TaskCandidate("tabular-classification", column.name, reason)
    many = column.unique > FEW_VALUES or column.type == "number"
    if column.type in {"integer", "number"} and many and column.unique > 2:
        return TaskCandidate("tabular-regression", column.name, reason)
    return None
