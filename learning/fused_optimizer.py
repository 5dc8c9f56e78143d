"""torch's own fused optimizer step without the Python around it, which costs more than a small network's gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from learning.config import Hyperparameters


class FusedOptimizer:
    """Bit for bit `torch.optim`'s AdamW, Adam or SGD with `fused=True`, of tensors on one device.

    One difference: a tensor that had no gradient in some step is corrected for its zero start by all steps, not by its
    own.
    """

    def __init__(self, weights: Sequence[Tensor], chosen: Hyperparameters) -> None:
        self._weights = [tensor.detach() for tensor in weights]  # the same memory, unknown to autograd
        self._step = torch.zeros((), device=self._weights[0].device)
        self._one = torch.ones_like(self._step)
        momentum = ["momentum_buffer"] if chosen.momentum else []
        names = momentum if chosen.optimizer == "sgd" else ["exp_avg", "exp_avg_sq"]
        self._kept = {name: [torch.zeros_like(tensor) for tensor in self._weights] for name in names}
        if chosen.optimizer == "sgd":
            # Momentum that starts from 0 needs no first step of its own.
            self._fused = partial(
                torch._fused_sgd_, momentum=chosen.momentum, weight_decay=chosen.weight_decay, dampening=0.0,
                nesterov=False, maximize=False, is_first_step=False,
            )  # fmt: skip
            self._lists: list[list[Tensor]] = list(self._kept.values()) or [[]]
            return
        beta1, beta2 = chosen.betas
        self._fused = partial(
            torch._fused_adam_ if chosen.optimizer == "adam" else torch._fused_adamw_,
            beta1=beta1, beta2=beta2, weight_decay=chosen.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        self._lists = [*self._kept.values(), [], [self._step] * len(self._weights)]

    def __call__(self, gradients: Sequence[Tensor | None], rate: float) -> None:
        """Take a step at a learning rate; what has no gradient stays as it is."""
        self._step.add_(self._one)
        if all(gradient is not None for gradient in gradients):
            self._fused(self._weights, gradients, *self._lists, lr=rate)
            return
        there = [index for index, gradient in enumerate(gradients) if gradient is not None]
        lists = [[some[index] for index in there if some] for some in (self._weights, gradients, *self._lists)]
        if there:
            self._fused(*lists, lr=rate)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that are kept between steps, by name."""
        named = {f"{name}.{index}": tensor for name, some in self._kept.items() for index, tensor in enumerate(some)}
        return {**named, "step": self._step}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        for name, tensor in self.state().items():
            tensor.copy_(tensors[name])
