"""A zip archive of images or recordings with a table of what is known of each: `file` and other columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from learning.column_type import ColumnType
from learning.errors import did_you_mean
from learning.formats.archive import Archive
from learning.formats.column_types import Records, typed
from learning.formats.csv import read_csv
from learning.formats.csv_layout import sniffed
from learning.formats.encodings import GB18030, UTF8, UTF8_BOM, encoding_of, write_utf8
from learning.formats.format import ReadOptions
from learning.formats.jsonl import first_keys, read_jsonl
from learning.formats.media import (
    SKIP,
    SUGGESTED,
    Contents,
    Kind,
    Row,
    contents,
    look_at,
    media_cell,
    one_kind,
    outline,
    parts,
    say_left_out,
)
from learning.formats.mixed_lines import first_mixed
from learning.formats.row_errors import RowErrors, invalid_file, shortened
from learning.media_types import FILE_COLUMNS, MEDIA_TYPES, UnreadableMedia

_LINES = (".jsonl", ".ndjson")
_ENDINGS = (".csv", ".tsv", *_LINES)
_OTHER_ENDINGS = (".parquet", ".xlsx")
_SHOWN, _COMPARED = 10, 50
_MOST_BYTES = 256 << 20


class ZipManifestFormat:
    """Images or recordings and a table, as CSV or JSON lines, that names them in a column `file`, with others."""

    name = "zip-manifest"
    suffixes = (".zip",)

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why there is a manifest: a table at the top of the archive with a column of files."""
        found = outline(path)
        if found is None or not found.tops(*_ENDINGS):
            return None
        with Archive(path, filename) as archive, TemporaryDirectory(prefix="anneal-manifest-") as directory:
            manifest = _manifest(archive, found, Path(directory))
        return f"an archive of {found.nouns()} and {manifest[0]}, which names them" if manifest else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the manifest's clean rows whose file is there and can be read."""
        with Archive(path, options.filename) as archive, TemporaryDirectory(prefix="anneal-manifest-") as directory:
            found = contents(archive)
            kind = one_kind(found, options.filename)
            manifest = _manifest(archive, found, Path(directory))
            if manifest is None:
                raise invalid_file(
                    "no_manifest",
                    f"No table at the top of the archive has a column {', '.join(FILE_COLUMNS)}.",
                    "Put a manifest.csv there, with the files' names in the archive in a column file.",
                    file=options.filename,
                )
            name, table, names, column = manifest
            if kind in names:
                raise invalid_file(
                    "duplicate_column",
                    f'{name} has a column "{kind}", which is the name of the column with the content of the files.',
                    "Rename it.",
                    file=options.filename,
                    column=kind,
                )
            inner = replace(
                options,
                filename=f"{options.filename}/{name}",
                column_types={**options.column_types, column: "string"},
            )
            named: set[str] = set()
            join = partial(_joined, archive=archive, kind=kind, column=column, prefix=_folder(name), named=named)
            yield from (read_jsonl if _is_lines(name) else read_csv)(table, inner, errors, join)
            left = [member for member in found.media if member not in named]
            say_left_out(left, f"not named in {name}", errors)
            say_left_out([other for other in found.others if other != name], "not read", errors)


def _manifest(archive: Archive, found: Contents, directory: Path) -> tuple[str, Path, list[str], str] | None:
    """Return the first table with a column of files: its name, a copy in UTF-8, its columns, and that column."""
    for name, table, names in _tables(archive, found, directory):
        column = next((one for one in FILE_COLUMNS if one in names), None)
        if column:
            return name, table, names, column
    return None


