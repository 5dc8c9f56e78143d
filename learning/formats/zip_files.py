"""A zip archive of images or recordings and nothing that says more about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from learning.formats.archive import Archive, is_zip
from learning.formats.column_types import check_declared
from learning.formats.content import head
from learning.formats.format import ReadOptions
from learning.formats.media import Row, contents, one_kind, outline, rows_as_batches, say_left_out, schema_of
from learning.formats.row_errors import RowErrors
from learning.formats.zip_manifest import say_no_manifest


class ZipFilesFormat:
    """Images or recordings without labels, wherever in the archive they lie."""

    name = "zip-files"
    suffixes = (".zip",)

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why these are unlabelled files, also of an archive that cannot be read: `read` says why."""
        found = outline(path)
        if found is not None:
            return f"an archive of {found.nouns()} in one folder"
        return "the file begins like a zip archive" if is_zip(head(path, 4)) else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the media with their file names."""
        with Archive(path, options.filename) as archive:
            found = contents(archive)
            kind = one_kind(found, options.filename)
            check_declared(options.column_types, [kind, "file"])
            say_no_manifest(archive, found, errors)
            say_left_out(found.others, f"no {kind} by name", errors)
            rows = [Row(number, name, (name,)) for number, name in enumerate(found.media, 1)]
            yield from rows_as_batches(archive, rows, schema_of(kind, "file"), options, errors)
