"""Tables made to hurt: huge lines, a million columns, NULs, quotes without end, Parquet that lies; through HTTP.

Each ends as an invalid dataset with a reason, or as a refusal; nothing of the inside is shown, and the same worker
reads an ordinary file afterwards.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Stack
from support import INSIDE, upload

MIB = 1 << 20


@pytest.fixture(scope="module")
def running(embedded: Stack) -> Iterator[httpx.Client]:
    """A client of the embedded product."""
    with embedded.client() as client:
        yield client


def refused(api: httpx.Client, content: bytes, filename: str, **fields: str) -> dict[str, Any]:
    """Upload, expect an invalid dataset that says why, and return its first error."""
    dataset = upload(api, content, filename, **fields)
    assert dataset["status"] == "invalid", dataset
    assert dataset["error"]["message"]
    assert not [word for word in INSIDE if word in str(dataset)]
    job = api.get(f"/jobs/{dataset['ingestion_job_id']}").json()
    assert job["attempt"] == 1  # an expected end, not a crash that is tried again
    answer = api.get(f"/datasets/{dataset['id']}/errors").json()
    assert answer["error_count"] >= 1
    assert sum(answer["errors_by_rule"].values()) == answer["error_count"]
    first: dict[str, Any] = answer["errors"][0]
    assert first["remedy"]
    return first


def test_a_very_long_line(running: httpx.Client) -> None:
    content = b"a,b\n1,2\n3," + b"x" * (24 * MIB)
    error = refused(running, content, "t.csv")
    assert (error["rule"], error["row"]) == ("record_too_large", 2)
    assert refused(running, b'{"a": "' + b"x" * (24 * MIB), "t.jsonl")["rule"] == "record_too_large"
    assert refused(running, b"a\n" + b"x" * (24 * MIB), "t.txt")["row"] == 2
    assert refused(running, b"a\tO\n" * (6 * MIB), "t.conll")["rule"] == "record_too_large"


def test_a_million_columns(running: httpx.Client) -> None:
    names = b",".join(b"%d" % n for n in range(1_000_000))
    assert refused(running, names + b"\n" + names + b"\n", "t.csv")["rule"] == "header_too_large"
    short = b",".join([b"c"] * 400_000)
    assert refused(running, short + b"\n" + short + b"\n", "t.csv")["rule"] == "too_many_columns"
    keys = b"{" + b",".join(b'"%d":1' % n for n in range(250_000)) + b"}\n"
    assert refused(running, keys, "t.jsonl")["rule"] == "too_many_columns"
    tagged = b"\t".join([b"x"] * 1_000_000) + b"\nx\tO\n"
    assert refused(running, tagged, "t.conll")["rule"] == "wrong_fields"


@pytest.mark.parametrize(
    ("content", "rule", "row"),
    [
        (b"a,b\n1,\0\n", "nul_byte", 1),
        (b"\0" * MIB, "nul_byte", None),
        (b"a,b\n1,2\n\xc3\x28,3\n", "encoding", 2),
        (b"a,b\n1,\xed\xa0\x80\n", "encoding", 1),
        (b"a,b\n1,\xf4\x90\x80\x80\n", "encoding", 1),
        ("a,b\n1,2\n".encode("utf-16") + b"\x00\xd8", "encoding", 2),
    ],
    ids=["nul", "only nuls", "overlong", "surrogate", "beyond unicode", "half a pair"],
)
def test_bytes_that_are_no_text(running: httpx.Client, content: bytes, rule: str, row: int | None) -> None:
    error = refused(running, content, "t.csv")
    assert (error["rule"], error["row"]) == (rule, row)


@pytest.mark.parametrize(
    "content",
    [
        b'a,b\n"' + b'""' * (6 * MIB),
        b"a,b\n" + b'"x,' * (4 * MIB),
        b"a,b\n" + b'1,"\n' * (2 * MIB) + b'"',
        b'"' * (8 * MIB),
        b"a\n" + b'"\n"' * (3 * MIB) + b'"',
    ],
    ids=["doubled", "reopened", "lines", "only quotes", "one column"],
)
def test_quotes_without_end(running: httpx.Client, content: bytes) -> None:
    """What would take quadratic time in a reader that starts anew at every quote."""
    dataset = upload(running, content, "t.csv")
    assert dataset["status"] in {"invalid", "ready"}
    job = running.get(f"/jobs/{dataset['ingestion_job_id']}").json()
    assert job["attempt"] == 1


def parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


WHOLE = parquet(pa.table({"n": list(range(2_000)), "s": [f"row {n}" for n in range(2_000)]}))
FOOTER = struct.unpack("<I", WHOLE[-8:-4])[0]


def varint(number: int) -> bytes:
    """Return a zigzag number of Thrift's compact protocol."""
    value, out = number << 1, b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def claiming(rows: int) -> bytes:
    """Return the whole file with a footer that claims so many rows."""
    footer = WHOLE[-8 - FOOTER : -8].replace(varint(2_000), varint(rows))
    return WHOLE[: -8 - FOOTER] + footer + struct.pack("<I", len(footer)) + b"PAR1"


@pytest.mark.parametrize(
    "content",
    [
        WHOLE[: len(WHOLE) // 2],
        WHOLE[: len(WHOLE) // 2] + WHOLE[-8 - FOOTER :],
        WHOLE[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        WHOLE[:-8] + struct.pack("<I", 0) + b"PAR1",
        WHOLE[:4] + WHOLE[-8 - FOOTER :],
        claiming(2**62),
        claiming(2**31),
        b"PAR1" + b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07" * 100 + struct.pack("<I", 900) + b"PAR1",
        b"PAR1" + b"\x19\xfc" * 50_000 + struct.pack("<I", 100_000) + b"PAR1",
        WHOLE[:200] + b"\xff" * 200 + WHOLE[400:],
    ],
    ids=["half", "hole", "long footer", "no footer", "no pages", "2^62 rows", "2^31 rows", "list", "deep", "page"],
)
def test_a_parquet_file_that_lies(running: httpx.Client, content: bytes) -> None:
    dataset = upload(running, content, "t.parquet")
    assert dataset["status"] == "invalid", dataset
    assert dataset["error"]["message"]
    assert not [word for word in INSIDE if word in str(dataset)]


def test_a_parquet_file_of_very_much_from_very_little(running: httpx.Client) -> None:
    """Some kilobytes that decode to gigabytes: one string, dictionary encoded, in very many rows."""
    indices = pa.array([0] * 3_000, pa.int32())
    bomb = parquet(pa.table({"s": pa.DictionaryArray.from_arrays(indices, ["x" * MIB])}), compression="zstd")
    assert len(bomb) < 64 << 10
    dataset = upload(running, bomb, "t.parquet")
    assert dataset["status"] == "invalid", {**dataset, "columns": None}
    assert not [word for word in INSIDE if word in str(dataset)]


def test_arrow_files_are_refused_by_name(running: httpx.Client) -> None:
    for end in (b"", b"\0" * 100, b"\xff" * 1000 + b"ARROW1"):
        error = refused(running, b"ARROW1\0\0" + end, "t.arrow")
        assert error["rule"] == "unknown_format"
        assert "an Arrow file" in error["message"]


def test_an_ordinary_file_is_read_afterwards(running: httpx.Client) -> None:
    assert upload(running, WHOLE, "t.parquet")["num_rows"] == 2_000
    assert upload(running, b"a,b\n1,2\n", "t.csv")["status"] == "ready"
