"""Entities: how they are tagged, how they are counted, and what is read from words and from running text."""

import random
import warnings

import pyarrow as pa
import pytest
from runs import TAGS, run, saved, small_texts, spec_of, write
from seqeval import metrics as seqeval

from learning.config import Columns
from learning.entities import Tally, WrongTag, as_iob2, numbered, spans
from learning.errors import InvalidData
from learning.modalities.text import Text, TextConfig
from learning.modalities.text_rows import write_out
from learning.prediction import Predictor

KINDS = ("LOC", "ORG", "PER")
ALL_TAGS = ["O", *(f"{form}-{kind}" for kind in KINDS for form in "BI")]
EXACTLY = {"epochs": 60, "learning_rate": 3e-3, "dropout": 0.0}


@pytest.mark.parametrize(
    ("scheme", "tags", "expected"),
    [
        ("iob2", "O B-A I-A B-A B-B", "O B-A I-A B-A B-B"),
        ("iob1", "I-A I-A B-A I-B O I-A", "B-A I-A B-A B-B O B-A"),
        ("iobes", "S-A B-A I-A E-A O S-B", "B-A B-A I-A I-A O B-B"),
        ("iobes", "U-A B-A L-A U-A", "B-A B-A I-A B-A"),
    ],
)
def test_every_scheme_becomes_iob2(scheme, tags, expected):
    assert as_iob2(tags.split(), scheme) == expected.split()


@pytest.mark.parametrize(
    ("scheme", "tags", "position", "reason"),
    [
        ("iob2", "O I-A", 1, '"I-A" cannot stand behind "O"'),
        ("iob2", "I-A", 0, '"I-A" cannot come first'),
        ("iob2", "B-A I-B", 1, '"I-B" cannot stand behind "B-A"'),
        ("iob2", "O S-A", 1, '"S-A" is no tag'),
        ("iob2", "O NOUN", 1, '"NOUN" is no tag'),
        ("iob2", "O B-", 1, '"B-" is no tag'),
        ("iobes", "B-A O", 1, '"O" cannot stand behind "B-A"'),
        ("iobes", "E-A", 0, '"E-A" cannot come first'),
        ("iobes", "S-A I-A", 1, '"I-A" cannot stand behind "S-A"'),
        ("iobes", "O B-A", 1, '"B-A" cannot come last'),
    ],
)
def test_a_tag_that_cannot_stand_there_is_named(scheme, tags, position, reason):
    with pytest.raises(WrongTag) as caught:
        as_iob2(tags.split(), scheme)
    assert (caught.value.position, caught.value.reason.split(":")[0]) == (position, reason)


def test_entities_are_counted_as_seqeval_counts_them():
    draw, known = random.Random(0), {kind: number for number, kind in enumerate(KINDS)}
    wanted, found = ([[draw.choice(ALL_TAGS) for _ in range(draw.randint(1, 12))] for _ in range(80)] for _ in range(2))
    found = [[*tags, *["O"] * len(row)][: len(row)] for tags, row in zip(found, wanted, strict=True)]
    tally = Tally(KINDS)
    for one, other in zip(wanted, found, strict=True):
        tally.add(*(spans(numbered(tags, known)) for tags in (one, other)))
    ours = tally.metrics()
    assert ours["f1"] == pytest.approx(seqeval.f1_score(wanted, found))
    assert ours["precision"] == pytest.approx(seqeval.precision_score(wanted, found))
    assert ours["recall"] == pytest.approx(seqeval.recall_score(wanted, found))
    theirs = seqeval.classification_report(wanted, found, output_dict=True)
    for kind in KINDS:
        assert ours["entities"][kind]["f1"] == pytest.approx(theirs[kind]["f1-score"])
        assert ours["entities"][kind]["count"] == theirs[kind]["support"]


