"""A loaded model that answers: parse, encode, forward, answer. What it answers is what evaluation measures.

Parsing belongs to one request, the rest to a batch: a list of parsed rows of whichever requests wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch

from learning.capabilities import Comparable, Generative, Steps, Stepwise, Writer
from learning.device import is_slow
from learning.errors import InvalidInput
from learning.interfaces import InputWarning, Network, PredictionOptions
from learning.modalities.tabular import TabularState
from learning.modalities.tabular_rows import RowEncoder
from learning.model import BackboneWithHead, Design, configure, load
from learning.packing import joined, pieces
from learning.precision import arithmetic, predicting
from learning.row_forward import RowForward

Answer = dict[str, Any]


@dataclass(slots=True)
class Predictions:
    """Answers in the order of the inputs; None where there is an error for that input instead."""

    outputs: list[Answer | None]
    errors: list[InvalidInput] = field(default_factory=list)
    warnings: list[InputWarning] = field(default_factory=list)
    inference_ms: float = 0.0


@dataclass(slots=True)
class Parsed:
    """A request's inputs as rows of a batch to come, and where in the request each of them stood."""

    count: int
    rows: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    errors: list[InvalidInput] = field(default_factory=list)
    warnings: list[InputWarning] = field(default_factory=list)

    def answered(self, answers: Sequence[Answer]) -> list[Answer | None]:
        """Return the rows' answers in the order of the inputs."""
        if len(self.rows) == self.count:
            return list(answers)
        outputs: list[Answer | None] = [None] * self.count
        for position, answer in zip(self.positions, answers, strict=True):
            outputs[position] = answer
        return outputs


