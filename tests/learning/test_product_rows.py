"""Rows of nothing behind packed positions, which make kernels few, change nothing of what is learned in bf16."""

from pathlib import Path

import pytest
import torch
from runs import EXACT, TAGS, TEXTS, TRANSLATING, WRITING, spec_of, table_for, write
from torch import Tensor

from learning.device import pin
from learning.preparation import Prepared, prepare
from learning.product_rows import spare_rows
from learning.tasks import TASKS

# Texts alone, pairs, places within texts, and each architecture.
LEARNED = [
    ("masked-tokens", "bert"),
    (TEXTS, "bert"),
    (TAGS, "bert"),
    ("next-token-prediction", "gpt"),
    (WRITING, "gpt"),
    (WRITING, "llama"),
    ("denoising", "seq2seq"),
    (TRANSLATING, "seq2seq"),
]


def prepared(task: str, architecture: str, directory: Path) -> Prepared:
    spec = spec_of(
        task,
        TASKS[task].kind,
        architecture=architecture,
        task_config=EXACT.get(task, {}),
        split={"validation": 0.0},
    )
    pin(0, 1)
    return prepare(spec, {"train": write(table_for(task), directory / "train.arrow")}, device=torch.device("cpu"))


def learned(ready: Prepared, rows: int, *, lowered: bool) -> tuple[float, Tensor]:
    """The loss of so many rows and the gradient of all weights."""
    network, design = ready.network.eval(), ready.design
    network.zero_grad()
    batch = next(ready.train.batches(torch.arange(len(ready.train)), rows))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        loss = design.task.loss(network, batch, design.targets)
    loss.backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("rows", [3, 11])
@pytest.mark.parametrize(("task", "architecture"), LEARNED)
def test_what_is_learned_is_the_same(task: str, architecture: str, rows: int, tmp_path: Path) -> None:
    ready = prepared(task, architecture, tmp_path)
    exact, gradient = learned(ready, rows, lowered=False)
    found, other = learned(ready, rows, lowered=True)
    assert found == pytest.approx(exact, rel=0.01)
    assert torch.cosine_similarity(gradient, other, 0) > 0.995
    assert float(other.norm()) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_counts_of_rows_are_few_and_little_more() -> None:
    cpu = torch.device("cpu")
    assert spare_rows(813, cpu) == 0
    with torch.autocast("cpu", torch.bfloat16):
        counts = {rows: rows + spare_rows(rows, cpu) for rows in range(1, 4097)}
        assert spare_rows(64, cpu, least=1) == 8
    assert len(set(counts.values())) <= 100
    assert all(rows <= count <= max(8, rows * 1.07) + 7 for rows, count in counts.items())
    assert sum(counts.values()) / sum(counts) < 1.03
