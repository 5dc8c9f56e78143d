"""What some tasks and architectures have beside the rest: whoever uses it asks whether it is there, not for a name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa
import torch
from torch import Tensor, nn

from learning.config import Defaults, Situation
from learning.interfaces import Architecture, Batch, Examples, InputWarning, Network, Part, Task


@runtime_checkable
class Preprocessing(Protocol):
    """What a task has beside, when its inputs are best read otherwise than is usual for their modality."""

    preprocessing: ClassVar[Mapping[str, Any]]  # the modality's options, unless a job says otherwise


@runtime_checkable
class Particular(Protocol):
    """What a task has beside, when there are ways of reading its inputs by which it cannot be learned."""

    def check_preprocessing(self, config: Any) -> None:
        """Raise InvalidConfig for such options of the modality, before any data is looked at."""
        ...


@runtime_checkable
class Writer(Protocol):
    """What a task has beside, when it reads its inputs and answers them in a way of its own, as those do that write."""

    def parse(self, value: Any, index: int, inputs: Any, state: Any) -> tuple[Any, list[InputWarning]]:
        """Return one prediction input as a row, and what to warn about; InvalidInput says what does not fit."""
        ...

    def cost(self, row: Any, inputs: Any) -> int:
        """Return the positions that answering a parsed row takes."""
        ...

    def generate(self, network: Network, rows: Sequence[Any], inputs: Any, state: Any) -> list[dict[str, Any]]:
        """Return the answers to parsed rows, as the JSON that a caller gets."""
        ...


@runtime_checkable
class Generative(Writer, Preprocessing, Protocol):
    """What a task has beside, when its models go on with texts: what they read begins a text that they end."""

    def examples(self, table: pa.Table, inputs: Any, state: Any, device: torch.device) -> Examples:
        """Return what is learned from rows, inputs with targets; InvalidData names the row that does not fit."""
        ...

    def remarks(self, table: pa.Table, inputs: Any, state: Any, part: Part = "training") -> list[str]:
        """Return what to warn about a part's rows, as a modality's remarks."""
        ...


@runtime_checkable
class Exported(Protocol):
    """What a task has beside, when other libraries are to read its inputs otherwise than the modality alone says."""

    def exported(self, inputs: Any, state: Any) -> Any:
        """Return the modality's state of which files for them are made."""
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
    """Answers that are computed together, a bit at a time, such as a token of each; rows join and leave between."""

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
        """Go on with answers by a bit; return those that are whole now, and have left."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """What a task has beside, when its answers can be computed bit by bit, with others joining meanwhile."""

    def generation(self, network: Network, inputs: Any, state: Any) -> Steps:
        """Return the answers of a network, none yet."""
        ...


@runtime_checkable
class Examined(Protocol):
    """What a task has beside, when at the end of a training it is measured as well what the models answer."""

    def examine(
        self, network: Network, examples: Examples, inputs: Any, state: Any, check: Callable[[], None]
    ) -> dict[str, Any]:
        """Return more metrics of a part; `check` is called now and then, and may raise to end it."""
        ...


@runtime_checkable
class Detailed(Protocol):
    """What a task has beside, when at the end of a training single rows are worth a look, not only their sums."""

    def details(self, predictions: Any, targets: Batch, state: Any) -> dict[str, Any]:
        """Return what to add to a part's metrics, of its predictions and targets, row by row in order."""
        ...


class Picture(NamedTuple):
    """A picture of how good a model is: its name, without an ending, and its SVG."""

    name: str
    svg: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model is judged by: the rows of a part, in order, what it predicts for them and what is right."""

    part: str
    predictions: Any
    targets: Batch
    rows: PartRows


class PartRows(Protocol):
    """The rows of a part as they were uploaded."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def taken(self, places: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
        """Return some by their places in the part, each with its number in the file, from 1."""
        ...


@runtime_checkable
class Illustrated(Protocol):
    """What a task has beside, when there are pictures that show how good its models are."""

    def pictures(self, judged: Judged, inputs: Any, state: Any) -> Iterator[Picture]:
        """Yield the pictures that there is something to draw on."""
        ...


@runtime_checkable
class Comparable(Protocol):
    """What a task has beside, when its answers are embeddings by which subjects are told apart that it never saw."""

    def embed(self, network: Network, batch: Batch, state: Any) -> Tensor:
        """Return embeddings of a batch's rows, of length 1, (B, E): the nearer, the more alike."""
        ...


@runtime_checkable
class Sequential(Protocol):
    """What a task has beside, when it can learn from rows together with those that follow them."""

    def with_next_rows(self, config: Any) -> bool:
        """Return whether a batch has the rows behind its own as well, as `next_token_S` and the like."""
        ...


@runtime_checkable
class Batched(Protocol):
    """What a task has beside, when it learns only from several rows at once, say because it normalises over them."""

    least_batch_size: ClassVar[int]  # rows per optimizer step