def _tables(archive: Archive, found: Contents, directory: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield the tables at the top of the archive: name, a copy in UTF-8 and the columns."""
    for number, name in enumerate(sorted(found.tops(*_ENDINGS), key=lambda name: "manifest" not in name)):
        raw, table = directory / f"{number}.raw", directory / f"{number}.csv"
        try:
            raw.write_bytes(archive.read(name, _MOST_BYTES))
        except UnreadableMedia as error:
            raise invalid_file(error.rule, f"{name} {error.what}.", error.remedy, file=name) from None
        encoding = encoding_of(raw)
        if encoding in {None, UTF8, UTF8_BOM} or write_utf8(raw, str(encoding), table):
            table = raw
        elif encoding == GB18030 and first_mixed(raw):
            table = raw  # whose reader names the first line that is not UTF-8
        yield name, table, first_keys(table) if _is_lines(name) else [one.strip() for one in sniffed(table)[0].names]


def _is_lines(name: str) -> bool:
    return name.lower().endswith(_LINES)


def say_no_manifest(archive: Archive, found: Contents, errors: RowErrors) -> None:
    """Warn of each table at the top of an archive that is none of a manifest, though it may be meant to be."""
    for name in found.tops(*_OTHER_ENDINGS):
        what = f"{name} is not read: a manifest is a table as CSV or JSON lines. Write it as manifest.csv."
        errors.remark("unread_manifest", what)
    with TemporaryDirectory(prefix="anneal-manifest-") as directory:
        for name, _, names in _tables(archive, found, Path(directory)):
            if not set(names) & set(FILE_COLUMNS):
                errors.remark("unread_manifest", _without_files(name, names))


def _without_files(name: str, names: list[str]) -> str:
    shown = ", ".join(f'"{shortened(one)}"' for one in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    meant = next((meant for one in names[:_COMPARED] if (meant := did_you_mean(one, FILE_COLUMNS))), "")
    return (
        f"{name} is not read: none of its columns ({shown}) is {', '.join(FILE_COLUMNS[:-1])} or {FILE_COLUMNS[-1]}, "
        f"so it does not say of which files its rows are.{meant}"
    )


def _folder(name: str) -> str:
    return f"{name.rpartition('/')[0]}/" if "/" in name else ""


def _joined(
    records: Records,
    types: Mapping[str, ColumnType],
    errors: RowErrors,
    *,
    archive: Archive,
    kind: Kind,
    column: str,
    prefix: str,
    named: set[str],
) -> Iterator[pa.RecordBatch]:
    """Yield the typed rows with the column of media before the others, a bounded number of bytes at a time."""
    files = records.columns.column(column).to_pylist()
    rows = [
        Row(number, _member(file, prefix, archive), (place, file))
        for place, (number, file) in enumerate(zip(records.rows.tolist(), files, strict=True))
    ]
    named.update(row.name for row in rows)
    for part in parts(archive, rows):
        there = [row for row in part if row.name in archive]
        looks = dict(zip(there, look_at(archive, [row.name for row in there], kind), strict=True))
        cells = []
        for row in part:
            if row not in looks:
                _say_missing(archive, row, column, errors)
            cells.append(media_cell(looks[row], row, kind, errors) if row in looks else None)
        first = part[0].values[0]
        some = records.columns.slice(first, len(part))
        columns = {kind: pa.array(cells, MEDIA_TYPES[kind])}
        columns.update(zip(some.schema.names, some.columns, strict=True))
        bad = np.array([cell is None for cell in cells])
        if records.bad is not None:
            bad |= records.bad[first : first + len(part)]
        numbers = records.rows[first : first + len(part)]
        yield typed(Records(numbers, pa.record_batch(columns), bad), {kind: kind, **types}, errors)


def _member(file: str | None, prefix: str, archive: Archive) -> str:
    """Return the member that a manifest names: relative to the manifest, or to the archive."""
    name = (file or "").removeprefix("./")
    return prefix + name if prefix + name in archive else name


def _say_missing(archive: Archive, row: Row, column: str, errors: RowErrors) -> None:
    file = row.values[1]
    meant = did_you_mean(row.name, archive.names) if errors.by_rule["missing_file"] < SUGGESTED else ""
    errors.add(
        "missing_file",
        f'Row {row.number}, column "{column}": '
        + (f'"{file}" is not in the archive.{meant}' if file else "no file is named."),
        f"Add the file, correct its name, remove the row, {SKIP}",
        row=row.number,
        column=column,
        value=file,
    )
