"""Fixtures that every test can ask for: real servers, and the product running on both of its columns."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import psycopg
import pytest
from servers import PATIENT, QUICK, REPOSITORY, Stack, postgres, redis
from support import TRAIN, long_job, submit, succeeded, upload, weights_digest

DATA = REPOSITORY / "anneal" / "data"
LEARNING = REPOSITORY / "tests" / "learning"
COLUMNS = ("embedded", "production")
Once = Callable[[Stack, str, Callable[[], Any]], Any]


class StackOf(Protocol):
    """Gives the product on a column, with short leases if it is to be quick."""

    def __call__(self, column: str, *, quick: bool = False) -> Stack: ...


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave to the long run what another column would only repeat, and measure coverage only where there is some."""
    if LEARNING in item.path.parents:  # whose coverage is not asked for, and whose steps it would make a sixth longer
        item.add_marker(pytest.mark.no_cover)
    chosen = getattr(item, "callspec", None)
    if item.get_closest_marker("either_column") and chosen and "production" in chosen.params.values():
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leave no job of a test that failed to those after it, some would run for ever; and tell what there was."""
    report = yield
    if call.when != "teardown" and report.failed:
        report.sections.extend((str(running.directory), running.let_go()) for running in Stack.all_up)
    return report


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of this run's own."""
    with postgres(tmp_path_factory.mktemp("postgres"), durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def new_postgres_url(postgres_server: str) -> Callable[[], str]:
    """A maker of fresh, empty databases."""

    def create() -> str:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres_server.rsplit("/", 1)[0] + f"/{name}"

    return create


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this run's own."""
    with redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    create: Callable[[], str] = request.getfixturevalue("new_postgres_url")
    return create()


@pytest.fixture(scope="session")
def stacks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackOf]:
    """What starts the whole product on a column when it is first asked for, and stops all at the end.

    A fixture with parameters would stop one column to start the other, twice in every file.
    """
    running: dict[str, Stack] = {}

    def of(column: str, *, quick: bool = False) -> Stack:
        name = f"quick-{column}" if quick else column
        if name not in running:
            found = running[name] = Stack(tmp_path_factory.mktemp(name), dict(QUICK if quick else PATIENT))
            if column == "production":
                found.environment |= {
                    "ANNEAL_DATABASE_URL": request.getfixturevalue("new_postgres_url")(),
                    # A database each: workers of another product on the same queues would swallow our messages.
                    "ANNEAL_BROKER_URL": request.getfixturevalue("redis_url").removesuffix("/0") + f"/{int(quick)}",
                }
            found.up()
        return running[name]

    try:
        yield of
    finally:
        for stack in running.values():
            stack.down()


@pytest.fixture(scope="session")
def once() -> Once:
    """What makes something on a stack the first time it is asked for: a fixture that depends on a column would again
    at every change of it."""
    known: dict[tuple[Path, str], Any] = {}

    def of(stack: Stack, name: str, make: Callable[[], Any]) -> Any:
        key = (stack.directory, name)
        if key not in known:
            known[key] = make()
        return known[key]

    return of


@pytest.fixture(scope="session", params=COLUMNS)
def stack(request: pytest.FixtureRequest, stacks: StackOf) -> Stack:
    """The whole product, running: on SQLite with the embedded broker, and on PostgreSQL with Redis."""
    return stacks(request.param)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The embedded default alone, for what does not depend on the column."""
    # Four heartbeats a second: tests that wait for progress or for a command to arrive are over sooner.
    running = Stack(tmp_path_factory.mktemp("embedded"), PATIENT | {"ANNEAL_HEARTBEAT_S": "0.25"})
    try:
        yield running.up()
    finally:
        running.down()


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """An HTTP client of the running product, on each column."""
    with stack.client() as client:
        yield client


@pytest.fixture(scope="session", params=COLUMNS)
def column(request: pytest.FixtureRequest, stacks: StackOf) -> Stack:
    """The product with a lease of three seconds."""
    return stacks(request.param, quick=True)


@pytest.fixture(scope="session")
def client(column: Stack) -> Iterator[httpx.Client]:
    """An HTTP client of that product."""
    with column.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def rows(column: Stack, client: httpx.Client, once: Once) -> str:
    return str(once(column, "rows", lambda: upload(client, TRAIN)["id"]))


@pytest.fixture(scope="session")
def undisturbed(column: Stack, client: httpx.Client, rows: str, once: Once) -> tuple[dict[str, Any], str]:
    """A job that nobody disturbed, and the digest of its weights."""

    def make() -> tuple[dict[str, Any], str]:
        job = succeeded(client, submit(client, long_job(rows)))
        return job, weights_digest(client, job)

    made: tuple[dict[str, Any], str] = once(column, "undisturbed", make)
    return made
