"""A migrated, empty database of each kind; made once and emptied or copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from migrations import runner
from store.database import Database
from store.records import Record


def _migrated(url: str) -> Database:
    database = Database(url)
    runner.upgrade(database.engine)
    return database


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    _migrated(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(new_postgres_url: Callable[[], str]) -> Iterator[Database]:
    """A PostgreSQL database with every table."""
    database = _migrated(new_postgres_url())
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with every table and nothing in them."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_file"), tmp_path / "test.db")
        opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
        yield opened
        opened.close()
        return
    shared: Database = request.getfixturevalue("migrated_postgres")
    with shared.write() as session:
        names = ", ".join(table.name for table in Record.metadata.tables.values())
        session.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    yield shared
