"""`python -m service`: the API.

Instead of serving, `--create-key NAME` makes a key, `--ensure-key` makes the first one, and `--openapi` prints the
document.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI

from migrations import revision
from service.collector import lasting
from service.settings import ServiceSettings
from store import keys
from store.database import Database

BACKLOG = 2048  # connections that wait to be accepted; uvicorn's own default


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("--create-key", metavar="NAME", help="make an admin key, print it once, and exit")
    parser.add_argument(
        "--ensure-key",
        action="store_true",
        help="make the first key if there is none, keep it in the data directory, and exit",
    )
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document and exit")
    options = parser.parse_args()
    if options.openapi:
        from service.app import openapi

        print(json.dumps(openapi(), indent=1, sort_keys=True))  # noqa: T201
        return 0
    return _run(ServiceSettings(), create_key=options.create_key, ensure_key=options.ensure_key)


def _run(settings: ServiceSettings, *, create_key: str | None, ensure_key: bool) -> int:
    settings.make_directories()
    database = Database(settings.resolved_database_url)
    try:
        if not revision.is_current(database.engine):
            return _refuse("The database's schema is not current. Run: python -m migrations upgrade")
        if create_key:
            return _create_key(database, create_key)
        if ensure_key:
            return _make_first_key(database, settings)
        if not _ensure_key(database, settings):
            return _refuse(
                f"No API key exists, so the service will not listen on {settings.host}, where others can reach it. "
                "Run first: python -m service --ensure-key"
            )
    finally:
        database.close()
    return _serve(settings)


def _create_key(database: Database, name: str) -> int:
    with database.write() as session:
        _, key = keys.create(session, name=name)
    print(key)  # noqa: T201
    return 0


def _make_first_key(database: Database, settings: ServiceSettings) -> int:
    with database.write() as session:
        made = keys.ensure_first_key(session, settings.key_file)
    # Not the key itself: what an unattended set-up step prints is collected and kept by whoever runs it.
    print(f"The first API key is in {settings.key_file}." if made else "There is a key already; none was made.")  # noqa: T201
    return 0


def _ensure_key(database: Database, settings: ServiceSettings) -> bool:
    with database.write() as session:
        if not settings.is_loopback:
            return keys.exists(session)
        key = keys.ensure_first_key(session, settings.key_file)
    if key is not None:
        # Only to a person: what goes to a file or a collector is kept, and a key must not be kept there.
        shown = f"API key, shown this once: {key}\n" if sys.stderr.isatty() else ""
        print(f"{shown}The API key is in {settings.key_file}.", file=sys.stderr, flush=True)  # noqa: T201
    return True


def _serve(settings: ServiceSettings) -> int:
    application = _application(settings)
    from service.short_way import ShortWay

    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        forwarded_allow_ips=settings.trusted_proxies,
        http=ShortWay,
    )
    try:
        sockets = [_listen(settings)]
    except OSError as error:
        return _refuse(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Set ANNEAL_PORT to another."
        )
    # uvicorn raises the signal again once it has shut down in order; being asked to stop is a success.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets)
    return 0


def _application(settings: ServiceSettings) -> FastAPI:
    """Import and make the application."""
    with lasting():  # a tenth of the time to start, too
        from service.app import create_app

        return create_app(settings)


def _listen(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    # At once: between two programs that have bound an address, the first to listen gets it, and the other must be told.
    listener.listen(BACKLOG)
    return listener


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
