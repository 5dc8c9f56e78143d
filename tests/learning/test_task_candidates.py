"""What a dataset's columns suggest, how labels are balanced, and what is warned of."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from media_files import deep_png, encoded, packed, picture, png, tone

from learning import ingestion
from learning.ingestion import DatasetDescription, IngestOptions, ingest
from learning.statistics import Lengths
from learning.task_candidates import task_candidates
from learning.task_names import TASK_NAMES

TEXT_TASKS = (
    "masked-tokens",
    "next-token-prediction",
    "text-classification",
    "token-classification",
    "text-generation",
    "translation",
)


def described(tmp_path: Path, rows: list[dict[str, Any]], filename: str = "t.jsonl") -> DatasetDescription:
    """Ingest rows and return what is known of them."""
    source = tmp_path / filename
    with source.open("w", encoding="utf-8", newline="") as file:
        if filename.endswith(".csv"):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return ingest(source, filename, tmp_path / "t.arrow", IngestOptions())


@pytest.fixture
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release with every task that can be suggested."""
    known = {*TASK_NAMES, *TEXT_TASKS}
    monkeypatch.setattr(ingestion, "task_candidates", lambda facts: task_candidates(facts, known))


def suggested(description: DatasetDescription) -> list[tuple[str, str | None, list[str] | None]]:
    return [(one.task, one.target, one.inputs) for one in description.task_candidates]


def codes(description: DatasetDescription) -> list[tuple[str, str | None]]:
    return [(one.code, one.column) for one in description.warnings]


def test_the_names_are_those_of_the_tasks():
    from learning.tasks import TASKS

    assert tuple(TASKS) == TASK_NAMES


def test_only_this_release_s_tasks_are_suggested(tmp_path):
    rows = [{"text": f"A sentence, number {n}.", "label": "ab"[n % 2]} for n in range(40)]
    assert {one.task for one in described(tmp_path, rows).task_candidates} <= set(TASK_NAMES)


@pytest.mark.usefixtures("every_task")
def test_tasks_for_text(tmp_path):
    sentences = [{"text": f"A sentence, number {n}.", "label": "ab"[n % 2]} for n in range(40)]
    assert suggested(described(tmp_path, sentences))[0] == ("text-classification", "label", ["text"])
    chinese = [{"text": "零一二三四五六七八九"[n % 10 :] + f"第{n}句", "label": n % 3} for n in range(40)]
    assert suggested(described(tmp_path, chinese))[0] == ("text-classification", "label", ["text"])
    pairs = [{"source": f"Sentence number {n}", "target": f"这是第{n}个句子"} for n in range(40)]
    assert suggested(described(tmp_path, pairs)) == [
        ("translation", "target", ["source"]),
        ("text-generation", None, ["source"]),
        ("masked-tokens", None, ["source"]),
        ("text-generation", None, ["target"]),
        ("masked-tokens", None, ["target"]),
    ]
    named = [{"en": f"Sentence number {n}", "zh": f"第{n}句话"} for n in range(40)]
    assert suggested(described(tmp_path, named))[0] == ("translation", "zh", ["en"])
    others = [{**row, "note": f"A third text, {n}."} for n, row in enumerate(named)]
    assert "translation" not in {one[0] for one in suggested(described(tmp_path, others))}
    alone = [{"story": f"Once upon a time, {n}."} for n in range(40)]
    assert suggested(described(tmp_path, alone)) == [
        ("text-generation", None, ["story"]),
        ("masked-tokens", None, ["story"]),
        ("next-token-prediction", None, ["story"]),
    ]


def test_numbers_and_lists_of_labels_beside_sentences(tmp_path):
    lists = [["price", "taste"], ["taste"], [], ["price", "service"]]
    rows = [{"review": f"A sentence, number {n}.", "stars": n / 7, "about": lists[n % 4]} for n in range(40)]
    description = described(tmp_path, rows)
    assert suggested(description)[:2] == [
        ("multi-label-text-classification", "about", ["review"]),
        ("text-regression", "stars", ["review"]),
    ]
    labels, numbers = description.task_candidates[:2]
    assert "lists, of 3 different labels in 40 rows" in labels.reason
    assert labels.balance is not None
    assert (
        numbers.reason == '"review" is a column of sentences, and "stars" is a number column with 40 distinct '
        "values in 40 rows"
    )


@pytest.mark.usefixtures("every_task")
def test_lists_of_equal_lengths_are_tokens_and_tags(tmp_path):
    rows = [{"words": [f"w{n}", "and", "so"][: n % 3 + 1], "tags": ["B-X", "I-X", "O"][: n % 3 + 1]} for n in range(30)]
    description = described(tmp_path, rows)
    (found,) = description.task_candidates
    assert (found.task, found.target, found.inputs) == ("token-classification", "tags", ["words"])
    assert found.balance is not None
    assert [(one.value, one.count) for one in found.balance.counts] == [("B-X", 30), ("I-X", 20), ("O", 10)]
    assert suggested(described(tmp_path, [*rows, {"words": ["a"], "tags": []}])) == []


