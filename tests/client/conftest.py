"""A real HTTP server that answers as a test tells it to and remembers what it was asked."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from anneal.client import Client

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"status": status, "detail": detail, **fields}
    return Answer(status, body, headers or {}, "application/problem+json")


class TinyServer:
    """Answers `METHOD /path` (below /api/v1) with the answers given, in turn; the last one goes on."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, list[Answer | Callable[[Request], Answer]]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def on(self, route: str, *answers: Answer | Callable[[Request], Answer]) -> None:
        self._answers[route] = list(answers)

    def asked(self, route: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == route]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, request: Request) -> Answer:
        answers = self._answers.get(f"{request.method} {request.path}")
        if not answers:
            return problem(404, f"No route {request.method} {request.path}")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(request) if callable(answer) else answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                body = self._body()
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                path = parts.path.removeprefix("/api/v1")
                request = Request(self.command, path, query, headers, body)
                server.requests.append(request)
                answer = server._answer(request)
                content = answer.encoded()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                if answer.headers.get("Content-Length") is None:
                    self.send_header("Content-Length", str(len(content)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                if answer.headers.get("Content-Length"):
                    self.close_connection = True  # fewer bytes than promised: a connection that broke

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    chunks = []
                    while size := int(self.rfile.readline(), 16):
                        chunks.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(chunks)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[TinyServer]:
    tiny = TinyServer()
    yield tiny
    tiny.close()


@pytest.fixture
def client(server: TinyServer) -> Iterator[Client]:
    with Client(server.url, "key.secret", timeout=5) as made:
        yield made


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def refuse() -> Callable[..., Answer]:
    return problem


@pytest.fixture
def anneal(server: TinyServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line against the tiny server, from an empty folder."""

    def run(
        *arguments: str, url: str | None = None, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANNEAL_")}
        environment |= {
            "ANNEAL_URL": url or server.url,
            "ANNEAL_API_KEY": "key.secret",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            **variables,
        }
        return subprocess.run(
            [sys.executable, "-m", "anneal", *arguments],
            cwd=tmp_path,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
