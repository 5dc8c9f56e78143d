"""An error in the form that a path's protocol has for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def _sentence(body: dict[str, Any]) -> str:
    return " ".join(filter(None, (body["detail"], body["hint"])))


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {"error": _sentence(body)}


def _openai(body: dict[str, Any]) -> dict[str, Any]:
    kind = "server_error" if body["status"] >= 500 else _OPENAI_TYPES.get(body["status"], "invalid_request_error")
    return {"error": {"message": _sentence(body), "type": kind, "param": body["param"], "code": body["code"]}}


# By prefix, what writes an error where other protocols than the native one are spoken.
FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"/v1": _openai, "/v2": _plain, "/hf": _plain}


def written(path: str, body: dict[str, Any]) -> tuple[str, str]:
    """Return a problem in the form of the path's protocol, and its content type."""
    for prefix, form in FORMS.items():
        if path == prefix or path.startswith(prefix + "/"):
            return json.dumps(form(body)), "application/json"
    return json.dumps(body), "application/problem+json"
