"""The embedded broker with real processes: kombu publishers and consumers, and real Celery workers."""

from __future__ import annotations

import base64
import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer
from kombu.exceptions import ChannelError

from store.embedded_broker import BATCH, MESSAGE_LIMIT_BYTES, MalformedMessageError, broker_options

QUEUE = "jobs"

TINY_APP = """
import os, sys, time
from pathlib import Path
from celery import Celery
from store.embedded_broker import broker_options

app = Celery("tiny")
app.conf.update(
    broker_options(Path(sys.path[0])), task_default_queue="jobs", accept_content=["json"],
    worker_enable_remote_control=False, worker_prefetch_multiplier=1,
)

@app.task(name="note", ignore_result=True)
def note(path, seconds=0.0):
    Path(path).write_text(str(os.getppid()))
    time.sleep(seconds)
"""


def application(directory: Path, **options: object) -> Celery:
    app = Celery("publisher", set_as_current=False)
    settings = broker_options(directory)
    settings["broker_transport_options"] = {**settings["broker_transport_options"], **options}  # type: ignore[dict-item]
    app.conf.update(settings, task_default_queue=QUEUE)
    return app


def publish(directory: Path, first: int, last: int) -> None:
    with application(directory) as app, app.connection_for_write() as connection:
        for number in range(first, last):
            app.send_task("note", [number], connection=connection)


@contextmanager
def consumer(directory: Path, received: list[Any]) -> Iterator[Connection]:
    with application(directory) as app, app.connection_for_read() as connection:

        def on_message(body: list[Any], message: Any) -> None:
            received.append(body[0][0])
            message.ack()

        with Consumer(connection, [app.amqp.queues[QUEUE]], callbacks=[on_message], accept=["json"]):
            yield connection


def consume(directory: Path, until: Path | None = None) -> list[Any]:
    """All messages until there is none left and the file `until` exists."""
    received: list[Any] = []
    with consumer(directory, received) as connection:
        while True:
            try:
                connection.drain_events(timeout=0.2)
            except TimeoutError:
                if until is None or until.exists():
                    return received


def publish_to_a_full_disk(directory: Path) -> str:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        publish(directory, 0, 1)
    except Exception as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "published"


def folder(directory: Path, name: str) -> Path:
    return directory / "queues" / QUEUE / name


def names(directory: Path, name: str) -> list[str]:
    return sorted(path.name for path in folder(directory, name).iterdir())


def plant(directory: Path, content: bytes, number: int = 0) -> str:
    """Puts a file among the messages, before all of them, as a process that writes carelessly would."""
    name = f"{number:020d}-{0:010d}-{0:010d}.json"
    (folder(directory, "ready") / name).write_bytes(content)
    return name


def good_message(directory: Path) -> dict[str, Any]:
    """A message as Celery publishes it, removed from the queue."""
    publish(directory, 0, 1)
    (path,) = folder(directory, "ready").iterdir()
    message: dict[str, Any] = json.loads(path.read_bytes())
    path.unlink()
    return message


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        yield pool


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def encoded(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def bad_contents(good: dict[str, Any], bomb: Path) -> dict[str, bytes]:
    headers, properties, whole = good["headers"], good["properties"], json.dumps(good).encode()
    pickled = base64.b64encode(pickle.dumps(Bomb(bomb))).decode()
    wrong: dict[str, object] = {
        "a list": [],
        "a string": "text",
        "null": None,
        "no properties": {key: value for key, value in good.items() if key != "properties"},
        "no delivery tag": {**good, "properties": {**properties, "delivery_tag": None}},
        "no routing key": {**good, "properties": {**properties, "delivery_info": {}}},
        "unknown body encoding": {**good, "properties": {**properties, "body_encoding": "rot13"}},
        "headers are a list": {**good, "headers": []},
        "task is a list": {**good, "headers": {**headers, "task": ["note"]}},
        "no id": {**good, "headers": {key: value for key, value in headers.items() if key != "id"}},
        "time limit is a number": {**good, "headers": {**headers, "timelimit": 5}},
        "body is a number": {**good, "body": 5},
        "body is not base64": {**good, "body": "%%%"},
        "body is not JSON": {**good, "body": base64.b64encode(b"{").decode()},
        "body is no argument list": {**good, "body": encoded({"task": "note"})},
        "pickle": {**good, "content-type": "application/x-python-serialize", "body": pickled},
        "pickle that says it is JSON": {**good, "body": pickled},
    }
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "not text": b"\xff\xfe\x00\x80",
        "nested too deeply": b"[" * 200_000,
        "too long": whole + b" " * MESSAGE_LIMIT_BYTES,
        **{name: json.dumps(content).encode() for name, content in wrong.items()},
    }


