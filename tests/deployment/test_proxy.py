"""The proxy of docs/scaling.md, run: one nginx with the page's configuration before an API and two predictors."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from media_files import png
from registered import INPUT, register, register_faces, register_writer
from servers import REPOSITORY, Stack, free_port, wait_for_port
from support import problem

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))
PAGE = REPOSITORY / "docs" / "scaling.md"
MOST_UPLOAD = 40_000_000
ASKING = 8

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")


def configuration(directory: Path, port: int, api: Stack, predictors: list[Stack]) -> str:
    """Return the page's configuration with this machine's addresses in place of the containers'."""
    found = re.search(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    text = re.sub(r"^ *resolver .*\n", "", found[1], flags=re.MULTILINE)  # Docker's names
    for name, stacks in (("api", [api]), ("predict", predictors)):
        there = " ".join(f"server 127.0.0.1:{stack.port};" for stack in stacks)
        text, count = re.subn(rf"server {name}:8000 resolve;", there, text)
        assert count == 1
    text, count = re.subn(r"listen 8000;", f"listen 127.0.0.1:{port};", text)
    assert count == 1
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"  {kind}_temp_path {directory / kind};\n" for kind in kinds)
    text = text.replace("http {\n", f"http {{\n  access_log off;\n{places}", 1)
    return f"daemon off;\nworker_processes 1;\npid {directory / 'nginx.pid'};\nerror_log stderr notice;\n{text}"


@dataclass(frozen=True)
class Proxied:
    """Everything behind one address."""

    url: str
    api: Stack
    predictors: list[Stack]

    def client(self, **headers: str) -> httpx.Client:
        """A client of the proxy with the first key."""
        headers = {"Authorization": f"Bearer {self.api.key}", **headers}
        return httpx.Client(base_url=f"{self.url}/api/v1", timeout=60, headers=headers)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    directory, port = tmp_path_factory.mktemp("proxy"), free_port()
    limit = {"ANNEAL_MAX_UPLOAD_BYTES": str(MOST_UPLOAD)}
    api = Stack(directory, {"ANNEAL_ROLE": "api", **limit})
    predictors = [Stack(directory, {"ANNEAL_ROLE": "predict"}) for _ in range(2)]
    file = directory / "nginx.conf"
    file.write_text(configuration(directory, port, api, predictors))
    nginx = None
    try:
        api.up(workers=False)
        for number, predictor in enumerate(predictors):
            predictor.processes["api"] = predictor.start(f"predict-{number}", "service")
        register(api, "small")
        register_writer(api, "writer")
        register_faces(api, "faces")
        for predictor in predictors:
            predictor.wait_ready()
        with (directory / "nginx.log").open("wb") as log:
            nginx = subprocess.Popen([str(NGINX), "-e", "stderr", "-p", directory, "-c", file], stderr=log)
        wait_for_port(port)
        yield Proxied(f"http://127.0.0.1:{port}", api, predictors)
    finally:
        if nginx is not None:
            nginx.send_signal(signal.SIGQUIT)
            nginx.wait(20)
        for predictor in predictors:
            predictor.processes.pop("api", None)
            predictor.down()
        api.down()


def test_one_address_for_both_roles(proxied: Proxied) -> None:
    with proxied.client() as client:
        answer = client.post("/models/small/predict", json={"inputs": [INPUT]})
        assert (answer.status_code, answer.json()["model"]["version"]) == (200, 1)
        assert client.get("/models/small").json()["latest_version"] == 1
        assert client.get("/jobs").json()["data"] == []
        assert client.post("/galleries", json={"name": "staff", "model": "faces:1"}).status_code == 201
        known = {"name": "Ada", "inputs": [base64.b64encode(png(1)).decode()]}
        assert client.post("/galleries/staff/subjects", json=known).status_code == 201
        assert client.post("/models/faces%3A1/embed", json={"inputs": known["inputs"]}).status_code == 200
        later = client.post("/models/small/predict", json={"inputs": [INPUT]}, headers={"Prefer": "respond-async"})
        assert client.get(later.headers["Location"].removeprefix("/api/v1")).json()["status"] == "queued"
        assert client.get(f"{proxied.url}/v2/health/ready").status_code == 200
        assert client.get(f"{proxied.url}/readyz").status_code == 200
        assert client.get("/nothing").headers["content-type"] == "application/problem+json"
    loaded = set()
    for predictor in proxied.predictors:
        with predictor.client() as client:
            loaded |= {one["ref"] for one in client.get("/models:loaded").json()["data"]}
    assert loaded >= {"small:1", "faces:1"}


def test_the_curl_line_names_the_proxy(proxied: Proxied) -> None:
    with proxied.client() as client:
        schema = client.get("/models/small/schema").json()
        assert f"{proxied.url}/api/v1/models/small/predict" in schema["curl"]
    # What nginx says of the protocol counts, and what a caller says of it does not get past nginx.
    direct = {"X-Forwarded-Proto": "https", "Authorization": f"Bearer {proxied.api.key}"}
    said = httpx.get(f"{proxied.predictors[0].url}/api/v1/models/small/schema", headers=direct, timeout=30).json()
    assert f"https://127.0.0.1:{proxied.predictors[0].port}/api/v1/models/small/predict" in said["curl"]
    with proxied.client(**{"X-Forwarded-Proto": "https"}) as client:
        assert "https://" not in client.get("/models/small/schema").json()["curl"]


def test_streams_are_not_held_back(proxied: Proxied) -> None:
    came: list[float] = []
    url = f"{proxied.url}/v1/completions"
    asked: dict[str, Any] = {"model": "writer", "prompt": "where", "max_tokens": 400, "stream": True}
    with proxied.client() as client, client.stream("POST", url, json=asked) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        began = time.perf_counter()
        came.extend(time.perf_counter() - began for line in answer.iter_lines() if line.startswith("data:"))
    assert len(came) > 20
    assert came[len(came) // 4] < 0.6 * came[-1], came


def test_uploads_are_as_large_as_the_service_takes(proxied: Proxied) -> None:
    rows = b"a,b\n" + b"1,2\n" * 8_700_000
    assert 32 << 20 < len(rows) < MOST_UPLOAD
    with proxied.client() as client:
        sent = client.post("/datasets", files={"file": ("large.csv", rows)})
        assert (sent.status_code, sent.json()["bytes"]) == (201, len(rows))
        problem(client.post("/datasets", files={"file": ("larger.csv", rows * 2)}), 413, "too_large")


def test_a_predictor_that_is_killed_fails_no_more_than_it_was_answering(proxied: Proxied) -> None:
    until = time.monotonic() + 3.0
    killed: list[float] = []

    def ask(_: int) -> list[tuple[float, int]]:
        answers = []
        with proxied.client() as client:
            while time.monotonic() < until:
                sent = time.monotonic()
                answers.append((sent, client.post("/models/small/predict", json={"inputs": [INPUT]}).status_code))
        return answers

    with ThreadPoolExecutor(ASKING) as pool:
        asking = [pool.submit(ask, number) for number in range(ASKING)]
        time.sleep(1)
        killed.append(time.monotonic())
        os.kill(proxied.predictors[1].processes["api"].pid, signal.SIGKILL)
        found = [answer for one in asking for answer in one.result()]
    failed = [(sent, status) for sent, status in found if status != 200]
    assert len([one for one in found if one[0] > killed[0]]) > 100
    assert len(failed) <= ASKING, failed
    assert all(status == 502 for _, status in failed)
    assert not [sent for sent, _ in failed if sent > killed[0] + 0.2], (killed, failed)