class Predictor:
    """A model version in memory, ready to answer; safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        started = perf_counter()
        self.design, weights = load(directory)
        network = self.design.build()
        network.load_state_dict(weights)
        self._precision = self.design.precision
        self._network = predicting(network, self._precision)
        self._direct = _Direct.of(self.design, self._network)
        # Asked once: whether a task has what a protocol wants takes as long as a small network.
        self._writer = self.design.task if isinstance(self.design.task, Writer) else None
        self.load_ms = (perf_counter() - started) * 1000

    @property
    def network(self) -> BackboneWithHead:
        """The network, in evaluation."""
        return self._network

    @property
    def is_slow(self) -> bool:
        """Whether the processor has no instructions for the model's arithmetic."""
        return is_slow(self._precision, torch.device("cpu"))

    def options(self, values: dict[str, Any]) -> PredictionOptions:
        """Return checked options of an answer; InvalidConfig names the one that the task does not know, or that it or
        this model does not take.
        """
        found = cast("PredictionOptions", configure(self.design.task.Options, values, "parameters"))
        found.check(self._network, self.design.inputs, self.design.targets)
        return found

    def parse(self, inputs: Sequence[Any], first: int = 0, options: PredictionOptions | None = None) -> Parsed:
        """Return the inputs as rows, with what is asked of their answers; one that does not fit gets an error and
        leaves its neighbours alone.

        Errors and warnings number the inputs from `first` on.
        """
        parsed = Parsed(len(inputs))
        read = self._direct.encoder.read if self._direct is not None else _read_nothing
        for index, value in enumerate(inputs):
            row = read(value)
            if row is None:
                try:
                    row = self._look_closer(value, first + index, parsed.warnings)
                except InvalidInput as error:
                    parsed.errors.append(error)
                    continue
            parsed.rows.append(row if options is None else options.asked(row))
            parsed.positions.append(index)
        return parsed

    @property
    def parses_at_once(self) -> bool:
        """Whether parsing an input takes microseconds."""
        return self._direct is not None

    def _look_closer(self, value: Any, index: int, warnings: list[InputWarning]) -> Any:
        values, found = self.design.parse(value, index)
        warnings.extend(found)
        return values if self._direct is None else self._direct.encoder.of_values(values)

    def positions(self, row: Any) -> int:
        """Return T of a parsed row: what it costs beside others."""
        return self.design.modality.positions(row)

    def cost(self, row: Any) -> int:
        """Return the positions that answering a parsed row takes."""
        return self.positions(row) if self._writer is None else self._writer.cost(row, self.design.inputs)

    def example(self) -> Any | None:
        """Return a row to warm up with, if the modality has an example that parses."""
        example = self.design.modality.schema(self.design.inputs).get("example")
        rows = self.parse([example]).rows
        return rows[0] if rows else None

    def answer(self, rows: Sequence[Any]) -> list[Answer]:
        """Return the answers to a batch of parsed rows, in order; each is what it would be alone, but for rounding."""
        modality, task, targets = self.design.modality, self.design.task, self.design.targets
        if self._direct is not None:  # needs no context, whose cost would be a fifth of a small network's
            return task.answers(task.predict(self._direct.on(rows), {}, targets), targets, rows)
        with self.computing():
            if self._writer is not None:
                return self._writer.generate(self._network, rows, self.design.inputs, targets)
            batch = modality.assemble(rows, self.design.inputs)
            parts = [task.predict(self._network, part, targets) for part in pieces(batch)]
            return task.answers(joined(parts), targets, rows)

    @property
    def goes_on(self) -> bool:
        """Whether what it reads begins a text, and its answers go on with it."""
        return isinstance(self.design.task, Generative)

    @property
    def is_stepwise(self) -> bool:
        """Whether `steps` can answer rows bit by bit."""
        return isinstance(self.design.task, Stepwise)

    def steps(self) -> Steps:
        """Return what answers rows bit by bit, within `computing`, for a task that can."""
        task = self.design.task
        assert isinstance(task, Stepwise)
        return task.generation(self._network, self.design.inputs, self.design.targets)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as predictions are: without gradients, in the model's arithmetic."""
        with torch.inference_mode(), arithmetic(self._precision):
            yield

    def embed(self, rows: Sequence[Any]) -> list[Answer]:
        """Return what the backbone makes of parsed rows: the mean of each row's features, D numbers.

        Of a task that compares rows by embeddings of its own, those.
        """
        task = self.design.task
        with self.computing():
            if self._direct is not None:
                whole = {"inputs_BF": torch.from_numpy(self._direct.encoder.encode(rows))}
            else:
                whole = self.design.modality.assemble(rows, self.design.inputs)
            if isinstance(task, Comparable):
                parts = [task.embed(self._network, part, self.design.targets) for part in pieces(whole)]
            else:
                parts = [self._network.backbone(part).pooled().float() for part in pieces(whole)]
            return [{"embedding": row} for row in torch.cat(parts).tolist()]

    def predict(self, inputs: Sequence[Any], options: PredictionOptions | None = None) -> Predictions:
        """Answer every input; one that does not fit gets an error and leaves its neighbours alone."""
        parsed = self.parse(inputs, options=options)
        started = perf_counter()
        answers = self.answer(parsed.rows) if parsed.rows else []
        if options is not None:
            answers = [options.apply(answer) for answer in answers]
        elapsed_ms = (perf_counter() - started) * 1000 if answers else 0.0
        return Predictions(parsed.answered(answers), parsed.errors, parsed.warnings, elapsed_ms)


@dataclass(frozen=True, slots=True)
class _Direct:
    """The short way from rows to outputs, where there is one."""

    encoder: RowEncoder
    forward: RowForward

    @classmethod
    def of(cls, design: Design, network: BackboneWithHead) -> _Direct | None:
        state = design.inputs
        if not (isinstance(state, TabularState) and RowEncoder.supports(state) and RowForward.supports(network)):
            return None
        return cls(RowEncoder(state), RowForward(network))

    def on(self, rows: Sequence[Any]) -> Network:
        """Return what a task takes for the network: its outputs for these rows are known."""
        outputs = self.forward(self.encoder.encode(rows))
        return cast("Network", lambda _: outputs)


_read_nothing: Callable[[Any], Any] = lambda _: None  # noqa: E731


def describe(design: Design) -> dict[str, Any]:
    """Return what a caller needs to use the model: schemas of one input, its parameters and one answer, an example."""
    inputs = design.modality.schema(design.inputs)
    example = inputs.pop("example", None)
    return {
        "input": inputs,
        "parameters": design.task.Options.model_json_schema(),
        "output": design.task.schema(design.targets),
        "example": example,
    }
