"""What an upload becomes: text, tagged tokens, other encodings, rows set aside, its own split."""

from __future__ import annotations

import json

import httpx
import pytest
from support import classify, problem, submit, succeeded, upload

CONLL = "# a comment\nAnna\tB-PER\nKim\tI-PER\nreads\tO\n\n#\tO\nParis\tB-LOC\n\n"


def test_text_keeps_its_blank_lines(running: httpx.Client) -> None:
    poem = "To be, or not to be,\r\nthat is the question\n\n  once more\n"
    dataset = upload(running, poem, "poem.txt")
    assert (dataset["status"], dataset["format"], dataset["num_rows"], dataset["encoding"]) == (
        "ready",
        "text",
        4,
        "utf-8",
    )
    assert dataset["columns"][0]["lengths"] == {"min": 0, "mean": 12.75, "p50": 11, "p95": 20, "max": 20}
    rows = running.get(f"/datasets/{dataset['id']}/preview").json()["rows"]
    assert "\n".join(row["text"] for row in rows) == poem.replace("\r\n", "\n").removesuffix("\n")


def test_tagged_tokens(running: httpx.Client) -> None:
    dataset = upload(running, CONLL, "some.conll")
    assert (dataset["status"], dataset["format"], dataset["num_rows"]) == ("ready", "conll", 2)
    assert [(column["name"], column["type"], column["unique"]) for column in dataset["columns"]] == [
        ("tokens", "strings", 5),
        ("tags", "strings", 4),
    ]
    assert dataset["columns"][1]["top"][0] == {"value": "O", "count": 2}
    assert running.get(f"/datasets/{dataset['id']}/preview").json()["rows"][1] == {
        "tokens": ["#", "Paris"],
        "tags": ["O", "B-LOC"],
    }


def test_a_column_of_lists_is_no_tabular_input(running: httpx.Client) -> None:
    lines = [json.dumps({"words": ["a", str(n % 3)], "label": n % 2, "x": n % 7}) for n in range(60)]
    dataset = upload(running, "\n".join(lines), "lists.jsonl")
    body = classify(dataset["id"], columns={"target": "label"})
    looked = running.post("/jobs", params={"dry_run": True}, json=body).json()
    assert not looked["valid"]
    assert 'columns.ignore=["words"]' in looked["errors"][0]["hint"]
    of_lists = classify(dataset["id"], columns={"target": "words"})
    refused = running.post("/jobs", params={"dry_run": True}, json=of_lists).json()
    assert [error["message"] for error in refused["errors"]] == ['Column "words" holds lists, which are no labels.']
    body["columns"]["ignore"] = ["words"]
    succeeded(running, submit(running, body))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "gb18030"])
def test_text_in_another_encoding_is_the_same_dataset(running: httpx.Client, encoding: str) -> None:
    text = '城市,count\n北京,1\n上海,2\n"广\n州",3\n'
    content = text.encode(encoding) if encoding != "utf-16-be" else b"\xfe\xff" + text.encode(encoding)
    dataset = upload(running, content, "cities.csv")
    assert dataset["status"] == "ready", dataset
    assert running.get(f"/datasets/{dataset['id']}/preview").json()["rows"][2] == {"城市": "广\n州", "count": 3}
    named = {"utf-8-sig": "utf-8-bom", "utf-16": "utf-16-le"}.get(encoding, encoding)
    assert dataset["encoding"] == named
    assert ", in " in dataset["format_reason"]
    assert running.get(f"/datasets/{dataset['id']}/content").content == content


def test_bad_rows_are_set_aside_whole(running: httpx.Client) -> None:
    lines = [json.dumps({"n": n, "m": n / 2, "t": "x"}) for n in range(1, 101)]
    lines[9] = '{"n": "ten", "m": "five", "t": ["x"]}'
    lines[49] = '{"n": 50,'
    dataset = upload(running, "\n".join(lines), "rows.jsonl", on_bad_rows="quarantine")
    assert (dataset["status"], dataset["num_rows"]) == ("ready", 98)
    answer = running.get(dataset["urls"]["quarantine"].removeprefix("/api/v1"))
    assert answer.headers["content-type"] == "application/x-ndjson"
    first, second = (json.loads(line) for line in answer.text.splitlines())
    assert (first["row"], first["text"]) == (10, lines[9])
    assert sorted((error["rule"], error["column"], error["value"]) for error in first["errors"]) == [
        ("nested_value", "t", '["x"]'),
        ("wrong_type", "m", "five"),
        ("wrong_type", "n", "ten"),
    ]
    assert (second["row"], second["text"], second["errors"][0]["rule"]) == (50, lines[49], "invalid_json")
    errors = running.get(f"/datasets/{dataset['id']}/errors").json()
    assert (errors["error_count"], len(errors["errors"])) == (4, 4)
    assert errors["errors_by_rule"] == {"nested_value": 1, "wrong_type": 2, "invalid_json": 1}
    assert running.delete(f"/datasets/{dataset['id']}").status_code == 204


def test_a_dataset_without_bad_rows_has_no_quarantine(running: httpx.Client) -> None:
    dataset = upload(running, "a,b\n1,2\n", on_bad_rows="quarantine")
    assert "quarantine" not in dataset["urls"]
    problem(running.get(f"/datasets/{dataset['id']}/quarantine"), 404, "not_found")
    problem(running.get("/datasets/ds_none/quarantine"), 404, "not_found")


