"""The hand-written gradient against autograd, and exact resumption."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.architectures.mlp import Layer, Mlp, MlpConfig
from learning.config import Columns, Hyperparameters
from learning.flat_mlp import FlatMlpStepper, supports
from learning.interfaces import Batch
from learning.modalities.tabular import Tabular, TabularConfig
from learning.model import BackboneWithHead, Design
from learning.optimization import AutogradStepper, Stepper, make_stepper
from learning.tasks import task_named

ACTIVATIONS = ("relu", "sigmoid", "tanh")
LINKS = ("identity", "sigmoid", "softmax")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "adam": {"optimizer": "adam", "betas": (0.8, 0.95)},
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Products this small are slower on two threads, by far where another process wants the second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(
    link: str, *, rows: int = 90, inputs: int = 7, outputs: int = 3, task_config: dict[str, Any] | None = None,
    **architecture: Any,
) -> tuple[Design, Batch]:  # fmt: skip
    """A design for random rows whose targets follow from them, and those rows encoded."""
    generator = np.random.default_rng(3)
    values_NF = generator.normal(size=(rows, inputs))
    noisy_NO = values_NF @ generator.normal(size=(inputs, outputs)) + generator.normal(size=(rows, outputs))
    columns = {f"x{number}": values_NF[:, number] for number in range(inputs)}
    if link == "identity":
        task, names = task_named("tabular-regression"), [f"y{number}" for number in range(outputs)]
        columns |= {name: noisy_NO[:, number] for number, name in enumerate(names)}
    else:
        task, names = task_named("tabular-classification"), ["y"]
        labels_N = (noisy_NO[:, 0] > 0).astype(int) if link == "sigmoid" else noisy_NO.argmax(1)
        labels_N[: 2 if link == "sigmoid" else outputs] = range(2 if link == "sigmoid" else outputs)
        columns["y"] = np.array([f"c{label}" for label in labels_N])
    table, chosen, modality = pa.table(columns), Columns(targets=tuple(names)), Tabular()
    state = modality.fit(table, chosen, TabularConfig())
    targets = task.fit(table, chosen, task.Config.model_validate(task_config or {}), state)
    design = Design(task, Mlp(), modality, modality.Config(), MlpConfig.model_validate(architecture), state, targets)
    encoded = modality.encode(table, state)
    return design, {**encoded, **task.targets(table, targets, encoded)}


def built(design: Design, seed: int = 0) -> BackboneWithHead:
    torch.manual_seed(seed)
    return design.build().train()


def part(batch: Batch, start: int, stop: int) -> Batch:
    return {name: tensor[start:stop] for name, tensor in batch.items()}


def parameters(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in network.parameters()])


def at_a_kink(network: BackboneWithHead, batch: Batch) -> bool:
    """Whether a unit is so near to 0 that rounding decides on which side, and so on its gradient by relu."""
    values = batch["inputs_BF"]
    for layer in network.backbone.layers:
        assert isinstance(layer, Layer)
        if bool((layer.linear(values).abs() < 1e-5).any()):
            return True
        values = layer(values)
    return False


def assert_same_training(design: Design, rows: Batch, chosen: Hyperparameters, steps: int, tolerance: float) -> None:
    network = built(design)
    twin = copy.deepcopy(network)
    assert supports(design, twin, chosen)
    autograd, flat = AutogradStepper(design, network, chosen), FlatMlpStepper(design, twin, chosen)
    count = len(rows["inputs_BF"])
    for step in range(steps):
        start = step % 3 * 32 % count
        batch, rate = part(rows, start, min(start + 32, count)), 1e-3 * (1 + step % 5)
        if design.architecture_config.model_dump()["activation"] == "relu" and at_a_kink(network, batch):
            continue
        autograd(batch, rate)
        flat(batch, rate)
        torch.testing.assert_close(flat.loss(), autograd.loss(), rtol=2e-6, atol=1e-7)
    wanted = parameters(network)
    assert float((parameters(twin) - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equals_autograd_for_every_activation_link_and_optimizer(activation: str, link: str, optimizer: str) -> None:
    design, rows = problem(link, hidden_sizes=(16, 9), activation=activation)
    assert_same_training(design, rows, Hyperparameters(**OPTIMIZERS[optimizer]), steps=100, tolerance=2e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    link=st.sampled_from(LINKS),
    activation=st.sampled_from(ACTIVATIONS),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    rows=st.integers(3, 120),
    inputs=st.integers(1, 40),
    outputs=st.integers(2, 5),
    hidden=st.lists(st.sampled_from([1, 2, 5, 33, 128, 300]), min_size=1, max_size=4),
    clip=st.sampled_from([None, 0.1]),
)
def test_equals_autograd_at_any_size(
    link: str, activation: str, optimizer: str, rows: int, inputs: int, outputs: int, hidden: list[int],
    clip: float | None,
) -> None:  # fmt: skip
    design, batch = problem(
        link, rows=max(rows, outputs), inputs=inputs, outputs=outputs, hidden_sizes=hidden, activation=activation
    )
    chosen = Hyperparameters(**OPTIMIZERS[optimizer], gradient_clip=clip)
    assert_same_training(design, batch, chosen, steps=10, tolerance=2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dropout_draws_as_torch_does_and_passes_the_gradient_of_what_is_kept(activation: str) -> None:
    design, rows = problem("softmax", hidden_sizes=(64, 31), activation=activation)
    networks = [built(design), built(design)]
    for network in networks:
        network.backbone.set_dropout(0.4)
    chosen = Hyperparameters()
    steppers: list[Stepper] = [
        AutogradStepper(design, networks[0], chosen),
        FlatMlpStepper(design, networks[1], chosen),
    ]
    for step in range(50):
        for stepper in steppers:
            torch.manual_seed(step)
            # Of one row the draws lie in the same order, whichever way a matrix lies.
            stepper(part(rows, step, step + 1), 1e-3)
        torch.testing.assert_close(steppers[1].loss(), steppers[0].loss(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parameters(networks[1]), parameters(networks[0]), rtol=1e-5, atol=1e-6)


def test_dropout_drops_its_share_of_every_layer() -> None:
    design, rows = problem("identity", hidden_sizes=(64, 64), activation="sigmoid")
    network = built(design)
    network.backbone.set_dropout(0.25)
    with torch.no_grad():
        network.head.linear.weight.fill_(1.0 / 64)  # the output is the mean of what is kept: of 1/2, rescaled
        network.head.linear.bias.zero_()
        for layer in network.backbone.layers:
            layer.linear.weight.zero_()
            layer.linear.bias.zero_()
    stepper = FlatMlpStepper(design, network, Hyperparameters())
    stepper(rows, 0.0)
    assert stepper._last is not None
    outputs = stepper._last[0].outputs_BO
    assert float(outputs.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(outputs.std()) == pytest.approx(0.5 * (0.25 / 0.75 / 64) ** 0.5, rel=0.2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_resumes_bit_for_bit(optimizer: str, share: float) -> None:
    design, rows = problem("sigmoid", hidden_sizes=(16, 300, 300))
    chosen = Hyperparameters(**OPTIMIZERS[optimizer])
    batches = [part(rows, start, start + size) for start, size in ((0, 32), (32, 32), (64, 26))] * 4

    def run(network: BackboneWithHead, stepper: Stepper, some: list[Batch]) -> list[float]:
        losses = []
        for number, batch in enumerate(some):
            stepper(batch, 1e-3 * (number % 3 + 1))
            losses.append(float(stepper.loss()))
        return losses

    def start(seed: int) -> tuple[BackboneWithHead, Stepper]:
        network = built(design, seed)
        network.backbone.set_dropout(share)
        torch.manual_seed(5)
        return network, make_stepper(design, network, chosen)

    network, stepper = start(0)
    whole = run(network, stepper, batches)

    first, first_stepper = start(0)
    before = run(first, first_stepper, batches[:6])
    weights = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in first_stepper.state().items()}
    drawn = torch.get_rng_state()

    second, second_stepper = start(1)
    second.load_state_dict(weights)
    second_stepper.load_state(kept)
    torch.set_rng_state(drawn)
    assert before + run(second, second_stepper, batches[6:]) == whole
    assert torch.equal(parameters(second), parameters(network))


@pytest.mark.parametrize("link", LINKS)
def test_loss_is_that_of_the_task_before_the_step(link: str) -> None:
    design, rows = problem(link)
    network = built(design)
    stepper = make_stepper(design, network, Hyperparameters())
    for _ in range(3):
        with torch.no_grad():
            wanted = design.task.loss(network, rows, design.targets)
        stepper(rows, 1e-2)
        torch.testing.assert_close(stepper.loss(), wanted, rtol=1e-6, atol=1e-7)


def test_the_network_stays_a_module() -> None:
    design, rows = problem("softmax")
    network = built(design)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    outputs = network(rows)
    stepper = make_stepper(design, network, Hyperparameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(network(rows), outputs)
    stepper(rows, 1e-2)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(copy.deepcopy(network)(rows), network(rows))
    network.load_state_dict(before)  # what is loaded is what is trained on
    torch.testing.assert_close(network(rows), outputs)
    stepper(rows, 0.0)
    torch.testing.assert_close(stepper.loss(), design.task.loss(network, rows, design.targets).detach())


def test_a_diverging_run_has_an_infinite_loss_and_no_warning() -> None:
    design, rows = problem("identity")
    stepper = make_stepper(design, built(design), Hyperparameters(optimizer="sgd"))
    for _ in range(40):
        stepper(rows, 10.0)
    assert not bool(stepper.loss().isfinite())


@pytest.mark.parametrize(
    ("link", "task_config", "architecture", "hyperparameters"),
    [
        ("sigmoid", {}, {"batch_normalization": True}, {}),
        ("sigmoid", {}, {"hidden_sizes": (7, 7), "residual": True}, {}),
        ("sigmoid", {"class_weights": "balanced"}, {}, {}),
        ("softmax", {"label_smoothing": 0.1}, {}, {}),
        ("identity", {"loss": "huber"}, {}, {}),
        ("softmax", {}, {}, {"precision": "bf16"}),
        ("softmax", {}, {}, {"backbone_learning_rate_factor": 0.1}),
    ],
)
def test_leaves_to_autograd_what_it_does_not_know(
    link: str, task_config: dict[str, Any], architecture: dict[str, Any], hyperparameters: dict[str, Any]
) -> None:
    design, rows = problem(link, task_config=task_config, **architecture)
    stepper = make_stepper(design, built(design), Hyperparameters(**hyperparameters))
    assert isinstance(stepper, AutogradStepper)
    stepper(rows, 1e-3)
    assert bool(stepper.loss().isfinite())
