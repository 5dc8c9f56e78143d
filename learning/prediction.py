"""A loaded model that answers: parse, encode, forward, answer. What it answers is what evaluation measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from learning.errors import InvalidInput
from learning.interfaces import Batch, InputWarning
from learning.model import Design, load
from learning.packing import pieces


@dataclass(slots=True)
class Predictions:
    """Answers in the order of the inputs; None where there is an error for that input instead."""

    outputs: list[dict[str, Any] | None]
    errors: list[InvalidInput] = field(default_factory=list)
    warnings: list[InputWarning] = field(default_factory=list)
    inference_ms: float = 0.0


class Predictor:
    """A model version in memory, ready to answer; safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        started = perf_counter()
        self.design, weights = load(directory)
        self._network = self.design.build()
        self._network.load_state_dict(weights)
        self._network.eval()
        self.load_ms = (perf_counter() - started) * 1000

    def predict(self, inputs: list[Any]) -> Predictions:
        """Answer every input; one that does not fit gets an error and leaves its neighbours alone."""
        modality, state = self.design.modality, self.design.inputs
        result = Predictions(outputs=[None] * len(inputs))
        rows, positions = [], []
        for index, value in enumerate(inputs):
            try:
                row, warnings = modality.parse(value, index, state)
            except InvalidInput as error:
                result.errors.append(error)
                continue
            rows.append(row)
            positions.append(index)
            result.warnings.extend(warnings)
        if rows:
            started = perf_counter()
            with torch.inference_mode():
                batch = modality.encode(modality.assemble(rows, state), state)
                predictions = [self._answer(part) for part in pieces(batch)]
            answers = self.design.task.answers(torch.cat(predictions), self.design.targets)
            result.inference_ms = (perf_counter() - started) * 1000
            for position, answer in zip(positions, answers, strict=True):
                result.outputs[position] = answer
        return result

    def _answer(self, batch: Batch) -> Tensor:
        return self.design.task.predict(self._network, batch, self.design.targets)


def describe(design: Design) -> dict[str, Any]:
    """Return what a caller needs to use the model: schemas of one input and one answer, with an example."""
    inputs = design.modality.schema(design.inputs)
    example = inputs.pop("example", None)
    return {"input": inputs, "output": design.task.schema(design.targets), "example": example}
