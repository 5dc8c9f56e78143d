"""Datasets as resources, on both columns: versions, tags, changes, differences, samples, schemas and ranges."""

from __future__ import annotations

import base64
import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from media_files import packed, tone
from PIL import Image
from servers import Stack
from support import classify, problem, submit, upload, wait_for_state

FIRST = "id,city,age,gone\n1,Bern,30,x\n2,Basel,40,y\n2,Basel,40,y\n3,Chur,,z\n"
SECOND = "id,city,age,new\n2,Basel,40,q\n3,Chur,,q\n3,Chur,,q\n4,Genf,50,q\n"


def test_a_name_has_versions(api: httpx.Client) -> None:
    first, second = (upload(api, text, "people.csv") for text in (FIRST, SECOND))
    other = upload(api, FIRST, "people.csv", name="others")
    assert [(d["name"], d["version"]) for d in (first, second, other)] == [("people", 1), ("people", 2), ("others", 1)]
    assert (first["lineage"], second["lineage"]) == ({"previous": None}, {"previous": first["id"]})
    found = api.get(f"/datasets/{first['id']}/versions").json()["data"]
    assert [d["id"] for d in found] == [second["id"], first["id"]]
    page = api.get(f"/datasets/{first['id']}/versions", params={"limit": 1}).json()
    assert (len(page["data"]), page["has_more"]) == (1, True)

    moved = api.patch(f"/datasets/{other['id']}", json={"name": "people"}).json()
    assert (moved["version"], moved["lineage"]["previous"]) == (3, second["id"])
    assert api.patch(f"/datasets/{other['id']}", json={"name": "people"}).json()["version"] == 3
    # A number is not given twice, and lineage outlives what it names.
    assert api.delete(f"/datasets/{other['id']}").status_code == 204
    assert api.delete(f"/datasets/{first['id']}").status_code == 204
    fourth = upload(api, FIRST, "people.csv")
    assert (fourth["version"], fourth["lineage"]["previous"]) == (4, second["id"])
    assert api.get(f"/datasets/{second['id']}").json()["lineage"]["previous"] == first["id"]


def test_versions_made_at_the_same_time(api: httpx.Client) -> None:
    def send(number: int) -> int:
        made = api.post("/datasets", files={"file": ("t.csv", f"a\n{number}\n")}, data={"name": "at once"})
        assert made.status_code == 201, made.text
        return int(made.json()["version"])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(16))) == list(range(1, 17))


def test_tags_and_changes(api: httpx.Client) -> None:
    made = upload(api, FIRST, "tagged.csv", tags="raw, 2026/q1,raw", metadata='{"a": 1}')
    assert (made["tags"], made["metadata"]) == (["raw", "2026/q1"], {"a": 1})
    path = f"/datasets/{made['id']}"
    changed = api.patch(path, json={"tags": ["clean", "x_y"]}).json()
    assert (changed["tags"], changed["metadata"], changed["version"]) == (["clean", "x_y"], {"a": 1}, 1)
    assert api.patch(path, json={"metadata": {}}).json()["metadata"] == {}

    def found(**query: str) -> list[str]:
        data = api.get("/datasets", params={"name": "tagged", **query}).json()["data"]
        return [dataset["id"] for dataset in data]

    for query in ({"tag": "clean"}, {"tag": "x_y"}, {"format": "csv"}, {"tag": "clean", "status": "ready"}):
        assert found(**query) == [made["id"]], query
    for query in ({"tag": "raw"}, {"tag": "clea"}, {"tag": "CLEAN"}, {"tag": "x-y"}, {"format": "parquet"}):
        assert found(**query) == [], query
    assert api.patch(path, json={"tags": []}).json()["tags"] == []
    assert found(tag="clean") == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tags": ["a b"]}, "tags.0"),
        ({"tags": ["x" * 65]}, "tags.0"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": ['"']}, "tags.0"),
        ({"tags": "abc"}, "tags"),
        ({"tags": ["t"] * 33}, "tags"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"metadata": [1]}, "metadata"),
        ({"status": "ready"}, "status"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"project": "other"}, "project"),
        ({"version": 9}, "version"),
    ],
)
def test_wrong_changes(running: httpx.Client, rows: str, body: dict[str, Any], param: str) -> None:
    assert problem(running.patch(f"/datasets/{rows}", json=body), 422, "invalid_request")["param"] == param
    problem(running.get("/datasets", params={"tag": "a b"}), 422, "invalid_request")


