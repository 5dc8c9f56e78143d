"""Steps of matrices whose directions all count alike (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

A matrix's momentum is brought near the closest orthogonal matrix by Newton and Schulz's iteration, and scaled so that
its entries move as far as AdamW's would (Liu et al. 2025, arXiv 2502.16982): one learning rate serves both.

N matrices of one shape; R their rows, C their columns, of which the rows are the fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from learning import device
from learning.config import Hyperparameters

_MOMENTUM = 0.95
_ITERATIONS = 5
# The quintic whose slope at zero is steep: singular values end between 0.7 and 1.2 after five iterations.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_EPSILON = 1e-7
# The root mean square of AdamW's steps, as a share of the learning rate.
_USUAL_STEP = 0.2


class Muon:
    """torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"` and Nesterov's momentum; equal shapes go together."""

    def __init__(self, weights: Sequence[Tensor], chosen: Hyperparameters) -> None:
        self._weights = [tensor.detach() for tensor in weights]  # the same memory, unknown to autograd
        self._decay = chosen.weight_decay
        is_slow = bool(self._weights) and device.is_slow("bf16", self._weights[0].device)
        self._dtype = torch.float32 if is_slow else torch.bfloat16
        self._momentum = [torch.zeros_like(tensor) for tensor in self._weights]
        shapes = sorted({tuple(tensor.shape) for tensor in self._weights})
        self._alike = [
            [index for index, tensor in enumerate(self._weights) if tuple(tensor.shape) == shape] for shape in shapes
        ]

    def __call__(self, gradients: Sequence[Tensor | None], rate: float) -> None:
        """Take a step at a learning rate; what has no gradient stays as it is."""
        for alike in self._alike:
            if there := [index for index in alike if gradients[index] is not None]:
                self._step(there, [gradient for index in there if (gradient := gradients[index]) is not None], rate)

    def _step(self, there: Sequence[int], gradients: Sequence[Tensor], rate: float) -> None:
        momentum, weights = [self._momentum[index] for index in there], [self._weights[index] for index in there]
        torch._foreach_lerp_(momentum, list(gradients), 1 - _MOMENTUM)
        ahead_NRC = torch.stack(torch._foreach_lerp(list(gradients), momentum, _MOMENTUM))
        steps = orthogonalised(ahead_NRC, self._dtype).to(weights[0].dtype).unbind()
        torch._foreach_mul_(weights, 1 - rate * self._decay)
        torch._foreach_add_(weights, steps, alpha=-rate * _USUAL_STEP * max(weights[0].shape) ** 0.5)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that are kept between steps, by name."""
        return {f"momentum.{index}": tensor for index, tensor in enumerate(self._momentum)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])


def orthogonalised(matrices_NRC: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Return matrices of the same singular vectors whose singular values are all about 1; 0 stays 0."""
    if matrices_NRC.shape[1] > matrices_NRC.shape[2]:
        return orthogonalised(matrices_NRC.mT, dtype).mT
    found_NRC = matrices_NRC.to(dtype)
    found_NRC = found_NRC / found_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram_NRR = found_NRC @ found_NRC.mT
        change_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=_CUBIC, alpha=_QUINTIC)
        found_NRC = torch.baddbmm(found_NRC, change_NRR, found_NRC, beta=_LINEAR)
    return found_NRC
