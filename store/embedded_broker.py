"""Celery's broker when no server is installed: a kombu transport in which a message is a file.

A message is written under a temporary name and then renamed, so a reader never sees half of one. A reader
claims it by renaming it into `claimed`: exactly one rename succeeds. There is no lock and no shared table.

Nothing is synced to disk and nothing is delivered again after a crash: the database is the truth, the broker
only nudges, and a nudge that is lost is repeated.

    <directory>/queues/<queue>/ready        messages, named so that they sort in the order of their arrival
                               claimed      messages while they are read
                               quarantine   files that are no messages, kept for a person to look at
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import re
import time
from collections import defaultdict, deque
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem, virtual

POLLING_INTERVAL_S = 0.05  # the longest that a message waits for an idle worker
MESSAGE_LIMIT_BYTES = 1 << 20  # a nudge has a few hundred; whatever is longer is not read into memory
STALE_AFTER_S = 3600.0
BATCH = 1000  # names sorted at a time, so that a large backlog is not listed again for every message

QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it becomes a directory's name
MESSAGE_NAME = re.compile(r"\d{20}-\d{10}-\d{10}\.json")  # time in ns, process, count

logger = logging.getLogger(__name__)
_numbers = itertools.count()


class MalformedMessageError(ValueError):
    """The content is not a Celery task message in JSON."""


def broker_options(directory: Path) -> dict[str, object]:
    """The Celery settings that select this broker, with its files under `directory`/queues."""
    return {
        # kombu takes an import path from `broker_transport` only, never from a URL. The scheme is one that it
        # does not know: alone it fails, instead of choosing the stock transport, which loses messages.
        "broker_url": "embedded://localhost//",
        "broker_transport": "store.embedded_broker:Transport",
        "broker_transport_options": {
            "directory": str(directory.absolute()),
            "polling_interval": POLLING_INTERVAL_S,
        },
    }


def check(message: object) -> None:
    """Raises MalformedMessageError unless `message` is a Celery task (protocol 2) in kombu's envelope."""
    # Whatever kombu and Celery take for granted is asked for: without it they raise in the worker's own loop.
    match message:
        case {
            "body": str(body),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "task": str(),
                "id": str(),
                "shadow": None | str(),
                "timelimit": [None | int() | float(), None | int() | float()],
                "stamped_headers": None | [*_],
            },
            "properties": {
                "delivery_tag": str(),
                "body_encoding": "base64",
                "delivery_info": {"exchange": str(), "routing_key": str()},
            },
        }:
            arguments = json.loads(base64.b64decode(body, validate=True))
        case _:
            raise MalformedMessageError("not the envelope of a Celery task in JSON")
    match arguments:
        case [list(), dict(), dict()]:
            return
    raise MalformedMessageError("the body is not [args, kwargs, embedded]")


def decode(data: bytes) -> dict[str, Any]:
    """The message in a file's bytes; MalformedMessageError if there is none."""
    if len(data) > MESSAGE_LIMIT_BYTES:
        raise MalformedMessageError(f"longer than {MESSAGE_LIMIT_BYTES} bytes")
    try:
        # Plain json: kombu's own loads has a hook that builds objects.
        message: dict[str, Any] = json.loads(data)
        check(message)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(str(error)) from error
    return message


