"""Zip archives, which are foreign: looked at whole before anything is unpacked, and never unpacked as they say.

Names, sizes and places come from the archive's directory. What is wrong with that makes the whole file unreadable;
what is wrong with one member's content is that member's error.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from zipfile import ZipInfo

from learning.errors import InvalidDataset, RowError
from learning.formats.row_errors import KEPT, invalid_file, shortened
from learning.media_types import UnreadableMedia

MAX_ENTRIES = 250_000
_MAX_DIRECTORY_BYTES = 64 << 20
# Images and recordings are compressed already; tables and silence seldom shrink to a hundredth.
_MAX_RATIO, _RATIO_FROM_BYTES = 100, 16 << 20
_READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_COPIED_BYTES = 1 << 20
# What systems put into archives beside what was meant.
_JUNK = re.compile(r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
_DRIVE = re.compile(r"^[A-Za-z]:")
_ZIP_AGAIN = "Make the archive again with an ordinary zip program."


class Refusal(NamedTuple):
    """Why a member makes an archive unreadable: by which rule, what it is in half a sentence, and what to do."""

    rule: str
    what: str
    remedy: str


class Archive:
    """An open archive whose directory is in order; `names` are its files, hidden ones left out, as they come."""

    def __init__(self, path: Path, filename: str) -> None:
        self._filename = filename
        try:
            _check_directory(path, filename)
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
            raise invalid_file(
                "damaged_archive", f"The zip archive cannot be read: {error}.", _ZIP_AGAIN, file=filename
            ) from None
        infos = self._zip.infolist()
        try:
            _check_entries(infos, path.stat().st_size, filename)
        except InvalidDataset:
            self._zip.close()
            raise
        files = (info for info in infos if not info.is_dir() and not _JUNK.search(info.filename))
        self._members = {info.filename: info for info in files}
        self.names = list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Return how many bytes a member has, unpacked."""
        return self._members[name].file_size

    def read(self, name: str, most: int) -> bytes:
        """Return a member's bytes; UnreadableMedia when they are too many or damaged."""
        info = self._members[name]
        if info.file_size > most:
            raise UnreadableMedia(
                "too_large", f"has {info.file_size} bytes; at most {most >> 20} MiB are read", "Make it smaller."
            )
        try:
            # No more than the directory promised is ever unpacked.
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise UnreadableMedia("damaged_member", f"cannot be unpacked: {error}", _ZIP_AGAIN) from None

    def extract(self, name: str, target: Path) -> None:
        """Write a member's bytes to a file in constant memory; UnreadableMedia when they are damaged."""
        try:
            # No more than the directory promised is ever unpacked.
            with self._zip.open(self._members[name]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _COPIED_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise UnreadableMedia("damaged_member", f"cannot be unpacked: {error}", _ZIP_AGAIN) from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()


def is_zip(first: bytes) -> bool:
    """Return whether bytes begin like a zip archive."""
    return first.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _check_directory(path: Path, filename: str) -> None:
    """Raise for a directory too large to be read, before it is: its end says how large it is."""
    with path.open("rb") as file:
        size = path.stat().st_size
        start = max(0, size - (1 << 16) - 22)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0:
            raise zipfile.BadZipFile("its end is missing")
        count = int.from_bytes(tail[at + 10 : at + 12], "little")
        length = int.from_bytes(tail[at + 12 : at + 16], "little")
        locator = tail[at - 20 : at] if at >= 20 else b""
        if locator.startswith(b"PK\x06\x07"):
            file.seek(min(size, int.from_bytes(locator[8:16], "little")))
            record = file.read(56)
            count = max(count % 0xFFFF, int.from_bytes(record[32:40], "little"))
            length = int.from_bytes(record[40:48], "little") if length == 0xFFFFFFFF else length
    if count > MAX_ENTRIES or length > _MAX_DIRECTORY_BYTES:
        raise _too_many(count, filename)


def _check_entries(infos: list[ZipInfo], size: int, filename: str) -> None:
    if len(infos) > MAX_ENTRIES:
        raise _too_many(len(infos), filename)
    errors = [
        RowError(rule, f'Member "{shortened(info.filename)}" {what}.', remedy, filename, None, None, info.filename[:80])
        for info, (rule, what, remedy) in _problems(infos)
    ]
    if errors:
        more = f" {len(errors) - 1} more members are refused." if len(errors) > 1 else ""
        raise InvalidDataset(
            errors[0].message + more,
            errors[:KEPT],
            error_count=len(errors),
            errors_by_rule=Counter(error.rule for error in errors),
            hint=errors[0].remedy,
        )
    unpacked = sum(info.file_size for info in infos)
    if unpacked > max(_RATIO_FROM_BYTES, _MAX_RATIO * size):
        raise invalid_file(
            "archive_bomb",
            f"The archive's {size} bytes would unpack to {unpacked}, more than {_MAX_RATIO} times as many.",
            "Upload what is in it without so much repetition, or in several archives.",
            file=filename,
        )


def _too_many(count: int, filename: str) -> InvalidDataset:
    return invalid_file(
        "too_many_members",
        f"The archive says that it has {count} members; at most {MAX_ENTRIES} are read.",
        "Divide it into several archives.",
        file=filename,
    )


def _problems(infos: list[ZipInfo]) -> Iterator[tuple[ZipInfo, Refusal]]:
    """Yield the members that make an archive unreadable, each with rule, half a sentence and remedy."""
    seen: set[str] = set()
    for info in infos:
        # As it is written, which the library's own ends at a NUL, and as the library takes it: a field beside the name
        # may have another one.
        names = {info.orig_filename, info.filename}
        if reason := next(filter(None, (_name_problem(name, seen) for name in names)), None) or _kind_problem(info):
            yield info, reason
        seen |= names
    places = sorted(infos, key=lambda info: info.header_offset)
    for info in places:
        if info.header_offset < 0:
            yield info, Refusal("damaged_archive", "lies before the beginning of the file", _ZIP_AGAIN)
    for info, following in pairwise(places):
        # One block of bytes that several members share unpacks to as many times its size.
        if info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size > following.header_offset:
            yield following, Refusal("overlapping_members", "lies in the bytes of another member", _ZIP_AGAIN)


def _name_problem(name: str, seen: set[str]) -> Refusal | None:
    rename = "Make the archive again from a folder, with names relative to it."
    if not name:
        return Refusal("member_name", "has no name", rename)
    if "\\" in name or "\0" in name:
        return Refusal("member_name", "has a backslash or a NUL in its name", rename)
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        return Refusal("member_name", "leads out of the archive", rename)
    if name in seen:
        return Refusal("duplicate_member", "is there twice", _ZIP_AGAIN)
    return None


def _kind_problem(info: ZipInfo) -> Refusal | None:
    if info.flag_bits & _ENCRYPTED:
        return Refusal("encrypted_member", "is encrypted", "Make the archive again without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        return Refusal("special_member", "is a link or device, and no file", "Put the file itself into the archive.")
    if info.compress_type not in _READABLE:
        return Refusal("compression", "is neither stored nor deflated", _ZIP_AGAIN)
    return None
