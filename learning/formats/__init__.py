"""The table of file formats: a new one is a file here and a line in FORMATS."""

from __future__ import annotations

from pathlib import Path

from learning.errors import InvalidDataset, UnknownName, did_you_mean
from learning.formats.content import head, signature
from learning.formats.csv import CsvFormat
from learning.formats.format import Format
from learning.formats.jsonl import JsonlFormat
from learning.formats.parquet import ParquetFormat
from learning.formats.row_errors import invalid_file

# In the order they are asked: the surest signs first.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        ParquetFormat(),
        JsonlFormat(),
        CsvFormat(),
    )
}


def format_named(name: str) -> Format:
    """Return the format of that name; raise UnknownName when there is none."""
    if name not in FORMATS:
        message = f'Format "{name}" not found. Formats: {_names()}.{did_you_mean(name, FORMATS)}'
        raise UnknownName(message, param="format", hint="Leave format out to have it recognised.")
    return FORMATS[name]


def sniff(path: Path, filename: str) -> tuple[Format, str]:
    """Return the file's format and the reason, a half sentence; raise InvalidDataset when none fits."""
    if path.stat().st_size == 0:
        raise invalid_file("empty_file", "The file is empty.", "Upload a file with a header and rows.", file=filename)
    for one in FORMATS.values():
        if reason := one.sniff(path, filename):
            return one, reason
    raise _unrecognised(path, filename)


def _names() -> str:
    return ", ".join(sorted(FORMATS))


# What is a step away from a format, and that step.
_NEARLY = {
    "a Parquet file": "Its end is missing: copy or download it again, whole, then upload it.",
    "UTF-16 text": "Save it as UTF-8 text.",
    "a JSON array": "Write each of its objects on a line of its own, without the brackets and commas around them.",
}


def _unrecognised(path: Path, filename: str) -> InvalidDataset:
    is_array = head(path, 1 << 10).lstrip().startswith(b"[")
    what = signature(path) or ("a JSON array" if is_array else None)
    seen = f"it begins like {what}" if what else "neither its name nor its first lines are those of one"
    return invalid_file(
        "unknown_format",
        f'The format of "{filename}" was not recognised: {seen}. Formats: {_names()}.',
        _NEARLY.get(what or "", "Convert the file to one of these, or name its format with format=."),
        file=filename,
        value=what,
    )