def test_tokens_are_no_tags_however_few_there_are(tmp_path):
    rows = [{"tokens": ["the", "cat"], "tags": [f"B-{n}", "O"]} for n in range(20)]
    description = described(tmp_path, rows)
    assert suggested(description) == [("token-classification", "tags", ["tokens"])]
    assert [one.column for one in description.warnings if one.code == "labels_once"] == ["tags"]


def test_a_column_of_parts_is_no_target(tmp_path):
    members = {f"{part}/{'ab'[n % 2]}/{part}{n}.png": png(n) for part in ("train", "test") for n in range(8)}
    assert [one[:2] for one in suggested(archive(tmp_path, members))] == [
        ("image-classification", "label"),
        ("contrastive-images", None),
    ]
    rows = [{"part": "train" if n % 4 else "validation", "x": n * n % 7, "y": "ab"[n % 2]} for n in range(40)]
    targets = [one.target for one in described(tmp_path, rows).task_candidates]
    assert targets == ["y", "x", None]


def test_who_is_shown_is_a_subject_to_embed(tmp_path):
    lines = ["file,person"] + [f"{n}.png,{'ab'[n % 2]}" for n in range(12)]
    members = {"manifest.csv": "\n".join(lines)} | {f"{n}.png": png(n) for n in range(12)}
    assert [one[:2] for one in suggested(archive(tmp_path, members))] == [
        ("image-embedding", "person"),
        ("image-classification", "person"),
        ("contrastive-images", None),
    ]


def test_who_speaks_is_a_subject_to_embed(tmp_path):
    lines = ["file,word,speaker"] + [f"{n}.wav,{'xyz'[n % 3]},{'ab'[n % 2]}" for n in range(12)]
    members = {"manifest.csv": "\n".join(lines)} | {f"{n}.wav": tone(pitch=200 + 40 * n) for n in range(12)}
    assert [one[:2] for one in suggested(archive(tmp_path, members))] == [
        ("audio-classification", "speaker"),
        ("audio-classification", "word"),
        ("speaker-embedding", "speaker"),
        ("contrastive-audio", None),
        ("masked-audio", None),
    ]


def test_the_balance_of_labels(tmp_path):
    labels = ["yes"] * 60 + ["no"] * 38 + ["maybe", "never"]
    rows = [{"x": n * 7 % 11 / 2, "label": label} for n, label in enumerate(labels)]
    description = described(tmp_path, rows)
    balance = description.task_candidates[0].balance
    assert balance is not None
    assert (balance.classes, balance.majority_share) == (4, 0.6)
    assert [(one.value, one.count) for one in balance.counts] == [("yes", 60), ("no", 38), ("maybe", 1), ("never", 1)]
    assert (balance.once, balance.once_first) == (2, ["maybe", "never"])
    (warning,) = [one for one in description.warnings if one.code == "labels_once"]
    assert warning.message.startswith('Column "label": 2 labels occur only once')


def test_columns_that_give_the_target_away_are_named(tmp_path):
    random.seed(1)
    rows = [
        {
            "noise": random.randrange(5),
            "outcome": "ABC"[n % 3],
            "nearly": "XYZ"[n % 3] if n % 100 else "X",
            "label": ["low", "middle", "high"][n % 3],
        }
        for n in range(300)
    ]
    leaks = [one for one in described(tmp_path, rows).warnings if one.code == "leaking_column"]
    assert {one.column for one in leaks if '"label". If' in one.message} == {"outcome", "nearly"}
    assert 'columns.ignore=["outcome"]' in leaks[0].message
    prices = [{"euros": n * 1.5 % 97, "cents": n * 1.5 % 97 * 100, "other": random.random()} for n in range(300)]
    found = codes(described(tmp_path, prices))
    assert ("leaking_column", "cents") in found
    assert ("leaking_column", "other") not in found


def test_ids_are_warned_of_and_quantities_are_not(tmp_path):
    random.seed(2)
    rows = [
        {"id": n, "key": f"k{n * 7}", "name": f"person number {n}", "amount": n * n * 31, "y": random.choice("ab")}
        for n in range(1, 60)
    ]
    found = [one for one in codes(described(tmp_path, rows)) if one[0] == "id_column"]
    assert found == [("id_column", "id"), ("id_column", "key")]


