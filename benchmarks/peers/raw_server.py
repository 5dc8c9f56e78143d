"""The least that uvicorn can do: reads a body, answers with so many bytes. python raw_server.py PORT CORE BYTES."""

import os
import sys
from typing import Any

import uvicorn

os.sched_setaffinity(0, {int(sys.argv[2])})
BODY = b"x" * int(sys.argv[3])
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
