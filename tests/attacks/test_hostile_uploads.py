"""Attacks on uploads: no 5xx, nothing of the inside in an answer, the process alive, nothing touched outside its data.

The numbers are those of the list of attacks: A1 traversal, A2 URI tricks, A4 tar, A6 bodies over the limit, A10 odd
content types, A13 hostile JSON, A17 ranges.
"""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Stack
from support import INSIDE, problem, upload, wait_until

TABLE = "a,b\n1,2\n3,4\n"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
UP, DOWN = "../../../../../../tmp/anneal-was-here", "..\\..\\anneal-was-here"
NAMES = [
    UP,
    DOWN,
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "....//....//etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "file:///etc/passwd",
    "$(touch anneal-was-here).csv",
    "`id`;|&>.csv",
    "-rf",
    ".",
    "..",
    "a\r\nSet-Cookie: x=1.csv",
    "\u202ecsv.exe",
    "x" * 255,
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product with a small cap on uploads."""
    stack = Stack(tmp_path_factory.mktemp("attacked"), {"ANNEAL_MAX_UPLOAD_BYTES": "3000000"})
    try:
        yield stack.up()
    finally:
        stack.down()


@pytest.fixture
def api(small: Stack) -> Iterator[httpx.Client]:
    """A client; afterwards the process is alive, and nothing is left half-received or lies where it should not."""
    with small.client() as client:
        yield client
    assert small.processes["api"].poll() is None
    assert "Traceback" not in small.log("api"), small.log("api")[-3000:]
    # A worker may just be writing what comes of a file that was taken.
    wait_until(lambda: not [path for path in small.data_dir.glob("**/incoming/*") if path.is_file()], 20)
    known = {"data", "api.log", "ingest.log", "train.log"}
    assert {path.name for path in small.directory.iterdir()} == known
    known = {"anneal.db", "anneal.db-wal", "anneal.db-shm", "api_key", "artifacts", "broker", "logs", "uploads", "work"}
    assert {path.name for path in small.data_dir.iterdir()} <= known
    assert not [place for place in (Path("/tmp"), Path.cwd(), small.directory) if (place / "anneal-was-here").exists()]


def discreet(answer: httpx.Response) -> httpx.Response:
    """Return an answer after checking that it is no 5xx and says nothing of the inside."""
    assert answer.status_code < 500, answer.text
    assert not [word for word in INSIDE if word in answer.text.replace("/tmp/anneal-was-here", "")], answer.text
    return answer


def raw(stack: Stack, request: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes as they are, and return the answer; empty when there is none, as to a caller who hangs up."""
    with socket.create_connection(("127.0.0.1", stack.port), 30) as connection:
        connection.sendall(request)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(stack: Stack, line: str, *headers: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Authorization: Bearer {stack.key}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("name", NAMES)
def test_a1_file_names_are_only_names(api: httpx.Client, small: Stack, name: str) -> None:
    answer = discreet(api.post("/uploads", json={"filename": name, "bytes": len(TABLE)}))
    assert answer.status_code == 201
    made = answer.json()
    assert made["filename"] == name
    assert api.put(f"/uploads/{made['id']}/parts/1", content=TABLE).status_code == 200
    assert api.post(f"/uploads/{made['id']}/complete").status_code == 200
    created = discreet(api.post("/datasets", json={"upload_id": made["id"]}))
    assert created.status_code == 201
    ended = api.get(f"/datasets/{created.json()['id']}", params={"wait": 30}).json()
    assert ended["status"] == "ready", ended
    content = api.get(f"/datasets/{ended['id']}/content")
    assert content.text == TABLE
    assert "set-cookie" not in content.headers
    whole = discreet(api.post("/datasets", files={"file": (name, TABLE)}))
    assert whole.status_code == 201


IDS = ["..%2f..%2fapi_key", "%2e%2e%2f%2e%2e%2fapi_key", "..%5c..%5capi_key", "%2fetc%2fpasswd", "../../api_key"]
PLACES = ["/uploads/{}", "/uploads/{}/complete", "/uploads/{}/parts/1"]
PLACES += ["/datasets/{}", "/datasets/{}/content", "/datasets/{}/diff", "/datasets/{}/schema"]


@pytest.mark.parametrize("path", [place.format(one) for place in PLACES for one in IDS])
def test_a1_ids_are_no_paths(api: httpx.Client, small: Stack, path: str) -> None:
    for verb in ("GET", "PUT", "POST", "DELETE", "PATCH"):
        answer = raw(small, head(small, f"{verb} /api/v1{path}", "Content-Length: 0")).decode(errors="replace")
        assert 400 <= int(answer.split()[1]) < 500, answer
        assert small.key not in answer
        assert "root:" not in answer
    assert (small.data_dir / "api_key").read_text().strip() == small.key


@pytest.mark.parametrize(
    "target",
    [
        "//uploads",
        "/api/v1//uploads",
        "/api/v1/uploads/%252e%252e%252fapi_key",
        "/api/v1/uploads/..;/..;/api_key",
        "/api/v1/uploads/%c0%ae%c0%ae%c0%afapi_key",
        "/api/v1/uploads/\uff0e\uff0e/api_key".encode().decode("latin-1"),
        "/api/v1/uploads/%u002e%u002e/api_key",
        "/api/v1/uploads/%zz",
        "/api/v1/uploads/%",
        "/api/v1/uploads?limit=%ff%fe",
        "/api/v1/uploads?filename=%00",
        "/api/v1/uploads?" + "a=1&" * 10_000,
        "/api/v1/uploads/" + "a" * 60_000,
        "/api/v1/uploads#/../../api_key",
        "http://evil.example/api/v1/uploads",
        "*",
        "\\api\\v1\\uploads",
        "/api/v1/uploads\t/x",
    ],
)
def test_a2_addresses_that_are_none(api: httpx.Client, small: Stack, target: str) -> None:
    answer = raw(small, head(small, "GET " + target).replace(b"\xc2", b"")).decode(errors="replace")
    assert answer == "" or int(answer.split()[1]) < 500, answer
    assert small.key not in answer
    assert not [word for word in INSIDE if word in answer.replace("/tmp/anneal-was-here", "")], answer
    assert api.get("/uploads").status_code == 200


@pytest.mark.parametrize(("name", "mode"), [("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.csv", "w"), ("t.tgz", "w:bz2")])
def test_a4_tar_is_no_dataset(api: httpx.Client, name: str, mode: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for inside in ("table.csv", "../../anneal-was-here", "/tmp/anneal-was-here"):
            entry = tarfile.TarInfo(inside)
            entry.size = len(TABLE)
            archive.addfile(entry, io.BytesIO(TABLE.encode()))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    dataset = upload(api, packed.getvalue(), name)
    assert dataset["status"] == "invalid"
    (error,) = dataset["validation"]["errors"]
    assert error["rule"] in ("unknown_format", "nul_byte", "encoding"), error
    assert "root:" not in json.dumps(dataset)


def chunks(piece: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield piece


def form(content: Iterator[bytes], name: str = "file", filename: str = "t.csv") -> Iterator[bytes]:
    yield f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'.encode()
    yield from content
    yield b"\r\n--x--\r\n"


def test_a6_more_than_the_cap(api: httpx.Client, small: Stack) -> None:
    honest = api.post("/datasets", files={"file": ("t.csv", b"1\n" * 1_600_000)})
    assert "ANNEAL_MAX_UPLOAD_BYTES" in problem(honest, 413, "too_large")["hint"]
    problem(api.post("/datasets", content=form(chunks(b"1\n" * 50_000, 100)), headers=FORM), 413, "too_large")
    problem(api.post("/uploads", json={"filename": "t.csv", "bytes": 3_000_001}), 413, "too_large")
    made = api.post("/uploads", json={"filename": "t.csv", "bytes": 100_000}).json()
    part = f"/uploads/{made['id']}/parts/1"
    problem(api.put(part, content=b"x" * 2_000_000), 413, "too_large")
    problem(api.put(part, content=chunks(b"x" * 50_000, 100)), 413, "too_large")
    assert api.get(f"/uploads/{made['id']}").json()["received_bytes"] == 0


def test_a6_lengths_that_lie(api: httpx.Client, small: Stack) -> None:
    body = b"".join(form(iter([TABLE.encode()])))
    kind = "Content-Type: multipart/form-data; boundary=x"
    made = api.post("/uploads", json={"filename": "t.csv", "bytes": 100}).json()
    before = api.get("/datasets").json()["first_id"]
    for line, content in (("POST /api/v1/datasets", body), (f"PUT /api/v1/uploads/{made['id']}/parts/1", b"x" * 100)):
        for length in ("5", str(len(content) * 2), "99999999999999999999", "-1", "x", "0"):
            headers = [f"Content-Length: {length}", *([kind] if "datasets" in line else [])]
            answer = raw(small, head(small, line, *headers) + content, hang_up=True).decode(errors="replace")
            assert answer == "" or 400 <= int(answer.split()[1]) < 500, (line, length, answer)
    assert api.get("/datasets").json()["first_id"] == before
    assert api.get(f"/uploads/{made['id']}").json()["received_bytes"] == 0


def test_a6_ten_thousand_parts_and_a_huge_field(api: httpx.Client) -> None:
    many = b"".join(f'--x\r\nContent-Disposition: form-data; name="f{n}"\r\n\r\n1\r\n'.encode() for n in range(10_000))
    body = problem(api.post("/datasets", content=many + b"--x--\r\n", headers=FORM), 422, "invalid_request")
    assert "more than 32 parts" in body["detail"]
    files = [("file", (f"{n}.csv", TABLE)) for n in range(2)]
    assert "twice" in problem(api.post("/datasets", files=files), 422, "invalid_request")["detail"]
    huge = {"metadata": '{"a": "' + "x" * 2_000_000 + '"}'}
    field = problem(api.post("/datasets", files={"file": ("t.csv", TABLE)}, data=huge), 422, "invalid_request")
    assert field["param"] == "metadata"
    named = b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 1_000_000 + b'"\r\n\r\n1\r\n--x--\r\n'
    headers = b"--x\r\n" + b"X-A: 1\r\n" * 100_000 + b"\r\n--x--\r\n"
    for content in (named, headers, b"--x" * 300_000, b"\r\n" * 500_000, b"--x--\r\n", b"--x\r\n\r\n1\r\n--x--\r\n"):
        answer = discreet(api.post("/datasets", content=content, headers=FORM))
        assert answer.status_code in (400, 422), answer.text
    nameless = api.post(
        "/datasets", content=b"1", headers={"Content-Type": "multipart/form-data; boundary=" + "x" * 9999}
    )
    assert discreet(nameless).status_code == 400


def test_a6_who_may_not_fills_no_disk(small: Stack) -> None:
    with httpx.Client(base_url=small.url + "/api/v1", timeout=30) as anybody:
        for key in ({}, {"Authorization": "Bearer key_0.wrong"}):
            code = "wrong_key" if key else "missing_key"
            content = form(chunks(b"1\n" * 50_000, 10))
            problem(anybody.post("/datasets", content=content, headers=FORM | key), 401, code)
            problem(anybody.put("/uploads/up_0/parts/1", content=chunks(b"1" * 50_000, 10), headers=key), 401, code)
    assert not [path for path in small.data_dir.glob("**/incoming/*") if path.is_file()]


@pytest.mark.parametrize(
    "kind",
    [
        "text/csv",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=x",
        "x",
        "application/zip",
        "",
        "a/b/c",
    ],
)
def test_a10_odd_content_types(api: httpx.Client, kind: str) -> None:
    body = problem(
        api.post("/datasets", content=b"a,b\n1,2\n", headers={"Content-Type": kind}), 415, "unsupported_media_type"
    )
    assert "multipart/form-data" in body["hint"]
    assert "-F file=@" in body["hint"]
    made = api.post("/uploads", content=b"{}", headers={"Content-Type": kind})
    problem(made, 415, "unsupported_media_type")
    if kind:
        part = api.put("/uploads/up_0/parts/1", content=b"x", headers={"Content-Type": kind})
        problem(part, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "value",
    [
        '{"a":' * 100_000,
        "[" * 100_000,
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"a": "\\u0000"}',
        '{"a": ' + "[" * 80 + "]" * 80 + "}",
        '{"a": 1' + "0" * 10_000 + "}",
        "\ufeff{}",
        "{'a': 1}",
    ],
)
def test_a13_hostile_json(api: httpx.Client, value: str) -> None:
    answer = discreet(api.post("/datasets", files={"file": ("t.csv", TABLE)}, data={"metadata": value}))
    assert answer.status_code in (400, 422), answer.text
    for path, text in (
        ("/datasets", f'{{"upload_id": "up_0", "metadata": {value}}}'),
        ("/uploads", f'{{"filename": "t.csv", "bytes": {value}}}'),
    ):
        answer = discreet(api.post(path, content=text.encode(), headers={"Content-Type": "application/json"}))
        assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("value", ['{"a": 1e308, "b": -1e308}', '{"a": 1, "a": 2}', '{"__proto__": {"id": "x"}}'])
def test_a13_odd_json_that_can_be_kept(api: httpx.Client, value: str) -> None:
    answer = api.post("/datasets", files={"file": ("t.csv", TABLE)}, data={"metadata": value})
    assert answer.status_code == 201, answer.text
    kept: Any = answer.json()["metadata"]
    assert kept == json.loads(value)
    assert api.get(f"/datasets/{answer.json()['id']}").json()["metadata"] == kept


def test_a17_ten_thousand_ranges(api: httpx.Client) -> None:
    content = "n\n" + "".join(f"{n}\n" for n in range(20_000))
    path = f"/datasets/{upload(api, content)['id']}/content"
    for value in (
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 10_000, 2)),
        "bytes=" + ",".join("0-" for _ in range(10_000)),
        "bytes=" + ",".join(f"-{n}" for n in range(1, 10_000)),
    ):
        answer = api.get(path, headers={"Range": value})
        # The whole file at most once, never once for each range.
        assert answer.status_code in (200, 400, 416, 431), answer.status_code
        assert len(answer.content) <= len(content)
    overlapping = api.get(path, headers={"Range": "bytes=" + ",".join("0-" for _ in range(90))})
    assert overlapping.status_code == 206
    assert len(overlapping.content) < len(content) + 1000