def test_an_invalid_dataset_serves_its_errors_by_kind(running: httpx.Client) -> None:
    dataset = upload(running, "a,b\n1,x\n2,y\n3,z\n4,w\nfive,v\n6\n")
    assert dataset["status"] == "invalid"
    errors = running.get(f"/datasets/{dataset['id']}/errors").json()
    assert errors["errors_by_rule"] == {"ragged_row": 1, "wrong_type": 1}
    assert [(error["row"], error["column"], error["value"]) for error in errors["errors"]] == [
        (5, "a", "five"),
        (6, None, "6"),
    ]


def test_the_split_of_an_upload_is_its_jobs_default(running: httpx.Client) -> None:
    lines = ["x,y,part"] + [f"{n % 13},{n % 2},{'train' if n % 4 else 'test'}" for n in range(200)]
    dataset = upload(running, "\n".join(lines), split='{"column": "part"}')
    assert dataset["split"] == {"column": "part"}
    assert dataset["splits"] == {"train": 150, "validation": 0, "test": 50}
    body = classify(dataset["id"], columns={"target": "y"}, hyperparameters={"max_steps": 2})
    job = succeeded(running, submit(running, body))
    assert job["resolved"]["split"]["column"] == "part"
    assert job["metrics"]["latest"]["scratch"]["test"]
    own = running.post("/jobs", params={"dry_run": True}, json=body | {"split": {"test": 0.5}}).json()
    assert own["resolved"]["split"]["column"] is None


def test_a_split_by_shares(running: httpx.Client) -> None:
    table = "x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(100))
    dataset = upload(running, table, split='{"train": 0.7, "test": 0.2}')
    assert dataset["splits"] == {"train": 70, "validation": 10, "test": 20}


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ('{"train": 0.7, "validation": 0.2, "test": 0.3}', "must be 1 together, not 1.2"),
        ('{"tset": 0.2}', "split.tset"),
        ('{"test": 1.5}', "split.test"),
        ("[]", "no JSON object"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(running: httpx.Client, split: str, said: str) -> None:
    answer = running.post("/datasets", files={"file": ("t.csv", "a\n1\n")}, data={"split": split})
    assert said in problem(answer, 422, "invalid_request")["detail"]


def test_a_split_by_a_column_that_is_not_there(running: httpx.Client) -> None:
    dataset = upload(running, "Part,x\ntrain,1\ntest,2\n", split='{"column": "part"}')
    assert dataset["status"] == "invalid"
    assert dataset["error"]["message"] == 'Column "part" not found. Did you mean "Part"?'


def test_rows_in_both_parts_and_drift_are_warned_of(running: httpx.Client) -> None:
    def table(shift: int, kind: str) -> str:
        return "x,kind,y\n" + "".join(f"{n + shift},{kind if n % 4 else 'c'},{n % 2}\n" for n in range(60))

    train = table(0, "a")
    test = "".join(train.splitlines(keepends=True)[:9]) + table(500, "b").partition("\n")[2]
    ids = {name: upload(running, text)["id"] for name, text in (("train", train), ("test", test))}
    body = {**classify(""), "dataset": ids, "columns": {"target": "y"}, "hyperparameters": {"max_steps": 2}}
    looked = running.post("/jobs", params={"dry_run": True}, json=body).json()
    job = succeeded(running, submit(running, body))
    assert job["warnings"] == looked["warnings"]
    overlap, *drifts = job["warnings"]
    assert "test rows also occur in the training rows (1, 2, 3, 4, 5, …)" in overlap
    assert [warning.split(" differs")[0] for warning in drifts] == ['Column "x"', 'Column "kind"']


def test_rows_in_both_parts_and_drift_within_one_dataset_are_warned_of(running: httpx.Client) -> None:
    train = [f"{n},{n % 2}" for n in range(100)]
    test = [*train[:50], *(f"{n + 500},1" for n in range(50))]
    parts = [*(f"{row},train" for row in train), *(f"{row},test" for row in test)]
    numbered = [f"{number},{row}" for number, row in enumerate(parts)]
    dataset = upload(running, "\n".join(["x,y,part", *parts]), split='{"column": "part"}')
    found = {one["code"]: one for one in dataset["warnings"]}
    both = "50 of 100 test rows also occur in the training rows (101, 102, 103, 104, 105, …)"
    assert found["rows_in_both_parts"]["message"].startswith(both)
    assert found["drift"]["column"] == "x"
    assert found["drift"]["message"].startswith('Column "x" differs between the training and the test rows: the mean')
    body = classify(dataset["id"], columns={"target": "y"}, hyperparameters={"max_steps": 2})
    job = succeeded(running, submit(running, body))
    assert job["warnings"] == [found["rows_in_both_parts"]["message"], found["drift"]["message"]]

    # What is not learned from tells no rows apart: neither the numbers nor the parts.
    dataset = upload(running, "\n".join(["number,x,y,part", *numbered]), split='{"column": "part"}')
    assert "rows_in_both_parts" not in {one["code"] for one in dataset["warnings"]}
    body |= {"dataset": dataset["id"], "columns": {"target": "y", "ignore": ["number"]}}
    looked = running.post("/jobs", params={"dry_run": True}, json=body).json()
    assert looked["warnings"] == job["warnings"]
