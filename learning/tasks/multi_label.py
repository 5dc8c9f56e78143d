"""Predict which of several labels a row has - none, one or more - from whatever a backbone reads; K labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.capabilities import Judged, Picture
from learning.config import Columns, Config
from learning.errors import InvalidConfig, InvalidData, did_you_mean
from learning.interfaces import Batch, Kind, Link, Network, Target
from learning.label_sets import label_sets
from learning.multi_label_metrics import multi_label_metrics
from learning.tasks import score_pictures
from learning.tasks.answer_options import MultiLabelOptions
from learning.tasks.heads import PooledLinear
from learning.tasks.score_pictures import Scored

_MOST_LABELS = 1000
_MOST_WEIGHT = 100.0  # a label that hardly any row has would drown the others
_LEAST_SHARE = 1e-3


class MultiLabelConfig(Config):
    """What is asked of the labels."""

    positive_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0, le=1_000)]] | None = Field(
        None,
        description='Weight in the loss of having each label, beside 1 of not having it; "balanced": rows without it '
        "by rows with it, at most 100.",
    )
    threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Probability from which a row has a label, in metrics and, unless a prediction says otherwise, in "
        "answers.",
    )


class MultiLabelState(Config):
    """Where labels are, the labels, sorted by name or as their columns are, and the share of rows that has each."""

    targets: tuple[str, ...]
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    weights: tuple[float, ...] | None = None
    threshold: float = 0.5


class MultiLabelClassification:
    """What multi-label classification is to every modality; a task adds what it reads."""

    name: ClassVar[str]
    modality: ClassVar[str]
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "labels"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "mean_average_precision"
    monitor: ClassVar[str] = "loss"
    Config: ClassVar[type[MultiLabelConfig]] = MultiLabelConfig
    State: ClassVar[type[MultiLabelState]] = MultiLabelState
    Options: ClassVar[type[MultiLabelOptions]] = MultiLabelOptions

    def fit(self, table: pa.Table, columns: Columns, config: MultiLabelConfig, inputs: Any) -> MultiLabelState:
        """Collect the labels; InvalidData for a column that has none, or when all rows have the same."""
        targets = self._targets(columns)
        found = label_sets(table, targets)
        labels = found.names()
        _check_labels(targets, labels)
        has_NK, _ = found.among(labels)
        counts = has_NK.sum(0).tolist()
        if all(count in (0, table.num_rows) for count in counts):
            raise InvalidData(
                f'Every training row has the same labels in column "{targets[0]}": {", ".join(labels[:5])}.',
                hint="Add rows that lack some of them, or choose another target.",
                param="columns.target",
            )
        return MultiLabelState(
            targets=targets,
            labels=labels,
            shares=tuple(count / table.num_rows for count in counts),
            weights=_weights(config, labels, counts, table.num_rows),
            threshold=config.threshold,
        )

    def targets(self, table: pa.Table, state: MultiLabelState, encoded: Batch) -> Batch:
        """Return target_BK, 1 for each label that a row has, and target_other_B, how many it has beside that training
        does not know.
        """
        has_NK, other_N = label_sets(table, state.targets).among(state.labels)
        return {"target_BK": torch.from_numpy(has_NK).float(), "target_other_B": torch.from_numpy(other_N)}

    def head(self, width: int, state: MultiLabelState) -> nn.Module:
        """Return a linear layer to K logits."""
        head = PooledLinear(width, len(state.labels))
        self.begin(head.linear, state)
        return head

    def begin(self, linear: nn.Linear, state: MultiLabelState) -> None:
        """Have a fresh layer say how frequent each label is, so that no step is lost on learning that most are rare."""
        if state.weights is None:
            share_K = torch.tensor(state.shares).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
            with torch.no_grad():
                linear.bias.copy_(share_K.logit())

    def loss(self, network: Network, batch: Batch, state: MultiLabelState) -> Tensor:
        """Return the binary cross-entropy, the mean over rows and labels."""
        outputs_BK = network(batch)
        weights_K = None if state.weights is None else outputs_BK.new_tensor(state.weights)
        return functional.binary_cross_entropy_with_logits(outputs_BK, batch["target_BK"], pos_weight=weights_K)

    def link(self, state: MultiLabelState) -> Link | None:
        """Return None: the loss is a mean over labels as well."""
        return None

    def predict(self, network: Network, batch: Batch, state: MultiLabelState) -> Tensor:
        """Return probability_BK, each label's by itself."""
        return network(batch).float().sigmoid()

    def answers(self, predictions: Tensor, state: MultiLabelState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the labels of each row and the probabilities of all, highest first."""
        answers = []
        for row in predictions.tolist():
            ranked = sorted(zip(state.labels, row, strict=True), key=lambda pair: -pair[1])
            given = [label for label, share in ranked if share >= state.threshold]
            answers.append({"labels": given, "probabilities": dict(ranked)})
        return answers

    def metrics(self, predictions: Tensor, targets: Batch, state: MultiLabelState) -> dict[str, Any]:
        """Return precision, recall and F1 over all labels and as means of labels, mean average precision, the share of
        rows whose labels are all right, and each label's own.
        """
        has_NK, other_N = targets["target_BK"].bool(), targets["target_other_B"]
        return multi_label_metrics(predictions, has_NK, other_N, state.labels, state.threshold)

    def pictures(self, judged: Judged, inputs: Any, state: MultiLabelState) -> Iterator[Picture]:
        """Yield the curves of each label over all thresholds."""
        has_NK = judged.targets["target_BK"].bool()
        scored = [
            Scored(label, judged.predictions[:, place], has_NK[:, place]) for place, label in enumerate(state.labels)
        ]
        yield from score_pictures.curves(scored, score_pictures.rows_of(judged.part, len(has_NK)))

    def schema(self, state: MultiLabelState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        return {
            "type": "object",
            "properties": {
                "labels": {"type": "array", "items": {"type": "string", "enum": list(state.labels)}},
                "probabilities": {
                    "type": "object",
                    "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        }

    def _targets(self, columns: Columns) -> tuple[str, ...]:
        names = columns.target_names()
        if not names:
            raise InvalidConfig(
                f"{self.name} predicts a column of lists of labels, or a column for each label.",
                hint='Set columns={"target": "..."} or columns={"targets": ["...", "..."]}.',
                param="columns.target",
            )
        return names


def _check_labels(targets: tuple[str, ...], labels: tuple[str, ...]) -> None:
    if not labels:
        raise InvalidData(
            f'Column "{targets[0]}" has no label in any training row.',
            hint="Add rows with labels, or choose another target.",
            param="columns.target",
        )
    if len(labels) > _MOST_LABELS:
        raise InvalidData(
            f'Column "{targets[0]}" has {len(labels)} different labels; at most {_MOST_LABELS} can be learned.',
            hint="Leave rare labels out, or choose another target.",
            param="columns.target",
        )


def _weights(
    config: MultiLabelConfig, labels: tuple[str, ...], counts: list[int], rows: int
) -> tuple[float, ...] | None:
    if config.positive_weights is None:
        return None
    if config.positive_weights == "balanced":
        return tuple(min(max((rows - count) / max(1, count), 1 / _MOST_WEIGHT), _MOST_WEIGHT) for count in counts)
    unknown = [label for label in config.positive_weights if label not in labels]
    if unknown:
        raise InvalidConfig(
            f'positive_weights names "{unknown[0]}", which is no label.{did_you_mean(unknown[0], labels)}',
            hint=f"Labels: {', '.join(labels)}.",
            param="task_config.positive_weights",
        )
    return tuple(float(config.positive_weights.get(label, 1.0)) for label in labels)