def test_strings_that_are_mostly_true_or_false_are_warned_of(tmp_path):
    rows = [{"claim": "mixture" if n % 5 == 0 else ("true", "False")[n % 2], "x": n * n % 7} for n in range(100)]
    description = described(tmp_path, rows, "t.csv")
    assert description.columns[0].type == "string"
    (warning,) = [one for one in description.warnings if one.code == "nearly_boolean"]
    assert (warning.column, '20 of 100 are not, such as "mixture"' in warning.message) == ("claim", True)
    without = [{**row, "claim": "true"} for row in rows]
    assert "nearly_boolean" not in dict(codes(described(tmp_path, without)))


def test_rows_that_repeat_are_counted_and_named(tmp_path):
    rows = [{"a": n % 40, "b": f"{n % 40}", "c": [str(n % 40)]} for n in range(50)]
    description = described(tmp_path, rows)
    assert description.duplicates.count == 10
    assert description.duplicates.rows == list(range(41, 51))
    assert ("duplicate_rows", None) in codes(description)
    assert described(tmp_path, rows[:40]).duplicates.count == 0


def test_rows_that_repeat_are_found_in_several_passes(tmp_path, monkeypatch):
    monkeypatch.setattr("learning.row_hashes.HELD", 16)
    monkeypatch.setattr("learning.row_hashes._BATCH_ROWS", 8)
    rows = [{"a": n % 90, "b": f"{n % 90}"} for n in range(100)]
    description = described(tmp_path, rows)
    assert (description.duplicates.count, description.duplicates.rows) == (10, list(range(91, 101)))
    # Nearly all rows the same: one pass has nearly all hashes.
    description = described(tmp_path, [{"a": n % 90 if n < 50 else 7} for n in range(400)])
    assert (description.duplicates.count, description.duplicates.rows) == (350, list(range(51, 61)))


def test_tags_that_are_no_iob2_are_named(tmp_path):
    good = [{"tokens": ["a", "b", "c"], "tags": ["B-X", "I-X", "O"]} for _ in range(20)]
    assert "invalid_tags" not in dict(codes(described(tmp_path, good)))
    bad = [*good, {"tokens": ["a", "b"], "tags": ["O", "I-X"]}, {"tokens": ["a"], "tags": ["I-Y"]}]
    bad += [{"tokens": ["a", "b"], "tags": ["B-X", "I-Y"]}, {"tokens": ["a"], "tags": ["Z"]}]
    (warning,) = [one for one in described(tmp_path, bad).warnings if one.code == "invalid_tags"]
    assert warning.column == "tags"
    assert warning.message.startswith('Row 21, column "tags", position 2: "I-X" follows "O", which is not valid IOB2')
    assert warning.message.endswith("3 more in the file.")


def test_lengths_are_exact(tmp_path):
    rows = [{"s": "é" * n, "l": ["x"] * (n % 5)} for n in range(1, 101)]
    columns = {column.name: column for column in described(tmp_path, rows).columns}
    assert columns["s"].lengths == Lengths(min=1, mean=50.5, p50=50, p95=95, max=100)
    assert columns["l"].lengths == Lengths(min=0, mean=2.0, p50=2, p95=4, max=4)
    assert (columns["l"].unique, columns["l"].top[0].count) == (1, 200)


