"""Several labels a row: how they are read, learned, measured and answered."""

import re

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from learning.config import Columns
from learning.errors import InvalidConfig, InvalidData, InvalidRow
from learning.interfaces import Features
from learning.label_sets import label_sets
from learning.metrics import average_precision, best_threshold
from learning.multi_label_metrics import multi_label_metrics
from learning.tasks.answer_options import MultiLabelOptions
from learning.tasks.multi_label import MultiLabelClassification, MultiLabelConfig

NONE = pa.array([[], []], pa.list_(pa.string()))
LISTS = [["cat", "dog"], [], ["dog"], ["cat"], ["bird", "dog"], ["dog", "dog"]]


class Labels(MultiLabelClassification):
    name = "labels"
    modality = "tabular"


TASK = Labels()


def fitted(lists=LISTS, **config):
    return TASK.fit(pa.table({"labels": lists}), Columns(target="labels"), MultiLabelConfig(**config), None)


def drawn(rows=200, labels=5, seed=0, ties=False):
    generator = np.random.default_rng(seed)
    has = generator.random((rows, labels)) < np.linspace(0.05, 0.6, labels)
    scores = 1 / (1 + np.exp(-(generator.normal(0, 1, has.shape) + 1.5 * has - 1)))
    return torch.tensor(scores.round(1) if ties else scores), torch.tensor(has)


def test_labels_are_what_the_lists_hold():
    state = fitted()
    assert state.labels == ("bird", "cat", "dog")
    assert state.shares == pytest.approx((1 / 6, 2 / 6, 4 / 6))
    batch = TASK.targets(pa.table({"labels": [["dog", "dog"], ["fish", "cat", "fish", "cow"], []]}), state, {})
    assert batch["target_BK"].tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert batch["target_other_B"].tolist() == [0, 2, 0]


def test_labels_may_be_columns_of_their_own():
    table = pa.table({"red": [1, 0, 1], "round": [True, False, False]})
    state = TASK.fit(table, Columns(targets=("round", "red")), MultiLabelConfig(), None)
    assert state.labels == ("round", "red")
    assert TASK.targets(table, state, {})["target_BK"].tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("table", "columns", "error", "words"),
    [
        ({"a": [["x"], None]}, {"target": "a"}, InvalidRow, r'Row 2, column "a": no labels.*\[\]'),
        ({"a": [["x"], ["y", ""]]}, {"target": "a"}, InvalidRow, 'Row 2, column "a": one of its labels is empty'),
        ({"a": NONE}, {"target": "a"}, InvalidData, "no label in any training row"),
        ({"a": [["x"], ["x"]]}, {"target": "a"}, InvalidData, "the same labels"),
        ({"a": ["x|y", "x"]}, {"target": "a"}, InvalidData, "no lists of labels.*column_types"),
        ({"a": [0, 1], "b": [0, 2]}, {"targets": ("a", "b")}, InvalidRow, 'Row 2, column "b": 2 says neither'),
        ({"a": [0, 1], "b": [None, 1]}, {"targets": ("a", "b")}, InvalidRow, 'Row 1, column "b": no labels'),
        ({"a": [0, 1], "b": [0.5, 1.0]}, {"targets": ("a", "b")}, InvalidData, '"b" holds double values'),
        ({"a": [[str(number)] for number in range(1001)]}, {"target": "a"}, InvalidData, "1001 different labels"),
        ({"a": [["x"]]}, {}, InvalidConfig, "a column of lists of labels, or a column for each label"),
    ],
)  # fmt: skip
def test_what_holds_no_labels_is_refused(table, columns, error, words):
    with pytest.raises(error) as caught:
        TASK.fit(pa.table(table), Columns(**columns), MultiLabelConfig(), None)
    assert re.search(words, f"{caught.value} {caught.value.hint}", re.DOTALL)


def test_weights_are_those_of_having_a_label():
    assert fitted(positive_weights="balanced").weights == pytest.approx((5, 2, 0.5))
    assert fitted(positive_weights={"cat": 3}).weights == (1, 3, 1)
    with pytest.raises(InvalidConfig, match=r'positive_weights names "cot".*"cat"'):
        fitted(positive_weights={"cot": 3})


