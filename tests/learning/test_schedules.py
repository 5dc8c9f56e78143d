"""Learning rates by step, against torch's own schedulers where it has them, and what "auto" becomes."""

import pytest
import torch
from pydantic import ValidationError

from learning.architectures.mlp import Mlp
from learning.config import EarlyStopping, Hyperparameters, Resolved, Situation, resolve
from learning.evaluation import is_better
from learning.optimization import learning_rate

SCHEDULES = ["constant", "linear", "cosine", "step", "one-cycle"]


def rates(schedule, *, total=100, per_epoch=10, **options):
    chosen = Hyperparameters(schedule=schedule, **{"warmup_fraction": 0.0, **options})
    resolved = Resolved(
        epochs=total // per_epoch,
        batch_size=8,
        learning_rate=0.1,
        dropout=0.0,
        steps_per_epoch=per_epoch,
        total_steps=total,
        evaluate_every_epochs=1,
    )
    return [learning_rate(step, resolved, chosen) for step in range(total)]


def reference(make, steps=100):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant():
    assert set(rates("constant")) == {0.1}


def test_linear_and_cosine_are_torch_s():
    schedulers = torch.optim.lr_scheduler
    linear = reference(lambda optimizer: schedulers.LinearLR(optimizer, 1.0, 0.01, total_iters=100))
    cosine = reference(lambda optimizer: schedulers.CosineAnnealingLR(optimizer, T_max=100, eta_min=0.001))
    assert rates("linear") == pytest.approx(linear)
    assert rates("cosine") == pytest.approx(cosine)


def test_step_drops_every_so_many_epochs():
    options = {"step_every_epochs": 3, "step_factor": 0.5}
    expected = reference(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.5))
    assert rates("step", **options) == pytest.approx(expected)


def test_one_cycle_rises_over_thirty_percent_and_falls():
    found = rates("one-cycle", final_learning_rate_fraction=0.01)
    assert found[0] == pytest.approx(0.1 / 25)
    assert found.index(max(found)) == 30
    assert max(found) == pytest.approx(0.1)
    assert found[-1] < 0.002
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_evenly_to_the_top(schedule):
    found = rates(schedule, warmup_fraction=0.1)
    assert found[:10] == pytest.approx([0.1 * step / 10 for step in range(1, 11)])
    assert all(0 < rate <= 0.1 + 1e-12 for rate in found)


def resolved(chosen, rows, kind="finetune", weights=1):
    return resolve(chosen, rows, Mlp().defaults(Situation(kind, rows, weights, chosen.optimizer)))


def test_auto_follows_from_rows_and_weights():
    auto = Hyperparameters()
    few = resolved(auto, rows=20, kind="finetune", weights=70_000)
    many = resolved(auto, rows=20_000, kind="finetune", weights=70_000)
    tiny = resolved(auto, rows=800, kind="finetune", weights=121)
    pretraining = resolved(auto, rows=20, kind="pretrain", weights=70_000)
    assert (few.learning_rate, few.dropout, few.batch_size, few.total_steps) == (3e-4, 0.5, 16, 300)
    assert (many.learning_rate, many.dropout, many.batch_size) == (1e-3, 0.0, 256)
    assert (tiny.learning_rate, tiny.dropout) == (0.01, 0.0)
    assert (pretraining.learning_rate, pretraining.dropout) == (1e-3, 0.0)


def test_what_is_given_is_kept():
    given = Hyperparameters(
        epochs=7, batch_size=10, learning_rate=0.5, dropout=0.1, evaluate_every_epochs=2, ema_decay=0.9
    )
    found = resolved(given, rows=95, kind="finetune", weights=70_000)
    assert found.model_dump() == {
        "epochs": 7,
        "batch_size": 10,
        "learning_rate": 0.5,
        "dropout": 0.1,
        "steps_per_epoch": 10,
        "total_steps": 70,
        "evaluate_every_epochs": 2,
        "ema_decay": 0.9,
    }
    assert resolved(given.model_copy(update={"max_steps": 12}), 95, "finetune", 1).total_steps == 12


def test_a_last_batch_of_one_row_is_dropped():
    assert resolved(Hyperparameters(batch_size=10), 21, "finetune", 1).steps_per_epoch == 2
    assert resolved(Hyperparameters(batch_size=10), 22, "finetune", 1).steps_per_epoch == 3
    assert resolved(Hyperparameters(batch_size=10), 1, "finetune", 1).steps_per_epoch == 1


def test_losses_are_to_fall_and_all_else_is_to_rise():
    assert is_better("loss", 1.0, None)
    assert is_better("loss", 0.9, 1.0)
    assert not is_better("loss", 0.95, 1.0, min_delta=0.1)
    assert is_better("auc", 0.9, 0.8)
    assert not is_better("auc", 0.8, 0.8)


@pytest.mark.parametrize("values", [{"patience": 0}, {"min_delta": -1}, {"min_delta": float("nan")}, {"wait": 3}])
def test_early_stopping_refuses(values):
    with pytest.raises(ValidationError):
        EarlyStopping(**values)
