"""A multi-layer perceptron over the encoded features of a row."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from learning.config import Config, Defaults, Situation
from learning.interfaces import Backbone, Batch, Features
from learning.modalities.tabular import TabularState

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


# A few labelled rows need many passes, since a fresh head is not trained in a handful of steps, but not too many.
_LEAST_STEPS, _MOST_LEAST_STEPS = 300, 1_000
_MOST_EPOCHS = {"pretrain": 400, "finetune": 200}
# With more weights than this for each labelled row, learning has to be held back (benchmarks/label_efficiency.py).
_CROWDED = 30
_FEW_WEIGHTS = 1_000


class MlpConfig(Config):
    """Sizes and pieces of the network."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=16_384)], ...] = Field(
        (256, 256), min_length=1, max_length=64, description="Units of each hidden layer, first to last."
    )
    activation: Literal["relu", "sigmoid", "tanh"] = Field("relu", description="Non-linearity after each layer.")
    batch_normalization: bool = Field(False, description="Normalise each layer over the batch before it is activated.")
    residual: bool = Field(False, description="Add a layer's input to its output where the two have the same size.")


class Layer(nn.Module):
    """Linear, batch normalisation, activation, dropout, each only if asked for."""

    def __init__(self, inputs: int, outputs: int, config: MlpConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs) if config.batch_normalization else None
        self.activation = _ACTIVATIONS[config.activation]()
        self.dropout: nn.Dropout | None = None
        self.residual = config.residual and inputs == outputs
        if config.activation == "relu":
            # He et al. 2015 (arXiv 1502.01852): keeps the variance of activations from layer to layer.
            nn.init.kaiming_uniform_(self.linear.weight, nonlinearity="relu")
            nn.init.zeros_(self.linear.bias)

    def forward(self, inputs_BD: Tensor) -> Tensor:
        """Return the layer's output, (B, outputs)."""
        hidden_BD: Tensor = self.linear(inputs_BD)
        if self.norm is not None:
            hidden_BD = self.norm(hidden_BD)
        hidden_BD = self.activation(hidden_BD)
        if self.dropout is not None:
            hidden_BD = self.dropout(hidden_BD)
        return inputs_BD + hidden_BD if self.residual else hidden_BD


class MlpBackbone(Backbone):
    """The hidden layers; a row is one position, so T is 1."""

    def __init__(self, inputs: int, config: MlpConfig) -> None:
        super().__init__()
        sizes = (inputs, *config.hidden_sizes)
        self.layers = nn.Sequential(*(Layer(*pair, config) for pair in pairwise(sizes)))
        self.width = sizes[-1]

    def set_dropout(self, share: float) -> None:
        """Silence this share of each layer's units in training."""
        for layer in self.layers:
            cast("Layer", layer).dropout = nn.Dropout(share) if share else None

    def forward(self, batch: Batch) -> Features:
        """Return features_BTD with T = 1."""
        return Features(self.layers(batch["inputs_BF"]).unsqueeze(1))


class Mlp:
    """Hidden layers with a choice of activation, batch normalisation and residual connections."""

    name: ClassVar[str] = "mlp"
    modality: ClassVar[str] = "tabular"
    Config: ClassVar[type[MlpConfig]] = MlpConfig

    def build(self, config: MlpConfig, state: TabularState) -> Backbone:
        """Return a network for rows encoded under `state`."""
        return MlpBackbone(state.width, config)

    def defaults(self, situation: Situation) -> Defaults:
        """Return small steps and dropout where few rows have to hold many weights."""
        kind, rows = situation.kind, situation.rows
        crowded = kind == "finetune" and situation.weights > _CROWDED * rows
        hasty = situation.optimizer == "sgd" or situation.weights < _FEW_WEIGHTS
        return Defaults(
            batch_size=_batch_size(rows),
            learning_rate=0.01 if hasty else 3e-4 if crowded else 1e-3,
            dropout=0.5 if crowded else 0.0,
            least_steps=_MOST_LEAST_STEPS
            if kind == "pretrain"
            else min(_MOST_LEAST_STEPS, max(_LEAST_STEPS, 2 * rows)),
            least_epochs=10,
            most_epochs=_MOST_EPOCHS[kind],
        )

    def foreign_config(self, config: MlpConfig, state: TabularState) -> dict[str, Any]:
        """Return nothing: Transformers has no such class."""
        return {}


def _batch_size(rows: int) -> int:
    for size, least in ((256, 10_000), (64, 2_000), (32, 200)):
        if rows >= least:
            return size
    return 16
