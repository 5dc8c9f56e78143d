"""A form's file comes out as it went in, wherever the network cuts it."""

import asyncio
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st

from service.multipart import Form, read_form
from store.incoming import receiving

BOUNDARY = "--cut"
# What delimiters are made of, so that many pieces look like the beginning of one.
CONTENT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"-", b"--cu", b"--cut", b"\r\n----cu", b"a" * 40])).map(
    b"".join
)


def form_of(content: bytes) -> bytes:
    file = b'Content-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + content
    field = b'Content-Disposition: form-data; name="name"\r\n\r\nrows'
    delimiter = f"--{BOUNDARY}".encode()
    return b"\r\n".join([delimiter, file]) + b"\r\n" + b"\r\n".join([delimiter, field, delimiter + b"--", b""])


async def read(pieces: list[bytes], target: Path) -> Form:
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, object]:
        return waiting.pop(0)

    headers = [(b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with receiving(target.parent) as file:
        form = await read_form(request, file)
        file.keep(target)
    return form


@settings(max_examples=300, deadline=None)
@given(content=CONTENT.filter(lambda content: b"\r\n----cut" not in content), cuts=st.lists(st.integers(0, 400)))
def test_a_file_in_any_pieces(content: bytes, cuts: list[int]) -> None:
    body = form_of(content)
    places = [0, *sorted({min(cut, len(body)) for cut in cuts}), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places)]
    with TemporaryDirectory() as name:
        form = asyncio.run(read(pieces, Path(name) / "kept"))
        assert (Path(name) / "kept").read_bytes() == content
    assert (form.fields, form.filename) == ({"name": "rows"}, "a.csv")
