"""The images or recordings of an archive as a column of a table, each one decoded to know that it can be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from learning import audio, images
from learning.errors import InvalidDataset
from learning.formats.archive import Archive, is_zip
from learning.formats.content import head
from learning.formats.format import ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file
from learning.media_types import MEDIA_TYPES, UnreadableMedia

Kind = Literal["image", "audio"]
Look = dict[str, Any] | UnreadableMedia
"""What a member is, as the cell of a row, or what is wrong with it."""
SKIP = 'or set on_bad_rows="skip".'

_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
# Names that say what a file is meant to be, also in formats that are not read, so that those are named.
_IMAGES = [
    "apng",
    "avif",
    "bmp",
    "gif",
    "heic",
    "heif",
    "ico",
    "jfif",
    "jpe",
    "jpeg",
    "jpg",
    "png",
    "ppm",
    "pgm",
    "svg",
    "tga",
    "tif",
    "tiff",
    "webp",
]
_RECORDINGS = ["aac", "aif", "aiff", "amr", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wave", "wma"]
_NOUNS: dict[Kind, str] = {"image": "images", "audio": "recordings"}
_SHOWN = 5
# Of images smaller than this, what is done for each takes longer than its decoding, and one thread at a time does it.
_WORTH_A_THREAD_BYTES, _LEAST_IMAGES, _MOST_THREADS = 4 << 10, 16, 4
# For so many missing files one with a name like theirs is looked for, among all names.
SUGGESTED = 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive seems to hold, by its names: its images or recordings, and the other files."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    media: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What most of its files are."""
        return self.kinds.most_common(1)[0][0]

    def nouns(self) -> str:
        """Return what there is, in words."""
        return " and ".join(f"{count} {_NOUNS[kind]}" for kind, count in self.kinds.most_common())

    def folders(self) -> set[str]:
        """Return the folders in which images or recordings lie; "" is none at all."""
        return {folder_of(name) for name in self.media}

    def tops(self, *endings: str) -> list[str]:
        """Return the other files with such an ending that lie in no folder, or in the one that everything lies in."""
        names = [*self.media, *self.others]
        first = {name.partition("/")[0] for name in names if "/" in name}
        one = next(iter(first)) if len(first) == 1 and all("/" in name for name in names) else None
        depth = 2 if one else 1
        return [name for name in self.others if name.count("/") == depth - 1 and name.lower().endswith(endings)]


def folder_of(name: str) -> str:
    """Return the folder of a member, "" for none."""
    return name.rpartition("/")[0]


def kind_of(name: str) -> Kind | None:
    """Return what a member is meant to be, by its name."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return "image" if ending in _IMAGES else "audio" if ending in _RECORDINGS else None


def contents(archive: Archive) -> Contents:
    """Return what an open archive seems to hold."""
    kinds = {name: kind_of(name) for name in archive.names}
    return Contents(
        kinds=Counter(kind for kind in kinds.values() if kind is not None),
        media=tuple(name for name, kind in kinds.items() if kind is not None),
        others=tuple(name for name, kind in kinds.items() if kind is None),
    )


def outline(path: Path) -> Contents | None:
    """Return what an archive with images or recordings in order seems to hold; None for any other file."""
    status = path.stat()
    return _outline(path, status.st_size, status.st_mtime_ns) if is_zip(head(path, 4)) else None


@lru_cache(maxsize=1)
def _outline(path: Path, size: int, modified: int) -> Contents | None:
    # Every format of archives asks, and reading a large directory takes a while; the numbers say that it is the same.
    try:
        with Archive(path, path.name) as archive:
            found = contents(archive)
    except InvalidDataset:
        return None
    return found if found.media else None


def schema_of(kind: Kind, *others: str) -> pa.Schema:
    """Return the schema of a column of media, then others of strings."""
    return pa.schema([(kind, MEDIA_TYPES[kind]), *((name, pa.string()) for name in others)])


def one_kind(found: Contents, filename: str) -> Kind:
    """Return what an archive's files are; InvalidDataset when there are none, or images and recordings."""
    if not found.media:
        raise invalid_file(
            "no_media",
            f"The archive has {len(found.others)} files, and none is an image or a recording by its name.",
            "Upload a table as it is, not in an archive.",
            file=filename,
        )
    if len(found.kinds) > 1:
        raise invalid_file(
            "mixed_media",
            f"The archive has {found.nouns()}, which no model reads together.",
            "Make an archive of each.",
            file=filename,
        )
    return found.kind


