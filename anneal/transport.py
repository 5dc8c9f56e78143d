"""The one way to the service: key, base URL, retries, errors."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from anneal.errors import AnnealError, ConnectionFailed, Unauthorized, from_problem
from anneal.retry import RetryPolicy, is_retryable, retry_after_s

PREFIX = "/api/v1"
# Nothing has ever answered at this address: most likely nothing runs there, so say so soon.
FIRST_CONTACT_RETRIES = 2


class Transport:
    """Sends requests to one service and turns what goes wrong into typed errors; timeouts in seconds."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.url = checked_url(url)
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            # It cannot be a header, and what httpx says of it shows the key.
            raise AnnealError(
                "The API key holds a line break or a character that no key has. Set ANNEAL_API_KEY, or api_key, "
                "to one key, without quotes or spaces."
            )
        self.timeout_s = timeout_s
        self.policy = policy or RetryPolicy()
        self._has_key = api_key is not None
        self._was_reached = False
        # A proxy of the environment has no business between a client and its own machine.
        self._http = httpx.Client(
            base_url=self.url + PREFIX,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout_s,
            trust_env=not is_loopback(self.url),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the answer's JSON; options as for `request`."""
        return self.request(method, path, **options).json()

    def request(self, method: str, path: str, *, policy: RetryPolicy | None = None, **options: Any) -> httpx.Response:
        """Send a request, trying again where that can help, and return a 2xx or 304 answer.

        One Idempotency-Key covers all tries of a POST, so that a lost answer does not make a second job.
        """
        policy = policy or self.policy
        options["headers"] = self._headers(method, options.pop("headers", None))
        attempt = 0
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if attempt >= self._allowed_retries(error, policy):
                    raise self._unreachable(error) from error
                wanted = None
            else:
                self._was_reached = True
                if response.is_success or response.status_code == 304:
                    return response
                if attempt >= policy.retries or not is_retryable(response.status_code, response.headers):
                    raise self._refused(response)
                wanted = retry_after_s(response.headers)
            time.sleep(policy.pause_s(attempt, wanted))
            attempt += 1

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Open a GET whose body is read as it comes; no retries: the caller knows where to go on."""
        try:
            with self._http.stream("GET", path, **options) as response:
                self._was_reached = True
                if not response.is_success:
                    response.read()
                    raise self._refused(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def download(self, path: str, target: Path) -> Path:
        """Save the body at `path` as the file `target`, which appears only when it is complete."""
        if not target.parent.is_dir():
            raise AnnealError(f"There is no folder {target.parent} to save {target.name} in. Make it, or name another.")
        part = target.with_name(target.name + ".part")
        try:
            with self.stream(path) as response, part.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _headers(self, method: str, given: dict[str, str] | None) -> dict[str, str]:
        key = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        return {**key, **(given or {})}

    def _allowed_retries(self, error: httpx.TransportError, policy: RetryPolicy) -> int:
        if isinstance(error, httpx.UnsupportedProtocol):
            return 0
        return policy.retries if self._was_reached else min(FIRST_CONTACT_RETRIES, policy.retries)

    def _unreachable(self, error: httpx.TransportError) -> ConnectionFailed:
        if isinstance(error, httpx.TimeoutException):
            return ConnectionFailed(f"{self.url} did not answer within {self.timeout_s:g} s.")
        return ConnectionFailed(
            f"Cannot reach the service at {self.url}: {error}\n"
            "Start one with `anneal up`, or name another address with --url or ANNEAL_URL."
        )

    def _refused(self, response: httpx.Response) -> AnnealError:
        error = from_problem(response.status_code, problem_of(response))
        if isinstance(error, Unauthorized) and not self._has_key:
            hint = "No API key was sent: set ANNEAL_API_KEY, or pass api_key to the Client."
            return Unauthorized(f"{error}\n{hint}", status=error.status, problem=error.problem)
        return error


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """Return an error answer's problem body, or the nearest to one that a proxy's answer allows."""
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict):
        return body
    return {"detail": f"{response.request.url} answered {response.status_code} {response.reason_phrase}."}


def checked_url(url: str) -> str:
    """Return a service's address without its trailing slash; raise AnnealError when it is not http(s)."""
    try:
        parts = urlsplit(url)
        is_address = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:  # half of an IPv6 address, a port that is none
        is_address = False
    if not is_address:
        raise AnnealError(f'"{url}" is not the address of a service. Write it like http://127.0.0.1:8000.')
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Say whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
