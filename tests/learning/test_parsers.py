"""Every parser on arbitrary bytes: an answer or a refusal that says where, never a crash, a hang or a wrong row."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning.errors import InvalidDataset
from learning.formats import FORMATS, recognised
from learning.formats.format import Misjudged, ReadOptions
from learning.formats.row_errors import RowErrors
from learning.statistics import TableStatistics

PIECES: dict[str, tuple[bytes, ...]] = {
    "csv": (b",", b";", b"\t", b"|", b'"', b'""', b"\n", b"\r\n", b"\r", b"a", b"1", b"-1.5", b"true", b"2024-01-02"),
    "jsonl": (
        b"{", b"}", b'{"a": 1}\n', b'{"a": "x", "b": ["y"]}\n', b'{"b": [1]}\n', b'"', b":", b"[", b"]", b"\n",
    ),
    "text": (b"a", b"\n", b"\r\n", b"\r", b" ", b"\xe6\xb1\x89", b"\n\n"),
    "conll": (b"a\tO\n", b"b\tB-X\n", b"c\tI-X\n", b"\t", b"\n", b"# x\n", b"#\tO\n", b"d\n", b" ", b"O", b"\r\n"),
}  # fmt: skip
ANYWHERE = [b"\0", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xd6\xd0\xb9\xfa", b"\xe2\x80\xa8", b"\x1a"]


def content(form: str) -> st.SearchStrategy[bytes]:
    """Return bytes that are often nearly a file of the format."""
    pieces = st.sampled_from(PIECES[form]) | st.sampled_from(PIECES[form]) | st.sampled_from(ANYWHERE)
    return st.lists(pieces | st.binary(max_size=3), min_size=1, max_size=40).map(b"".join)


PARQUET = io.BytesIO()
pq.write_table(
    pa.table({"n": [1, None, 3], "s": ["a", "b", None], "l": [["x"], [], None], "x": [0.5, float("inf"), 2.0]}), PARQUET
)


@st.composite
def damaged(draw: Any) -> bytes:
    """Return a Parquet file some of whose bytes are others, missing or doubled."""
    whole = bytearray(PARQUET.getvalue())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(whole) - 1))
        length = draw(st.integers(0, 8))
        whole[at : at + length] = draw(st.binary(max_size=8))
    return bytes(whole) if draw(st.booleans()) else b"PAR1" + draw(st.binary(max_size=60)) + b"PAR1"


def check(refused: InvalidDataset) -> None:
    """Look at what a refusal says."""
    assert refused.hint
    assert refused.error_count >= 1
    assert sum(refused.errors_by_rule.values()) == refused.error_count


def look(form: str, written: bytes) -> None:
    """Read the bytes in the format; whatever is wrong with them must be said of a row that is there."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "upload"
        path.write_bytes(written)
        errors = RowErrors("upload")
        try:
            found = recognised(path, "upload", form, Path(directory) / "copy")
            if found.refusal:
                raise found.refusal
            try:
                batches = list(FORMATS[form].read(found.path, ReadOptions("upload"), errors))
            except Misjudged as misjudged:
                errors = RowErrors("upload")
                again = ReadOptions("upload", known_types=misjudged.types)
                batches = list(FORMATS[form].read(found.path, again, errors))
        except InvalidDataset as refused:
            check(refused)
            return
        rows = sum(batch.num_rows for batch in batches)
        assert rows + len({error.row for error in errors.first()}) <= errors.rows_seen or errors.count > 100
        assert all(1 <= (error.row or 0) <= errors.rows_seen for error in errors.first())
        if batches:
            statistics = TableStatistics(batches[0].schema)
            for batch in batches:
                batch.validate(full=True)
                statistics.add(batch)
            columns = [column.column(None) for column in statistics.columns]
            assert all(column.missing <= rows for column in columns)
        if form == "text" and found.path == path and batches:
            lines = written.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
            expected = [line.removesuffix(b"\r").decode() for line in lines]
            assert pa.Table.from_batches(batches)["text"].to_pylist() == expected


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": False}


@pytest.mark.parametrize("form", PIECES)
@settings(max_examples=60, **QUIET)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(form: str, data: st.DataObject) -> None:
    look(form, data.draw(content(form)))


@settings(max_examples=60, **QUIET)
@given(written=damaged())
def test_any_parquet_is_read_or_refused(written: bytes) -> None:
    look("parquet", written)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("form", PIECES)
@settings(max_examples=2_500, **QUIET)
@given(data=st.data())
def test_very_many_bytes_are_read_or_refused(form: str, data: st.DataObject) -> None:
    look(form, data.draw(content(form)))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(max_examples=2_500, **QUIET)
@given(written=damaged())
def test_very_many_parquets_are_read_or_refused(written: bytes) -> None:
    look("parquet", written)
