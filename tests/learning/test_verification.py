"""The loss with a margin and the metrics of verification against references; subjects that were never seen."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import run, small_images, spec_of, write
from sklearn import metrics as reference

from learning import verification
from learning.errors import InvalidConfig, InvalidData
from learning.margin_softmax import margin_softmax
from learning.preparation import check, resolve_for
from learning.verification import Pairs

SETTINGS = settings(max_examples=60, deadline=None)
# Few distinct values, so that ties are common.
SCORES = st.lists(st.sampled_from([-1.0, -0.4, 0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=40)


def by_angles(embedding, centres, subjects, scale, margin):
    """ArcFace as its paper writes it, one number at a time."""
    losses = []
    for vector, own in zip(embedding.tolist(), subjects.tolist(), strict=True):
        logits = []
        for number, centre in enumerate(centres.tolist()):
            dot = sum(a * b for a, b in zip(vector, centre, strict=True))
            angle = math.acos(max(-1, min(1, dot / (math.hypot(*vector) * math.hypot(*centre)))))
            logits.append(scale * math.cos(angle + margin if number == own else angle))
        losses.append(math.log(sum(math.exp(logit - logits[own]) for logit in logits)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("scale", "margin"), [(1.0, 0.0), (16.0, 0.3), (64.0, 0.5)])
def test_the_loss_is_that_of_the_paper(scale, margin):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 8, generator=generator)
    subjects = torch.arange(5).repeat(4)
    # Of any length, on the right side of their centre, where the wider angle stays below 180 degrees.
    embedding = 3 * centres[subjects] + torch.randn(20, 8, generator=generator)
    found = margin_softmax(embedding, centres, subjects, scale=scale, margin=margin)
    assert float(found) == pytest.approx(by_angles(embedding, centres, subjects, scale, margin), rel=1e-4, abs=1e-6)


def test_the_loss_falls_towards_the_own_centre_from_everywhere():
    angle = torch.linspace(0, math.pi, 50)
    embedding = torch.stack([angle.cos(), angle.sin()], 1).requires_grad_()
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    losses = [margin_softmax(one[None], centres, torch.tensor([0]), scale=8, margin=0.5) for one in embedding]
    assert all(later > earlier for earlier, later in itertools.pairwise(losses[1:]))
    torch.stack(losses).sum().backward()
    assert bool(embedding.grad.isfinite().all())


@SETTINGS
@given(SCORES, SCORES)
def test_pairs_are_judged_as_scikit_learn_judges_them(genuine, impostor):
    found = Pairs(torch.tensor(genuine), torch.tensor(impostor))
    labels, scores = [1] * len(genuine) + [0] * len(impostor), genuine + impostor
    assert verification.auc(found) == pytest.approx(reference.roc_auc_score(labels, scores))
    false, true, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    nearest = np.abs(1 - true - false).min()
    equal = (false + 1 - true)[np.abs(1 - true - false) < nearest + 1e-9] / 2
    assert np.abs(verification.equal_error_rate(found) - equal).min() < 1e-9
    for prior in (0.01, 0.5, 0.9):
        cost = min((prior * (1 - true) + (1 - prior) * false) / min(prior, 1 - prior))
        assert verification.least_detection_cost(found, prior) == pytest.approx(cost)
    for rate in (0.0, 0.01, 0.3, 1.0):
        threshold = verification.threshold_at(found.impostor_I, rate)
        accepts = verification.accepted(found.impostor_I, threshold)
        assert accepts <= rate
        # Nothing lower would do, and what is accepted of the genuine pairs is the most there can be.
        best = max(t for f, t in zip(false, true, strict=True) if f <= rate)
        assert verification.accepted(found.genuine_G, threshold) == pytest.approx(best)


def test_the_nearest_other_decides():
    embedding = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.8, 0.2], [-1, 0]])
    subject = torch.tensor([0, 0, 1, 1, 2])
    # Of the first four, whose subject has another row: both of 0 find each other, the third the fourth, the fourth a 0.
    assert verification.rank_1(embedding, subject) == 0.75
    assert verification.rank_1(embedding[2:3], subject[2:3]) is None
    assert [len(score) for score in verification.pairs(embedding, subject)] == [2, 8]
    lonely = verification.pairs(embedding[:1], subject[:1])
    assert (verification.auc(lonely), verification.equal_error_rate(lonely)) == (None, None)
    assert verification.least_detection_cost(lonely) is None
    assert verification.operating_points(lonely) == []


@pytest.mark.parametrize(("subjects", "each", "least"), [(2_000, 5, 4_000), (10_000, 2, 900), (2, 6_000, 990_000)])
def test_of_many_embeddings_pairs_of_both_kinds_are_compared(subjects, each, least):
    generator = torch.Generator().manual_seed(2)
    subject = torch.arange(subjects).repeat_interleave(each)  # sorted, as a folder for each subject is read
    embedding = torch.randn(len(subject), 2, generator=generator)
    found = verification.pairs(embedding, subject)
    assert len(found.genuine_G) >= least
    assert len(found.impostor_I) >= 990_000
    assert len(found.genuine_G) + len(found.impostor_I) == 2_000 * 1_999 // 2
    assert all(torch.equal(*one) for one in zip(found, verification.pairs(embedding, subject), strict=True))
    assert verification.rank_1(embedding, subject) is not None


def people(rows=96, seed=0):
    """Images of six subjects: where the light part is."""
    table = small_images(rows, seed)
    generator = np.random.default_rng(seed + 1)
    person = generator.integers(0, 3, rows)
    names = [f"{label}-{number}" for label, number in zip(table["label"].to_pylist(), person, strict=True)]
    return table.append_column("person", pa.array(names))


def test_whole_subjects_are_held_out(tmp_path):
    spec = spec_of(
        "image-embedding", columns={"target": "person"}, split={"group": "person", "validation": 0.34},
        hyperparameters={"epochs": 2}, task_config={"embedding_size": 8},
    )  # fmt: skip
    result = run(spec, {"train": write(people(), tmp_path / "train.arrow")}, tmp_path)
    held, seen = result.metrics["validation"], result.metrics["train"]
    assert (held["subjects"], held["new_subjects"], held["accuracy"], held["loss"]) == (2, 2, None, None)
    assert (seen["subjects"], seen["new_subjects"]) == (4, 0)
    assert 0 <= held["auc"] <= 1
    assert seen["accuracy"] is not None
    rates = [point["false_accept_rate"] for point in held["thresholds"]]
    assert rates == sorted(rates, reverse=True)
    assert rates


@pytest.mark.parametrize(("rows", "batch_size"), [(30, 16), (99, 16), (100, 32), (5_000, 64)])
def test_few_images_have_smaller_batches(rows, batch_size):
    spec = spec_of("image-embedding", columns={"target": "person"})
    assert resolve_for(spec, rows, 700_000).batch_size == batch_size


def test_one_row_at_once_is_refused():
    spec = spec_of("image-embedding", columns={"target": "person"}, hyperparameters={"batch_size": 1})
    with pytest.raises(InvalidConfig, match="batch_size is 1") as refused:
        check(spec)
    assert refused.value.param == "hyperparameters.batch_size"
    assert "2 or more" in refused.value.hint


def test_without_pairs_the_last_weights_stay(tmp_path):
    one_each = people(120).slice(0, 40)
    lone = pa.table({**{n: one_each[n] for n in one_each.column_names}, "split": ["train"] * 38 + ["validation"] * 2})
    held = lone.set_column(lone.column_names.index("person"), "person", [["a", "b"] * 19 + ["c", "d"]])
    spec = spec_of(
        "image-embedding", columns={"target": "person"}, split={"column": "split"}, hyperparameters={"epochs": 2}
    )
    result = run(spec, {"train": write(held, tmp_path / "train.arrow")}, tmp_path)
    measured = result.metrics["validation"]
    assert (measured["auc"], measured["rank_1"], measured["eer"], measured["thresholds"]) == (None, None, None, [])
    assert measured["pairs"] == {"same": 0, "different": 1}
    assert result.outcome.position.best_step is None


def test_one_subject_alone_is_refused(tmp_path):
    alone = small_images().append_column("person", pa.array(["me"] * 40))
    with pytest.raises(InvalidData, match='only the subject "me"'):
        run(spec_of("image-embedding", columns={"target": "person"}), {"train": write(alone, tmp_path / "t")}, tmp_path)