def test_what_changed(api: httpx.Client) -> None:
    first, second = (upload(api, text, "diff.csv") for text in (FIRST, SECOND))
    found = api.get(f"/datasets/{second['id']}/diff", params={"against": first["id"]}).json()
    assert (found["dataset"], found["against"]) == (second["id"], first["id"])
    columns = found["columns"]
    assert (columns["added"], columns["removed"], columns["retyped"]) == (["new"], ["gone"], {})
    assert columns["changed"]["id"] == {"min": [1, 2], "max": [3, 4], "mean": [2.0, 3.0]}
    assert columns["changed"]["age"]["missing"] == [1, 2]
    # Equal rows are counted: one of the two (2, Basel) went, one more (3, Chur) came.
    assert found["rows"] == {
        "before": 4,
        "after": 4,
        "compared_columns": ["id", "city", "age"],
        "added": 2,
        "removed": 2,
    }
    same = api.get(f"/datasets/{second['id']}/diff", params={"against": second["id"]}).json()
    assert (same["rows"]["added"], same["rows"]["removed"], same["columns"]["changed"]) == (0, 0, {})

    text = upload(api, "id,city\nx,1\ny,2\n", "text.csv")
    other = api.get(f"/datasets/{text['id']}/diff", params={"against": first["id"]}).json()
    assert other["columns"]["retyped"] == {"id": ["integer", "string"], "city": ["string", "integer"]}
    assert (other["rows"]["added"], other["rows"]["compared_columns"]) == (None, [])

    problem(api.get(f"/datasets/{second['id']}/diff"), 422, "invalid_request")
    problem(api.get(f"/datasets/{second['id']}/diff", params={"against": "ds_0"}), 404, "not_found")
    bad = upload(api, "a,b\n1\n", "bad.csv")
    problem(api.get(f"/datasets/{second['id']}/diff", params={"against": bad["id"]}), 409, "not_ready")


def test_a_hundred_thousand_rows_compared(running: httpx.Client) -> None:
    draw = random.Random(3)
    lines = [f"{draw.random()},{draw.randrange(10**9)},{'x' * draw.randrange(20)}" for _ in range(100_000)]
    before = upload(running, "a,b,c\n" + "\n".join(lines), "many.csv")
    kept = lines[137:] + [f"0.5,{n},new" for n in range(55)]
    draw.shuffle(kept)
    after = upload(running, "a,b,c\n" + "\n".join(kept), "many.csv")
    rows = running.get(f"/datasets/{after['id']}/diff", params={"against": before["id"]}).json()["rows"]
    assert (rows["removed"], rows["added"]) == (137, 55)


def test_samples(running: httpx.Client) -> None:
    made = upload(running, "n\n" + "\n".join(map(str, range(1000))), "numbers.csv")
    path = f"/datasets/{made['id']}/preview"

    def rows(**query: Any) -> list[int]:
        shown = running.get(path, params={"rows": 20, **query}).json()
        assert [row["n"] for row in shown["rows"]] == shown["indices"]
        return list(shown["indices"])

    assert rows() == list(range(20))
    drawn = rows(sample="random", seed=1)
    assert drawn == rows(sample="random", seed=1) == sorted(set(drawn))
    assert len(drawn) == 20
    assert drawn != rows(sample="random", seed=2)
    few = upload(running, "n\n1\n2\n", "few.csv")
    shown = running.get(f"/datasets/{few['id']}/preview", params={"rows": 100, "sample": "random"}).json()
    assert shown["rows"] == [{"n": 1}, {"n": 2}]
    for query in ({"sample": "last"}, {"seed": -1}, {"seed": 2**64}, {"rows": 0}, {"rows": 101}):
        problem(running.get(path, params=query), 422, "invalid_request")


def test_a_recording_has_a_waveform(running: httpx.Client, tmp_path: Path) -> None:
    made = upload(running, packed(tmp_path / "tones.zip", {"a.wav": tone(0.5), "b.wav": tone(0.001)}))
    shown = running.get(f"/datasets/{made['id']}/preview").json()["rows"]
    drawn = [
        Image.open(io.BytesIO(base64.b64decode(row["audio"]["waveform"].removeprefix("data:image/png;base64,"))))
        for row in shown
    ]
    assert [picture.size for picture in drawn] == [(160, 48)] * 2
    inked = np.asarray(drawn[0]) < 128
    assert inked.any(axis=0).all()  # every moment has something
    assert inked[24].all()  # a tone goes through zero all the time
    assert not inked[0].any()  # and this one is not as loud as can be


