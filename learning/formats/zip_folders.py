"""A zip archive with a folder of images or recordings for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from learning.formats.archive import Archive
from learning.formats.column_types import check_declared
from learning.formats.format import ReadOptions
from learning.formats.media import (
    SKIP,
    Row,
    contents,
    one_kind,
    outline,
    rows_as_batches,
    say_left_out,
    schema_of,
)
from learning.formats.row_errors import RowErrors
from learning.formats.zip_manifest import say_no_manifest

# Folders above those of the classes that say for what their images are, and the words that a split's column has.
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ZipFoldersFormat:
    """Images or recordings in a folder for each class: the folder's name is the label."""

    name = "zip-folders"
    suffixes = (".zip",)

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why these are folders of classes: at least two folders with images or recordings."""
        found = outline(path)
        if found is None:
            return None
        folders = found.folders() - {""}
        return f"an archive of {found.nouns()} in {len(folders)} folders" if len(folders) > 1 else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the media with label and file name, and the part if folders named after parts lie above the classes."""
        with Archive(path, options.filename) as archive:
            found = contents(archive)
            kind = one_kind(found, options.filename)
            labels = _labels(found.media)
            parts = _parts(labels)
            names = ["label", "file", *(["split"] if parts else [])]
            check_declared(options.column_types, [kind, *names])
            say_no_manifest(archive, found, errors)
            say_left_out(found.others, f"no {kind} by name", errors)
            rows = []
            for number, (name, label) in enumerate(zip(found.media, labels, strict=True), 1):
                if not label:
                    _report_unlabelled(name, kind, number, errors)
                    continue
                values: tuple[str, ...] = (label, name)
                if parts:
                    part, _, own = label.partition("/")
                    values = (own, name, _PARTS[part.lower()])
                rows.append(Row(number, name, values))
            yield from rows_as_batches(archive, rows, schema_of(kind, *names), options, errors)
            errors.rows_seen = len(found.media)


def _labels(names: Sequence[str]) -> list[str]:
    """Return the folders of members, relative to the folder that all of them lie in; "" for one that lies in none."""
    folders = [tuple(name.split("/")[:-1]) for name in names]
    common = 0
    shortest = min(len(folder) for folder in folders)
    while common < shortest and len({folder[: common + 1] for folder in folders}) == 1:
        common += 1
    return ["/".join(folder[common:]) for folder in folders]


def _parts(labels: Sequence[str]) -> bool:
    """Return whether every label begins with a part and goes on with a class."""
    return all(
        label.partition("/")[0].lower() in _PARTS and label.partition("/")[2] for label in labels if label
    ) and any(labels)


def _report_unlabelled(name: str, kind: str, number: int, errors: RowErrors) -> None:
    errors.add(
        "no_folder",
        f'Row {number}: "{name}" lies in no folder of a class, so it has no label.',
        f"Move the file into its class's folder, leave it out, {SKIP}",
        row=number,
        column="label",
        value=name,
        text=name,
    )
