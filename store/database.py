"""One database, two kinds: SQLite for the embedded default, PostgreSQL in production.

A transaction is opened by what it is for. `read()` sees one snapshot; `write()` takes SQLite's write lock at its
start (BEGIN IMMEDIATE), because a deferred transaction that turns into a writer fails under contention instead of
waiting; `look()` opens none. Only the edge - an endpoint, a Celery task, a sweep - opens one, and leaving the block
commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, func, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement

BUSY_TIMEOUT_MS = 15_000
# Emptying the log keeps writers waiting until no reader is left in it: not for long.
_EMPTYING_TIMEOUT_MS = 200
# A PostgreSQL server whose machine is gone sends no goodbye; unasked, TCP would wait for it for a quarter of an hour.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class database_now(FunctionElement[float]):  # noqa: N801 - it reads as the SQL function it is
    """The database's clock in seconds since the epoch: the only clock that leases and events go by."""

    type = Float()
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "sqlite")
def _sqlite_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    # julianday keeps the fraction; SQLite's unixepoch('subsec') came only with 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    # now() stands still within a transaction; a lease must not. As a subquery it is asked once for a statement:
    # compared with a volatile function itself, an index is no use.
    return "(SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION))"


def alone(session: Session, purpose: str) -> None:
    """Keep other transactions with the same purpose waiting here until this one ends, in every process.

    What was read before may be old. On SQLite nothing is needed: a transaction that writes is the only one.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(purpose, 0))))


class Database:
    """The connection pool of one process; it must not cross a fork."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        immediate = self.engine.execution_options(begin="BEGIN IMMEDIATE")
        self._write_sessions = sessionmaker(immediate, expire_on_commit=False)
        # SQLite begins only when told to, here by us; PostgreSQL's driver begins by itself.
        alone = {"begin": None} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._statements = self.engine.execution_options(**alone)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that writes nothing."""
        with self._sessions() as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """Open no transaction: each statement sees what is committed when it runs."""
        with self._statements.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that commits when the block ends and rolls back when it raises."""
        with self._write_sessions.begin() as session:
            yield session

    def ping(self) -> None:
        """Raise when the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def empty_log(self) -> bool:
        """Empty SQLite's write-ahead log, which still holds what was deleted; return whether a reader kept it.

        PostgreSQL's log goes as its own settings say.
        """
        if not self.is_sqlite:
            return False
        with self.look() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_EMPTYING_TIMEOUT_MS}")
            try:
                return bool(connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one())
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _create_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(
            url, pool_size=10, max_overflow=30, pool_pre_ping=True, pool_recycle=1800, connect_args=_PATIENCE
        )
    engine = create_engine(url, pool_size=10, max_overflow=50, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: DBAPIConnection, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, below
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is overwritten, however this SQLite was built
    ):
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("begin", "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)
