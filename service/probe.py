"""`python -m service.probe`: exit 0 when the API on this machine is ready; the container's health check."""

from __future__ import annotations

import http.client
import sys

from service.settings import ServiceSettings

TIMEOUT_S = 4


def is_ready(settings: ServiceSettings) -> bool:
    """Return whether /readyz answers 200 at the configured port."""
    # Asked under a name that the service answers to: a loopback name need not be among them.
    name = next((name for name in sorted(settings.host_names) if name != "*"), "localhost")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - read, not bound
    connection = http.client.HTTPConnection(host, settings.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz", headers={"Host": name})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(ServiceSettings()) else 1)
