"""Sends webhooks: signed as Standard Webhooks says, apart from everything else, and never to a private address.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.times import rfc3339
from store import webhooks
from store.database import Database
from store.records import DeliveryRecord
from store.webhooks import SECRET_PREFIX, Sending

log = structlog.get_logger(__name__)

LOOK_S = 0.5
THREADS = 8
# Of these, so many for one receiver: one that never answers delays no other.
THREADS_EACH = 2
TIMEOUT_S = 10.0


class Refused(Exception):
    """An address that nothing is sent to."""


class Deliverer:
    """A thread that looks for what is due, and some that send; any number of processes may do this at once."""

    def __init__(self, database: Database, *, private_addresses: bool) -> None:
        self._database = database
        self._private = private_addresses
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(THREADS, "webhook")
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is being sent is sent again by whoever comes next, unless it gets through."""
        self._stopping.set()
        self._thread.join(timeout=5)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self._start_what_is_due()
            except SQLAlchemyError as error:
                log.warning("could not look for deliveries; will try again", error=str(error))

    def _start_what_is_due(self) -> None:
        with self._database.read() as session:
            if not webhooks.anything_due(session):
                return
        while self._under_way.total() < THREADS:
            with self._lock:
                busy = [webhook_id for webhook_id, count in self._under_way.items() if count >= THREADS_EACH]
            with self._database.write() as session:
                sending = webhooks.next_due(session, busy)
            if sending is None:
                return
            with self._lock:
                self._under_way[sending.delivery.webhook_id] += 1
            self._pool.submit(self._send, sending)

    def _send(self, sending: Sending) -> None:
        try:
            self._deliver(sending)
        except SQLAlchemyError as error:
            log.warning("could not note a delivery; it will be sent again", error=str(error))
        finally:
            with self._lock:
                self._under_way[sending.delivery.webhook_id] -= 1
                self._under_way += Counter()  # forget those at zero

    def _deliver(self, sending: Sending) -> None:
        try:
            response = self._post(sending)
        except (httpx.HTTPError, OSError, Refused) as error:
            with self._database.write() as session:
                webhooks.not_delivered(session, sending, f"{type(error).__name__}: {error}")
            return
        with self._database.write() as session:
            if response.is_success:
                webhooks.delivered(session, sending.delivery.id, response.status_code)
                return
            error_text = f"The receiver answered {response.status_code}."
            wait_s = _retry_after_s(response)
            webhooks.not_delivered(session, sending, error_text, status=response.status_code, wait_s=wait_s)
            if response.status_code == httpx.codes.GONE:
                webhooks.disable(session, sending.delivery.webhook_id)

    def _post(self, sending: Sending) -> httpx.Response:
        body = payload(sending.delivery)
        sent_at = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Anneal-Webhooks",
            "webhook-id": sending.delivery.id,
            "webhook-timestamp": sent_at,
            "webhook-signature": signature(sending.secrets, sending.delivery.id, sent_at, body),
        }
        address = checked_address(sending.url, private_addresses=self._private)
        url = httpx.URL(sending.url)
        # To the very address that was checked: a name may point elsewhere when it is asked for again.
        pinned = url.copy_with(host=address)
        with self._client.stream(
            "POST",
            pinned,
            content=body,
            headers={**headers, "Host": url.netloc.decode()},
            extensions={"sni_hostname": url.host},
        ) as response:
            return response  # its body is nobody's business, however long it is


def payload(delivery: DeliveryRecord) -> bytes:
    """Return the body: type, timestamp of what happened, data."""
    what = {"type": delivery.event, "timestamp": rfc3339(delivery.created_at), "data": delivery.data}
    return json.dumps(what, separators=(",", ":")).encode()


def signature(secrets: tuple[str, ...], delivery_id: str, timestamp: str, body: bytes) -> str:
    """Return the header's value: a signature by each secret that is valid."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in secrets]
    digests = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return " ".join(f"v1,{digest}" for digest in digests)


def checked_address(url: str, *, private_addresses: bool) -> str:
    """Return an address of the URL's host; Refused when any of them is not a public one and only those are allowed."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"{parts.hostname} has no address: {error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    inside = [address for address in addresses if not ipaddress.ip_address(address).is_global]
    if inside and not private_addresses:
        raise Refused(f"{parts.hostname} is {inside[0]}, a private address; ANNEAL_WEBHOOK_PRIVATE_ADDRESSES allows it")
    return addresses[0]


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(float(response.headers.get("retry-after", 0)), 86_400.0)
    except ValueError:
        return 0.0
