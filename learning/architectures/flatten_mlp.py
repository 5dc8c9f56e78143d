"""A multi-layer perceptron over all pixels of an image: flatten, dense layers, and a task's head."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field
from torch import nn

from learning.architectures.image_backbone import ImageBackbone
from learning.architectures.mlp import Layer, MlpConfig
from learning.config import Defaults, Situation
from learning.interfaces import Batch, Features
from learning.modalities.image import ImageState


class FlattenMlpConfig(MlpConfig):
    """Sizes and pieces of the network."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=16_384)], ...] = Field(
        (128,), min_length=1, max_length=64, description="Units of each hidden layer, first to last."
    )


class FlattenMlpBackbone(ImageBackbone):
    """The hidden layers; an image is one position, so T is 1."""

    def __init__(self, config: FlattenMlpConfig, state: ImageState) -> None:
        super().__init__(state)
        sizes = (state.channels * state.size**2, *config.hidden_sizes)
        self.layers = nn.Sequential(*(Layer(*pair, config) for pair in pairwise(sizes)))
        self.width = sizes[-1]

    def set_dropout(self, share: float) -> None:
        """Silence this share of each layer's units in training."""
        for layer in self.layers:
            cast("Layer", layer).dropout = nn.Dropout(share) if share else None

    def forward(self, batch: Batch) -> Features:
        """Return features_BTD with T = 1."""
        return Features(self.layers(self.normalized(batch).flatten(1)).unsqueeze(1))


class FlattenMlp:
    """All pixels in a row, then hidden layers as `mlp` has them."""

    name: ClassVar[str] = "flatten-mlp"
    modality: ClassVar[str] = "image"
    Config: ClassVar[type[FlattenMlpConfig]] = FlattenMlpConfig

    def build(self, config: FlattenMlpConfig, state: ImageState) -> FlattenMlpBackbone:
        """Return a network for images encoded under `state`."""
        return FlattenMlpBackbone(config, state)

    def defaults(self, situation: Situation) -> Defaults:
        """Return short training: dense layers on pixels soon know them by heart."""
        rate = 0.01 if situation.optimizer == "sgd" else 1e-3
        return Defaults(32, rate, 0.0, 1_000 if situation.kind == "pretrain" else 300, 10, 100)

    def foreign_config(self, config: FlattenMlpConfig, state: ImageState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}
