"""Uploads in parts, on both columns: any order, again, resumed, completed once, and nothing told to other projects."""

from __future__ import annotations

import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Stack
from support import new_key, problem, stack_database, wait_until

from store import uploads
from store.parts import PartStore
from store.records import UploadRecord

PART = 1024


def rows(seed: str, count: int = 500) -> bytes:
    return ("a,b\n" + "".join(f"{n},{seed}{n % 7}\n" for n in range(count))).encode()


def start(api: httpx.Client, content: bytes, **fields: Any) -> dict[str, Any]:
    body = {"filename": "t.csv", "bytes": len(content), "part_bytes": PART, **fields}
    answer = api.post("/uploads", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == made["urls"]["self"]
    return made


def put(api: httpx.Client, upload: dict[str, Any], number: int, content: bytes) -> httpx.Response:
    part = content[(number - 1) * upload["part_bytes"] : number * upload["part_bytes"]]
    return api.put(f"/uploads/{upload['id']}/parts/{number}", content=part)


def sent(api: httpx.Client, content: bytes, **fields: Any) -> dict[str, Any]:
    made = start(api, content, **fields)
    for number in made["missing_parts"]:
        assert put(api, made, number, content).status_code == 200
    return made


def ready(api: httpx.Client, upload_id: str, **fields: Any) -> dict[str, Any]:
    created = api.post("/datasets", json={"upload_id": upload_id, **fields})
    assert created.status_code == 201, created.text
    dataset: dict[str, Any] = api.get(f"/datasets/{created.json()['id']}", params={"wait": 60}).json()
    assert dataset["status"] == "ready", dataset
    return dataset


def test_parts_in_any_order_and_again(api: httpx.Client, stack: Stack) -> None:
    content = rows("order")
    digest = hashlib.sha256(content).hexdigest()
    made = start(api, content, sha256=digest)
    count = -(-len(content) // PART)
    assert (made["status"], made["parts"], made["received_bytes"]) == ("open", count, 0)
    assert made["missing_parts"] == list(range(1, count + 1))
    path = f"/uploads/{made['id']}"

    problem(api.post("/datasets", json={"upload_id": made["id"]}), 409, "conflict")
    last = put(api, made, count, content).json()
    assert last["bytes"] == len(content) - (count - 1) * PART
    assert last["sha256"] == hashlib.sha256(content[(count - 1) * PART :]).hexdigest()
    assert put(api, made, 2, b"x" * 5000).status_code == 200
    missing = problem(api.post(path + "/complete"), 409, "parts_missing")
    assert f"{count - 2} of {count} parts are missing: 1, 3, 4," in missing["detail"]
    order = list(range(1, count + 1))
    random.Random(1).shuffle(order)
    for number in order[:3]:
        assert put(api, made, number, content).status_code == 200
    seen = api.get(path).json()
    assert sorted([*seen["missing_parts"], *{*order[:3], 2, count}]) == list(range(1, count + 1))
    with ThreadPoolExecutor(4) as pool:
        assert {a.status_code for a in pool.map(lambda n: put(api, made, n, content), order)} == {200}
    seen = api.get(path).json()
    assert (seen["missing_parts"], seen["received_bytes"]) == ([], len(content))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: api.post(path + "/complete"), range(4)))
    assert {a.status_code for a in answers} <= {200, 409}
    assert all("x-should-retry" not in a.headers for a in answers)
    done = api.post(path + "/complete").json()
    assert (done["status"], done["sha256"], done["missing_parts"]) == ("completed", digest, [])
    assert done["expires_at"] >= made["expires_at"]
    assert PartStore(stack.data_dir / "uploads").sizes(made["id"]) == {}
    problem(put(api, made, 1, content), 409, "conflict")

    dataset = ready(api, made["id"], metadata={"from": "parts"}, column_types={"b": "string"})
    assert (dataset["sha256"], dataset["filename"], dataset["num_rows"]) == (digest, "t.csv", 500)
    assert (dataset["name"], dataset["metadata"]) == ("t", {"from": "parts"})
    assert api.get(f"/datasets/{dataset['id']}/content").content == content
    # An upload can be made a dataset again, read in another way; forgetting it takes nothing from them.
    form = api.post("/datasets", files={"upload_id": (None, made["id"]), "format": (None, "csv")})
    assert form.status_code == 201, form.text
    assert api.delete(path).status_code == 204
    problem(api.delete(path), 404, "not_found")
    problem(api.post("/datasets", json={"upload_id": made["id"]}), 404, "not_found")
    assert api.get(f"/datasets/{dataset['id']}/content").content == content


