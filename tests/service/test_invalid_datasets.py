"""What an invalid dataset says: what its file is, and everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from servers import Stack
from support import problem, stack_database, upload

from store.records import DatasetRecord


@pytest.fixture(scope="module")
def invalid(running: httpx.Client) -> dict[str, Any]:
    """A dataset of which two rows are wrong."""
    lines = ["a,b,label"] + [f"{n},{n / 2},{'xy'[n % 2]}" for n in range(300)]
    lines[150] = "149,abc,x"
    lines[200] = "199,1.5"
    return upload(running, "\n".join(lines) + "\n", "broken.csv", column_types='{"b": "number"}')


def test_an_invalid_dataset_says_what_was_found(running: httpx.Client, invalid: dict[str, Any]) -> None:
    """What can be known of a refused file helps to see why it is refused: a wrong delimiter, a wrong encoding."""
    known = ("format", "format_reason", "encoding", "num_rows")
    assert [invalid[name] for name in known] == [
        "csv",
        "the name ends in .csv and the first lines have 3 comma-separated fields",
        "utf-8",
        300,
    ]
    assert [(column["name"], column["type"], column["missing"]) for column in invalid["columns"]] == [
        ("a", "integer", 0),
        ("b", "number", 0),
        ("label", "string", 0),
    ]
    listed = running.get("/datasets", params={"format": "csv", "status": "invalid", "name": invalid["name"]}).json()
    assert invalid["id"] in [dataset["id"] for dataset in listed["data"]]
    chosen = ("csv", "invalid", invalid["name"])
    assert {(dataset["format"], dataset["status"], dataset["name"]) for dataset in listed["data"]} == {chosen}
    cut = upload(running, "a,b\n1,2\n".encode("utf-16") + b"\x00\xd8", "cut.csv")
    assert [cut[name] for name in known] == [
        "csv",
        "the name ends in .csv and the first lines have 2 comma-separated fields, in UTF-16 (little endian)",
        "utf-16-le",
        2,
    ]
    assert [column["name"] for column in cut["columns"]] == ["a", "b"]
    assert cut["validation"]["errors_by_rule"] == {"encoding": 1, "ragged_row": 1}


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"column_types": '{"agee": "integer"}'}, "unknown_name", 'Did you mean "age"?'),
        ({"split": '{"column": "parts"}'}, "unknown_name", 'Did you mean "part"?'),
        ({"split": '{"column": "part"}'}, "invalid_data", '"b"'),
    ],
    ids=["type of no column", "split by no column", "no part"],
)
def test_what_does_not_fit_the_file_is_an_error_of_it(
    running: httpx.Client, fields: dict[str, str], code: str, said: str
) -> None:
    dataset = upload(running, "age,part\n" + "1,train\n" * 50 + "2,b\n", "parts.csv", **fields)
    assert (dataset["status"], dataset["error"]["code"]) == ("invalid", code)
    listed = running.get(f"/datasets/{dataset['id']}/errors").json()
    assert (listed["error_count"], listed["errors_by_rule"]) == (1, {code: 1})
    (error,) = listed["errors"]
    assert (error["rule"], error["file"], error["message"]) == (code, "parts.csv", dataset["error"]["message"])
    assert said in error["message"]
    assert error["remedy"]
    assert dataset["validation"]["errors"] == [error]


def test_a_check_that_was_ended_is_an_error_of_the_file(embedded: Stack, running: httpx.Client) -> None:
    """A checking process that dies every time leaves no description, only its job's error."""
    dataset = upload(running, "a,b\n1\n", "short.csv")
    database = stack_database(embedded)
    with database.write() as session:
        record = session.get_one(DatasetRecord, dataset["id"])
        record.description = None
    database.close()
    (error,) = running.get(f"/datasets/{dataset['id']}/errors").json()["errors"]
    assert (error["rule"], error["message"]) == ("invalid_dataset", dataset["error"]["message"])


def test_a_format_that_there_is_not(running: httpx.Client) -> None:
    for answer in (
        running.post("/datasets", files={"file": ("t.csv", "a,b\n1,2\n")}, data={"format": "cvs"}),
        running.post("/datasets", json={"upload_id": "up_0", "format": "cvs"}),
        running.get("/datasets", params={"format": "cvs"}),
    ):
        body = problem(answer, 422, "unknown_name")
        assert body["param"] == "format"
        assert 'Did you mean "csv"?' in body["detail"]
        assert body["hint"]
