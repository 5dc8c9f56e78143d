"""Objectives that compare two views of each example: by their papers' sums, and in training."""

import math

import pytest
import torch
from runs import MILD, run, small_images, spec_of, write

from learning.tasks.contrastive_views import recognition, varying

ROWS, NUMBERS = 6, 4


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, ROWS, NUMBERS, generator=generator, dtype=torch.float64)


def covariance(values, first, second):
    means = [sum(row[number] for row in values) / ROWS for number in (first, second)]
    return sum((row[first] - means[0]) * (row[second] - means[1]) for row in values) / (ROWS - 1)


def test_variance_is_what_the_paper_adds_up(views):
    one, other = views.tolist()
    alike = sum((one[row][i] - other[row][i]) ** 2 for row in range(ROWS) for i in range(NUMBERS)) / (ROWS * NUMBERS)
    hinges, pairs = 0.0, 0.0
    for values in (one, other):
        hinges += sum(max(0.0, 1 - math.sqrt(covariance(values, i, i) + 1e-4)) for i in range(NUMBERS)) / NUMBERS
        pairs += sum(covariance(values, i, j) ** 2 for i in range(NUMBERS) for j in range(NUMBERS) if i != j) / NUMBERS
    assert float(varying(*views)) == pytest.approx(25 * alike + 25 * hinges / 2 + pairs)


def test_views_that_are_all_the_same_cost_most_by_variance(views):
    alike, same = views[0], torch.zeros(ROWS, NUMBERS, dtype=torch.float64)
    assert float(varying(same, same)) == pytest.approx(25 * 0.99)
    assert float(varying(alike, alike)) < float(varying(same, same))


def test_recognition_is_the_cross_entropy_of_twins_among_all_others(views):
    one, other = torch.nn.functional.normalize(views, dim=2)
    everyone = [*one.tolist(), *other.tolist()]
    losses = []
    for row, view in enumerate(everyone):
        alike = [math.exp(sum(a * b for a, b in zip(view, another, strict=True)) / 0.2) for another in everyone]
        losses.append(-math.log(alike[(row + ROWS) % (2 * ROWS)] / (sum(alike) - alike[row])))
    assert float(recognition(one, other, 0.2)) == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("objective", ["both", "views", "clusters", "variance", "prediction"])
def test_every_objective_is_learned_by(tmp_path, objective):
    task, table = "contrastive-images", write(small_images(), tmp_path / "rows.arrow")
    losses = []
    for steps in (1, 60):
        spec = spec_of(
            task,
            "pretrain",
            task_config={**MILD[task], "objective": objective},
            hyperparameters={"max_steps": steps, "batch_size": 20, "learning_rate": 3e-3},
            split={"validation": 0.0},
        )
        losses.append(run(spec, {"train": table}, tmp_path).metrics["train"]["loss"])
    assert losses[1] < 0.95 * losses[0]
