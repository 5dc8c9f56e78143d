"""The forward pass of a plain multi-layer perceptron for few rows: numpy on the network's own weights.

A module call of torch costs more than the arithmetic of a small layer. Where the arithmetic counts, the network itself
is asked. Shapes: B batch, F features, I inputs of a layer, O its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learning.architectures.mlp import Layer, MlpBackbone
from learning.kernels import ACTIVATE, NUMPY_PRODUCT
from learning.model import BackboneWithHead
from learning.tasks.heads import PooledLinear

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer in evaluation: a product, a sum, and what follows."""

    weight_IO: Floats
    bias_O: Floats
    activation: type[nn.Module] | None = None
    residual: bool = False


class RowForward:
    """Outputs of a network that `supports` accepts, for encoded rows."""

    def __init__(self, network: BackboneWithHead) -> None:
        self._network = network
        hidden = [cast("Layer", layer) for layer in cast("MlpBackbone", network.backbone).layers]
        self._steps = [_step(layer) for layer in hidden]
        head = cast("PooledLinear", network.head).linear
        self._steps.append(_Step(head.weight.detach().numpy().T, head.bias.detach().numpy()))
        # Rows up to which no product has more multiplications than numpy should do.
        self._few = NUMPY_PRODUCT // max(step.weight_IO.size for step in self._steps)

    @staticmethod
    def supports(network: BackboneWithHead) -> bool:
        """Return whether the network is a plain perceptron in float32 on the processor."""
        return (
            type(network.backbone) is MlpBackbone
            and type(network.head) is PooledLinear
            and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in network.parameters())
        )

    def __call__(self, inputs_BF: Floats) -> Tensor:
        """Return the head's outputs."""
        if len(inputs_BF) > self._few:
            with torch.inference_mode():
                outputs: Tensor = self._network({"inputs_BF": torch.from_numpy(inputs_BF)})
            return outputs
        values = inputs_BF
        for step in self._steps:
            outputs_BO = np.dot(values, step.weight_IO)
            outputs_BO += step.bias_O
            if step.activation is not None:
                ACTIVATE[step.activation](torch.from_numpy(outputs_BO))()
            values = values + outputs_BO if step.residual else outputs_BO
        return torch.from_numpy(values)


def _step(layer: Layer) -> _Step:
    weight_OI, bias_O = layer.linear.weight.detach(), layer.linear.bias.detach()
    if (norm := layer.norm) is not None:
        # In evaluation batch normalisation is a fixed scale and shift, and so part of the product.
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale_O = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight_OI = weight_OI * scale_O[:, None]
        bias_O = (bias_O - norm.running_mean) * scale_O + norm.bias.detach()
    return _Step(weight_OI.numpy().T, bias_O.numpy(), type(layer.activation), layer.residual)
