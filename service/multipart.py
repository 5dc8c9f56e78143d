"""A multipart form with one file, which goes where it is to be kept as it comes: it is written once, by one who may.

Starlette's own parser spools files to a temporary one first, before anybody has asked for a key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from service.errors import ApiError
from service.streaming import Pour, body_of
from store.incoming import Incoming

MOST_PARTS = 32
FIELD_BYTES = 1 << 20


@dataclass(slots=True)
class Form:
    """What a form had: its fields, and the name of its file if there was one, whose bytes went to `file`."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


async def read_form(request: Request, file: Incoming, name: str = "file") -> Form:
    """Read the body, whose file has this name, to its end; 400 for no form, 422 for a form that no upload has."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    try:
        reader = _Reader(options[b"boundary"], name)
        await _read(reader, body_of(request), file)
    except (KeyError, FormParserError, UnicodeDecodeError):
        raise HTTPException(400) from None
    return reader.form


async def _read(reader: _Reader, body: AsyncIterator[bytes], file: Incoming) -> None:
    async with Pour(file) as pour:
        async for chunk in body:
            reader.feed(chunk)
            for content in reader.take():
                await pour.write(content)
        reader.end()


class _Reader:
    """Turns bytes into fields and pieces of the file."""

    def __init__(self, boundary: bytes, file: str) -> None:
        self.form = Form()
        self._file = file
        self._parts = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._content: list[bytes] = []
        self._delimiter_bytes = len(b"\r\n--") + len(boundary)
        self._bytes_since_cr = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_goes_on,
                "on_part_end": self._part_ends,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        # A delimiter begins with a carriage return. Most pieces of a large file have none, and one byte is found ten
        # times as fast as a delimiter.
        last = chunk.rfind(b"\r")
        if self._is_file and last < 0 and self._bytes_since_cr >= self._delimiter_bytes:
            self._content.append(chunk)
            return
        self._parser.write(chunk)
        self._bytes_since_cr = len(chunk) - last if last >= 0 else self._bytes_since_cr + len(chunk)

    def take(self) -> list[bytes]:
        """Return what has come of the file since this was last asked."""
        content, self._content = self._content, []
        return content

    def end(self) -> None:
        """Check that the form came to its end."""
        self._parser.finalize()
        if not self._parts:
            raise FormParserError("no part")

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _refused(
                f"The form has more than {MOST_PARTS} parts.", "Send one file and the fields that /docs shows."
            )
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._value = bytearray()

    def _header_ends(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise FormParserError("a part without a name")
        self._name = options[b"name"].decode()
        self._is_file = b"filename" in options and self._name == self._file
        if self._name in self.form.fields or (self._is_file and self.form.filename is not None):
            raise _refused(f'The form has "{self._name[:80]}" twice.', "Send it once.", self._name[:80])
        if self._is_file:
            self.form.filename = options[b"filename"].decode() or "upload"

    def _part_goes_on(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._content.append(data[start:end])
            return
        if len(self._value) + end - start > FIELD_BYTES:
            message = f'The field "{self._name[:80]}" is longer than {FIELD_BYTES} bytes.'
            raise _refused(message, f'Send a file as the part "{self._file}", with a filename.', self._name[:80])
        self._value += data[start:end]

    def _part_ends(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode()
        self._is_file = False


def _refused(message: str, hint: str, param: str | None = None) -> ApiError:
    return ApiError(422, "invalid_request", message, hint=hint, param=param)