def test_a_known_digest_need_not_be_sent(api: httpx.Client, stack: Stack) -> None:
    content = rows("known")
    digest = hashlib.sha256(content).hexdigest()
    body = {"filename": "k.csv", "bytes": len(content), "sha256": digest}
    made = sent(api, content, sha256=digest)
    assert api.post("/uploads", json=body).status_code == 201  # nothing is known before it is completed
    assert api.post(f"/uploads/{made['id']}/complete").status_code == 200
    again = api.post("/uploads", json=body)
    assert (again.status_code, again.json()["status"], again.json()["filename"]) == (200, "completed", "k.csv")
    assert ready(api, again.json()["id"])["sha256"] == digest
    assert api.post("/uploads", json=body | {"bytes": len(content) + 1}).status_code == 201

    # Whether somebody else has a file is nobody's business.
    with stack.client(headers={"Authorization": f"Bearer {new_key(stack, project='other')}"}) as stranger:
        asked = stranger.post("/uploads", json=body)
        assert (asked.status_code, asked.json()["missing_parts"]) == (201, [1])
        unknown = stranger.post("/uploads", json=body | {"sha256": "0" * 64})
        drop = {"id", "sha256", "urls", "created_at", "expires_at"}
        shown = [{k: v for k, v in a.json().items() if k not in drop} for a in (asked, unknown)]
        assert shown[0] == shown[1]
        own = made["id"]
        for answer in (
            stranger.get(f"/uploads/{own}"),
            stranger.put(f"/uploads/{own}/parts/1", content=b"x"),
            stranger.post(f"/uploads/{own}/complete"),
            stranger.delete(f"/uploads/{own}"),
            stranger.post("/datasets", json={"upload_id": own}),
        ):
            assert problem(answer, 404, "not_found")["detail"] == f'No upload "{own}".'
        assert stranger.get("/uploads", params={"sha256": digest, "status": "completed"}).json()["data"] == []


def test_the_upload_to_go_on_with_is_found(api: httpx.Client) -> None:
    content = rows("found")
    digest = hashlib.sha256(content).hexdigest()
    made = start(api, content, sha256=digest, filename="found.csv")
    other = start(api, content, filename="found.csv")
    asked = {"filename": "found.csv", "bytes": len(content), "sha256": digest, "status": "open"}
    (only,) = api.get("/uploads", params=asked).json()["data"]
    assert only["id"] == made["id"]
    del asked["sha256"]
    assert [one["id"] for one in api.get("/uploads", params=asked).json()["data"]] == [other["id"], made["id"]]


def test_a_wrong_digest_is_told_and_can_be_mended(api: httpx.Client) -> None:
    content = rows("digest")
    wrong = b"X" + content[1:]
    made = sent(api, wrong, sha256=hashlib.sha256(content).hexdigest())
    body = problem(api.post(f"/uploads/{made['id']}/complete"), 422, "digest_mismatch")
    assert hashlib.sha256(wrong).hexdigest() in body["detail"]
    assert put(api, made, 1, content).status_code == 200
    assert api.post(f"/uploads/{made['id']}/complete").json()["status"] == "completed"


