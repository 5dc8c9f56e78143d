"""Predict one of two or more classes, from whatever a backbone reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning import metrics
from learning.capabilities import Judged, Picture
from learning.config import Columns, Config
from learning.errors import InvalidConfig, InvalidData, InvalidRow, did_you_mean
from learning.interfaces import Batch, Kind, Link, Network, Target
from learning.splits import require_column
from learning.tasks import score_pictures
from learning.tasks.answer_options import ClassificationOptions
from learning.tasks.heads import PooledLinear
from learning.tasks.score_pictures import Scored

_MOST_CLASSES = 1000


class ClassificationConfig(Config):
    """What is asked of the classes."""

    class_weights: Literal["balanced"] | dict[str, float] | None = Field(
        None, description='Weight of each class in the loss; "balanced": inverse to its frequency.'
    )
    positive_label: str | None = Field(
        None,
        description="Class that precision, recall and AUC of a binary task are about; default: the last by name.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")


class ClassificationState(Config):
    """The target column and its classes, sorted by name, the positive one of two last."""

    target: str
    labels: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    @property
    def binary(self) -> bool:
        """Whether one output with a sigmoid does."""
        return len(self.labels) == 2


class Classification:
    """What classification is to every modality: classes, loss, metrics, answers; a task adds what it reads."""

    name: ClassVar[str]
    modality: ClassVar[str]
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "label"
    stratified: ClassVar[bool] = True
    score: ClassVar[str] = "accuracy"
    monitor: ClassVar[str] = "loss"
    otherwise: ClassVar[str] = "Choose another target."  # what to do about a target that is no label
    Config: ClassVar[type[ClassificationConfig]] = ClassificationConfig
    State: ClassVar[type[ClassificationState]] = ClassificationState
    Options: ClassVar[type[ClassificationOptions]] = ClassificationOptions

    def fit(self, table: pa.Table, columns: Columns, config: ClassificationConfig, inputs: Any) -> ClassificationState:
        """Collect the classes; InvalidData for fewer than two, or for a column that is no label."""
        target = only_target(self.name, columns)
        require_column(table, target, "columns.target")
        if pa.types.is_nested(table.schema.field(target).type):
            raise InvalidData(
                f'Column "{target}" holds lists, which are no labels.',
                hint="Choose a target of strings, numbers or booleans, or a task whose name begins with multi-label.",
                param="columns.target",
            )
        counts = {item["values"]: item["counts"] for item in _labels(table, target).value_counts().to_pylist()}
        counts.pop(None, None)
        _check_classes(target, counts, self.otherwise)
        labels = tuple(sorted(counts, key=lambda label: (label == config.positive_label, label)))
        if config.positive_label is not None and config.positive_label not in counts:
            raise InvalidConfig(
                f'positive_label "{config.positive_label}" does not occur in column "{target}".'
                f"{did_you_mean(config.positive_label, counts)}",
                hint=f"Labels: {', '.join(labels)}.",
                param="task_config.positive_label",
            )
        return ClassificationState(
            target=target,
            labels=labels,
            weights=_weights(config, labels, counts),
            label_smoothing=config.label_smoothing,
        )

    def targets(self, table: pa.Table, state: ClassificationState, encoded: Batch) -> Batch:
        """Return target_N: float 0 or 1 for two classes, the class number for more."""
        require_column(table, state.target, "columns.target")
        found = pc.index_in(_labels(table, state.target), value_set=pa.array(state.labels, type=pa.string()))
        numbers = found.to_numpy()
        if found.null_count:
            row = int(pc.index(found.is_null(), True).as_py())
            value = table.column(state.target)[row].as_py()
            raise InvalidRow(
                row,
                f', column "{state.target}": {"no label" if value is None else repr(value)}, but training '
                f"has the labels {', '.join(state.labels)}.",
                hint="Correct or remove the row; every class must occur among the training rows.",
                param="columns.target",
            )
        target_N = torch.from_numpy(numbers.astype("int64"))
        return {"target_B": target_N.float() if state.binary else target_N}

    def head(self, width: int, state: ClassificationState) -> nn.Module:
        """Return a linear layer to one logit for two classes, to C logits for more."""
        return PooledLinear(width, self.outputs(state))

    def softmax_labels(self, state: ClassificationState) -> tuple[str, ...]:
        """Return the classes if there are more than two."""
        return () if state.binary else state.labels

    def logits_layer(self, head: nn.Module) -> nn.Linear:
        """Return the linear layer that all heads of classes end in."""
        layer = head.linear
        assert isinstance(layer, nn.Linear)
        return layer

    def row_weights(self, target_B: Tensor, state: ClassificationState) -> Tensor:
        """Return the weight of each row's class, (B,)."""
        weights = state.weights or (1.0,) * len(state.labels)
        return torch.tensor(weights, device=target_B.device)[target_B.long()]

    def outputs(self, state: ClassificationState) -> int:
        """Return how many logits there are."""
        return 1 if state.binary else len(state.labels)

    def loss(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return binary or categorical cross-entropy."""
        outputs_BC, target_B = network(batch), batch["target_B"]
        weights_C = None if state.weights is None else outputs_BC.new_tensor(state.weights)
        if not state.binary:
            return functional.cross_entropy(
                outputs_BC, target_B, weight=weights_C, label_smoothing=state.label_smoothing
            )
        if state.label_smoothing:
            target_B = target_B * (1 - state.label_smoothing) + state.label_smoothing / 2
        weight_B = None if weights_C is None else weights_C[batch["target_B"].long()]
        return functional.binary_cross_entropy_with_logits(outputs_BC.squeeze(1), target_B, weight_B)

    def link(self, state: ClassificationState) -> Link | None:
        """Return sigmoid or softmax unless weights or smoothing change the loss."""
        if state.weights is not None or state.label_smoothing:
            return None
        return "sigmoid" if state.binary else "softmax"

    def predict(self, network: Network, batch: Batch, state: ClassificationState) -> Tensor:
        """Return probability_BC."""
        outputs_BC = network(batch).float()
        if not state.binary:
            return outputs_BC.softmax(1)
        positive_B1 = outputs_BC.sigmoid()
        return torch.cat([torch.rsub(positive_B1, 1), positive_B1], 1)  # rsub: `1 -` goes a long way through Python

    def answers(self, predictions: Tensor, state: ClassificationState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return label, score and all probabilities, highest first."""
        answers = []
        for row in predictions.tolist():
            ranked = sorted(zip(state.labels, row, strict=True), key=lambda pair: -pair[1])
            answers.append({"label": ranked[0][0], "score": ranked[0][1], "probabilities": dict(ranked)})
        return answers

    def metrics(self, predictions: Tensor, targets: Batch, state: ClassificationState) -> dict[str, Any]:
        """Return accuracy, precision, recall, F1, AUC (of the positive class, or the mean of classes), the mean F1 of
        all classes, each class's own, and counts.
        """
        target_N = targets["target_B"].long()
        confusion_CC = metrics.confusion_matrix(predictions.argmax(1), target_N, len(state.labels))
        precision_C, recall_C, f1_C = metrics.precision_recall_f1(confusion_CC)
        auc = (
            metrics.roc_auc(predictions[:, 1], target_N == 1)
            if state.binary
            else metrics.mean_roc_auc(predictions, target_N)
        )
        return {
            "accuracy": int(confusion_CC.diagonal().sum()) / max(1, int(confusion_CC.sum())),
            "precision": _pick(precision_C, state),
            "recall": _pick(recall_C, state),
            "f1": _pick(f1_C, state),
            "macro_f1": float(f1_C.mean()),
            "auc": auc,
            "classes": {
                label: {"count": count, "precision": precision, "recall": recall, "f1": f1}
                for label, count, precision, recall, f1 in zip(
                    state.labels,
                    *(value_C.tolist() for value_C in (confusion_CC.sum(1), precision_C, recall_C, f1_C)),
                    strict=True,
                )
            },
            "confusion_matrix": {"labels": list(state.labels), "counts": confusion_CC.tolist()},
        }

    def pictures(self, judged: Judged, inputs: Any, state: ClassificationState) -> Iterator[Picture]:
        """Yield the confusion matrix and, of the positive class or of each, the curves over all thresholds."""
        target_N, probability_NC = judged.targets["target_B"].long(), judged.predictions
        yield score_pictures.confusion(state.labels, probability_NC.argmax(1), target_N, judged.part)
        scored = [
            Scored(label, probability_NC[:, place], target_N == place)
            for place, label in enumerate(state.labels)
            if place or not state.binary
        ]
        yield from score_pictures.curves(scored, score_pictures.rows_of(judged.part, len(target_N)))

    def schema(self, state: ClassificationState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        return {
            "type": "object",
            "properties": {
                "label": {"type": ["string", "null"], "enum": [*state.labels, None]},
                "score": {"type": "number", "minimum": 0, "maximum": 1},
                "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
            },
        }


def _pick(values_C: Tensor, state: ClassificationState) -> float:
    """Return the positive class's value, or the mean over more than two classes."""
    return float(values_C[1] if state.binary else values_C.mean())


def only_target(task: str, columns: Columns) -> str:
    """Return the column to predict; InvalidConfig unless there is exactly one."""
    names = columns.target_names()
    if len(names) != 1:
        raise InvalidConfig(
            f"{task} predicts exactly one column.",
            hint='Set columns={"target": "..."}.',
            param="columns.target",
        )
    return names[0]


def _labels(table: pa.Table, target: str) -> pa.ChunkedArray:
    return table.column(target).cast(pa.string())


def _check_classes(target: str, counts: dict[str, int], otherwise: str) -> None:
    if len(counts) < 2:
        only = f'only the class "{next(iter(counts))}"' if counts else "no value at all"
        raise InvalidData(
            f'Column "{target}" has {only} among the training rows; there is nothing to tell apart.',
            hint="Add examples of another class, or choose another target.",
            param="columns.target",
        )
    if len(counts) > _MOST_CLASSES:
        raise InvalidData(
            f'Column "{target}" has {len(counts)} different values, which is no label.',
            hint=otherwise,
            param="columns.target",
        )


def _weights(config: ClassificationConfig, labels: tuple[str, ...], counts: dict[str, int]) -> tuple[float, ...] | None:
    if config.class_weights is None:
        return None
    if config.class_weights == "balanced":
        rows = sum(counts.values())
        return tuple(rows / (len(labels) * counts[label]) for label in labels)
    unknown = [label for label in config.class_weights if label not in labels]
    if unknown:
        raise InvalidConfig(
            f'class_weights names "{unknown[0]}", which is no label.{did_you_mean(unknown[0], labels)}',
            hint=f"Labels: {', '.join(labels)}.",
            param="task_config.class_weights",
        )
    return tuple(float(config.class_weights.get(label, 1.0)) for label in labels)
