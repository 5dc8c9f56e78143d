"""A training step of a plain multi-layer perceptron, its gradient written out by hand.

On a small network the bookkeeping of autograd and optimizer costs ten times the arithmetic. Here all parameters are
views of one flat tensor, and a step is a list of calls on buffers, prepared once per batch size.

Shapes: B batch, I inputs of a layer, O its outputs, J = I + 1. An example is a column: with a row of ones under the
inputs, inputs_JB, the bias is the last column of the weight, weight_OJ, and one product gives both of their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from learning.architectures.mlp import Layer, MlpBackbone
from learning.config import Hyperparameters
from learning.fused_optimizer import FusedOptimizer
from learning.interfaces import Batch, Link, Network
from learning.kernels import ACTIVATE, DIFFERENTIATE, Call, dropout, gradient_by_outputs, product
from learning.model import BackboneWithHead, Design
from learning.tasks.heads import PooledLinear


def supports(design: Design, network: BackboneWithHead, chosen: Hyperparameters) -> bool:
    """Return whether a step of this network is known here."""
    backbone = network.backbone
    return (
        type(backbone) is MlpBackbone
        and all(_is_plain(cast("Layer", layer)) for layer in backbone.layers)
        and type(network.head) is PooledLinear
        and design.task.link(design.targets) is not None
        and chosen.precision == "fp32"
        and chosen.optimizer != "muon"
        and chosen.backbone_learning_rate_factor == 1
        and chosen.layer_learning_rate_decay == 1
        and chosen.unfreeze_every_epochs is None
        and chosen.lora_rank is None
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in network.parameters())
    )


def _is_plain(layer: Layer) -> bool:
    return type(layer.activation) in ACTIVATE and layer.norm is None and not layer.residual


@dataclass(frozen=True, slots=True)
class _FlatLayer:
    """A layer's pieces of the flat tensors, and what follows them; the last has no activation."""

    weight_OJ: Tensor
    gradient_OJ: Tensor
    activation: type[nn.Module] | None = None
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class _Buffers:
    """What a step of one batch size reads and writes."""

    inputs_BI: Tensor
    outputs_BO: Tensor
    target: str  # its name in the batch
    compare: Callable[[Tensor], object]  # outputs with the target: the loss's gradient by the outputs
    forward: list[Call]
    backward: list[Call]


