"""Two encodings in one file: every line of GB18030 that is in UTF-8 is named, and honest GB18030 is left alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from support import SHARED

from learning.errors import InvalidDataset
from learning.formats.mixed_lines import lines_of, reading_of
from learning.ingestion import IngestOptions, ingest, quarantine_path

UTF8 = "汇率今天".encode()
HERE = "汇率今天".encode("gb18030")


def ingested(tmp_path: Path, content: bytes, filename: str, **options: str) -> tuple[object, list[dict[str, object]]]:
    (tmp_path / "upload").write_bytes(content)
    path = tmp_path / "t.arrow"
    description = ingest(tmp_path / "upload", filename, path, IngestOptions(**options))
    with pa.memory_map(str(path)) as file:
        return description, pa.ipc.open_file(file).read_all().to_pylist()


@pytest.mark.parametrize(
    ("filename", "lines", "rows", "column"),
    [
        ("t.txt", [UTF8] * 5 + [HERE] * 5, [1, 2, 3, 4, 5], "text"),
        ("t.txt", [HERE, b"", b"plain ASCII", b"so " + UTF8 + b"\r"], [4], "text"),
        ("t.txt", [HERE] * 3 + ["今今今".encode()], [4], "text"),  # nine bytes: no GB18030 either
        ("t.csv", [b"a,b", HERE + b",1", UTF8 + b",2", HERE + b",3"], [2], "a"),
        ("t.csv", [b"a,b", HERE + b',"' + HERE, UTF8, HERE + b'"', HERE + b",3"], [1], "b"),
        ("t.jsonl", [b'{"a": "%s"}' % one for one in (HERE, UTF8, HERE, HERE)], [2], None),
        ("t.conll", [HERE + b"\tO", b"", UTF8 + b"\tO", HERE + b"\tO", b"", HERE + b"\tO"], [2], None),
    ],
    ids=["half", "one", "odd", "csv", "quoted", "jsonl", "conll"],
)
def test_rows_in_utf8_are_named(
    tmp_path: Path, filename: str, lines: list[bytes], rows: list[int], column: str | None
) -> None:
    content = b"\n".join(lines)
    said = "今今今" if "今今今".encode() in content else "汇率今天"
    with pytest.raises(InvalidDataset) as caught:
        ingested(tmp_path, content, filename)
    assert [(error.rule, error.row, error.column) for error in caught.value.errors] == [
        ("encoding", row, column) for row in rows
    ]
    first = caught.value.errors[0]
    assert first.value is not None
    assert first.value.startswith(said)
    offset = content.index(said.encode())
    where = f"(row {rows[0]}, column" if column else f"(row {rows[0]})"
    assert f"Not GB18030 as the rest of the file: from byte offset {offset} on {where}" in first.message
    assert f'it is UTF-8 and says "{said}' in first.message
    assert first.remedy == 'Save the whole file as UTF-8, or set on_bad_rows="skip".'
    assert caught.value.error_count == len(rows)


def test_such_rows_are_left_out_or_kept_as_they_read(tmp_path: Path) -> None:
    content = b"\n".join([b"a,b", HERE + b",1", UTF8 + b",2", HERE + b",3"])
    description, rows = ingested(tmp_path, content, "t.csv", on_bad_rows="quarantine")
    assert description.validation.errors_by_rule == {"encoding": 1}
    assert rows == [{"a": "汇率今天", "b": 1}, {"a": "汇率今天", "b": 3}]
    kept = [json.loads(line) for line in quarantine_path(tmp_path / "t.arrow").read_text().splitlines()]
    assert [(one["row"], one["values"]) for one in kept] == [(2, {"a": "汇率今天", "b": "2"})]


def test_a_header_in_another_encoding_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r'byte offset 0 on \(in the header\) it is UTF-8 and says "城市,人口"'):
        ingested(tmp_path, "城市,人口\n".encode() + (HERE + b",1\n") * 20, "t.csv")


def test_a_wrong_byte_before_and_behind_such_a_line(tmp_path: Path) -> None:
    for wrong in ([HERE, b"\xff", UTF8, HERE, HERE], [HERE, UTF8, b"\xff", HERE, HERE]):
        with pytest.raises(InvalidDataset) as caught:
            ingested(tmp_path, b"\n".join(wrong), "t.txt")
        assert {error.row: "says" in error.message for error in caught.value.errors} == {
            2: wrong[1] == UTF8,
            3: wrong[2] == UTF8,
        }


@pytest.mark.parametrize("text", ["学院", "系统", "小说", "喜迁莺", "汇率 2023", "为", "é", "早上好世界"])
def test_honest_lines_are_not_doubted(text: str) -> None:
    assert reading_of(text.encode("gb18030") + b"\n") is None


@pytest.mark.parametrize("text", ["汇率", "привет", "déjà vu", "这个餐馆很好", "東京タワー", "한국어"])
def test_lines_in_utf8_are_known_by_what_they_say(text: str) -> None:
    assert reading_of(text.encode() + b"\n") == text + "\n"


def test_long_and_unended_lines_are_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "long"
    content = HERE * 400_000 + b"\n" + UTF8
    path.write_bytes(content)
    found = list(lines_of(path))
    assert b"".join(line.content for line in found) == content
    assert [line.offset for line in found if line.reading] == [len(content) - len(UTF8)]


@pytest.mark.skipif(not (SHARED / "song_ci_train.txt").exists(), reason="needs the real data")
def test_real_chinese_in_gb18030_has_no_doubtful_line() -> None:
    lines = [line for name in ("train", "valid") for line in (SHARED / f"song_ci_{name}.txt").read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in (SHARED / "crosswoz_domain_train.jsonl").read_text().splitlines()]
    honest = [text for text in lines + texts if not text.isascii()]
    assert len(honest) > 80_000
    assert [text for text in honest if reading_of(text.encode("gb18030"))] == []
    # And of the same lines in UTF-8 every one is known that has two characters.
    some = random.Random(0).sample(honest, 5_000)
    unknown = [text for text in some if reading_of(text.encode()) is None]
    assert [text for text in unknown if sum(not character.isascii() for character in text) > 1] == []
