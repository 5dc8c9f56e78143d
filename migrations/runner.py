"""Bring a database to a revision, and say how it differs from the records."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine

from migrations.revision import newest
from store.records import Record


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run every migration up to a revision."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Undo migrations down to a revision ("base" is the empty database)."""
    with engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def write(engine: Engine, message: str) -> None:
    """Write a new migration from the difference between the database and the records."""
    with engine.connect() as connection:
        command.revision(_config(connection), message, autogenerate=True, rev_id=f"{int(newest()) + 1:04d}")


def differences(engine: Engine) -> list[object]:
    """Return what the database lacks, or has beyond, the records; empty when they agree."""
    with engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Record.metadata))