class FlatMlpStepper:
    """Forward, backward and optimizer step of a network that `supports` accepts; its parameters become views."""

    def __init__(self, design: Design, network: BackboneWithHead, chosen: Hyperparameters) -> None:
        self._task, self._targets = design.task, design.targets
        self._link = cast("Link", design.task.link(design.targets))
        weights = torch.empty(sum(tensor.numel() for tensor in network.parameters()))
        self._gradients = torch.zeros_like(weights)
        self._layers = _flatten(network, weights, self._gradients)
        self._clip = chosen.gradient_clip
        self._optimizer = FusedOptimizer([weights], chosen)
        self._buffers: dict[int, _Buffers] = {}
        self._last: tuple[_Buffers, Batch] | None = None

    @np.errstate(all="ignore")  # a loss that overflows is the caller's to judge
    def __call__(self, batch: Batch, rate: float) -> None:
        """Train on a batch at a learning rate."""
        inputs_BI = batch["inputs_BF"]
        buffers = self._buffers.get(inputs_BI.shape[0]) or self._prepare(batch)
        self._last = buffers, batch
        buffers.inputs_BI.copy_(inputs_BI)
        for call in buffers.forward:
            call()
        buffers.compare(batch[buffers.target])
        for call in buffers.backward:
            call()
        if self._clip is not None:
            norm = torch.linalg.vector_norm(self._gradients)
            self._gradients.mul_((self._clip / (norm + 1e-6)).clamp_(max=1))
        self._optimizer([self._gradients], rate)

    def loss(self) -> Tensor:
        """Return the last batch's loss: the task's own, of the outputs before the step."""
        assert self._last is not None
        buffers, batch = self._last
        known = cast("Network", lambda _: buffers.outputs_BO)
        return self._task.loss(known, batch, self._targets)

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors, each as flat as the parameters."""
        return self._optimizer.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        self._optimizer.load_state(tensors)

    def _prepare(self, batch: Batch) -> _Buffers:
        """Allocate for a batch's size and write down the calls of its step."""
        rows = batch["inputs_BF"].shape[0]
        inputs_JB, by_inputs_JB = torch.ones(self._layers[0].weight_OJ.shape[1], rows), None
        inputs_BI = inputs_JB[:-1].t()
        forward: list[Call] = []
        backward: list[Call] = []
        for layer in self._layers[:-1]:
            # With a row of ones, what a layer puts out is what the next one takes in; by that row is no gradient.
            next_JB = torch.ones(layer.weight_OJ.shape[0] + 1, rows)
            by_next_JB = torch.empty_like(next_JB)
            there, back = _calls(layer, inputs_JB, by_inputs_JB, next_JB[:-1], by_next_JB[:-1])
            forward, backward = forward + there, back + backward
            inputs_JB, by_inputs_JB = next_JB, by_next_JB
        outputs_OB = torch.empty(self._layers[-1].weight_OJ.shape[0], rows)
        by_outputs_OB = torch.empty_like(outputs_OB)
        there, back = _calls(self._layers[-1], inputs_JB, by_inputs_JB, outputs_OB, by_outputs_OB)
        target = next(name for name in batch if name.startswith("target"))
        compare = gradient_by_outputs(self._link, outputs_OB, by_outputs_OB, batch[target])
        buffers = _Buffers(inputs_BI, outputs_OB.t(), target, compare, forward + there, back + backward)
        self._buffers[rows] = buffers
        return buffers


def _calls(
    layer: _FlatLayer, inputs_JB: Tensor, by_inputs_JB: Tensor | None, outputs_OB: Tensor, by_outputs_OB: Tensor
) -> tuple[list[Call], list[Call]]:
    """Return a layer's way forward and back; `by` names a gradient."""
    activated_OB = torch.empty_like(outputs_OB) if layer.dropout else outputs_OB
    forward = [product(layer.weight_OJ, inputs_JB, activated_OB)]
    backward = [product(by_outputs_OB, inputs_JB.t(), layer.gradient_OJ)]
    if by_inputs_JB is not None:
        backward.append(product(layer.weight_OJ.t(), by_outputs_OB, by_inputs_JB))
    if layer.activation is not None:
        forward.append(ACTIVATE[layer.activation](activated_OB))
        backward = DIFFERENTIATE[layer.activation](by_outputs_OB, activated_OB) + backward
    if layer.dropout:
        drop, drop_back = dropout(activated_OB, outputs_OB, by_outputs_OB, layer.dropout)
        forward, backward = forward + drop, drop_back + backward
    return forward, backward


def _flatten(network: BackboneWithHead, weights: Tensor, gradients: Tensor) -> list[_FlatLayer]:
    """Move the parameters into `weights` and leave views of it in the network."""
    hidden = [cast("Layer", layer) for layer in cast("MlpBackbone", network.backbone).layers]
    linears = [*(layer.linear for layer in hidden), cast("PooledLinear", network.head).linear]
    follows = [(type(layer.activation), layer.dropout.p if layer.dropout else 0.0) for layer in hidden]
    layers, start = [], 0
    for linear, (activation, share) in zip(linears, [*follows, (None, 0.0)], strict=True):
        shape = linear.out_features, linear.in_features + 1
        weight_OJ, gradient_OJ = (flat[start : start + prod(shape)].view(shape) for flat in (weights, gradients))
        start += prod(shape)
        for parameter, view in ((linear.weight, weight_OJ[:, :-1]), (linear.bias, weight_OJ[:, -1])):
            parameter.data = view.copy_(parameter.detach())
        layers.append(_FlatLayer(weight_OJ, gradient_OJ, activation, share))
    return layers