@runtime_checkable
class Paced(Protocol):
    """What a task has beside, when it wants other batches, rates or lengths of training than is usual."""

    def defaults(self, usual: Defaults, situation: Situation) -> Defaults:
        """Return what "auto" means, where an architecture's usual is this."""
        ...


@runtime_checkable
class Probed(Protocol):
    """What a task has beside, when its head ends in one linear layer to the logits of classes."""

    def logits_layer(self, head: nn.Module) -> nn.Linear:
        """Return that layer of a head; its inputs are a vector for each row, (B, W)."""
        ...

    def row_weights(self, target_B: Tensor, state: Any) -> Tensor:
        """Return what each row counts in the loss, (B,)."""
        ...


@runtime_checkable
class Filed(Protocol):
    """What a modality has beside, when each of its inputs is a file."""

    def content(self, value: Any, index: int, state: Any) -> bytes:
        """Return the file of a prediction input; InvalidInput when there is none. Whether it reads, `parse` says."""
        ...


@runtime_checkable
class Directed(Protocol):
    """Of an architecture: whether a position sees only those before it. Of a task: which of both it needs."""

    causal: ClassVar[bool]


@runtime_checkable
class Transducing(Protocol):
    """Of an architecture: that its networks read one text and write another. Of a task: that it needs that."""

    writes_another: ClassVar[bool]


@runtime_checkable
class Renamed(Protocol):
    """What an architecture has beside, when Transformers calls some weights otherwise than the network does."""

    foreign_names: ClassVar[Mapping[str, str]]  # in files, by those in the network


@runtime_checkable
class Classifying(Protocol):
    """What a task has beside, when its head may be one linear layer to a softmax over classes."""

    def softmax_labels(self, state: Any) -> tuple[str, ...]:
        """Return the classes; none where the head is another."""
        ...


@runtime_checkable
class ForeignClassifier(Protocol):
    """What an architecture has beside, when Transformers has its networks with such a head too."""

    foreign_classifier: ClassVar[str]  # the class there
    foreign_head: ClassVar[Mapping[str, str]]  # the head's weights in files, by those in the network


class Level(NamedTuple):
    """A grid that a backbone makes of an image: its channels, and the pixels from one of its cells to the next."""

    width: int
    stride: int


@runtime_checkable
class Pyramidal(Protocol):
    """What an architecture has beside, when its backbones keep grids of several resolutions in their features."""

    def levels(self, config: Any, state: Any) -> tuple[Level, ...]:
        """Return the grids, from fine to coarse."""
        ...


@runtime_checkable
class Spatial(Protocol):
    """What a task has beside, when it says where something is, so that its head reads such grids."""

    def head_on(self, levels: Sequence[Level], state: Any) -> nn.Module:
        """Return a fresh head from Features with these grids to outputs."""
        ...


@runtime_checkable
class Timed(Protocol):
    """What an architecture has beside, when a position of its features is a stretch of time, as short as this."""

    stride: ClassVar[int]  # frames of a recording to a position, of which the last may have fewer


@runtime_checkable
class Aligned(Protocol):
    """What a task has beside, when each part of a target takes a position, so that there must be enough of them."""

    def check_room(self, targets: Batch, position_B: Tensor, state: Any) -> None:
        """Raise InvalidRow for a row whose target needs more than the positions that it has."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """What a task has beside, when a model may not have learned all that the targets of a part have in them."""

    def part_remarks(self, part: Part, table: pa.Table, state: Any) -> list[str]:
        """Return what to warn about the rows of a part, such as "test"."""
        ...


@runtime_checkable
class ByTime(Protocol):
    """What a task has beside, when it learns about moments of a recording, so that there must be positions of them."""

    by_time: ClassVar[bool]


# Why a task does not fit, by whether it needs that a position sees only those before it.
_DIRECTIONS = {
    True: "in it a position sees those behind it as well, which are to be foretold",
    False: "in it a position sees only those before it, and both sides are wanted",
}


def obstacle(task: Task, architecture: Architecture) -> str | None:
    """Return why a task cannot be learned by networks of an architecture for the same modality; None if it can."""
    if isinstance(task, Transducing) != isinstance(architecture, Transducing):
        return (
            "it writes nothing but what goes on" if isinstance(task, Transducing) else "it reads to write another text"
        )
    is_causal = isinstance(architecture, Directed) and architecture.causal
    if isinstance(task, Directed) and task.causal != is_causal:
        return _DIRECTIONS[task.causal]
    if isinstance(task, Spatial) and not isinstance(architecture, Pyramidal):
        return "it keeps nothing of where in an image something is"
    if isinstance(task, Aligned | ByTime) and not isinstance(architecture, Timed):
        return "it keeps nothing of when something is heard"
    return None


def fits(task: Task, architecture: Architecture) -> bool:
    """Return whether a task can be learned by networks of an architecture."""
    return task.modality == architecture.modality and obstacle(task, architecture) is None