def test_the_loss_is_weighted_binary_cross_entropy_and_begins_at_the_frequencies():
    state = fitted()
    head = TASK.head(4, state)
    silent = Features(torch.zeros(2, 1, 4))
    torch.testing.assert_close(head(silent).sigmoid()[0], torch.tensor(state.shares))
    logits = torch.tensor([[0.5, -1.0, 2.0], [-0.3, 0.2, -1.0]])
    wanted = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    state = fitted(positive_weights="balanced")
    found = TASK.loss(lambda batch: logits, {"target_BK": wanted}, state)
    weight = torch.tensor(state.weights)
    by_hand = -(weight * wanted * logits.sigmoid().log() + (1 - wanted) * (1 - logits.sigmoid()).log()).mean()
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_scikit_learn_gives_the_same_numbers(ties, threshold):
    scores, has = drawn(ties=ties)
    labels = tuple("abcde")
    found = multi_label_metrics(scores, has, torch.zeros(len(has), dtype=torch.int64), labels, threshold)
    said = scores >= threshold
    for average in ("micro", "macro"):
        for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            assert found[f"{name}_{average}"] == pytest.approx(score(has, said, average=average, zero_division=0))
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(has, scores, average="macro"))
    assert found["auc"] == pytest.approx(roc_auc_score(has, scores, average="macro"))
    assert found["exact"] == pytest.approx(accuracy_score(has, said))
    for place, label in enumerate(labels):
        one = found["labels"][label]
        assert one["average_precision"] == pytest.approx(average_precision_score(has[:, place], scores[:, place]))
        assert one["f1"] == pytest.approx(f1_score(has[:, place], said[:, place], zero_division=0))
        assert one["count"] == int(has[:, place].sum())


def test_the_best_threshold_is_the_best_of_all_that_there_are():
    scores, has = drawn()
    threshold, f1 = best_threshold(scores[:, 1], has[:, 1])
    tried = {float(one): f1_score(has[:, 1], scores[:, 1] >= one) for one in scores[:, 1]}
    assert f1 == pytest.approx(max(tried.values())) == pytest.approx(tried[threshold])
    assert best_threshold(scores[:, 1], torch.zeros(len(has), dtype=torch.bool)) == (None, 0.0)
    assert average_precision(scores[:, 1], torch.zeros(len(has), dtype=torch.bool)) is None


def test_labels_that_training_does_not_know_are_missed():
    scores, has = torch.tensor([[0.9], [0.1]]), torch.tensor([[True], [False]])
    none, other = (multi_label_metrics(scores, has, torch.tensor(counts), ("a",), 0.5) for counts in ([0, 0], [0, 2]))
    assert (none["recall_micro"], none["exact"], none["f1_micro"]) == (1, 1, 1)
    assert (other["recall_micro"], other["exact"]) == (pytest.approx(1 / 3), 0.5)
    assert other["labels"]["other labels"] == {"count": 2, "recall": 0.0}
    assert "other labels" not in none["labels"]


def test_a_prediction_may_ask_for_other_thresholds():
    state = fitted(threshold=0.4)
    answer = TASK.answers(torch.tensor([[0.3, 0.45, 0.9]]), state, [None])[0]
    assert answer["labels"] == ["dog", "cat"]
    assert list(answer["probabilities"]) == ["dog", "cat", "bird"]

    def asked(**options):
        return MultiLabelOptions(**options).apply(answer)

    assert asked() == answer
    assert asked(threshold=0.5)["labels"] == list(asked(threshold=0.5)["probabilities"]) == ["dog"]
    assert asked(threshold=0)["labels"] == ["dog", "cat", "bird"]
    assert asked(threshold={"bird": 0.2, "dog": 0.95})["labels"] == ["cat", "bird"]
    assert asked(top_k=1) == {"labels": ["dog"], "probabilities": {"dog": answer["probabilities"]["dog"]}}
    assert asked(probabilities=False) == {"labels": ["dog", "cat"]}
    with pytest.raises(InvalidConfig, match=r'threshold names "burd".*"bird"'):
        MultiLabelOptions(threshold={"burd": 0.2}).check(None, None, state)


def test_many_rows_are_read_as_they_stand():
    generator = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "d"])
    lists = [names[generator.random(4) < 0.3].tolist() for _ in range(500)]
    table = pa.concat_tables([pa.table({"x": lists[:123]}), pa.table({"x": lists[123:]})])  # in several chunks
    has, other = label_sets(table, ["x"]).among(("a", "b", "c"))
    assert has.tolist() == [[name in row for name in "abc"] for row in lists]
    assert other.tolist() == ["d" in row for row in lists]
