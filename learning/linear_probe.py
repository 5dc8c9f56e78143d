"""A classifier's head that begins as a linear probe of the backbone: linear probing, then finetuning.

A head drawn at random sends the backbone large, meaningless gradients in the first steps, which distort features that
pretraining made (Kumar et al. 2022, arXiv 2202.10054); with very few labels there are not many more steps than those.
N rows, W inputs of the head's linear layer, C its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from learning.capabilities import Probed
from learning.data import epoch_order
from learning.evaluation import Stopped
from learning.interfaces import Batch, Examples
from learning.model import BackboneWithHead, Design

# A regression on more rows hardly gains, and their vectors are in memory together.
MOST_ROWS = 20_000
_BATCH_ROWS = 256
_ITERATIONS = 200
_LEAST_DEVIATION = 1e-6


def initialise_head(
    design: Design,
    network: BackboneWithHead,
    examples: Examples,
    inverse_strength: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Give the head's linear layer the weights of a logistic regression on the backbone's features of training rows.

    No random number is drawn, and the network's mode stays as it was. Raises Stopped between two batches when
    `should_stop` says so; the head is then as it was.
    """
    task = design.task
    assert isinstance(task, Probed)
    layer = task.logits_layer(network.head)
    vector_NW, target_N = _read(design, network, layer, examples, should_stop)
    weight_CW, bias_C = regress(
        vector_NW, target_N, task.row_weights(target_N, design.targets), layer.out_features, inverse_strength
    )
    with torch.no_grad():
        layer.weight.copy_(weight_CW)
        layer.bias.copy_(bias_C)


def _read(
    design: Design, network: BackboneWithHead, layer: nn.Linear, examples: Examples, should_stop: Callable[[], bool]
) -> tuple[Tensor, Tensor]:
    """Return what the layer is given for training rows as an evaluation reads them, and their targets."""
    vectors: list[Tensor] = []
    targets: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        vectors.append(inputs[0].double())

    was_training = network.training
    handle = layer.register_forward_pre_hook(keep)
    network.eval()
    try:
        with torch.no_grad():
            for batch in _batches(examples):
                if should_stop():
                    raise Stopped
                design.task.predict(network, batch, design.targets)
                targets.append(batch["target_B"])
    finally:
        handle.remove()
        network.train(was_training)
    return torch.cat(vectors), torch.cat(targets)


def _batches(examples: Examples) -> Iterator[Batch]:
    """Yield all rows, or of many a sample: files are often sorted by label, so not the first ones."""
    if len(examples) <= MOST_ROWS:
        yield from examples.everything()
        return
    yield from examples.batches(epoch_order(len(examples), 0, 0)[:MOST_ROWS], _BATCH_ROWS)


def regress(
    vector_NW: Tensor, target_N: Tensor, weight_N: Tensor, outputs: int, inverse_strength: float
) -> tuple[Tensor, Tensor]:
    """Return weights (C, W) and biases (C,) that minimise C * sum of losses + |weights|^2 / 2.

    Features are standardised, and the weights that are returned fit them as they were. One output is the logit of the
    second of two classes.
    """
    mean_W = vector_NW.mean(0)
    deviation_W = vector_NW.std(0, correction=0).clamp_min(_LEAST_DEVIATION)
    standard_NW = (vector_NW - mean_W) / deviation_W
    weight_CW = standard_NW.new_zeros(outputs, standard_NW.shape[1], requires_grad=True)
    bias_C = standard_NW.new_zeros(outputs, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight_CW, bias_C], max_iter=_ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        logit_NC = functional.linear(standard_NW, weight_CW, bias_C)
        if outputs == 1:
            loss_N = functional.binary_cross_entropy_with_logits(
                logit_NC.squeeze(1), target_N.double(), reduction="none"
            )
        else:
            loss_N = functional.cross_entropy(logit_NC, target_N, reduction="none")
        penalty = weight_CW.square().sum() / 2
        total = inverse_strength * (weight_N * loss_N).sum() + penalty
        total.backward()
        return total.detach()

    with torch.enable_grad():
        solver.step(objective)
    scaled_CW = weight_CW.detach() / deviation_W
    return scaled_CW, bias_C.detach() - scaled_CW @ mean_W