def test_parts_of_a_wrong_size(api: httpx.Client, stack: Stack) -> None:
    content = rows("size")
    made = start(api, content)
    path = f"/uploads/{made['id']}/parts"
    short = problem(api.put(f"{path}/1", content=b"x"), 422, "wrong_part_size")
    assert f"has {PART} bytes, and 1 came" in short["detail"]
    problem(api.put(f"{path}/1"), 422, "wrong_part_size")
    problem(api.put(f"{path}/1", content=b"x" * (PART + 1)), 413, "too_large")
    problem(api.put(f"{path}/1", content=iter([b"x" * 1000] * 100)), 413, "too_large")
    problem(api.put(f"{path}/{made['parts'] + 1}", content=b"x"), 404, "not_found")
    for number in ("0", "-1", "10001", "x", "1e3", str(2**64)):
        problem(api.put(f"{path}/{number}", content=b"x"), 422, "invalid_request")
    for kind in ("text/csv", "application/json", "multipart/form-data; boundary=x"):
        problem(api.put(f"{path}/1", content=b"x", headers={"Content-Type": kind}), 415, "unsupported_media_type")
    assert api.get(f"/uploads/{made['id']}").json()["received_bytes"] == 0
    assert not list((stack.data_dir / "uploads" / made["id"]).glob("incoming/*"))


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"bytes": 0}, 422, "bytes"),
        ({"bytes": -1}, 422, "bytes"),
        ({"bytes": 2**70}, 422, "bytes"),
        ({"bytes": 2**50}, 413, "bytes"),
        ({"bytes": 1.5}, 422, "bytes"),
        ({"bytes": None}, 422, "bytes"),
        ({"filename": ""}, 422, "filename"),
        ({"filename": "x" * 256}, 422, "filename"),
        ({"filename": "a\0b"}, 422, None),
        ({"sha256": "0" * 63}, 422, "sha256"),
        ({"sha256": "G" * 64}, 422, "sha256"),
        ({"part_bytes": 1}, 422, "part_bytes"),
        ({"bytes": 2**30, "part_bytes": 2**10}, 422, "part_bytes"),
        ({"project": "other"}, 422, "project"),
        ({"status": "completed"}, 422, "status"),
    ],
)
def test_wrong_uploads(running: httpx.Client, changes: dict[str, Any], status: int, param: str | None) -> None:
    answer = running.post("/uploads", json={"filename": "t.csv", "bytes": 10} | changes)
    body = problem(answer, status, "too_large" if status == 413 else "invalid_request")
    assert param is None or body["param"] == param


