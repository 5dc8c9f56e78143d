"""A file in two encodings, through the front door: no row becomes characters that nobody wrote."""

from __future__ import annotations

import httpx
from support import upload

LINE = "汇率今天"


def test_lines_in_another_encoding_are_named_or_left_out(running: httpx.Client) -> None:
    both = "\n".join([LINE] * 5).encode() + b"\n" + "\n".join([LINE] * 5).encode("gb18030")
    refused = upload(running, both, "both.txt")
    assert (refused["status"], refused["encoding"]) == ("invalid", "gb18030")
    found = refused["validation"]["errors"]
    assert [(one["rule"], one["row"], one["value"]) for one in found] == [
        ("encoding", row, LINE) for row in range(1, 6)
    ]
    assert found[0]["message"] == (
        'Not GB18030 as the rest of the file: from byte offset 0 on (row 1, column "text") it is UTF-8 and says '
        f'"{LINE}". 5 of 10 rows.'
    )
    assert found[0]["remedy"] == 'Save the whole file as UTF-8, or set on_bad_rows="skip".'

    one = b"rates\n" + LINE.encode("gb18030") + b"\n" + LINE.encode() + b"\nend"
    kept = upload(running, one, "one.txt", on_bad_rows="skip")
    assert (kept["status"], kept["num_rows"]) == ("ready", 3)
    assert [warning["code"] for warning in kept["warnings"]] == ["skipped_rows"]
    rows = running.get(f"/datasets/{kept['id']}/preview").json()
    assert [row["text"] for row in rows["rows"]] == ["rates", LINE, "end"]


def test_honest_gb18030_is_ready_without_a_warning(running: httpx.Client) -> None:
    dataset = upload(running, ("学院\n系统\n" + f"{LINE}\n" * 10 + "小说\n").encode("gb18030"), "words.txt")
    assert (dataset["status"], dataset["encoding"], dataset["num_rows"]) == ("ready", "gb18030", 13)
    assert dataset["warnings"] == []
