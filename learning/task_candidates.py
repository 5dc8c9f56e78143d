"""Which tasks a table's columns suggest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from learning.statistics import Column

# An integer column with more distinct values than this is a quantity rather than a code for classes.
FEW_VALUES = 20
# Strings at least so long on average are sentences; those of scripts without spaces say more in fewer characters.
_SENTENCE, _DENSE_SENTENCE = 16, 6


@dataclass(frozen=True, slots=True)
class TaskCandidate:
    """A task that could be trained, its target column if it has one, and why."""

    task: str
    target: str | None
    reason: str


def task_candidates(columns: Sequence[Column], num_rows: int) -> list[TaskCandidate]:
    """Return the supervised candidates, last column first, and then pretraining."""
    texts = [column for column in columns if _is_text(column, num_rows)]
    found = [
        candidate
        for column in reversed(columns)
        if column not in texts and (candidate := _supervised(column, num_rows, _is_all_text(columns, texts, column)))
    ]
    features = TaskCandidate(
        "masked-features", None, f"the {len(columns)} columns can be learned from without a target"
    )
    if len(texts) != 1:
        return [*found, features]
    tokens = TaskCandidate("masked-tokens", None, f'"{texts[0].name}" is a column of texts')
    # Beside other columns a text is one of many; the first that pretrains is what a job gets that names no task.
    is_all = len(columns) == 1 + any(candidate.target for candidate in found)
    return [*found, tokens] if is_all else [*found, features, tokens]


def _is_all_text(columns: Sequence[Column], texts: Sequence[Column], target: Column) -> bool:
    """Return whether a text is all that there is beside the target."""
    return len(texts) == 1 and len(columns) == 2 and target not in texts


def _is_text(column: Column, num_rows: int) -> bool:
    """Return whether a column has sentences: values that hardly ever repeat, are long, and have spaces unless dense."""
    if column.type != "string" or not column.top or 2 * column.unique <= num_rows - column.missing:
        return False
    shown = [str(entry.value) for entry in column.top]
    length = sum(map(len, shown)) / len(shown)
    if _most(shown, lambda text: not text.isascii()):
        return length >= _DENSE_SENTENCE
    # A long value without a space is an identifier, an address or a date.
    return length >= _SENTENCE and _most(shown, lambda text: " " in text.strip())


def _most(values: Sequence[str], holds: Callable[[str], bool]) -> bool:
    return 2 * sum(map(holds, values)) > len(values)


def _supervised(column: Column, num_rows: int, beside_text: bool) -> TaskCandidate | None:
    present = num_rows - column.missing
    if column.unique < 2:
        return None
    what = f'"{column.name}" is {"an" if column.type == "integer" else "a"} {column.type} column'
    reason = f"{what} with {column.unique} distinct values in {present} rows"
    few = column.unique <= FEW_VALUES if column.type == "integer" else True
    # Values that hardly ever repeat are names or sentences, not classes.
    if column.type in {"string", "boolean", "integer"} and few and 2 * column.unique <= present:
        return TaskCandidate("text-classification" if beside_text else "tabular-classification", column.name, reason)
    many = column.unique > FEW_VALUES or column.type == "number"
    if column.type in {"integer", "number"} and many and column.unique > 2 and not beside_text:
        return TaskCandidate("tabular-regression", column.name, reason)
    return None
