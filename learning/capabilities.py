"""What some tasks and architectures have beside the rest: whoever uses it asks whether it is there, not for a name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa
import torch

from learning.interfaces import Architecture, Examples, InputWarning, Network, Task


@runtime_checkable
class Generative(Protocol):
    """What a task has beside, when its models write: what they read begins a text, and what they answer goes on."""

    preprocessing: ClassVar[Mapping[str, Any]]  # the modality's options, unless a job says otherwise

    def examples(self, table: pa.Table, inputs: Any, state: Any, device: torch.device) -> Examples:
        """Return what is learned from rows, inputs with targets; InvalidData names the row that does not fit."""
        ...

    def remarks(self, table: pa.Table, inputs: Any, state: Any) -> list[str]:
        """Return what to warn about training rows."""
        ...

    def parse(self, value: Any, index: int, inputs: Any, state: Any) -> tuple[Any, list[InputWarning]]:
        """Return one prediction input as a row, and what to warn about; InvalidInput says what does not fit."""
        ...

    def cost(self, row: Any, inputs: Any) -> int:
        """Return the positions that answering a parsed row takes."""
        ...

    def generate(self, network: Network, rows: Sequence[Any], inputs: Any, state: Any) -> list[dict[str, Any]]:
        """Return how parsed rows go on, as the JSON that a caller gets."""
        ...


class Continuing(Protocol):
    """One row's answer on its way."""

    @property
    def is_done(self) -> bool:
        """Whether it is whole."""
        ...

    def fresh(self) -> str:
        """Return the text that has come since the last time; all of them together are the answer's."""
        ...

    def answer(self) -> dict[str, Any]:
        """Return the answer as it is now, as the JSON that a caller gets."""
        ...


class Steps(Protocol):
    """Answers that are computed together, a token of each at a time; rows join and leave between steps."""

    def fitting(self, rows: Sequence[Any]) -> int:
        """Return how many of the next parsed rows there is room for; one at least when nothing is on its way."""
        ...

    def join(self, rows: Sequence[Any]) -> Sequence[Continuing]:
        """Begin to answer rows; after an error the others are as they were."""
        ...

    def leave(self, answers: Collection[Any]) -> None:
        """Forget answers that nobody waits for."""
        ...

    def step(self) -> Sequence[Continuing]:
        """Write one more token of each answer; return those that are whole now, and have left."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """What a task has beside, when its answers can be computed token by token, with others joining meanwhile."""

    def generation(self, network: Network, inputs: Any, state: Any) -> Steps:
        """Return the answers of a network, none yet."""
        ...


@runtime_checkable
class Directed(Protocol):
    """Of an architecture: whether a position sees only those before it. Of a task: which of both it needs."""

    causal: ClassVar[bool]


def fits(task: Task, architecture: Architecture) -> bool:
    """Return whether a task can be learned by networks of an architecture."""
    if task.modality != architecture.modality:
        return False
    is_causal = isinstance(architecture, Directed) and architecture.causal
    return not isinstance(task, Directed) or task.causal == is_causal