def test_who_may_look_through_a_model(running: httpx.Client, embedded: Stack) -> None:
    made = upload(running, "n\n1\n2\n", "few.csv")
    path = f"/datasets/{made['id']}/preview"
    problem(running.get(path, params={"model": "nobody"}), 404, "not_found")
    key = running.post("/keys", json={"name": "looker", "scopes": ["datasets"]}).json()["key"]
    with embedded.client(headers={"Authorization": f"Bearer {key}"}) as looker:
        assert "seen" not in looker.get(path).json()
        assert '"models"' in problem(looker.get(path, params={"model": "nobody"}), 403, "missing_scope")["detail"]


def test_a_schema_that_every_row_fits(running: httpx.Client) -> None:
    made = upload(running, "i,f,t,s,b\n1,1.5,2024-05-01,x,true\n2,,2024-05-02,,false\n", "types.csv")
    schema = running.get(f"/datasets/{made['id']}/schema").json()
    assert schema["columns"][0] == {"name": "i", "type": "integer", "nullable": False}
    properties = schema["json_schema"]["properties"]
    assert properties["i"] == {"type": "integer"}
    assert properties["f"] == {"type": ["number", "null"]}
    assert properties["t"] == {"type": "string", "format": "date-time"}
    assert properties["b"] == {"type": "boolean"}
    assert schema["json_schema"]["required"] == ["i", "f", "t", "s", "b"]


def test_ranges(running: httpx.Client) -> None:
    content = bytes(range(32, 127)) * 20
    made = upload(running, b"a\n" + content, "ranges.csv")
    path = f"/datasets/{made['id']}/content"
    whole = b"a\n" + content

    def ask(value: str) -> httpx.Response:
        return running.get(path, headers={"Range": value})

    for value, expected in (("bytes=4-6", whole[4:7]), ("bytes=-5", whole[-5:]), ("bytes=1000-", whole[1000:])):
        answer = ask(value)
        assert (answer.status_code, answer.content) == (206, expected)
    several = ask("bytes=0-1,10-11,11-20")
    assert several.status_code == 206
    assert b"bytes 10-20/" in several.content
    for value in (f"bytes={len(whole)}-", "bytes=99999999999-", "bytes=-0", "bytes=0-1,5000-"):
        body = problem(ask(value), 416, "range_not_satisfiable")
        assert str(len(whole)) in body["detail"]
    assert ask("bytes=9999-").headers["content-range"] == f"bytes */{len(whole)}"
    for value in ("bytes=5-2", "bytes=a-b", "rows=1-2", "bytes=", "bytes", "bytes=--1", "bytes=1-2-3", "bytes=1_0-"):
        problem(ask(value), 400, "invalid_request")
    assert ask("bytes=0-1," + "9" * 30 + "-").status_code == 400


def test_a_dataset_in_use_stays(running: httpx.Client, rows: str) -> None:
    own = upload(running, "a,b,label\n" + "".join(f"{n},{n % 5},{n % 2}\n" for n in range(200)), "used.csv")
    body = classify(own["id"], columns={"target": "label"}, hyperparameters={"epochs": 100_000})
    job_id = submit(running, body)
    wait_for_state(running, job_id, "running")
    refused = problem(running.delete(f"/datasets/{own['id']}"), 409, "conflict")
    assert job_id in refused["detail"]
    running.post(f"/jobs/{job_id}/pause")
    wait_for_state(running, job_id, "paused")
    problem(running.delete(f"/datasets/{own['id']}"), 409, "conflict")
    running.post(f"/jobs/{job_id}/cancel")
    wait_for_state(running, job_id, "cancelled")
    assert running.delete(f"/datasets/{own['id']}").status_code == 204
    # What a finished job was made of is still told; running it again is refused with the reason.
    assert running.get(f"/jobs/{job_id}").json()["spec"]["dataset"] == own["id"]
    gone = problem(running.post(f"/jobs/{job_id}/retry", json={}), 409, "conflict")
    assert gone["detail"] == f"What job {job_id} read as train was deleted."
    problem(running.post(f"/jobs/{job_id}/clone", json={}), 404, "not_found")


def test_json_of_any_kind(running: httpx.Client) -> None:
    for body in ("[]", "null", '"up_1"', "1", "{}", '{"upload_id": 1}', '{"upload_id": null}', '{"upload_id": "x" '):
        answer = running.post("/datasets", content=body, headers={"Content-Type": "application/json"})
        problem(answer, 422, "invalid_request")
    both = running.post("/datasets", files={"file": ("t.csv", "a\n1\n")}, data={"upload_id": "up_1"})
    assert "upload_id" in problem(both, 422, "invalid_request")["detail"]
    answer = running.post("/datasets", json={"upload_id": "up_1", "metadata": {"a": json.loads("1e308")}})
    problem(answer, 404, "not_found")