@dataclass(frozen=True, slots=True)
class Row:
    """A row to be: its number, the member that it is of, and its other columns."""

    number: int
    name: str
    values: tuple[Any, ...] = ()


def rows_as_batches(
    archive: Archive, rows: Sequence[Row], schema: pa.Schema, options: ReadOptions, errors: RowErrors
) -> Iterator[pa.RecordBatch]:
    """Yield batches of the column of media, then the others; a row whose member cannot be read is its error."""
    kind: Kind = "image" if schema.names[0] == "image" else "audio"
    done = 0
    for part in parts(archive, rows):
        looks = look_at(archive, [row.name for row in part], kind)
        cells = [media_cell(look, row, kind, errors) for look, row in zip(looks, part, strict=True)]
        done += len(part)
        errors.rows_seen = max(errors.rows_seen, part[-1].number)
        errors.settle(part[-1].number)
        kept = [(cell, *row.values) for cell, row in zip(cells, part, strict=True) if cell is not None]
        columns = zip(*kept, strict=True) if kept else [[] for _ in schema]
        yield pa.record_batch(
            [pa.array(list(values), column.type) for values, column in zip(columns, schema, strict=True)],
            schema=schema,
        )
        options.report("reading", done / len(rows))


def parts(archive: Archive, rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in parts of bounded size."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += archive.size(row.name) if row.name in archive else 0
        if size >= _BATCH_BYTES or len(part) == _BATCH_ROWS:
            yield part
            part, size = [], 0
    if part:
        yield part


def look_at(archive: Archive, names: Sequence[str], kind: Kind) -> list[Look]:
    """Return what members are, in order, each decoded to know that it can be; images of some size several at once."""
    reader, most = (images.inspect, images.MAX_BYTES) if kind == "image" else (audio.inspect, audio.MAX_BYTES)

    def unpacked(name: str) -> bytes | UnreadableMedia:
        try:
            return archive.read(name, most)
        except UnreadableMedia as error:
            return error

    def looked(content: bytes | UnreadableMedia) -> Look:
        if isinstance(content, UnreadableMedia):
            return content
        try:
            return {"bytes": content, **reader(content)._asdict()}
        except UnreadableMedia as error:
            return error

    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    size = sum(archive.size(name) for name in names)
    if kind == "audio" or threads == 1 or size < _WORTH_A_THREAD_BYTES * max(_LEAST_IMAGES, len(names)):
        return [looked(unpacked(name)) for name in names]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(looked, map(unpacked, names)))


def media_cell(look: Look, row: Row, kind: Kind, errors: RowErrors) -> dict[str, Any] | None:
    """Return what a row's member is as a cell; None, and an error of the row, when it cannot be read."""
    if isinstance(look, UnreadableMedia):
        errors.add(
            look.rule,
            f'Row {row.number}: "{row.name}" {look.what}.',
            f"{look.remedy.removesuffix('.')}, leave it out, {SKIP}",
            row=row.number,
            column=kind,
            value=row.name,
            text=row.name,
        )
        return None
    return look


def say_left_out(names: Sequence[str], why: str, errors: RowErrors) -> None:
    """Warn of files of an archive that are not read."""
    if names:
        shown = ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        were = "file was" if len(names) == 1 else "files were"
        errors.remark("left_out_files", f"{len(names)} {were} left out ({why}): {shown}.")