class QueueFolder:
    """One queue's directories; any number of processes may use them at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = path / "ready"
        self.claimed = path / "claimed"
        self.quarantine = path / "quarantine"

    def create(self) -> None:
        """Makes the directories, readable by their owner only."""
        self.path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.path.parent, self.path, self.ready, self.claimed, self.quarantine):
            folder.mkdir(mode=0o700, exist_ok=True)

    def put(self, data: bytes) -> None:
        """Adds a message; OSError if the disk does not take it, and then nothing is left of it."""
        name = f"{time.time_ns():020d}-{os.getpid():010d}-{next(_numbers):010d}.json"
        temporary = self.ready / f"{name}.tmp"
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            temporary.rename(self.ready / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def names(self) -> list[str]:
        """The oldest messages' names, at most BATCH of them, in the order of their arrival."""
        return nsmallest(BATCH, self._messages())

    def _messages(self) -> list[str]:
        with os.scandir(self.ready) as entries:
            return [
                entry.name
                for entry in entries
                if MESSAGE_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]

    def take(self, name: str) -> dict[str, Any] | None:
        """Removes the message `name` and returns it; None if another process has it or it is malformed."""
        claimed = self.claimed / name
        try:
            (self.ready / name).rename(claimed)
        except FileNotFoundError:
            return None
        with claimed.open("rb") as file:
            data = file.read(MESSAGE_LIMIT_BYTES + 1)
        try:
            message = decode(data)
        except MalformedMessageError as error:
            claimed.rename(self.quarantine / name)
            logger.warning("%s is no message and went to quarantine: %s", self.quarantine / name, error)
            return None
        claimed.unlink()
        return message

    def size(self) -> int:
        """The number of messages that wait."""
        return len(self._messages())

    def purge(self) -> int:
        """Removes the messages that wait and returns how many there were."""
        removed = 0
        for name in self._messages():
            with suppress(FileNotFoundError):
                (self.ready / name).unlink()
                removed += 1
        return removed

    def remove_stale(self, age_s: float) -> None:
        """Removes what processes killed in mid-write or mid-read left behind over `age_s` seconds ago."""
        limit = time.time() - age_s
        for path in (*self.ready.glob("*.tmp"), *self.claimed.iterdir()):
            # st_ctime is when the file was claimed: renaming keeps st_mtime. A failure waits for next time.
            with suppress(OSError):
                if path.lstat().st_ctime < limit:
                    path.unlink()


class QoS(virtual.QoS):
    """Bounds the tasks that a worker has in hand, of which kombu counts none."""

    def can_consume(self) -> bool:
        """Whether this process may take another message."""
        # Nothing is acknowledged, so by kombu's count a busy worker may take a message that an
        # idle one could run. Celery's worker_disable_prefetch stops it on Redis only. No worker: empty set.
        from celery.worker.state import reserved_requests

        return super().can_consume() and not 0 < self.prefetch_count <= len(reserved_requests)


class Channel(filesystem.Channel):
    """The stock channel with its way of storing messages replaced."""

    QoS = QoS
    do_restore = False  # a message that ends the worker must not come back and end the next one
    supports_fanout = False  # gossip, mingle and remote control need it; this broker runs without them

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._root = Path(self.transport_options["directory"]) / "queues"
        self._folders: dict[str, QueueFolder] = {}
        self._backlogs: defaultdict[str, deque[str]] = defaultdict(deque)

    def get_table(self, exchange: str) -> Any:
        """The exchange's bindings, from memory: publisher and worker each declare the same direct queue."""
        return virtual.Channel.get_table(self, exchange)

    def _folder(self, queue: str) -> QueueFolder:
        if queue not in self._folders:
            if not QUEUE_NAME.fullmatch(queue):
                raise ChannelError(f"queue name {queue!r} does not match {QUEUE_NAME.pattern}")
            folder = QueueFolder(self._root / queue)
            folder.create()
            # What a killed reader had claimed is not delivered again, because its nudge will be repeated.
            folder.remove_stale(self.transport_options.get("stale_after", STALE_AFTER_S))
            self._folders[queue] = folder
        return self._folders[queue]

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self._folder(queue)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:  # type: ignore[override]  # kombu's two differ
        folder = self._folder(queue)
        check(message)
        data = json.dumps(message).encode()
        if len(data) > MESSAGE_LIMIT_BYTES:
            raise MalformedMessageError(f"longer than {MESSAGE_LIMIT_BYTES} bytes")
        try:
            folder.put(data)
        except FileNotFoundError:  # someone removed the directories
            folder.create()
            folder.put(data)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        folder, backlog = self._folder(queue), self._backlogs[queue]
        while True:
            listed = not backlog
            if listed:
                backlog.extend(folder.names())
            while backlog:
                if (message := folder.take(backlog.popleft())) is not None:
                    return message
            if listed:
                raise Empty

    def _size(self, queue: str) -> int:
        return self._folder(queue).size()

    def _purge(self, queue: str) -> int:
        return self._folder(queue).purge()

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self._purge(queue)


class Transport(filesystem.Transport):
    """The embedded broker as kombu loads it: `broker_transport = "store.embedded_broker:Transport"`."""

    Channel = Channel
    implements = filesystem.Transport.implements.extend(exchange_type=frozenset({"direct", "topic"}))
    global_state = virtual.BrokerState()
    driver_type = driver_name = "embedded"
    # A full or vanished disk is a lost connection: Celery waits and reconnects instead of ending the worker.
    connection_errors = (*filesystem.Transport.connection_errors, OSError)
