"""Models without training: random weights, registered straight into a product's store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from media_files import encoded, picture, png
from servers import Stack
from support import stack_database

from learning import images
from learning.architectures.bert import Bert, BertConfig
from learning.architectures.flatten_mlp import FlattenMlp, FlattenMlpConfig
from learning.architectures.gpt import Gpt
from learning.architectures.mlp import Mlp, MlpConfig
from learning.architectures.resnet import ResNet, ResNetConfig
from learning.architectures.transformer import TransformerConfig
from learning.config import Columns
from learning.interfaces import Task
from learning.media_types import MEDIA_TYPES
from learning.modalities.image import Image, ImageConfig
from learning.modalities.tabular import Tabular, TabularConfig
from learning.modalities.text import Text, TextConfig
from learning.model import Design, save
from learning.tasks.classification import ClassificationConfig
from learning.tasks.image_classification import ImageClassification, ImageClassificationConfig
from learning.tasks.image_embedding import ImageEmbedding, ImageEmbeddingConfig
from learning.tasks.masked_tokens import MaskedTokens, MaskedTokensConfig
from learning.tasks.next_token_prediction import NextTokenConfig, NextTokenPrediction
from learning.tasks.tabular_classification import TabularClassification
from learning.tasks.text_classification import TextClassification, TextClassificationConfig
from store import models
from store.artifacts import ArtifactStore

INPUT = {f"x{n}": 0.5 * n for n in range(10)}
TEXTS = ("where is my card", "what is the rate today", "I lost the card", "which rate do I get", "good morning")
LONGEST = 512


def register(stack: Stack, name: str, hidden: tuple[int, ...] = (10,), aliases: tuple[str, ...] = ()) -> int:
    """Register a version for rows of ten numbers and return its bytes."""
    generator = np.random.default_rng(0)
    rows = pa.table({**{column: generator.normal(size=50) for column in INPUT}, "label": ["a", "b"] * 25})
    modality, task, columns = Tabular(), TabularClassification(), Columns(target="label")
    inputs = modality.fit(rows, columns, TabularConfig())
    targets = task.fit(rows, columns, ClassificationConfig(), inputs)
    design = Design(task, Mlp(), modality, TabularConfig(), MlpConfig(hidden_sizes=hidden), inputs, targets)
    return _store(stack, design, name, aliases)


def register_text(
    stack: Stack,
    name: str,
    layers: int = 1,
    width: int = 32,
    pretrained_only: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Register a version for texts, with the labels card, other and rate or as a base model, and return its bytes."""
    rows = pa.table({"said": TEXTS, "label": ["card", "rate", "card", "rate", "other"]})
    modality, columns = Text(), Columns(target="label")
    preprocessing = TextConfig(tokenizer="characters", max_length=LONGEST)
    inputs = modality.fit(rows, columns, preprocessing)
    task: Task = MaskedTokens() if pretrained_only else TextClassification()
    config: Any = MaskedTokensConfig() if pretrained_only else TextClassificationConfig()
    targets = task.fit(rows, columns, config, inputs)
    bert = BertConfig(layers=layers, width=width)
    return _store(
        stack, Design(task, Bert(), modality, preprocessing, bert, inputs, targets, precision=precision), name
    )


def register_writer(stack: Stack, name: str, layers: int = 1, width: int = 32, max_length: int = LONGEST) -> int:
    """Register a base model that writes whatever it likes, in pieces of characters, and return its bytes."""
    rows = pa.table({"said": [*TEXTS, "早上好 今天的汇率是多少", "☃ ☕ 🂡 ñ é"]})
    modality, task, columns = Text(), NextTokenPrediction(), Columns()
    preprocessing = TextConfig(max_length=max_length, tokenizer="bytes", lower_case=False, exact=True)
    inputs = modality.fit(rows, columns, preprocessing)
    targets = task.fit(rows, columns, NextTokenConfig(), inputs)
    gpt = TransformerConfig(layers=layers, width=width, heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # what it likes is the same each time: other weights may end a text at once
        return _store(stack, Design(task, Gpt(), modality, preprocessing, gpt, inputs, targets), name)


def register_image(stack: Stack, name: str, side: int = 224, precision: Literal["fp32", "bf16"] = "fp32") -> int:
    """Register a ResNet-18 with three classes for colour pictures of that side, and return its bytes."""
    contents = [encoded(picture(number, (16, 16))) for number in range(6)]
    cells = [{"bytes": content, **images.inspect(content)._asdict()} for content in contents]
    rows = pa.table({"image": pa.array(cells, MEDIA_TYPES["image"]), "label": ["a", "b", "c"] * 2})
    modality, task, columns = Image(), ImageClassification(), Columns(target="label")
    preprocessing = ImageConfig(size=side, fit="stretch", channels="colour", normalization="imagenet")
    inputs = modality.fit(rows, columns, preprocessing)
    targets = task.fit(rows, columns, ImageClassificationConfig(), inputs)
    config = ResNetConfig(size="18", stem="7x7/4")
    design = Design(task, ResNet(), modality, preprocessing, config, inputs, targets, precision=precision)
    return _store(stack, design, name)


def register_faces(stack: Stack, name: str, size: int = 16, side: int = 16) -> int:
    """Register a version that embeds pictures of that side, by random weights, and return its bytes.

    Small ones by a flat network, larger ones by a ResNet-18, which takes a while.
    """
    cells = [{"bytes": content, **images.inspect(content)._asdict()} for content in (png(1), png(2))]
    rows = pa.table({"image": pa.array(cells, MEDIA_TYPES["image"]), "label": ["a", "b"]})
    modality, task, columns = Image(), ImageEmbedding(), Columns(target="label")
    inputs = modality.fit(rows, columns, ImageConfig(size=side))
    targets = task.fit(rows, columns, ImageEmbeddingConfig(embedding_size=size), inputs)
    made: tuple[Any, Any] = FlattenMlp(), FlattenMlpConfig(hidden_sizes=(8,))
    if side > 16:
        made = ResNet(), ResNetConfig(size="18")
    architecture, network = made
    return _store(stack, Design(task, architecture, modality, ImageConfig(size=side), network, inputs, targets), name)


def _store(stack: Stack, design: Design, name: str, aliases: tuple[str, ...] = ()) -> int:
    artifacts, database = ArtifactStore(stack.data_dir / "artifacts"), stack_database(stack)
    with tempfile.TemporaryDirectory() as directory:
        save(design, design.build().state_dict(), Path(directory))
        stored = {path.name: artifacts.add(path) for path in Path(directory).iterdir()}
    with database.write() as session:
        for artifact in stored.values():
            artifacts.register(session, artifact)
        session.flush()
        files = {path: artifact.sha256 for path, artifact in stored.items()}
        new = models.NewVersion(
            name, "task", design.task.name, design.architecture.name, design.modality.name, {}, {}, files, aliases
        )
        models.register(session, "default", None, new)
    database.close()
    return sum(artifact.bytes for artifact in stored.values())
