"""The migrations: there and back, ending at what the records say, on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import inspect

from migrations import revision, runner
from store.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    try:
        yield opened
    finally:
        opened.close()


def test_upgrading_gives_what_the_records_say(database: Database) -> None:
    assert not revision.is_current(database.engine)
    runner.upgrade(database.engine)
    assert revision.is_current(database.engine)
    assert runner.differences(database.engine) == []


def test_downgrading_leaves_nothing_and_upgrading_again_gives_the_same(database: Database) -> None:
    runner.upgrade(database.engine)
    before = _schema(database)
    runner.downgrade(database.engine, "base")
    assert set(_schema(database)) <= {"alembic_version"}
    runner.upgrade(database.engine)
    assert _schema(database) == before
    assert runner.differences(database.engine) == []


def test_every_migration_can_be_undone_by_itself(database: Database) -> None:
    runner.upgrade(database.engine)
    steps = 0
    while set(_schema(database)) > {"alembic_version"}:
        runner.downgrade(database.engine, "-1")
        assert not revision.is_current(database.engine)
        steps += 1
    assert steps == int(revision.newest())


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    runner.upgrade(database.engine)
    before = _schema(database)
    runner.upgrade(database.engine)
    assert _schema(database) == before


def test_a_missing_column_is_a_difference(database: Database) -> None:
    runner.upgrade(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN progress")
    assert "progress" in str(runner.differences(database.engine))


def _schema(database: Database) -> dict[str, object]:
    found = inspect(database.engine)
    return {
        table: (
            sorted((column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)),
            sorted(str(index["name"]) for index in found.get_indexes(table)),
            sorted(str(key["name"]) for key in found.get_foreign_keys(table)),
        )
        for table in found.get_table_names()
    }
