"""A file with five planted mistakes of each kind: all are reported with row, column and value, and no clean row is."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import coco, packed, png

from learning.errors import InvalidDataset
from learning.ingestion import IngestOptions, ingest, quarantine_path

ROWS = 4_000
EACH = 5
# What is planted: the rule, the column and the value that must be reported.
Planted = tuple[str, str | None, str]
TYPES = {"n": "integer", "x": "number", "ok": "boolean", "day": "timestamp", "s": "string"}
Write = Callable[[Path, list[dict[str, Any]], dict[int, tuple[str, Any]]], dict[int, Planted]]


def clean(row: int) -> dict[str, Any]:
    """Return a clean row."""
    day = f"2024-{row % 12 + 1:02d}-{row % 28 + 1:02d}"
    return {"n": row, "x": row / 8, "ok": row % 2 == 0, "day": day, "s": f"row {row}\nand more, {row}"}


WRONG_CELLS = {"n": "1.5", "x": "1,5", "ok": "yes", "day": "2024-02-30"}
# What is no text, written with surrogates for bytes that are not UTF-8, and what must be said of it.
WRONG_BYTES = {"byte": ("a\udcffz", "encoding", "0xFF"), "run": ("\0\0\0", "nul_byte", "0x00")}
KINDS = (*WRONG_CELLS, "short", "long", *WRONG_BYTES)


def write_bytes(path: Path, text: str) -> None:
    """Write a text with wrong bytes in it."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def write_csv(path: Path, rows: list[dict[str, Any]], mistakes: dict[int, tuple[str, Any]]) -> dict[int, Planted]:
    """Write the rows, with cells of the wrong type and with fields too many or too few."""
    planted: dict[int, Planted] = {}
    lines = [",".join(TYPES)]
    for number, row in enumerate(rows, start=1):
        cells = {name: f'"{value}"' if isinstance(value, str) else str(value).lower() for name, value in row.items()}
        kind, value = mistakes.get(number, ("", None))
        if kind in WRONG_CELLS:
            cells[kind] = f'"{value}"'
            planted[number] = ("wrong_type", kind, value)
        elif kind in WRONG_BYTES:
            text, rule, byte = WRONG_BYTES[kind]
            cells["s"] = f'"{text}"'
            planted[number] = (rule, "s", byte)
        line = ",".join(cells.values())
        if kind in {"short", "long"}:
            line = f"{number},0.5" if kind == "short" else f"{number},0.5,true,2024-01-01,x,more"
            planted[number] = ("ragged_row", None, line)
        lines.append(line)
    write_bytes(path, "\n".join(lines) + "\n")
    return planted


def write_jsonl(path: Path, rows: list[dict[str, Any]], mistakes: dict[int, tuple[str, Any]]) -> dict[int, Planted]:
    """Write the rows, with cells of the wrong type, lists where none belong, and lines that are no objects."""
    planted: dict[int, Planted] = {}
    lines = []
    for number, row in enumerate(rows, start=1):
        kind, value = mistakes.get(number, ("", None))
        line = json.dumps(row | {kind: value} if kind in WRONG_CELLS else row)
        if kind in WRONG_CELLS:
            planted[number] = ("wrong_type", kind, value)
        elif kind == "short":
            line = json.dumps(row | {"s": ["a", 1]})
            planted[number] = ("nested_value", "s", '["a",1]')
        elif kind == "long":
            line = f'{{"n": {number}, '.rstrip()
            planted[number] = ("invalid_json", None, line)
        elif kind in WRONG_BYTES:
            text, rule, byte = WRONG_BYTES[kind]
            line = json.dumps(row | {"s": "here"}).replace("here", text)
            planted[number] = (rule, None, byte)
        lines.append(line + "\n" * (1 + number % 3))
    write_bytes(path, "".join(lines))
    return planted


def write_parquet(path: Path, rows: list[dict[str, Any]], mistakes: dict[int, tuple[str, Any]]) -> dict[int, Planted]:
    """Write the rows as strings that do not parse, and numbers beyond what is a number here."""
    planted: dict[int, Planted] = {}
    cells = [{name: str(value) for name, value in row.items()} | {"u": number} for number, row in enumerate(rows)]
    for number, (kind, value) in mistakes.items():
        if kind in WRONG_CELLS:
            cells[number - 1][kind] = value
            planted[number] = ("wrong_type", kind, value)
        else:
            cells[number - 1]["u"] = 2**63 + number
            planted[number] = ("wrong_type", "u", str(2**63 + number))
    schema = pa.schema([*((name, pa.string()) for name in TYPES), ("u", pa.uint64())])
    pq.write_table(pa.Table.from_pylist(cells, schema), path, row_group_size=500)
    return planted


