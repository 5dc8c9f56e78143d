"""The table of file formats: a new one is a file here and a line in FORMATS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learning.errors import InvalidDataset, UnknownName, did_you_mean
from learning.formats.conll import ConllFormat
from learning.formats.content import bad_byte, head, signature
from learning.formats.csv import CsvFormat
from learning.formats.encodings import GB18030, IN_WORDS, UTF8, UTF8_BOM, WrongByte, encoding_of, write_utf8
from learning.formats.format import Format, WrittenFormat
from learning.formats.jsonl import JsonlFormat
from learning.formats.mixed_lines import first_mixed
from learning.formats.parquet import ParquetFormat
from learning.formats.row_errors import invalid_file
from learning.formats.text import TextFormat
from learning.formats.zip_coco import ZipCocoFormat
from learning.formats.zip_files import ZipFilesFormat
from learning.formats.zip_folders import ZipFoldersFormat
from learning.formats.zip_manifest import ZipManifestFormat

# In the order they are asked: the surest signs first.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        ParquetFormat(),
        ZipCocoFormat(),
        ZipManifestFormat(),
        ZipFoldersFormat(),
        ZipFilesFormat(),
        JsonlFormat(),
        ConllFormat(),
        TextFormat(),
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


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file whose format is known: where it is in UTF-8 or in no encoding at all, its format and why, its encoding.

    `refusal` says why it cannot be read all the same: it has a byte that its encoding does not have.
    """

    path: Path
    format: Format
    reason: str
    encoding: str | None
    refusal: InvalidDataset | None = None


def recognised(source: Path, filename: str, name: str | None, copy: Path) -> Recognised:
    """Return how to read a file, in the format of that name if one is given.

    A text in another encoding is written to `copy` as UTF-8. Raises InvalidDataset for a file in no known format, and
    UnknownName for the format's name.
    """
    chosen = format_named(name) if name else None
    encoding = encoding_of(source)
    path, wrong = source, None
    if encoding not in {None, UTF8, UTF8_BOM}:
        path, wrong = copy, write_utf8(source, str(encoding), copy)
    if encoding == GB18030:
        wrong = _mixed(source, wrong)
    found, reason = (chosen, "the request names it") if chosen else sniff(path, filename)
    refusal = _wrong_byte(found, wrong, str(encoding), copy, filename) if wrong else None
    if encoding is None or not isinstance(found, WrittenFormat):
        return Recognised(path, found, reason, None, refusal)
    said = "" if encoding == UTF8 else f", in {IN_WORDS[encoding]}"
    return Recognised(path, found, reason + said, encoding, refusal)


def _mixed(source: Path, wrong: WrongByte | None) -> WrongByte | None:
    """Return where a GB18030 file has its first line in UTF-8, or a wrong byte if that comes first."""
    mixed = first_mixed(source)
    if mixed is None:
        return wrong
    line, copy_offset = mixed
    if wrong and wrong.offset < line.offset:
        return wrong
    offset = line.offset + line.first
    return WrongByte(offset, line.content[line.first], False, copy_offset, line.said)


def _wrong_byte(found: Format, wrong: WrongByte, encoding: str, copy: Path, filename: str) -> InvalidDataset:
    row = found.row_at(copy, wrong.copy_offset) if isinstance(found, WrittenFormat) else None
    return bad_byte(
        "nul_byte" if wrong.is_nul else "encoding",
        filename,
        byte=wrong.byte,
        offset=wrong.offset,
        row=row,
        encoding=IN_WORDS[encoding],
        reading=wrong.reading,
    )


def _names() -> str:
    return ", ".join(sorted(FORMATS))


_IN_A_ZIP = "A dataset of images or recordings is a zip archive: put all of them into one."
# What is a step away from a format, and that step.
_NEARLY = {
    "a Parquet file": "Its end is missing: copy or download it again, whole, then upload it.",
    "a PNG image": _IN_A_ZIP,
    "a JPEG image": _IN_A_ZIP,
    "a WebP image": _IN_A_ZIP,
    "a WAV recording": _IN_A_ZIP,
    "conll": "Write a token, a tab and a tag a line: spaces separate no fields there.",
    "a JSON array": "Write each of its objects on a line of its own, without the brackets and commas around them.",
}


def _unrecognised(path: Path, filename: str) -> InvalidDataset:
    is_array = head(path, 1 << 10).lstrip().startswith(b"[")
    what = signature(path) or ("a JSON array" if is_array else None)
    by_name = next((one for one in FORMATS.values() if filename.lower().endswith(one.suffixes)), None)
    if what:
        seen = f"it begins like {what}"
    elif by_name:
        ending = next(suffix for suffix in by_name.suffixes if filename.lower().endswith(suffix))
        seen = f"its name ends in {ending}, but its first lines are not those of {by_name.name}"
    else:
        seen = "neither its name nor its first lines are those of one"
    remedy = _NEARLY.get(what or (by_name.name if by_name else ""))
    return invalid_file(
        "unknown_format",
        f'The format of "{filename}" was not recognised: {seen}. Formats: {_names()}.',
        remedy or "Convert the file to one of these, or name its format with format=.",
        file=filename,
        value=what,
    )
