"""Every metric against scikit-learn, on whatever hypothesis finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from learning import metrics

SETTINGS = settings(max_examples=60, deadline=None)
LABELS = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)
# Few distinct values, so that ties are common.
SCORES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=2, max_size=60)
NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=40)


@SETTINGS
@given(LABELS)
def test_confusion_precision_recall_f1(case):
    classes, pairs = case
    predicted, target = (list(values) for values in zip(*pairs, strict=True))
    confusion = metrics.confusion_matrix(torch.tensor(predicted), torch.tensor(target), classes)
    labels = list(range(classes))
    assert confusion.tolist() == reference.confusion_matrix(target, predicted, labels=labels).tolist()
    expected = reference.precision_recall_fscore_support(target, predicted, labels=labels, zero_division=0)
    for own, theirs in zip(metrics.precision_recall_f1(confusion), expected[:3], strict=True):
        assert own.numpy() == pytest.approx(theirs)


@SETTINGS
@given(SCORES)
def test_area_under_the_roc_curve(pairs):
    scores, positive = (list(values) for values in zip(*pairs, strict=True))
    own = metrics.roc_auc(torch.tensor(scores), torch.tensor(positive))
    if len(set(positive)) == 1:
        assert own is None
    else:
        assert own == pytest.approx(reference.roc_auc_score(positive, scores))


@pytest.mark.parametrize("classes", [3, 4])
def test_mean_area_over_the_classes(classes):
    generator = np.random.default_rng(classes)
    probabilities = generator.dirichlet(np.ones(classes), 50)
    target = generator.integers(0, classes, 50)
    own = metrics.mean_roc_auc(torch.from_numpy(probabilities), torch.from_numpy(target))
    assert own == pytest.approx(reference.roc_auc_score(target, probabilities, multi_class="ovr"))


def test_mean_area_leaves_out_classes_that_do_not_occur():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert metrics.mean_roc_auc(probabilities, torch.tensor([0, 1, 0])) == 1.0


@SETTINGS
@given(PAIRS)
def test_errors_of_numbers(pairs):
    predicted, target = (np.array(values) for values in zip(*pairs, strict=True))
    own = torch.from_numpy(predicted), torch.from_numpy(target)
    assert metrics.mae(*own) == pytest.approx(reference.mean_absolute_error(target, predicted))
    assert metrics.rmse(*own) == pytest.approx(reference.root_mean_squared_error(target, predicted))
    if len(set(target)) == 1:
        assert metrics.r2(*own) is None or np.ptp(target) == 0
    else:
        assert metrics.r2(*own) == pytest.approx(reference.r2_score(target, predicted), rel=1e-6, abs=1e-9)
