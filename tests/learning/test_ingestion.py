"""From a file to the canonical Arrow file, its statistics and its warnings."""

import csv
import json
import math
import random
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from learning.errors import InvalidConfig, InvalidDataset, UnknownName
from learning.ingestion import IngestOptions, ingest

DIRTY = "id,age,label\n1,34,yes\n2,abc,no\n3,35\n4,36,no\n5,,yes\n6,?,no\n7,37,yes\n"


def ingested(tmp_path: Path, content: str, filename: str = "people.csv", **options):
    source = tmp_path / "upload"
    source.write_text(content, encoding="utf-8", newline="")
    destination = tmp_path / "data.arrow"
    description = ingest(source, filename, destination, IngestOptions(**options))
    with pa.memory_map(str(destination)) as file:
        table = pa.ipc.open_file(file).read_all()
    return description, table


def test_the_arrow_file_and_its_description(tmp_path):
    text = "x,n,ok,day,name\n0.5,1,true,2024-01-02,b\n1.5,2,true,2024-01-01T10:00:00,a\n,2,false,,b\n"
    description, table = ingested(tmp_path, text)
    assert [str(field.type) for field in table.schema] == [
        "double",
        "int64",
        "bool",
        "timestamp[us]",
        "string",
    ]
    assert table.column("n").to_pylist() == [1, 2, 2]
    assert description.num_rows == table.num_rows == 3
    assert (description.format, description.format_reason) == (
        "csv",
        "the name ends in .csv and the first lines have 5 comma-separated fields",
    )
    answer = description.to_dict()
    assert json.loads(json.dumps(answer)) == answer
    unlike = {"unique_estimated": False, "lengths": None, "prose": None, "media": None}
    assert answer["columns"] == [
        {"name": "x", "type": "number", "nullable": True, "missing": 1, "unique": 2,
         "min": 0.5, "max": 1.5, "mean": 1.0, "top": [], **unlike},
        {"name": "n", "type": "integer", "nullable": False, "missing": 0, "unique": 2,
         "min": 1, "max": 2, "mean": 5 / 3, "top": [{"value": 2, "count": 2}, {"value": 1, "count": 1}], **unlike},
        {"name": "ok", "type": "boolean", "nullable": False, "missing": 0, "unique": 2,
         "min": None, "max": None, "mean": None,
         "top": [{"value": True, "count": 2}, {"value": False, "count": 1}], **unlike},
        {"name": "day", "type": "timestamp", "nullable": True, "missing": 1, "unique": 2,
         "min": "2024-01-01T10:00:00", "max": "2024-01-02T00:00:00", "mean": None, "top": [], **unlike},
        {"name": "name", "type": "string", "nullable": False, "missing": 0, "unique": 2,
         "min": None, "max": None, "mean": None, "top": [{"value": "b", "count": 2}, {"value": "a", "count": 1}],
         "unique_estimated": False, "prose": False, "media": None,
         "lengths": {"min": 1, "mean": 1.0, "p50": 1, "p95": 1, "max": 1}},
    ]  # fmt: skip
    assert answer["validation"] == {
        "ok": True, "error_count": 0, "warning_count": 0, "errors": [], "errors_by_rule": {},
    }  # fmt: skip


def test_a_bad_row_fails_the_dataset_and_leaves_nothing(tmp_path):
    with pytest.raises(InvalidDataset) as caught:
        ingested(tmp_path, DIRTY)
    error = caught.value
    assert error.error_count == 2
    assert [(e.file, e.rule, e.row, e.column, e.value) for e in error.errors] == [
        ("people.csv", "wrong_type", 2, "age", "abc"),
        ("people.csv", "ragged_row", 3, None, "3,35"),
    ]
    assert error.message == ('Row 2, column "age": "abc" is not an integer. 1 of 7 rows. 1 more error in the file.')
    assert error.hint == (
        'Fix the row, declare the column as string with column_types={"age": "string"}, or set on_bad_rows="skip".'
    )
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_skip_keeps_exactly_the_clean_rows(tmp_path):
    description, table = ingested(tmp_path, DIRTY, on_bad_rows="skip")
    assert table.to_pydict() == {
        "id": [1, 4, 5, 6, 7],
        "age": [34, 36, None, None, 37],
        "label": ["yes", "no", "yes", "no", "yes"],
    }
    validation = description.validation
    assert (validation.ok, validation.error_count, validation.warning_count) == (True, 2, 1)
    assert validation.errors_by_rule == {"wrong_type": 1, "ragged_row": 1}
    assert [error.row for error in validation.errors] == [2, 3]
    (warning,) = description.warnings
    assert warning.code == "skipped_rows"
    assert warning.message.startswith("2 of 7 rows were skipped; the first: Row 2,")