def test_messages_pass_between_processes_in_their_order(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    for first in (0, 10, 20):
        processes.submit(publish, tmp_path, first, first + 10).result()
    assert consume(tmp_path) == list(range(30))
    assert names(tmp_path, "ready") == names(tmp_path, "claimed") == names(tmp_path, "quarantine") == []


def test_a_backlog_longer_than_one_listing_keeps_its_order(tmp_path: Path) -> None:
    publish(tmp_path, 0, BATCH + 100)
    assert consume(tmp_path) == list(range(BATCH + 100))


def test_a_race_of_four_processes_loses_nothing_and_delivers_nothing_twice(
    tmp_path: Path, processes: ProcessPoolExecutor
) -> None:
    finished = tmp_path / "finished"
    consumers = [processes.submit(consume, tmp_path, finished) for _ in range(2)]
    producers = [processes.submit(publish, tmp_path, first, first + 2250) for first in (0, 2250)]
    for producer in producers:
        producer.result()
    finished.touch()
    shares = [consumer.result() for consumer in consumers]
    assert sorted(shares[0] + shares[1]) == list(range(4500))
    assert all(shares), "both consumers had a part"
    assert names(tmp_path, "ready") == names(tmp_path, "claimed") == names(tmp_path, "quarantine") == []


def test_bad_files_go_to_quarantine_and_later_messages_arrive(tmp_path: Path) -> None:
    contents = bad_contents(good_message(tmp_path), tmp_path / "bomb")
    planted = [plant(tmp_path, content, number) for number, content in enumerate(contents.values())]
    publish(tmp_path, 0, 3)
    assert consume(tmp_path) == [0, 1, 2]
    assert names(tmp_path, "quarantine") == planted
    assert not (tmp_path / "bomb").exists(), "nothing was unpickled"
    assert names(tmp_path, "ready") == names(tmp_path, "claimed") == []


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    ready = folder(tmp_path, "ready")
    (ready / ".DS_Store").write_bytes(b"\x00")
    (ready / "notes.json").write_text("{}")
    (ready / f"{1:020d}-{0:010d}-{0:010d}.json").mkdir()
    (ready / f"{2:020d}-{0:010d}-{0:010d}.json").symlink_to("/etc/hostname")
    os.mkfifo(ready / f"{3:020d}-{0:010d}-{0:010d}.json")
    before = names(tmp_path, "ready")
    assert consume(tmp_path) == [0]
    assert len(names(tmp_path, "ready")) == len(before) - 1
    assert names(tmp_path, "quarantine") == []


def test_objects_in_a_message_stay_plain_json(tmp_path: Path) -> None:
    message = good_message(tmp_path)
    marked = {"__type__": "uuid", "__value__": {"hex": "0" * 32}}
    plant(tmp_path, json.dumps({**message, "headers": {**message["headers"], "origin": marked}}).encode())
    with application(tmp_path) as app, app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        received = channel.basic_get(QUEUE)
    assert received.headers["origin"] == marked


def test_a_message_comes_back_only_when_it_is_asked_for(tmp_path: Path) -> None:
    publish(tmp_path, 0, 2)
    with application(tmp_path) as app, app.connection_for_read() as connection:
        queue: Any = app.amqp.queues[QUEUE](connection.default_channel)
        queue.declare()
        queue.get()  # never acknowledged, as by a worker that the message has ended
        queue.get().requeue()
    assert consume(tmp_path) == [1]


def test_files_and_directories_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        publish(tmp_path / "data", 0, 1)
    finally:
        os.umask(before)
    paths = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert len(modes) == 7
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_size_and_purge_count_messages_only(tmp_path: Path) -> None:
    publish(tmp_path, 0, 5)
    (folder(tmp_path, "ready") / ".DS_Store").touch()
    with application(tmp_path) as app, app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        assert channel.queue_declare(QUEUE).message_count == 5
        assert channel.queue_purge(QUEUE) == 5
        assert channel.queue_declare(QUEUE).message_count == 0
    assert names(tmp_path, "ready") == [".DS_Store"]


@pytest.mark.parametrize("name", ["..", "../jobs", "a/b", ".hidden", "x" * 101, "a\n", "job s"])
def test_a_queue_name_that_is_no_directory_name_is_refused(tmp_path: Path, name: str) -> None:
    with application(tmp_path) as app, app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        with pytest.raises(ChannelError, match="queue name"):
            channel.queue_declare(name)
        with pytest.raises(ChannelError, match="queue name"):
            connection.Producer().publish([], routing_key=name)
    assert list(tmp_path.rglob("*.json")) == []


def test_what_would_end_in_quarantine_is_refused_when_it_is_published(tmp_path: Path) -> None:
    with application(tmp_path) as app, app.connection_for_write() as connection:
        with pytest.raises(MalformedMessageError, match="JSON"):
            app.send_task("note", [1], serializer="pickle", connection=connection)
        with pytest.raises(MalformedMessageError, match="longer"):
            app.send_task("note", ["x" * MESSAGE_LIMIT_BYTES], connection=connection)
        with pytest.raises(MalformedMessageError, match="envelope"):
            connection.Producer().publish({"no": "task"}, routing_key=QUEUE)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(
    tmp_path: Path, processes: ProcessPoolExecutor
) -> None:
    assert "File too large" in processes.submit(publish_to_a_full_disk, tmp_path).result()
    assert names(tmp_path, "ready") == []


def test_leftovers_of_killed_processes_are_removed_when_they_are_old(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    leftovers = [folder(tmp_path, "claimed") / "1.json", folder(tmp_path, "ready") / "1.json.tmp"]
    for path in leftovers:
        path.write_text("half")
    publish(tmp_path, 1, 2)
    assert all(path.exists() for path in leftovers), "they may belong to a living process"
    time.sleep(0.1)
    with application(tmp_path, stale_after=0.05) as app, app.connection_for_write() as connection:
        app.send_task("note", [2], connection=connection)
    assert not any(path.exists() for path in leftovers)
    assert consume(tmp_path) == [0, 1, 2]


def test_without_its_transport_setting_the_url_selects_nothing(tmp_path: Path) -> None:
    url = str(broker_options(tmp_path)["broker_url"])
    with pytest.raises(KeyError, match="No such transport"):
        Connection(url)


def start_worker(directory: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", "tiny", "worker", "-P", "prefork", "-c", "1", "-n", name]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    with (directory / f"{name}.log").open("wb") as log:
        return subprocess.Popen([*command, *quiet], cwd=directory, env=environment, stdout=log, stderr=log)


@contextmanager
def workers(directory: Path, *names: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    (directory / "tiny.py").write_text(TINY_APP)
    running = {name: start_worker(directory, name) for name in names}
    try:
        for name in names:
            log = directory / f"{name}.log"
            eventually(lambda name=name, log=log: f"{name} ready" in log.read_text())  # type: ignore[misc]
        yield list(running.values())
        for process in running.values():
            process.terminate()
        assert [process.wait(20) for process in running.values()] == [0] * len(names)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def test_a_celery_worker_runs_tasks_and_survives_bad_files(tmp_path: Path) -> None:
    with workers(tmp_path, "one@test") as (process,), application(tmp_path) as app:
        app.send_task("note", [str(tmp_path / "first")])
        eventually((tmp_path / "first").exists)
        contents = bad_contents(good_message(tmp_path / "other"), tmp_path / "bomb")
        planted = [plant(tmp_path, content, number) for number, content in enumerate(contents.values())]
        app.send_task("note", [str(tmp_path / "second")])
        eventually((tmp_path / "second").exists)
        assert names(tmp_path, "quarantine") == planted
        assert process.poll() is None
        (tmp_path / "queues").rename(tmp_path / "lost")
        eventually(folder(tmp_path, "ready").exists)  # the worker has connected again
        app.send_task("note", [str(tmp_path / "third")])
        eventually((tmp_path / "third").exists)
    assert [path.name for path in (tmp_path / "queues").iterdir()] == [QUEUE]
    assert not (tmp_path / "bomb").exists()


def test_a_busy_worker_leaves_the_next_message_to_an_idle_one(tmp_path: Path) -> None:
    with workers(tmp_path, "one@test", "two@test"), application(tmp_path) as app:
        for number in range(3):
            busy, idle = tmp_path / f"busy{number}", tmp_path / f"idle{number}"
            app.send_task("note", [str(busy), 2.0])
            eventually(busy.exists)
            time.sleep(0.2)
            app.send_task("note", [str(idle)])
            eventually(idle.exists)
            time.sleep(2.0)
            assert busy.read_text() != idle.read_text()
