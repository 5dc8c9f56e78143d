"""What tasks share that embed files so that those of one subject (a person, a speaker, a product) are near each other.

Learned with the subjects of the training rows; what is learned is for subjects that were never seen. B examples, E
width of the embedding, C subjects that are learned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning import verification
from learning.capabilities import Judged, Picture
from learning.config import Columns, Config
from learning.errors import InvalidData
from learning.interfaces import Batch, Features, Kind, Link, Network, PackedFeatures, PredictionOptions, Target
from learning.margin_softmax import margin_softmax
from learning.splits import require_column, require_values
from learning.tasks.classification import only_target
from learning.tasks.score_pictures import Scored, curves


class SubjectEmbeddingConfig(Config):
    """How wide embeddings are, and how far apart subjects are to be."""

    embedding_size: int = Field(128, ge=2, le=2048, description="Numbers of an embedding.")
    margin: float = Field(
        0.3, ge=0, le=1.5, description="Radians by which an example is to be nearer to its own subject than to another."
    )
    scale: float = Field(24.0, gt=0, le=256, description="Multiplies the cosines before the softmax.")


class SubjectEmbeddingState(Config):
    """The target column and its subjects in the training rows, sorted by name, and the configuration."""

    target: str
    subjects: tuple[str, ...]
    embedding_size: int
    margin: float
    scale: float


class SubjectHead(nn.Module):
    """One normalised layer to the embedding, and a centre for each subject that is learned from."""

    def __init__(self, width: int, embedding_size: int, subjects: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, embedding_size, bias=False)
        self.norm = nn.BatchNorm1d(embedding_size)
        self.centres_CE = nn.Parameter(functional.normalize(torch.randn(subjects, embedding_size)))

    def pooled(self, features: Any) -> Tensor:
        """Return one vector of the features of each row, (B, D)."""
        whole: Features | PackedFeatures = features
        return whole.pooled()

    def forward(self, features: Features | PackedFeatures) -> Tensor:
        """Return embeddings, of length 1, (B, E)."""
        return functional.normalize(self.norm(self.linear(self.pooled(features))).float(), dim=1)


class SubjectEmbedding:
    """The base of tasks whose models tell subjects apart that they never saw; a task says what it reads."""

    name: ClassVar[str]
    modality: ClassVar[str]
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "label"
    stratified: ClassVar[bool] = True
    least_batch_size: ClassVar[int] = 2
    score: ClassVar[str] = "rank_1"
    monitor: ClassVar[str] = "auc"
    Config: ClassVar[type[SubjectEmbeddingConfig]] = SubjectEmbeddingConfig
    State: ClassVar[type[SubjectEmbeddingState]] = SubjectEmbeddingState
    Options: ClassVar[type[PredictionOptions]] = PredictionOptions

    def fit(
        self, table: pa.Table, columns: Columns, config: SubjectEmbeddingConfig, inputs: Any
    ) -> SubjectEmbeddingState:
        """Collect the subjects; InvalidData for fewer than two, or for a column that names none."""
        target = only_target(self.name, columns)
        subjects = sorted(pc.unique(_names(table, target)).to_pylist())
        if len(subjects) < 2:
            raise InvalidData(
                f'Column "{target}" has only the subject "{subjects[0]}" among the training rows; there is nobody to '
                "tell it from.",
                hint="Add files of another subject, or choose another target.",
                param="columns.target",
            )
        return SubjectEmbeddingState(
            target=target,
            subjects=tuple(subjects),
            embedding_size=config.embedding_size,
            margin=config.margin,
            scale=config.scale,
        )

    def targets(self, table: pa.Table, state: SubjectEmbeddingState, encoded: Batch) -> Batch:
        """Return target_B, each row's subject among those of training or -1, and target_subject_B, which differs
        between any two subjects. InvalidRow names the row that has none.
        """
        names = _names(table, state.target)
        known = pc.index_in(names, value_set=pa.array(state.subjects, type=pa.string())).fill_null(-1)
        coded = names.combine_chunks().dictionary_encode()
        digest_U = np.array([_digest(name) for name in coded.dictionary.to_pylist()], dtype=np.int64)
        return {
            "target_B": torch.from_numpy(known.to_numpy().astype(np.int64)),
            "target_subject_B": torch.from_numpy(digest_U[coded.indices.to_numpy()]),
        }

    def head(self, width: int, state: SubjectEmbeddingState) -> nn.Module:
        """Return a layer to the embedding, with a centre for each subject."""
        return SubjectHead(width, state.embedding_size, len(state.subjects))

    def loss(self, network: Network, batch: Batch, state: SubjectEmbeddingState) -> Tensor:
        """Return the softmax with a margin, over the rows of subjects that training knows; 0 when there is none."""
        embedding_BE, target_B = network(batch), batch["target_B"]
        centres_CE = cast("SubjectHead", network.head).centres_CE
        known_B = target_B >= 0
        if not network.training:
            if not bool(known_B.any()):
                return embedding_BE.sum() * 0
            embedding_BE, target_B = embedding_BE[known_B], target_B[known_B]
        return margin_softmax(embedding_BE, centres_CE, target_B, scale=state.scale, margin=state.margin)

    def link(self, state: SubjectEmbeddingState) -> Link | None:
        """Return None: the loss is not that of a plain output."""
        return None

    def embed(self, network: Network, batch: Batch, state: SubjectEmbeddingState) -> Tensor:
        """Return embeddings, of length 1, (B, E)."""
        return network(batch).float()

    def predict(self, network: Network, batch: Batch, state: SubjectEmbeddingState) -> Tensor:
        """Return embeddings, and after each the number of the training subject whose centre is nearest, (B, E + 1)."""
        embedding_BE = self.embed(network, batch, state)
        centres_CE = functional.normalize(cast("SubjectHead", network.head).centres_CE.float(), dim=1)
        nearest_B1 = (embedding_BE @ centres_CE.T).argmax(1, keepdim=True)
        return torch.cat([embedding_BE, nearest_B1.float()], 1)

    def answers(self, predictions: Tensor, state: SubjectEmbeddingState, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one vector per input."""
        return [{"embedding": row} for row in predictions[:, :-1].tolist()]

    def metrics(self, predictions: Tensor, targets: Batch, state: SubjectEmbeddingState) -> dict[str, Any]:
        """Return how well subjects are identified and pairs of rows verified, and thresholds; None without pairs.

        `accuracy` is the share of rows nearest to their own subject's centre, of subjects that training knows, and
        None, like the loss, when it knows none.
        """
        embedding_NE, nearest_N = predictions[:, :-1].cpu(), predictions[:, -1].cpu().long()
        known_N, subject_N = targets["target_B"], targets["target_subject_B"]
        found = verification.pairs(embedding_NE, subject_N)
        point = next((one for one in verification.operating_points(found, (0.01,))), None)
        is_known_N = known_N >= 0
        any_known = bool(is_known_N.any())
        return {
            **({} if any_known else {"loss": None}),
            "rank_1": verification.rank_1(embedding_NE, subject_N),
            "auc": verification.auc(found),
            "eer": verification.equal_error_rate(found),
            "min_dcf": verification.least_detection_cost(found),
            "tar_at_far_1": point.true_accept_rate if point else None,
            "accuracy": float((nearest_N == known_N)[is_known_N].double().mean()) if any_known else None,
            "subjects": len(subject_N.unique()),
            "new_subjects": len(subject_N[~is_known_N].unique()),
            "pairs": {"same": len(found.genuine_G), "different": len(found.impostor_I)},
            "thresholds": [one._asdict() for one in verification.operating_points(found)],
        }

    def pictures(self, judged: Judged, inputs: Any, state: SubjectEmbeddingState) -> Iterator[Picture]:
        """Yield the ROC curve of pairs: how many of one subject are accepted as how many of two are."""
        found = verification.pairs(judged.predictions[:, :-1].cpu(), judged.targets["target_subject_B"])
        genuine, impostor = len(found.genuine_G), len(found.impostor_I)
        score_P = torch.cat([found.genuine_G, found.impostor_I])
        scored = Scored("pairs of one subject", score_P, torch.arange(len(score_P)) < genuine)
        said = f"{genuine} pairs of one subject and {impostor} of two, {judged.part} rows"
        yield from (one for one in curves([scored], said) if one.name == "roc")

    def schema(self, state: SubjectEmbeddingState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        size = state.embedding_size
        vector = {"type": "array", "items": {"type": "number"}, "minItems": size, "maxItems": size}
        return {"type": "object", "properties": {"embedding": vector}}


def _names(table: pa.Table, target: str) -> pa.ChunkedArray:
    require_column(table, target, "columns.target")
    if pa.types.is_nested(table.schema.field(target).type):
        raise InvalidData(
            f'Column "{target}" holds lists, which name no subject.',
            hint="Choose a target of strings, numbers or booleans.",
            param="columns.target",
        )
    require_values(table, target, "no subject", "columns.target")
    return table.column(target).cast(pa.string())


def _digest(name: str) -> int:
    """Return a number by which a subject is known in every part and batch."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
