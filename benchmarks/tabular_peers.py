"""What others train the same small networks with, each as its documentation shows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset
from trainer_peer import trainer

BATCH, RATE = 32, 1e-3
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Rows and a network: inputs, hidden layers of ReLU, outputs (1: a sigmoid, 2: a softmax)."""

    name: str
    rows: int
    inputs: int
    hidden: tuple[int, ...]
    outputs: int

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return rows drawn at random, and the class that follows from three of their columns and noise."""
        generator = np.random.default_rng(0)
        values_NF = generator.normal(size=(self.rows, self.inputs)).astype(np.float32)
        noise_N = generator.normal(size=self.rows)
        return values_NF, (values_NF[:, :3].sum(1) + noise_N > 0).astype(np.int64)

    def network(self) -> nn.Sequential:
        """Return the network in plain torch."""
        torch.manual_seed(0)
        sizes = (self.inputs, *self.hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], self.outputs))

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return binary or categorical cross-entropy."""
        if self.outputs == 1:
            return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), target)
        return functional.cross_entropy(outputs, target)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the data as the loss takes it."""
        values_NF, target_N = self.data()
        target = torch.from_numpy(target_N)
        return torch.from_numpy(values_NF), target.float() if self.outputs == 1 else target


def floor(case: Case, epochs: int) -> Run:
    """Forward, backward and fused step on one full batch that never changes: what autograd itself costs."""
    network, (values, target) = case.network(), case.tensors()
    values, target = values[:BATCH], target[:BATCH]
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)
    steps = round(epochs * case.rows / BATCH)

    def run() -> None:
        for _ in range(steps):
            case.loss(network(values), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def data_loader(case: Case, epochs: int) -> Run:
    """The loop of PyTorch's tutorials."""
    network = case.network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    loader = DataLoader(TensorDataset(*case.tensors()), batch_size=BATCH, shuffle=True)

    def run() -> None:
        for _ in range(epochs):
            for values, target in loader:
                optimizer.zero_grad()
                case.loss(network(values), target).backward()
                optimizer.step()

    return run


class _Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, case: Case) -> None:
        self._values, self._target = case.tensors()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"values": self._values[index], "labels": self._target[index]}


class _WithLoss(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.network = case, case.network()

    def forward(self, values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.network(values)
        return {"loss": self.case.loss(outputs, labels), "logits": outputs}


def hugging_face_trainer(case: Case, epochs: int) -> Run:
    """Return what trains by transformers.Trainer."""
    return trainer(_WithLoss(case), _Rows(case), epochs, BATCH, RATE)


def scikit_learn(case: Case, epochs: int) -> Run:
    """MLPClassifier with adam; it always has one output for two classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    values_NF, target_N = case.data()
    model = MLPClassifier(
        case.hidden,
        activation="relu",
        solver="adam",
        batch_size=BATCH,
        learning_rate_init=RATE,
        max_iter=epochs,
        tol=0,
        n_iter_no_change=epochs,
        early_stopping=False,
        random_state=0,
    )

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(values_NF, target_N)

    return run


PEERS: dict[str, Callable[[Case, int], Run]] = {
    "floor": floor,
    "DataLoader loop": data_loader,
    "HF Trainer": hugging_face_trainer,
    "scikit-learn": scikit_learn,
}
