"""Every file of the real data, uploaded: the format, the rows, the classes and the tasks that it suggests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow.csv
import pyarrow.parquet
import pytest
from support import SHARED, upload

from learning.task_names import TASK_NAMES

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not in shared/data")


class Known(NamedTuple):
    """What is known of a file; `classes` of the target, if it has labels."""

    format: str
    rows: int
    task: str
    target: str | None = None
    classes: int | None = None


def table(rows: int, target: str) -> Known:
    return Known("csv", rows, "tabular-regression", target)


def labelled(format: str, rows: int, target: str, classes: int, task: str = "text-classification") -> Known:
    return Known(format, rows, task, target, classes)


def pictures(rows: int, classes: int) -> Known:
    return labelled("zip-folders", rows, "label", classes, "image-classification")


def recordings(rows: int) -> Known:
    return labelled("zip-manifest", rows, "text", 10, "audio-classification")


FILES = {
    "breast_cancer_train.csv": labelled("csv", 456, "diagnosis", 2, "tabular-classification"),
    "breast_cancer_few10.csv": labelled("csv", 20, "diagnosis", 2, "tabular-classification"),
    "breast_cancer_test.csv": labelled("csv", 113, "diagnosis", 2, "tabular-classification"),
    "breast_cancer_unlabeled.csv": Known("csv", 456, "masked-features"),
    "diabetes_train.csv": table(353, "progression"),
    "diabetes_test.csv": table(89, "progression"),
    "credit_default_train.csv": labelled("csv", 24_000, "default_next_month", 2, "tabular-classification"),
    "credit_default_few100.csv": labelled("csv", 200, "default_next_month", 2, "tabular-classification"),
    "credit_default_test.csv": labelled("csv", 6_000, "default_next_month", 2, "tabular-classification"),
    "credit_default_unlabeled.csv": Known("csv", 24_000, "masked-features"),
    "bike_sharing_train.csv": table(13_904, "cnt"),
    "bike_sharing_test.csv": table(3_475, "cnt"),
    "banking77_train.csv": labelled("csv", 10_003, "label", 77),
    "banking77_few10.csv": labelled("csv", 770, "label", 77),
    "banking77_test.csv": labelled("csv", 3_080, "label", 77),
    "banking77_unlabeled.csv": Known("csv", 10_003, "masked-tokens"),
    "crosswoz_domain_train.jsonl": labelled("jsonl", 4_111, "label", 6),
    "crosswoz_domain_few10.jsonl": labelled("jsonl", 60, "label", 6),
    "crosswoz_domain_test.jsonl": labelled("jsonl", 3_590, "label", 6),
    "crosswoz_domain_unlabeled.jsonl": Known("jsonl", 7_423, "masked-tokens"),
    # Six types of entities are thirteen tags, three are seven.
    "wnut17_train.jsonl": labelled("jsonl", 3_394, "tags", 13, "token-classification"),
    "wnut17_dev.jsonl": labelled("jsonl", 1_009, "tags", 13, "token-classification"),
    "wnut17_test.jsonl": labelled("jsonl", 1_287, "tags", 13, "token-classification"),
    "wnut17_few200.jsonl": labelled("jsonl", 200, "tags", 13, "token-classification"),
    "uner_zh_train.conll": labelled("conll", 3_997, "tags", 7, "token-classification"),
    "uner_zh_dev.conll": labelled("conll", 500, "tags", 7, "token-classification"),
    "uner_zh_test.conll": labelled("conll", 500, "tags", 7, "token-classification"),
    "tatoeba_en_zh_train.jsonl": Known("jsonl", 27_498, "translation", "target"),
    "tatoeba_en_zh_dev.jsonl": Known("jsonl", 500, "translation", "target"),
    "tatoeba_en_zh_test.jsonl": Known("jsonl", 1_000, "translation", "target"),
    "tatoeba_en_zh_few2000.jsonl": Known("jsonl", 2_000, "translation", "target"),
    "tinyshakespeare_train.txt": Known("text", 35_526, "text-generation"),
    "tinyshakespeare_valid.txt": Known("text", 4_475, "text-generation"),
    "song_ci_train.txt": Known("text", 91_407, "text-generation"),
    "song_ci_valid.txt": Known("text", 4_806, "text-generation"),
    "clothing10_train.zip": pictures(3_068, 10),
    "clothing10_validation.zip": pictures(341, 10),
    "clothing10_test.zip": pictures(372, 10),
    "clothing10_few10.zip": pictures(100, 10),
    "clothing_unlabeled.zip": Known("zip-files", 1_975, "contrastive-images"),
    "mnist_train10k.zip": pictures(10_000, 10),
    "mnist_few10.zip": pictures(100, 10),
    "mnist_test.zip": pictures(10_000, 10),
    "mnist_unlabeled.zip": Known("zip-files", 12_000, "contrastive-images"),
    "digits8x8_train.zip": pictures(1_438, 10),
    "digits8x8_few10.zip": pictures(100, 10),
    "digits8x8_test.zip": pictures(359, 10),
    "bccd_train.zip": Known("zip-coco", 205, "object-detection", "objects"),
    "bccd_val.zip": Known("zip-coco", 87, "object-detection", "objects"),
    "bccd_test.zip": Known("zip-coco", 72, "object-detection", "objects"),
    "bccd_few30.zip": Known("zip-coco", 30, "object-detection", "objects"),
    "cmu_faces_train.zip": pictures(357, 15),
    "cmu_faces_few2.zip": pictures(30, 15),
    "cmu_faces_test.zip": pictures(113, 15),
    "cmu_faces_openset.zip": pictures(154, 5),
    "cmu_faces_unlabeled.zip": Known("zip-files", 200, "contrastive-images"),
    "fsdd_train.zip": recordings(2_700),
    "fsdd_test.zip": recordings(300),
    "fsdd_few10_word.zip": recordings(100),
    "fsdd_few10_speaker.zip": recordings(60),
    "fsdd_unlabeled.zip": Known("zip-files", 400, "contrastive-audio"),
    "fsdd_strings_train.zip": Known("zip-manifest", 300, "speech-recognition", "text"),
    "fsdd_strings_test.zip": Known("zip-manifest", 80, "speech-recognition", "text"),
}


# Those of a megabyte and more; the others go through the default run.
LONG = {
    "credit_default_train.csv",
    "credit_default_unlabeled.csv",
    "tatoeba_en_zh_train.jsonl",
    "tinyshakespeare_train.txt",
    "song_ci_train.txt",
    "clothing10_train.zip",
    "clothing_unlabeled.zip",
    "mnist_train10k.zip",
    "mnist_test.zip",
    "mnist_unlabeled.zip",
    "bccd_train.zip",
    "fsdd_train.zip",
    "fsdd_strings_train.zip",
}


def test_no_file_is_forgotten() -> None:
    found = {path.name for path in SHARED.iterdir() if path.suffix in {".csv", ".jsonl", ".conll", ".txt", ".zip"}}
    assert found - {"LICENSES.txt"} == set(FILES)


@pytest.mark.parametrize(
    "filename", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in FILES]
)
def test_a_real_file_is_ready(running: httpx.Client, filename: str) -> None:
    known, path = FILES[filename], SHARED / filename
    dataset = upload(running, path)
    expect(dataset, known)
    assert dataset["encoding"] == (None if path.suffix == ".zip" else "utf-8")
    if known.format == "text":
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        assert len(lines) == known.rows
        rows = running.get(f"/datasets/{dataset['id']}/preview", params={"rows": 100}).json()["rows"]
        assert [row["text"] for row in rows] == lines[:100]


@pytest.mark.parametrize("filename", ["breast_cancer_train.csv", "bike_sharing_test.csv"])
def test_a_real_table_as_parquet_is_the_same(running: httpx.Client, tmp_path: Path, filename: str) -> None:
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(SHARED / filename), path)
    dataset = upload(running, path)
    expect(dataset, FILES[filename]._replace(format="parquet"))
    assert dataset["encoding"] is None
    written = upload(running, SHARED / filename)
    assert dataset["task_candidates"] == written["task_candidates"]


def expect(dataset: dict[str, Any], known: Known) -> None:
    """Assert that the dataset is ready and what is known of it."""
    assert dataset["status"] == "ready", dataset["error"]
    assert (dataset["format"], dataset["num_rows"]) == (known.format, known.rows)
    assert dataset["validation"]["error_count"] == 0
    assert "invalid_tags" not in [warning["code"] for warning in dataset["warnings"]]
    candidates = {(one["task"], one["target"]): one for one in dataset["task_candidates"]}
    assert {task for task, _ in candidates} <= set(TASK_NAMES)
    if known.task in TASK_NAMES:
        assert (known.task, known.target) in candidates
    if known.target and known.classes:
        assert {column["name"]: column["unique"] for column in dataset["columns"]}[known.target] == known.classes
        found = candidates.get((known.task, known.target))
        assert found is None or found["balance"]["classes"] == known.classes
