"""Which tasks a table's columns suggest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from learning.statistics import Column, TableStatistics, TopValue
from learning.task_names import TASK_NAMES

# An integer column with more distinct values than this is a quantity rather than a code for classes.
FEW_VALUES = 20
_SHOWN_CLASSES = 100
_SHOWN_ONCE = 10
_MOST_TEXTS = 3


@dataclass(frozen=True, slots=True)
class LabelBalance:
    """How often each label occurs.

    `counts` are the hundred most frequent labels; `majority_share` is the most frequent one's share of all that have a
    label, from 0 to 1; `once` counts the labels that occur only once, of which `once_first` are the first ten.
    """

    classes: int
    counts: list[TopValue]
    majority_share: float
    once: int
    once_first: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskCandidate:
    """A task that could be trained, its target column if it has one, and why.

    `inputs` are the columns to learn from where not simply all others are; `balance` is that of the target's labels.
    """

    task: str
    target: str | None
    reason: str
    inputs: list[str] | None = None
    balance: LabelBalance | None = None


class Facts:
    """What the suggestions look at."""

    def __init__(self, statistics: TableStatistics, columns: list[Column]) -> None:
        self.columns = columns
        self.num_rows = statistics.num_rows
        self.paired = [(columns[first], columns[second]) for first, second in sorted(statistics.paired)]
        self._statistics = {column.name: column for column in statistics.columns}
        self.tabular = [column for column in columns if column.type != "strings"]
        self.sentences = [column for column in columns if self._is_sentences(column)][:_MOST_TEXTS]
        # The last column first: that is where a target usually is.
        self.labels = [column for column in reversed(columns) if self._has_labels(column)]

    def present(self, column: Column) -> int:
        """Return how many rows have a value."""
        return self.num_rows - column.missing

    def balance(self, column: Column) -> LabelBalance:
        """Return how often each label or tag of a column occurs."""
        counts = self._statistics[column.name].counts
        top = [TopValue(value, count) for value, count in counts.top(_SHOWN_CLASSES)]
        once, first = counts.once(_SHOWN_ONCE)
        return LabelBalance(counts.unique, top, top[0].count / counts.total, once, first)

    def _is_sentences(self, column: Column) -> bool:
        return bool(column.prose) and 2 * column.unique > self.present(column)

    def _has_labels(self, column: Column) -> bool:
        if column.type not in {"string", "boolean", "integer"} or column.unique < 2 or column.unique_estimated:
            return False
        few = column.unique <= FEW_VALUES if column.type == "integer" else True
        # Values that hardly ever repeat are names or sentences, not classes.
        return few and 2 * column.unique <= self.present(column)


def task_candidates(facts: Facts, known: Collection[str] = TASK_NAMES) -> list[TaskCandidate]:
    """Return the candidates among the known tasks: those with a target first, the surest ones before the others."""
    return [found for suggest in _SUGGESTIONS for found in suggest(facts) if found.task in known]


def _token_classification(facts: Facts) -> Iterator[TaskCandidate]:
    for pair in facts.paired:
        tags, tokens = sorted(pair, key=lambda column: column.unique)
        if tags.unique >= 2:
            reason = f'each list of "{tags.name}" is as long as that of "{tokens.name}"; {tags.unique} different tags'
            yield TaskCandidate("token-classification", tags.name, reason, [tokens.name], facts.balance(tags))


def _translation(facts: Facts) -> Iterator[TaskCandidate]:
    named = {column.name: column for column in facts.columns if column.prose}
    if {"source", "target"} <= named.keys():
        yield TaskCandidate("translation", "target", '"source" and "target" are columns of sentences', ["source"])


def _text_classification(facts: Facts) -> Iterator[TaskCandidate]:
    for label in facts.labels:
        for text in facts.sentences:
            reason = f'"{text.name}" is a column of sentences, and {_what(facts, label)}'
            yield TaskCandidate("text-classification", label.name, reason, [text.name], facts.balance(label))


def _tabular(facts: Facts) -> Iterator[TaskCandidate]:
    if len(facts.tabular) < 2:
        return
    labels = {column.name for column in facts.labels}
    for column in reversed(facts.tabular):
        if column.name in labels:
            balance = facts.balance(column)
            yield TaskCandidate("tabular-classification", column.name, _what(facts, column), balance=balance)
        elif _is_quantity(column):
            yield TaskCandidate("tabular-regression", column.name, _what(facts, column))


def _is_quantity(column: Column) -> bool:
    many = column.unique > FEW_VALUES or column.type == "number"
    return column.type in {"integer", "number"} and many and column.unique > 2


def _what(facts: Facts, column: Column) -> str:
    kind = f"{'an' if column.type == 'integer' else 'a'} {column.type} column"
    about = "about " if column.unique_estimated else ""
    return f'"{column.name}" is {kind} with {about}{column.unique} distinct values in {facts.present(column)} rows'


def _text_pretraining(facts: Facts) -> Iterator[TaskCandidate]:
    if len(facts.columns) == 1 and facts.columns[0].prose:
        name = facts.columns[0].name
        for task in ("text-generation", "masked-tokens"):
            yield TaskCandidate(task, None, f'"{name}" is text and the only column', [name])


def _masked_features(facts: Facts) -> Iterator[TaskCandidate]:
    features = [column for column in facts.tabular if column not in facts.sentences]
    if features and not (len(facts.columns) == 1 and facts.columns[0].prose):
        columns = f"{len(features)} column{'s' if len(features) > 1 else ''}"
        yield TaskCandidate("masked-features", None, f"the {columns} can be learned from without a target")


_SUGGESTIONS: tuple[Callable[[Facts], Iterator[TaskCandidate]], ...] = (
    _token_classification,
    _translation,
    _text_classification,
    _tabular,
    _text_pretraining,
    _masked_features,
)
