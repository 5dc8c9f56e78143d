"""What a caller may ask of the answers of several tasks."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from learning.interfaces import PredictionOptions


class ClassificationOptions(PredictionOptions):
    """How much of a classification's answer is wanted."""

    probabilities: bool = Field(True, description="Whether an answer has the probability of each class.")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least probability of a class to be named: less likely ones are left out of `probabilities`, and "
        "`label` is null when even the likeliest is.",
    )
    top_k: int | None = Field(None, ge=1, description="Most classes, the likeliest ones, in `probabilities`.")

    def apply(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return label and score, with the likeliest probabilities if they are wanted."""
        answer = dict(answer)
        probabilities = answer.pop("probabilities")  # the likeliest come first
        if self.probabilities:
            kept = list(probabilities.items())[: self.top_k]
            answer["probabilities"] = {label: share for label, share in kept if share >= (self.threshold or 0.0)}
        if self.threshold is not None and answer["score"] < self.threshold:
            answer["label"] = None
        return answer
