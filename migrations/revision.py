"""Which revision a database is at, without Alembic: the service asks at every start and every readiness check."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text

_VERSIONS = Path(__file__).parent / "versions"


def newest() -> str:
    """Return the newest revision: migrations are files that begin with their number."""
    return max(path.name.split("_", 1)[0] for path in _VERSIONS.glob("[0-9]*_*.py"))


def is_current(engine: Engine) -> bool:
    """Return whether the database is at the newest revision."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return bool(connection.scalar(text("SELECT version_num FROM alembic_version")) == newest())