def test_all_errors_are_counted_and_the_first_hundred_kept(tmp_path):
    rows = [f"{n},{n}" if n % 5 else f"bad{n},{n}" for n in range(1, 2001)]
    with pytest.raises(InvalidDataset) as caught:
        ingested(tmp_path, "a,b\n" + "\n".join(rows))
    assert caught.value.error_count == 400
    assert [error.row for error in caught.value.errors] == list(range(5, 501, 5))
    assert caught.value.errors[-1].message.endswith("400 of 2000 rows.")


def test_skipping_every_row_is_an_error(tmp_path):
    with pytest.raises(InvalidDataset, match="No row is left: all 2 rows have errors"):
        ingested(tmp_path, "a,b\n1\n2\n", on_bad_rows="skip")


def test_declaring_the_column_as_string_is_the_fix_the_message_promises(tmp_path):
    text = "id,age\n1,34\n2,abc\n3,35\n4,36\n"
    description, table = ingested(tmp_path, text, column_types={"age": "string"})
    assert table.column("age").to_pylist() == ["34", "abc", "35", "36"]
    assert description.validation.error_count == 0


def test_statistics_agree_with_python(tmp_path):
    random.seed(11)
    rows = [
        {
            "x": random.choice([None, random.gauss(1e9, 1)]),
            "n": random.choice([None, random.randrange(-40, 40), 2**62]),
            "s": random.choice(["", f"word {random.randrange(500)}", "汉字", "a\nb"]),
            "b": random.random() < 0.3,
        }
        for _ in range(20_000)
    ]
    text = "\n".join(json.dumps({**row, "b": row["b"]}) for row in rows)
    description, table = ingested(tmp_path, text, "rows.jsonl")
    assert table.to_pylist() == rows
    for column in description.columns:
        values = [row[column.name] for row in rows]
        present = [value for value in values if value is not None]
        assert column.missing == len(values) - len(present)
        assert column.unique == len(set(present))
        if column.type in {"integer", "number"}:
            assert (column.min, column.max) == (min(present), max(present))
            assert math.isclose(column.mean, statistics.fmean(present), rel_tol=1e-15)
        if column.type != "number":
            counts = sorted((-n, value) for value, n in Counter(present).items())[:10]
            assert [(-top.count, top.value) for top in column.top] == counts


def test_task_candidates_put_the_last_column_first(tmp_path):
    random.seed(3)
    lines = ["note,grade,age,price,member,label"]
    lines += [
        f"text {n},{n % 3},{random.randrange(1000)},{random.random()},{n % 2 == 0},{random.choice('ab')}"
        for n in range(200)
    ]
    description, _ = ingested(tmp_path, "\n".join(lines))
    assert [(one.task, one.target) for one in description.task_candidates] == [
        ("tabular-classification", "label"),
        ("tabular-classification", "member"),
        ("tabular-regression", "price"),
        ("tabular-regression", "age"),
        ("tabular-classification", "grade"),
        ("masked-features", None),
    ]
    assert description.task_candidates[0].reason == ('"label" is a string column with 2 distinct values in 200 rows')


TEXTS = ["text-generation", "masked-tokens", "next-token-prediction"]


