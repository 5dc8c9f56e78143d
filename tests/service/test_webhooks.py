"""Webhooks, from a real receiver's side: signed, repeated, logged, and nobody waits for a dead one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Stack
from support import TRAIN, classify, problem, stack_database, submit, succeeded, upload, wait_until

from service.deliveries import Refused, checked_address
from store import ids, webhooks
from store.database import database_now
from store.records import DeliveryRecord


class Receiver:
    """A server that keeps what it is sent, and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.hold.wait(20)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["embedded", "production"])
def open_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The product, on each column, with receivers on this machine allowed."""
    stack = Stack(tmp_path_factory.mktemp("webhooks"), {"ANNEAL_WEBHOOK_PRIVATE_ADDRESSES": "true"})
    if request.param == "production":
        create: Callable[[], str] = request.getfixturevalue("new_postgres_url")
        stack.environment["ANNEAL_DATABASE_URL"] = create()
        stack.environment["ANNEAL_BROKER_URL"] = request.getfixturevalue("redis_url").removesuffix("/0") + "/3"
    try:
        yield stack.up()
    finally:
        stack.down()


@pytest.fixture
def hooks(open_stack: Stack) -> Iterator[httpx.Client]:
    with open_stack.client() as opened:
        yield opened
        for webhook in opened.get("/webhooks").json()["data"]:
            assert opened.delete(f"/webhooks/{webhook['id']}").status_code == 204


def create(api: httpx.Client, url: str, **more: Any) -> dict[str, Any]:
    made = api.post("/webhooks", json={"url": url, **more})
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify as the specification tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and f"v1,{wanted}" in headers["webhook-signature"].split(" ")


def deliveries(api: httpx.Client, webhook_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/webhooks/{webhook_id}/deliveries").json()["data"]
    return found


def hurry(stack: Stack) -> None:
    """Let every wait for another try be over."""
    database = stack_database(stack)
    with database.write() as session:
        for delivery in session.query(DeliveryRecord).where(DeliveryRecord.next_at.is_not(None)):
            delivery.next_at = session.scalar(database_now().select())
    database.close()


def test_told_of_everything_once(hooks: httpx.Client, receiver: Receiver) -> None:
    webhook = create(hooks, receiver.url)
    assert webhook["secret"].startswith("whsec_")
    assert hooks.get(f"/webhooks/{webhook['id']}").json()["secret"] is None
    rows = str(upload(hooks, TRAIN)["id"])
    job = succeeded(hooks, submit(hooks, classify(rows, metadata={"order": 7}, output={"model": "told"})))
    wanted = {"dataset.ready", "job.queued", "job.running", "job.succeeded", "model.version_created"}
    wait_until(lambda: set(receiver.types()) == wanted, 20)
    wait_until(lambda: {entry["status"] for entry in deliveries(hooks, webhook["id"])} == {"delivered"}, 10)
    assert len(receiver.got) == len(wanted) == len({headers["webhook-id"] for headers, _ in receiver.got})
    assert all(verified(webhook["secret"], headers, body) for headers, body in receiver.got)
    (ended,) = (json.loads(body) for _, body in receiver.got if b'"job.succeeded"' in body)
    assert ended["data"]["id"] == job["id"]
    assert (ended["data"]["status"], ended["data"]["metadata"]) == ("succeeded", {"order": 7})
    assert not hmac.compare_digest(receiver.got[0][0]["webhook-signature"], "")


def test_only_what_was_asked_for(hooks: httpx.Client, receiver: Receiver) -> None:
    webhook = create(hooks, receiver.url, events=["dataset.invalid"])
    upload(hooks, "a,b\n1,2\n3\n", "broken.csv")
    wait_until(lambda: receiver.types() == ["dataset.invalid"], 20)
    hooks.patch(f"/webhooks/{webhook['id']}", json={"enabled": False})
    upload(hooks, "a,b\n1,2\n4\n", "broken2.csv")
    time.sleep(1.5)
    assert receiver.types() == ["dataset.invalid"]


def test_tried_again_until_it_is_taken(hooks: httpx.Client, open_stack: Stack, receiver: Receiver) -> None:
    webhook = create(hooks, receiver.url)
    receiver.status = 500
    delivery_id = hooks.post(f"/webhooks/{webhook['id']}/test").json()["id"]
    wait_until(lambda: deliveries(hooks, webhook["id"])[0]["last_status"] == 500, 10)
    (failed,) = deliveries(hooks, webhook["id"])
    assert (failed["status"], failed["attempts"]) == ("pending", 1)
    assert failed["next_at"] > failed["created_at"]
    receiver.status = 200
    hurry(open_stack)
    wait_until(lambda: deliveries(hooks, webhook["id"])[0]["status"] == "delivered", 10)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [delivery_id] * 2
    again = hooks.post(f"/webhooks/{webhook['id']}/deliveries/{delivery_id}/redeliver")
    assert again.status_code == 202
    wait_until(lambda: len(receiver.got) == 3, 10)
    problem(hooks.post(f"/webhooks/{webhook['id']}/deliveries/msg_none/redeliver"), 404, "not_found")


def test_a_receiver_that_is_gone(hooks: httpx.Client, receiver: Receiver) -> None:
    webhook = create(hooks, receiver.url)
    receiver.status = 410
    hooks.post(f"/webhooks/{webhook['id']}/test")
    wait_until(lambda: not hooks.get(f"/webhooks/{webhook['id']}").json()["enabled"], 10)
    assert deliveries(hooks, webhook["id"])[0]["status"] == "failed"


def test_a_secret_is_rotated(hooks: httpx.Client, receiver: Receiver) -> None:
    webhook = create(hooks, receiver.url)
    rotated = hooks.post(f"/webhooks/{webhook['id']}/rotate").json()
    assert rotated["secret"] != webhook["secret"]
    hooks.post(f"/webhooks/{webhook['id']}/test")
    wait_until(lambda: receiver.got, 10)
    assert all(verified(secret, *receiver.got[0]) for secret in (webhook["secret"], rotated["secret"]))
    assert not verified("whsec_" + base64.b64encode(b"x" * 32).decode(), *receiver.got[0])


def test_a_dead_receiver_delays_nobody(hooks: httpx.Client, receiver: Receiver) -> None:
    """It takes connections and never answers; jobs and other receivers go on as if it were not there."""
    dead = Receiver()
    dead.hold.clear()
    try:
        stuck = create(hooks, dead.url)
        for _ in range(10):
            hooks.post(f"/webhooks/{stuck['id']}/test")
        wait_until(lambda: len(dead.got) >= 2, 10)
        webhook = create(hooks, receiver.url)
        began = time.monotonic()
        hooks.post(f"/webhooks/{webhook['id']}/test")
        wait_until(lambda: receiver.got, 5)
        assert time.monotonic() - began < 3
        assert len(dead.got) == 2  # no more of its deliveries are under way at once
        rows = str(upload(hooks, TRAIN)["id"])
        succeeded(hooks, submit(hooks, classify(rows)))
    finally:
        dead.close()


def test_addresses_inside_are_refused(running: httpx.Client) -> None:
    """By default: what only this server can reach is not for its callers to reach through it."""
    for url in ("http://127.0.0.1:9/", "http://localhost/x", "http://[::1]/", "http://169.254.169.254/latest"):
        body = problem(running.post("/webhooks", json={"url": url}), 422, "refused_address")
        assert "private address" in body["detail"]
    for url in ("ftp://example.org/", "http://", "https://user:secret@example.org/"):
        problem(running.post("/webhooks", json={"url": url}), 422, "invalid_request")
    problem(running.post("/webhooks", json={"url": "http://10.0.0.1/", "events": ["job.lost"]}), 422, "invalid_request")
    problem(running.get("/webhooks/whk_none"), 404, "not_found")


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.1", "172.16.0.1", "::ffff:127.0.0.1", "fd00::1", "0.0.0.0"])
def test_private_addresses(address: str, tmp_path: Path) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Refused):
        checked_address(f"http://{host}/", private_addresses=False)
    assert checked_address(f"http://{host}/", private_addresses=True)


def test_what_is_old_is_forgotten(open_stack: Stack, hooks: httpx.Client) -> None:
    webhook = create(hooks, "http://127.0.0.1:9/")
    hooks.post(f"/webhooks/{webhook['id']}/test")
    database = stack_database(open_stack)
    with database.write() as session:
        webhooks.forget_old(session)
    assert len(deliveries(hooks, webhook["id"])) == 1
    with database.write() as session:
        old = ids.earliest_id(ids.DELIVERY, time.time() - webhooks.KEPT_S - 60) + "0" * 16
        session.add(DeliveryRecord(id=old, webhook_id=webhook["id"], event="webhook.test", data={}))
    with database.write() as session:
        webhooks.forget_old(session)
        assert session.get(DeliveryRecord, old) is None
    database.close()
    assert len(deliveries(hooks, webhook["id"])) == 1
