"""Whether anything has changed in the database: one value, asked for in microseconds.

What was read is still true as long as the value from before the reading is. Nothing has to be counted for it: both
databases know when somebody commits.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from sqlalchemy import Engine

# SQLite: changes when another connection has committed; this one never writes. PostgreSQL: which transactions are over.
_QUESTIONS = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT pg_current_snapshot()::text"}


class Stamp:
    """A connection of its own that asks; not for two threads at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._question = _QUESTIONS[engine.dialect.name]
        self._pooled: Any = None
        self._cursor: Any = None

    @property
    def is_immediate(self) -> bool:
        """Whether asking is a look at a file of this machine, which never waits for long."""
        return self._engine.dialect.name == "sqlite"

    def read(self) -> Hashable:
        """Return a value that is equal to an earlier one only if nothing was committed in between.

        A database that does not answer is taken for one that has changed: whoever reads it next finds out why.
        """
        try:
            if self._cursor is None:
                self._open()
            value: Hashable = self._cursor.execute(self._question).fetchone()[0]
        except Exception:  # each driver has errors of its own
            self.close()
            return object()
        return value

    def _open(self) -> None:
        self._pooled = self._engine.raw_connection()
        if not self.is_immediate:
            self._pooled.driver_connection.autocommit = True
        self._cursor = self._pooled.driver_connection.cursor()

    def close(self) -> None:
        """Give the connection up."""
        pooled, self._pooled, self._cursor = self._pooled, None, None
        if pooled is not None:
            pooled.invalidate()
