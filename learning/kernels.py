"""The arithmetic of a training step without autograd: each piece a call, prepared once, on buffers that stay.

Small tensors cost what calling costs: arguments are bound beforehand, results go where the next call reads them, and
numpy, on the same memory, does what it starts sooner. Shapes: B batch, I inputs of a layer, O its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from learning.interfaces import Link

Call = Callable[[], object]

# OpenBLAS keeps a product of fewer multiplications to the calling thread. Larger ones go to torch, whose threads are
# the ones a job sets, and whose overhead no longer counts.
NUMPY_PRODUCT = 1 << 18
_aten = torch.ops.aten


def product(left: Tensor, right: Tensor, out: Tensor) -> Call:
    """Return what writes the matrix product of two into a third."""
    if left.shape[0] * left.shape[1] * right.shape[1] < NUMPY_PRODUCT:
        return partial(np.dot, left.numpy(), right.numpy(), out.numpy())
    return partial(torch.mm, left, right, out=out)


def _relu_backward(gradient: Tensor, activated: Tensor) -> list[Call]:
    by, slope, values = gradient.numpy(), torch.empty_like(gradient).numpy(), activated.numpy()
    return [partial(np.sign, values, slope), partial(np.multiply, by, slope, by)]


# By activation: what applies it in place, and what multiplies a gradient by its slope, given the activated values.
ACTIVATE: dict[type[nn.Module], Callable[[Tensor], Call]] = {
    nn.ReLU: lambda values: values.relu_,
    nn.Sigmoid: lambda values: values.sigmoid_,
    nn.Tanh: lambda values: values.tanh_,
}
DIFFERENTIATE: dict[type[nn.Module], Callable[[Tensor, Tensor], list[Call]]] = {
    nn.ReLU: _relu_backward,
    nn.Sigmoid: lambda gradient, s: [partial(_aten.sigmoid_backward.grad_input, gradient, s, grad_input=gradient)],
    nn.Tanh: lambda gradient, t: [partial(_aten.tanh_backward.grad_input, gradient, t, grad_input=gradient)],
}


def dropout(values: Tensor, out: Tensor, gradient: Tensor, share: float) -> tuple[list[Call], list[Call]]:
    """Return what drops a share of the values, drawn from torch's generator, and what does the same to a gradient."""
    kept, scale = torch.empty_like(values), torch.tensor(1 / (1 - share))
    draw, rescale = partial(kept.bernoulli_, 1 - share), partial(kept.mul_, scale)
    return [draw, rescale, partial(torch.mul, values, kept, out=out)], [partial(gradient.mul_, kept)]


def gradient_by_outputs(
    link: Link, outputs_OB: Tensor, gradient_OB: Tensor, target: Tensor
) -> Callable[[Tensor], object]:
    """Return what writes (mean - target) / count for targets of the shape of this one, (B) or (B, O)."""
    outputs, gradient = (whole[0] if target.dim() == 1 else whole.t() for whole in (outputs_OB, gradient_OB))
    rows = outputs_OB.shape[1]
    minus_one_1B = torch.full((1, rows), -1.0)
    # An array, not a number: numpy takes ten times as long over a scalar of its own.
    scale, scaled = np.array(1 / (rows if link == "softmax" else outputs_OB.numel()), np.float32), gradient_OB.numpy()

    def identity(target: Tensor) -> object:
        torch.sub(outputs, target, out=gradient)
        return np.multiply(scaled, scale, scaled)

    def sigmoid(target: Tensor) -> object:
        torch.sigmoid(outputs, out=gradient)
        gradient.sub_(target)
        return np.multiply(scaled, scale, scaled)

    def softmax(target: Tensor) -> object:
        torch.softmax(outputs_OB, 0, out=gradient_OB)
        gradient_OB.scatter_add_(0, target.unsqueeze(0), minus_one_1B)
        return np.multiply(scaled, scale, scaled)

    return {"identity": identity, "sigmoid": sigmoid, "softmax": softmax}[link]
