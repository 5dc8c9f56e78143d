"""What a caller may ask of the answers of several tasks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from learning.errors import InvalidConfig, did_you_mean
from learning.interfaces import Network, PredictionOptions

_Share = Annotated[float, Field(ge=0, le=1)]


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


class MultiLabelOptions(PredictionOptions):
    """From which probability on a row has a label, and how much of the answer is wanted."""

    probabilities: bool = Field(True, description="Whether an answer has the probability of each label.")
    threshold: _Share | dict[str, _Share] | None = Field(
        None,
        description="Least probability of a label to be given, of all or by label; less likely ones are left out of "
        "`probabilities` too. Default: the model's, which leaves `probabilities` whole.",
    )
    top_k: int | None = Field(None, ge=1, description="Most labels, the likeliest ones, in an answer.")

    def check(self, network: Network, inputs: Any, state: Any) -> None:
        """Raise InvalidConfig for the threshold of a label that there is not."""
        for label in self.threshold if isinstance(self.threshold, dict) else ():
            if label not in state.labels:
                raise InvalidConfig(
                    f'threshold names "{label}", which is no label.{did_you_mean(label, state.labels)}',
                    hint=f"Labels: {', '.join(state.labels)}.",
                    param="parameters.threshold",
                )

    def apply(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the labels that are likely enough, with their probabilities if they are wanted."""
        shares: dict[str, float] = answer["probabilities"]  # the likeliest come first
        given: list[str] = answer["labels"]
        if self.threshold is not None:
            # Labels without a threshold of their own keep the model's.
            model = {label: 0.0 if label in given else 2.0 for label in shares}
            own = self.threshold if isinstance(self.threshold, dict) else dict.fromkeys(shares, self.threshold)
            given = [label for label, bound in (model | own).items() if shares[label] >= bound]
            shares = {label: shares[label] for label in given}
        found: dict[str, Any] = {"labels": given[: self.top_k]}
        if self.probabilities:
            found["probabilities"] = dict(list(shares.items())[: self.top_k])
        return found
