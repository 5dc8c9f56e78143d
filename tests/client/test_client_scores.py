import json
import random

import pytest
from sklearn import metrics

from anneal.errors import AnnealError
from anneal.rows import read_rows
from anneal.scores import area_under_curve, binary_scores, mean_and_deviation


def test_scores_equal_those_of_scikit_learn():
    draw = random.Random(0)
    truth = [draw.choice("ab") for _ in range(200)]
    scores = [round(draw.random(), 1) for _ in truth]
    labels = ["a" if score > 0.4 else "b" for score in scores]

    ours = binary_scores(truth, labels, scores, "a")

    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(truth, labels))
    assert ours["precision"] == pytest.approx(metrics.precision_score(truth, labels, pos_label="a"))
    assert ours["recall"] == pytest.approx(metrics.recall_score(truth, labels, pos_label="a"))
    assert ours["f1"] == pytest.approx(metrics.f1_score(truth, labels, pos_label="a"))
    assert ours["auc"] == pytest.approx(metrics.roc_auc_score([true == "a" for true in truth], scores))


def test_scores_without_any_positive_are_zero():
    assert binary_scores(["b"], ["b"], [0.1], "a") == {
        "accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "auc": 0.0,
    }  # fmt: skip
    assert area_under_curve([True, False], [0.5, 0.5]) == 0.5
    assert mean_and_deviation([0.5]) == (0.5, 0.0)


def test_a_csvs_cells_become_what_the_models_schema_says(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('code,age,note,on\n007,41,"two\nlines",true\n,,,\n')
    properties = {
        "code": {"type": "string"},
        "age": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "note": {"type": ["string", "null"]},
        "on": {"type": "boolean"},
    }
    empty = dict.fromkeys(properties)

    rows = read_rows(file, {"type": "object", "properties": properties})

    assert rows == [{"code": "007", "age": 41, "note": "two\nlines", "on": True}, empty]
    assert read_rows(file)[0]["code"] == 7


def test_texts_are_read_as_they_stand(tmp_path):
    # The first has a character that some take for the end of a line; the second looks like a number.
    texts = ["one\u2028two", "0123"]
    schema = {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"said": {"type": "string"}}}]}
    table, lines = tmp_path / "texts.csv", tmp_path / "texts.jsonl"
    table.write_text("said\n" + "\n".join(texts) + "\n")
    lines.write_text("\n".join(json.dumps(text, ensure_ascii=False) for text in texts))

    assert read_rows(table, schema) == [{"said": text} for text in texts]
    assert read_rows(lines) == texts
    lines.write_text("7")
    with pytest.raises(AnnealError, match="line 1: an input is an object"):
        read_rows(lines)
