"""The API's own process: what it refuses to start with, its first key, and a database that goes away and comes back."""

from __future__ import annotations

import ast
import json
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from servers import REPOSITORY, Stack
from support import problem, stack_database, wait_until

from migrations import runner
from service.app import openapi
from service.settings import ServiceSettings
from store import keys


def test_the_openapi_document_is_printed(tmp_path: Path) -> None:
    printed = Stack(tmp_path).run("service", "--openapi")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout) == json.loads(json.dumps(openapi()))


def test_an_empty_database_is_refused(tmp_path: Path) -> None:
    refused = Stack(tmp_path).run("service")
    assert refused.returncode == 1
    assert "python -m migrations upgrade" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_first_requests_come_together(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    try:
        stack.up(workers=False)
        paths = ["/architectures/mlp/schema", "/architectures/bert/schema", "/tasks", "/architectures"] * 4

        def ask(path: str) -> int:
            with stack.client() as api:
                return api.get(path).status_code

        # The library is being imported at this moment.
        with ThreadPoolExecutor(len(paths)) as pool:
            assert set(pool.map(ask, paths)) == {200}
    finally:
        stack.down()


def test_learning_is_imported_by_one_thread_at_a_time() -> None:
    """A place that forgets the lock fails once in many starts, so all of them are looked at instead."""
    unguarded = []
    for path in sorted((REPOSITORY / "service").glob("*.py")):
        tree = ast.parse(path.read_text())
        late = {
            node: f"{path.name}:{node.lineno}"
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "learning"
        }
        guarded = {
            node
            for block in ast.walk(tree)
            if isinstance(block, ast.With) and ast.unparse(block.items[0]) == "importing"
            for node in block.body
        }
        unguarded += [where for node, where in late.items() if node not in guarded]
    assert unguarded == []


def test_addresses_and_keys(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    assert stack.run("migrations", "upgrade").returncode == 0
    stack.environment["ANNEAL_HOST"] = "0.0.0.0"
    refused = stack.run("service")
    assert refused.returncode == 1
    assert "--ensure-key" in refused.stderr
    assert not (stack.data_dir / "api_key").exists()
    for said in ("The first API key is in", "There is a key already"):
        ensured = stack.run("service", "--ensure-key")
        assert ensured.returncode == 0
        assert said in ensured.stdout
        assert stack.key not in ensured.stdout + ensured.stderr
    made = stack.run("service", "--create-key", "ops")
    assert made.returncode == 0
    database = stack_database(stack)
    with database.read() as session:
        principal = keys.authenticate(session.connection(), made.stdout.strip())
    database.close()
    assert principal is not None
    assert principal.scopes == set(keys.SCOPES)
    stack.environment["ANNEAL_HOST"] = "127.0.0.1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.port))
        taken.listen()
        refused = stack.run("service")
    assert refused.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{stack.port}" in refused.stderr
    assert "ANNEAL_PORT" in refused.stderr


def test_the_first_key_is_in_a_file_and_not_in_the_log(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"ANNEAL_HOST": "::1", "ANNEAL_DOCS": "false"})
    assert stack.run("migrations", "upgrade").returncode == 0
    for _ in range(2):
        stack.start("api", "service")
        url = f"http://[::1]:{stack.port}"
        wait_until(lambda url=url: _status(f"{url}/readyz") == 200, 30)
        assert _status(f"{url}/docs") == 404
        assert stack.stop("api") == 0
    assert stack.key not in stack.log("api")
    assert str(stack.data_dir / "api_key") in stack.log("api")
    path = stack.data_dir / "api_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stack.data_dir.stat().st_mode) == 0o700


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return 0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.com", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert ServiceSettings(host=host).is_loopback is loopback


def test_host_names() -> None:
    assert ServiceSettings(allowed_hosts=" A.example, b ").host_names == {"a.example", "b"}
    assert "localhost" in ServiceSettings().host_names


@pytest.fixture
def production(tmp_path: Path, new_postgres_url: Callable[[], str], redis_url: str) -> Iterator[Stack]:
    """An API on PostgreSQL without workers, for any host name."""
    stack = Stack(
        tmp_path,
        {
            "ANNEAL_DATABASE_URL": new_postgres_url(),
            "ANNEAL_BROKER_URL": redis_url.removesuffix("/0") + "/2",
            "ANNEAL_ALLOWED_HOSTS": "*",
        },
    )
    try:
        yield stack.up(workers=False)
    finally:
        stack.down()


def test_a_database_that_goes_away(production: Stack) -> None:
    server, _, name = production.environment["ANNEAL_DATABASE_URL"].replace("+psycopg", "").rpartition("/")
    with production.client() as api, psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        assert api.get("/jobs", headers={"Host": "anything.example"}).status_code == 200
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for _ in range(50):  # until the sweeper has no connection in the way
            try:
                admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
                break
            except psycopg.errors.ObjectInUse:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        response = api.get("/jobs")
        body = problem(response, 503, "database_unavailable")
        assert body["retryable"] is True
        assert response.headers["retry-after"] == "2"
        assert "anneal@" not in response.text
        ready = httpx.get(f"{production.url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["database"] != "ok"
        assert httpx.get(f"{production.url}/livez").status_code == 200
        time.sleep(1.2)  # a sweep or two meanwhile
        admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        wait_until(lambda: api.get("/jobs").status_code == 200, 10)
        assert httpx.get(f"{production.url}/readyz").status_code == 200


def test_a_schema_that_is_not_current(production: Stack) -> None:
    database = stack_database(production)
    runner.downgrade(database.engine, "base")
    database.close()
    ready = httpx.get(f"{production.url}/readyz")
    assert ready.status_code == 503
    assert "python -m migrations upgrade" in ready.json()["checks"]["migrations"]