def test_words_are_written_as_people_write_them():
    assert write_out(["New", "York", ",", "看似", "iPhone", "好", "用"]).text == "New York ,看似iPhone好用"
    words = write_out(["a", "", "b", "北", "", "京"])
    assert [words.text[start:end] for start, end in words.spans] == ["a", "", "b", "北", "", "京"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model for each tokenizer that knows its rows by heart, its metrics, and held-out rows."""
    directory = tmp_path_factory.mktemp("tags")
    test = small_texts(30, seed=5)
    tables = {"train": write(small_texts(60), directory / "train"), "test": write(test, directory / "test")}
    found = {}
    for kind in ("wordpiece", "bytes", "characters"):
        preprocessing = {"tokenizer": kind, "vocabulary_size": 400, "max_length": 64}
        spec = spec_of(TAGS, hyperparameters=EXACTLY, preprocessing=preprocessing, task_config={"token_masking": 0.0})
        result = run(spec, tables, directory / kind)
        found[kind] = Predictor(saved(result, directory / kind / "model")), result.metrics["test"], test
    return found


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bytes", "characters"])
def test_f1_is_that_of_the_answers(trained, tokenizer):
    predictor, metrics, test = trained[tokenizer]
    served = predictor.predict(test.column("tokens").to_pylist()).outputs
    wanted, found = test.column("tags").to_pylist(), [answer["tags"] for answer in served]
    with warnings.catch_warnings(action="ignore"):  # of kinds that nobody predicted
        assert metrics["f1"] == pytest.approx(seqeval.f1_score(wanted, found))
    assert metrics["f1"] > 0.9
    for answer, words in zip(served, test.column("tokens").to_pylist(), strict=True):
        for entity in answer["entities"]:
            assert entity["text"] == write_out(words[entity["start"] : entity["end"]]).text
            assert answer["tags"][entity["start"]] == f"B-{entity['label']}"


def test_running_text_is_answered_with_places_in_it(trained):
    predictor, _, _ = trained["wordpiece"]
    (answer,) = predictor.predict(["  my order annoys me"]).outputs
    assert answer["tags"] is None
    assert [(entity["label"], entity["start"], entity["end"], entity["text"]) for entity in answer["entities"]] == [
        ("owner", 2, 4, "my"),
        ("thing", 5, 10, "order"),
        ("feeling", 11, 20, "annoys me"),
    ]
    (answer,) = predictor.predict([{"text": "这个餐馆很好"}]).outputs
    assert [(entity["label"], entity["text"]) for entity in answer["entities"]] == [("place", "这个餐馆")]


def test_what_cannot_be_found_counts_as_missed(tmp_path):
    table = pa.table({"tokens": [["my", "card", "works"]] * 12, "tags": [["B-owner", "B-thing", "O"]] * 12})
    long = ["works"] * 6 + ["my", "card"]
    test = pa.table(
        {
            "tokens": [["my", "card", "works"], long, ["my", "works", "card"]],
            "tags": [["B-owner", "B-thing", "O"], [*"OOOOOO", "B-thing", "I-thing"], ["O", "B-city", "I-city"]],
        }
    )
    spec = spec_of(TAGS, hyperparameters=EXACTLY, preprocessing={"max_length": 9}, columns={"target": "tags"})
    result = run(spec, {"train": write(table, tmp_path / "a"), "test": write(test, tmp_path / "b")}, tmp_path)
    found = result.metrics["test"]
    assert {kind: scores["count"] for kind, scores in found["entities"].items()} == {
        "owner": 1,
        "thing": 2,
        "other kinds": 1,
    }
    assert found["entities"]["thing"]["recall"] == 0.5
    assert found["entities"]["other kinds"]["recall"] == 0


@pytest.mark.parametrize(
    ("tokens", "tags", "message", "param"),
    [
        (["a", "b"], ["O", "I-x"], 'Row 2, column "tags", position 2: "I-x" cannot stand behind "O"', "columns.target"),
        (["a", "b"], ["O"], 'Row 2 has 2 tokens, but 1 tags in column "tags"', "columns.target"),
        (["a", "b"], None, 'Row 2, column "tags": no tags', "columns.target"),
        ([" ", ""], ["O", "O"], 'Row 2, column "tokens": the text is empty', "columns.text"),
    ],
)
def test_a_wrong_row_is_named(tokens, tags, message, param, tmp_path):
    table = pa.table({"tokens": [["a"], tokens], "tags": pa.array([["B-x"], tags], pa.list_(pa.string()))})
    with pytest.raises(InvalidData) as caught:
        run(spec_of(TAGS, columns={"target": "tags"}), {"train": write(table, tmp_path / "a")}, tmp_path)
    assert message in caught.value.message
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"target": "label"}, 'Column "label" holds string values, which are no lists of tags'),
        ({"target": "tags", "text": "text"}, "The text is running text"),
    ],
)
def test_columns_that_are_no_lists_are_named(columns, message, tmp_path):
    with pytest.raises(InvalidData, match=message):
        run(spec_of(TAGS, columns=columns), {"train": write(small_texts(), tmp_path / "a")}, tmp_path)


def test_rows_without_an_entity_teach_nothing(tmp_path):
    table = pa.table({"tokens": [["a", "b"]], "tags": [["O", "O"]]})
    with pytest.raises(InvalidData, match="every tag is O"):
        run(spec_of(TAGS, columns={"target": "tags"}), {"train": write(table, tmp_path / "a")}, tmp_path)


def test_lists_of_words_are_read_where_there_is_no_text_or_lists_are_predicted():
    table = small_texts()
    text = Text()
    assert text.fit(table, Columns(ignore=("label", "tags")), TextConfig()).column == "text"
    assert text.fit(table, Columns(target="tags"), TextConfig()).column == "tokens"
    state = text.fit(table.select(["tokens"]), Columns(), TextConfig())
    assert text.encode(table, state)["words_B"].tolist() == [len(words) for words in table.column("tokens").to_pylist()]