def test_very_many_different_values_are_estimated(tmp_path):
    count = 150_000
    source = tmp_path / "t.csv"
    common = "".join(f"{n},{n / 7!r},{'often' if n % 3 == 0 else f'name {n}'}\n" for n in range(count))
    source.write_text("i,x,s\n" + common)
    columns = ingest(source, "t.csv", tmp_path / "t.arrow", IngestOptions()).columns
    assert [column.unique_estimated for column in columns] == [True, True, True]
    assert columns[0].unique == pytest.approx(count, rel=0.04)
    assert columns[1].unique == pytest.approx(count, rel=0.04)
    assert columns[2].unique == pytest.approx(count * 2 / 3 + 1, rel=0.04)
    assert (columns[2].top[0].value, columns[2].top[0].count) == ("often", count // 3)
    assert (columns[0].min, columns[0].max, columns[0].mean) == (0, count - 1, (count - 1) / 2)


def archive(tmp_path: Path, members: dict[str, bytes | str]) -> DatasetDescription:
    return ingest(packed(tmp_path / "a.zip", members), "a.zip", tmp_path / "a.arrow", IngestOptions())


def test_images_suggest_tasks_on_images_and_their_columns_none_on_tables(tmp_path):
    ages = [20 + number * 7 % 61 for number in range(30)]
    lines = [f"{number}.png,{ages[number]},{'ab'[number % 2]},a picture of number {number}" for number in range(30)]
    manifest = "\n".join(["file,age,kind,caption", *lines])
    description = archive(tmp_path, {"m.csv": manifest, **{f"{number}.png": png(number) for number in range(30)}})
    assert suggested(description) == [
        ("image-classification", "kind", ["image"]),
        ("image-regression", "age", ["image"]),
        ("contrastive-images", None, ["image"]),
    ]
    assert codes(description) == []


def test_lists_of_labels_of_images_suggest_several_labels(tmp_path):
    lists = [["cat", "dog"], ["cat"], [], ["dog", "indoors"]]
    lines = [json.dumps({"file": f"{n}.png", "labels": lists[n % 4]}) for n in range(12)]
    members = {f"{n}.png": png(n) for n in range(12)}
    description = archive(tmp_path, {"manifest.jsonl": "\n".join(lines), **members})
    assert suggested(description)[0] == ("multi-label-image-classification", "labels", ["image"])
    candidate = description.task_candidates[0]
    assert "lists, of 3 different labels in 12 rows" in candidate.reason
    assert {one.value: one.count for one in candidate.balance.counts} == {"cat": 6, "dog": 6, "indoors": 3}
    assert codes(description) == []
    table = "\n".join(["file,labels", *(f"{n}.png,{'|'.join(lists[n % 4])}" for n in range(12) if lists[n % 4])])
    undeclared = archive(tmp_path, {"manifest.csv": table, **members})
    (warning,) = [one for one in undeclared.warnings if one.code == "maybe_lists"]
    assert (warning.column, '"cat|dog"' in warning.message) == ("labels", True)
    assert 'column_types={"labels": "strings"}' in warning.message


def test_repeated_and_converted_images_are_warned_of(tmp_path):
    cmyk = encoded(picture(0, mode="CMYK"), "JPEG")
    members = {"a/1.png": png(1), "a/2.jpg": cmyk, "b/3.png": png(3), "b/4.png": png(4)}
    description = archive(tmp_path, members)
    (warning,) = description.warnings
    assert (warning.code, warning.column) == ("converted_images", "image")
    assert "1 of mode CMYK" in warning.message
    (warning,) = archive(tmp_path, {**members, "a/2.jpg": deep_png(2, 3)}).warnings
    assert (warning.code, "1 of mode RGB;16" in warning.message) == ("converted_images", True)
    (column, *_) = description.columns
    assert (column.unique, column.missing) == (4, 0)


def test_the_same_picture_under_another_name_repeats(tmp_path):
    members = {f"{folder}/{number}.png": png(number) for folder in "ab" for number in range("ab".index(folder), 9, 2)}
    description = archive(tmp_path, {**members, "a/copy.png": png(4), "b/other label.png": png(6)})
    assert description.columns[0].unique == 9
    (place,) = description.duplicates.rows
    with pa.memory_map(str(tmp_path / "a.arrow")) as mapped:
        assert pa.ipc.open_file(mapped).read_all().column("file")[place - 1].as_py() == "a/copy.png"
    assert codes(description) == [("duplicate_rows", None), ("conflicting_labels", "label")]
    assert '1 of the values to learn from occur with more than one "label"' in description.warnings[1].message
    rows = [{"file": f"{number}.png", "x": number % 3} for number in range(9)]
    assert described(tmp_path, rows).duplicates.count == 0


def test_a_text_with_two_labels_is_warned_of(tmp_path):
    rows = [{"text": f"a sentence of some length, number {n}", "label": "ab"[n % 2]} for n in range(40)]
    assert "conflicting_labels" not in dict(codes(described(tmp_path, [*rows, rows[3], {**rows[4], "label": None}])))
    silent = [{"text": None, "label": label} for label in "ab"]
    assert "conflicting_labels" not in dict(codes(described(tmp_path, [*rows, *silent])))
    again = [{**rows[7], "label": "a"}, {**rows[20], "label": "b"}, rows[5]]
    (found,) = [one for one in described(tmp_path, [*rows, *again]).warnings if one.code == "conflicting_labels"]
    assert found.column == "label"
    assert found.message.startswith('2 of the values to learn from occur with more than one "label"')
    assert ": 8, 21, 41, 42." in found.message


def test_the_same_picture_in_two_parts_is_warned_of(tmp_path):
    members = {f"{part}/{'ab'[n % 2]}/{part}{n}.png": png(n) for part in ("train", "test") for n in range(4)}
    source = packed(tmp_path / "a.zip", {**members, "test/a/new.png": png(9)})
    found = ingest(source, "a.zip", tmp_path / "a.arrow", IngestOptions(split={"column": "split"}))
    (warning,) = [one for one in found.warnings if one.code == "rows_in_both_parts"]
    assert warning.message.startswith("4 of 5 test rows also occur in the training rows (")


def test_recordings_without_labels_suggest_pretraining(tmp_path):
    description = archive(tmp_path, {f"{number}.wav": tone(0.05 + number / 100) for number in range(5)})
    assert suggested(description) == [("contrastive-audio", None, ["audio"]), ("masked-audio", None, ["audio"])]
    assert description.columns[0].media.total_seconds == pytest.approx(0.35)