def write_conll(path: Path, rows: list[dict[str, Any]], mistakes: dict[int, tuple[str, Any]]) -> dict[int, Planted]:
    """Write a sentence a row, with lines of too few or too many fields."""
    planted: dict[int, Planted] = {}
    sentences = []
    for number in range(1, len(rows) + 1):
        lines = [f"token{number}\tX\tB-A", "#\tY\tI-A", "end\tZ\tO"]
        kind, value = mistakes.get(number, ("", None))
        if kind in WRONG_BYTES:
            text, rule, byte = WRONG_BYTES[kind]
            lines[number % 3] = f"{text}\tY\tO"
            planted[number] = (rule, None, byte)
        elif kind:
            lines[number % 3] = value or ("alone" if number % 2 else "a\tb\tc\td")
            planted[number] = ("wrong_fields", None, lines[number % 3])
        sentences.append("\n".join(lines))
    write_bytes(path, "# from a test\n" + "\n\n".join(sentences) + "\n")
    return planted


WRITERS: dict[str, Write] = {
    "t.csv": write_csv,
    "t.jsonl": write_jsonl,
    "t.parquet": write_parquet,
    "t.conll": write_conll,
}


def look(directory: Path, filename: str, rows: int, kinds: dict[int, str]) -> dict[int, Planted]:
    """Plant mistakes in so many rows, and expect these to be found, and nothing else; return them."""
    mistakes = {row: (kind, WRONG_CELLS.get(kind)) for row, kind in kinds.items()}
    source, destination = directory / filename, directory / "data.arrow"
    planted = WRITERS[filename](source, [clean(row) for row in range(1, rows + 1)], mistakes)
    assert len(planted) == len(kinds)
    types = {} if filename.endswith("conll") else TYPES
    options = IngestOptions(column_types=types, on_bad_rows="quarantine")  # type: ignore[arg-type]
    description = ingest(source, filename, destination, options)
    found = {error.row: (error.rule, error.column, error.value) for error in description.validation.errors}
    assert found == planted
    assert list(found) == sorted(planted)
    with pa.memory_map(str(destination)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    kept = [row for row in range(1, rows + 1) if row not in planted]
    numbers = table["n"] if types else [int(tokens[0].removeprefix("token")) for tokens in table["tokens"].to_pylist()]
    assert (numbers.to_pylist() if types else numbers) == kept
    assert description.validation.error_count == len(planted)
    assert description.validation.errors_by_rule == Counter(rule for rule, _, _ in planted.values())
    return planted


@pytest.mark.parametrize("filename", WRITERS)
def test_every_planted_mistake_is_found_and_nothing_else(tmp_path: Path, filename: str) -> None:
    random.seed(filename)
    kinds = [kind for kind in KINDS for _ in range(EACH)]
    places = random.sample(range(1, ROWS + 1), len(kinds))
    planted = look(tmp_path, filename, ROWS, dict(zip(places, kinds, strict=True)))
    destination = tmp_path / "data.arrow"
    aside = [json.loads(line) for line in quarantine_path(destination).read_text(encoding="utf-8").splitlines()]
    assert [entry["row"] for entry in aside] == sorted(planted)
    assert {entry["row"]: (len(entry["errors"]), entry["errors"][0]["rule"]) for entry in aside} == {
        row: (1, rule) for row, (rule, _, _) in planted.items()
    }


ANY_ROWS = st.integers(20, 300).flatmap(
    lambda rows: st.tuples(
        st.just(rows), st.dictionaries(st.integers(1, rows), st.sampled_from(KINDS), max_size=rows // 4)
    )
)


@pytest.mark.parametrize("filename", WRITERS)
@settings(max_examples=15, deadline=None)
@given(planted=ANY_ROWS)
def test_mistakes_anywhere_are_found_in_their_rows(filename: str, planted: tuple[int, dict[int, str]]) -> None:
    with TemporaryDirectory() as directory:
        look(Path(directory), filename, *planted)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("filename", WRITERS)
@settings(max_examples=1_000, deadline=None)
@given(planted=ANY_ROWS)
def test_very_many_mistakes_are_found_in_their_rows(filename: str, planted: tuple[int, dict[int, str]]) -> None:
    with TemporaryDirectory() as directory:
        look(Path(directory), filename, *planted)


def test_every_mistake_of_one_row_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    lines = ["a,b,c", *(f"{n},{n / 2},{n}" for n in range(1, 41))]
    lines[7] = "x,y,z"
    source.write_text("\n".join(lines))
    description = ingest(source, "t.csv", tmp_path / "t.arrow", IngestOptions(on_bad_rows="quarantine"))
    errors = description.validation.errors
    assert [(error.row, error.column, error.value) for error in errors] == [(7, "a", "x"), (7, "b", "y"), (7, "c", "z")]
    (aside,) = quarantine_path(tmp_path / "t.arrow").read_text().splitlines()
    entry = json.loads(aside)
    assert entry["values"] == {"a": "x", "b": "y", "c": "z"}
    assert [error["column"] for error in entry["errors"]] == ["a", "b", "c"]


def test_lines_with_wrong_bytes_in_another_encoding(tmp_path: Path) -> None:
    """Half a pair in UTF-16 and NULs: the rows are named, the others are kept, and so are the byte offsets."""
    lines = [f"行 {number}" for number in range(1, 2001)]
    encoded = [f"{line}\n".encode("utf-16-le") for line in lines]
    encoded[6] = b"\x00\xd8" + encoded[6]
    encoded[1500] = b"\0\0\0\0" + encoded[1500]
    source = tmp_path / "t.txt"
    source.write_bytes(b"\xff\xfe" + b"".join(encoded))
    description = ingest(source, "t.txt", tmp_path / "t.arrow", IngestOptions(on_bad_rows="quarantine"))
    assert (description.num_rows, description.encoding) == (1998, "utf-16-le")
    places = [2 + sum(map(len, encoded[:row])) for row in (6, 1500)]
    byte, nul = (error.message for error in description.validation.errors)
    assert f"UTF-16 (little endian): byte 0x00 at byte offset {places[0]} (row 7, " in byte
    assert f"NUL byte at byte offset {places[1]} (row 1501, " in nul
    aside = quarantine_path(tmp_path / "t.arrow").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["values"] for line in aside] == [{"text": "\ufffd行 7"}, {"text": "\ufffd行 1501"}]


def test_a_file_in_another_encoding_is_refused_for_that(tmp_path: Path) -> None:
    """Ten thousand wrong rows are no wrong rows."""
    source = tmp_path / "t.csv"
    source.write_bytes(b"a,b\n" + b"1,caf\xe9 x\n" * 10_001)
    with pytest.raises(InvalidDataset, match=r"offset 9 \(row 1\)\. More than 10000 places") as caught:
        ingest(source, "t.csv", tmp_path / "t.arrow", IngestOptions(on_bad_rows="skip"))
    assert caught.value.error_count == 1


def damaged(kind: str, number: int) -> bytes:
    """Return what stands for a picture."""
    whole = png(number)
    return {"damaged_image": whole[:-30], "not_an_image": b"GIF89a" + whole[6:]}.get(kind, whole)


def manifest(path: Path, mistakes: dict[int, str]) -> dict[int, Planted]:
    """Write pictures and a table of them, in which files are missing, damaged or no pictures, and cells are wrong."""
    members: dict[str, bytes | str] = {}
    lines = ["file,age"]
    planted: dict[int, Planted] = {}
    for number in range(1, PICTURES + 1):
        name, kind = f"p{number}.png", mistakes.get(number, "")
        lines.append(f"{name},{'old' if kind == 'wrong_type' else number}")
        if kind != "missing_file":
            members[name] = damaged(kind, number)
        about = {"missing_file": ("file", name), "wrong_type": ("age", "old")}
        if kind:
            planted[number] = (kind, *about.get(kind, ("image", name)))
    packed(path, {"manifest.csv": "\n".join(lines), **members})
    return planted


def annotated(path: Path, mistakes: dict[int, str]) -> dict[int, Planted]:
    """Write pictures and annotations, with boxes that are none, lie outside or have no category, and damaged files."""
    wrong = {"bad_box": [1, 1, 0, 2], "box_outside": [5, 5, 30, 2]}
    names = {number: f"p{number:03}.png" for number in range(1, PICTURES + 1)}
    boxes = {name: [("cell", wrong.get(mistakes.get(number, ""), [1, 1, 2, 2]))] for number, name in names.items()}
    document = json.loads(coco(boxes))
    for number, kind in mistakes.items():
        if kind == "unknown_category":
            document["annotations"][number - 1]["category_id"] = 99
    members = {
        name: damaged(mistakes.get(number, ""), number)
        for number, name in names.items()
        if mistakes.get(number) != "missing_file"
    }
    packed(path, {"annotations.json": json.dumps(document), **members})
    return {number: (kind, None, names[number]) for number, kind in mistakes.items()}


PICTURES = 120
IMAGE_KINDS = ("missing_file", "damaged_image", "not_an_image")


@pytest.mark.parametrize(
    ("write", "kinds"),
    [
        (manifest, (*IMAGE_KINDS, "wrong_type")),
        (annotated, (*IMAGE_KINDS, "bad_box", "box_outside", "unknown_category")),
    ],
)
def test_every_planted_mistake_of_an_archive_is_found_and_nothing_else(
    tmp_path: Path, write: Callable[[Path, dict[int, str]], dict[int, Planted]], kinds: tuple[str, ...]
) -> None:
    random.seed(len(kinds))
    places = random.sample(range(1, PICTURES + 1), EACH * len(kinds))
    mistakes = dict(zip(places, kinds * EACH, strict=True))
    planted = write(tmp_path / "t.zip", mistakes)
    destination = tmp_path / "t.arrow"
    description = ingest(tmp_path / "t.zip", "t.zip", destination, IngestOptions(on_bad_rows="quarantine"))
    found = {error.row: (error.rule, error.column, error.value) for error in description.validation.errors}
    if write is annotated:
        found = {row: (rule, None, value) for row, (rule, _, value) in found.items()}
    assert found == planted
    assert description.validation.error_count == len(planted)
    assert description.num_rows == PICTURES - len(planted)
    aside = quarantine_path(destination).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in aside] == sorted(planted)
