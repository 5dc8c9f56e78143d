"""The Range header: what is no range, or lies beyond the file, is a problem like any other."""

from __future__ import annotations

import re

from fastapi import Request

from service.errors import ApiError

_RANGE = re.compile(r"\s*(?:(?P<first>[0-9]{1,19})\s*-\s*(?P<last>[0-9]{1,19})?|-\s*(?P<suffix>[0-9]{1,19}))\s*")
_MOST_RANGES = 100  # Starlette sends the whole file when more are asked for


def check_range(request: Request, size: int) -> None:
    """Raise 400 for a Range that cannot be read and 416 for one beyond a file of so many bytes."""
    header = request.headers.get("range")
    if header is None or "if-range" in request.headers or header.count(",") >= _MOST_RANGES:
        return
    unit, _, asked = header.partition("=")
    ranges = [_RANGE.fullmatch(one) for one in asked.split(",")]
    if unit.strip().lower() != "bytes" or not all(ranges):
        raise _unreadable(header)
    for one in ranges:
        assert one is not None
        first, last, suffix = (int(text) if text else None for text in one.group("first", "last", "suffix"))
        if first is not None and last is not None and last < first:
            raise _unreadable(header)
        if (first is not None and first >= size) or suffix == 0:
            raise ApiError(
                416,
                "range_not_satisfiable",
                f'The range "{header[:80]}" is not within the file\'s {size} bytes.',
                hint=f"Ask for bytes 0 to {size - 1}.",
                param="Range",
                headers={"Content-Range": f"bytes */{size}"},
            )


def _unreadable(header: str) -> ApiError:
    return ApiError(
        400,
        "invalid_request",
        f'The range "{header[:80]}" cannot be read.',
        hint='Write it like "bytes=0-99", or leave it out.',
        param="Range",
    )
