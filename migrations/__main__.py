"""`python -m migrations upgrade|downgrade|check|new`: the database's schema, from the settings' database."""

from __future__ import annotations

import argparse
import sys

from sqlalchemy.exc import OperationalError

from migrations import runner
from store.database import Database
from store.settings import StoreSettings


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    parser.add_argument("command", choices=["upgrade", "downgrade", "check", "new"])
    parser.add_argument("argument", nargs="?", help="revision to go to, or the new migration's message")
    options = parser.parse_args()
    settings = StoreSettings()
    settings.make_directories()
    database = Database(settings.resolved_database_url)
    try:
        return _run(database, options.command, options.argument)
    except OperationalError as error:
        print(f"The database cannot be reached: {error.orig}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        database.close()


def _run(database: Database, command: str, argument: str | None) -> int:
    if command == "upgrade":
        runner.upgrade(database.engine, argument or "head")
    elif command == "downgrade":
        runner.downgrade(database.engine, argument or "-1")
    elif command == "new":
        runner.write(database.engine, argument or "change")
    else:
        found = runner.differences(database.engine)
        for difference in found:
            print(difference, file=sys.stderr)  # noqa: T201
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