def test_the_same_start_twice(running: httpx.Client) -> None:
    headers = {"Idempotency-Key": "upload-once"}
    body = {"filename": "t.csv", "bytes": 10}
    first, second = (running.post("/uploads", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    problem(running.post("/uploads", json=body | {"bytes": 11}, headers=headers), 422, "idempotency_mismatch")


def test_default_parts_are_few_enough() -> None:
    for size in (1, 8 << 20, (8 << 20) + 1, 10 << 30, 100 << 30, 1 << 40, (1 << 40) + 1):
        part = uploads.part_bytes_for(size)
        assert uploads.count_parts(size, part) <= uploads.MOST_PARTS
        assert part % (1 << 20) == 0
    assert uploads.part_bytes_for(1) == 8 << 20


def test_expired_and_aborted_uploads_leave_nothing(tmp_path: Path, database_url: str) -> None:
    environment = {"ANNEAL_DATABASE_URL": database_url, "ANNEAL_UPLOAD_EXPIRY_S": "1"}
    stack = Stack(tmp_path / "stack", environment)
    directory = stack.data_dir / "uploads"
    try:
        stack.up(workers=False)
        with stack.client() as api:
            content = rows("expired")
            left = start(api, content)
            assert put(api, left, 1, content).status_code == 200
            aborted = start(api, content)
            assert put(api, aborted, 1, content).status_code == 200
            assert api.delete(f"/uploads/{aborted['id']}").status_code == 204
            assert not (directory / aborted["id"]).exists()
            completed = sent(api, content)
            assert api.post(f"/uploads/{completed['id']}/complete").status_code == 200
            (directory / "up_nobody").mkdir()
            wait_until(lambda: not list(directory.iterdir()), 30)
            for upload in (left, completed):
                problem(api.get(f"/uploads/{upload['id']}"), 404, "not_found")
        database = stack_database(stack)
        uploads.sweep(database, PartStore(directory), 0)
        database.close()
    finally:
        stack.down()


def test_an_expired_upload_is_gone_before_it_is_swept_away(tmp_path: Path, database_url: str) -> None:
    stack = Stack(tmp_path / "stack", {"ANNEAL_DATABASE_URL": database_url})
    try:
        stack.up(workers=False)
        with stack.client() as api:
            left = start(api, rows("left"))
            path = f"/uploads/{left['id']}"
            assert api.get(path).json()["status"] == "open"
            database = stack_database(stack)
            with database.write() as session:
                session.get_one(UploadRecord, left["id"]).expires_at = time.time() - 1
            database.close()
            problem(api.get(path), 404, "not_found")
            problem(api.post(f"{path}/complete"), 404, "not_found")
            assert api.get("/uploads", params={"status": "open"}).json()["data"] == []
    finally:
        stack.down()


def test_a_project_has_only_so_many_uploads_open(tmp_path: Path, database_url: str) -> None:
    environment = {"ANNEAL_MAX_OPEN_UPLOADS": "3", "ANNEAL_MAX_OPEN_UPLOAD_BYTES": "20000"}
    stack = Stack(tmp_path / "stack", environment | {"ANNEAL_DATABASE_URL": database_url})
    try:
        stack.up(workers=False)
        with (
            stack.client() as api,
            stack.client(headers={"Authorization": f"Bearer {new_key(stack, project='other')}"}) as stranger,
            ThreadPoolExecutor(8) as pool,
        ):
            # All at once: none may slip through between the counting and the writing.
            answers = list(pool.map(lambda _: api.post("/uploads", json={"filename": "t", "bytes": 10}), range(8)))
            assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
            made = [answer.json() for answer in answers if answer.status_code == 201]
            refused = api.post("/uploads", json={"filename": "t", "bytes": 10})
            body = problem(refused, 409, "quota_exceeded")
            assert body["detail"] == "The project has 3 uploads open, and may have 3."
            assert "ANNEAL_MAX_OPEN_UPLOADS" in body["hint"]
            assert refused.headers["x-should-retry"] == "false"
            assert stranger.post("/uploads", json={"filename": "t", "bytes": 20_000}).status_code == 201

            # One that is completed, or given up, makes room; its bytes do as well.
            assert api.put(f"/uploads/{made[0]['id']}/parts/1", content=b"a\n1\n2\n3\n4\n").status_code == 200
            assert api.post(f"/uploads/{made[0]['id']}/complete").status_code == 200
            large = {"filename": "t", "bytes": 19_981}
            body = problem(api.post("/uploads", json=large), 409, "quota_exceeded")
            assert (body["param"], "have 20 bytes" in body["detail"]) == ("bytes", True)
            assert api.post("/uploads", json=large | {"bytes": 19_980}).status_code == 201
            problem(api.post("/uploads", json={"filename": "t", "bytes": 1}), 409, "quota_exceeded")
            # What is there already takes no room, however much is open.
            digest = hashlib.sha256(b"a\n1\n2\n3\n4\n").hexdigest()
            known = api.post("/uploads", json={"filename": "t", "bytes": 10, "sha256": digest})
            assert (known.status_code, known.json()["status"]) == (200, "completed")
            assert api.delete(f"/uploads/{made[1]['id']}").status_code == 204
            assert api.post("/uploads", json={"filename": "t", "bytes": 10}).status_code == 201
    finally:
        stack.down()
