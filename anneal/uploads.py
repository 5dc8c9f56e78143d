"""Large files in parts: what has arrived stays, and the same call again goes on from there."""

import hashlib
from pathlib import Path
from typing import Any

from anneal.errors import ConnectionFailed
from anneal.retry import RetryPolicy
from anneal.transport import Transport
from anneal.upload import UploadCallback

PARTS_ABOVE = 64 << 20
# A line that breaks, or a service that restarts, is waited for: about a minute and a half.
PATIENT = RetryPolicy(retries=14)
_SLOWEST_JOIN = 10e6  # bytes a second, while the service joins the parts


def upload_in_parts(transport: Transport, file: Path, callback: UploadCallback | None) -> str:
    """Send what the service does not have yet of a file, and return the id of its completed upload.

    An open upload of a file with this name, size and digest is gone on with, whoever began it. Memory: one part.
    """
    with file.open("rb") as opened:
        asked = {
            "filename": file.name,
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }
    upload = _open_or_new(transport, asked)
    missing: list[int] = upload["missing_parts"]
    try:
        _send(transport, file, upload, callback)
        if upload["status"] == "open":
            _complete(transport, upload)
    except ConnectionFailed as error:
        arrived = f"{upload['parts'] - len(missing)} of {upload['parts']} parts"
        raise ConnectionFailed(
            f"{error}\nUpload {upload['id']} keeps the {arrived} that arrived, until {upload['expires_at']} or later; "
            "the same call again goes on from there."
        ) from error
    return str(upload["id"])


def _open_or_new(transport: Transport, asked: dict[str, Any]) -> dict[str, Any]:
    found = transport.json("GET", "/uploads", params={**asked, "status": "open", "limit": 1}, policy=PATIENT)["data"]
    upload: dict[str, Any] = found[0] if found else transport.json("POST", "/uploads", json=asked, policy=PATIENT)
    return upload


def _send(transport: Transport, file: Path, upload: dict[str, Any], callback: UploadCallback | None) -> None:
    sent, missing = upload["received_bytes"], upload["missing_parts"]
    if callback:
        callback(sent, upload["bytes"])
    with file.open("rb") as opened:
        while missing:
            opened.seek((missing[0] - 1) * upload["part_bytes"])
            part = opened.read(upload["part_bytes"])
            # Bytes, not a stream: every try has to send the same.
            transport.request("PUT", f"/uploads/{upload['id']}/parts/{missing[0]}", content=part, policy=PATIENT)
            del missing[0]
            sent += len(part)
            if callback:
                callback(sent, upload["bytes"])


def _complete(transport: Transport, upload: dict[str, Any]) -> None:
    timeout = transport.timeout_s + upload["bytes"] / _SLOWEST_JOIN
    transport.request("POST", f"/uploads/{upload['id']}/complete", timeout=timeout, policy=PATIENT)