@pytest.mark.parametrize(
    ("header", "rows", "tasks"),
    [
        ("said", [f"this is sentence number {n}" for n in range(20)], TEXTS),
        ("said", [f"今天这个餐馆很好吃{n}" for n in range(20)], TEXTS),
        (
            "said,x",
            [f"this is sentence {n},{n % 2}" for n in range(20)],
            ["text-classification", "text-generation", "masked-tokens"],
        ),
        # A remark beside other columns, and identifiers, leave a table what it was.
        (
            "remark,x,y",
            [f"remark number so and so {n},{n / 7},{n % 2}" for n in range(20)],
            [
                *("text-classification", "text-regression", "tabular-classification", "tabular-regression"),
                *("masked-features", "text-generation", "masked-tokens"),
            ],
        ),
        (
            "id,y",
            [f"5f0c9d6e-0000-4000-8000-{n:012},{n % 2}" for n in range(20)],
            ["tabular-classification", "masked-features"],
        ),
        ("day", [f"2024-01-02T10:00:00.{n:06}+02:00x" for n in range(20)], ["masked-features"]),
    ],
)
def test_task_candidates_tell_texts_from_identifiers(tmp_path, header, rows, tasks):
    description, _ = ingested(tmp_path, "\n".join([header, *rows]))
    assert [one.task for one in description.task_candidates] == tasks


def test_constant_empty_and_headerless_columns_are_warned_of(tmp_path):
    description, _ = ingested(tmp_path, "a,b,c\n1,,x\n1,,y\n")
    assert [(one.code, one.column) for one in description.warnings] == [
        ("constant_column", "a"),
        ("empty_column", "b"),
    ]
    description, _ = ingested(tmp_path, "5.1,3.5\n4.9,3.0\n4.7,3.2\n")
    assert [one.code for one in description.warnings] == ["numbers_as_header"]


def test_the_format_may_be_named_and_options_are_checked(tmp_path):
    description, table = ingested(tmp_path, "a,b\n1,2\n", "table", format="csv")
    assert (description.format_reason, table.num_rows) == ("the request names it", 1)
    with pytest.raises(UnknownName, match='Did you mean "csv"'):
        ingested(tmp_path, "a\n1\n", format="CSV")
    with pytest.raises(InvalidConfig, match="on_bad_rows"):
        IngestOptions(on_bad_rows="ignore")


def test_many_blocks_become_few_batches_and_progress_never_goes_back(tmp_path):
    source, destination = tmp_path / "big.csv", tmp_path / "big.arrow"
    with source.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text"])
        writer.writerows([n, f"{n}\n" + "x" * 100] for n in range(150_000))
    heard: dict[str, list[float]] = {}
    ingest(
        source,
        "big.csv",
        destination,
        IngestOptions(),
        lambda phase, f: heard.setdefault(phase, []).append(f),
    )
    assert list(heard) == ["reading", "statistics"]
    for fractions in heard.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
    blocks = source.stat().st_size / (4 << 20)
    assert heard["reading"][:3] == pytest.approx([1 / blocks, 2 / blocks, 3 / blocks])
    with pa.memory_map(str(destination)) as file:
        reader = pa.ipc.open_file(file)
        before = pa.total_allocated_bytes()
        assert reader.num_record_batches <= 3
        assert reader.read_all().column("n").to_pylist()[::50_000] == [0, 50_000, 100_000]
        assert pa.total_allocated_bytes() - before < 1 << 20  # mapped, not copied
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.arrow", "big.csv"]


def test_ingestion_imports_nothing_heavy():
    code = "import sys, learning.ingestion; print({'torch', 'duckdb', 'pandas', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_many_columns_with_awkward_names_keep_their_own_statistics(tmp_path):
    names = [f"c{n}" for n in range(40, 0, -1)] + ['say "hi"', "a'; DROP TABLE part", "汉字", "{0}", "select"]
    source = tmp_path / "wide.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *([n * row for n in range(len(names))] for row in (1, 2, 3))])
    description = ingest(source, "wide.csv", tmp_path / "wide.arrow", IngestOptions())
    assert [column.name for column in description.columns] == names
    assert [(column.min, column.max, column.mean) for column in description.columns] == [
        (n, 3 * n, 2 * n) for n in range(len(names))
    ]
    assert [column.top[0].value for column in description.columns] == list(range(len(names)))
