"""Sentences of tagged tokens: a token and a tag a line, separated by tabs, and a blank line between sentences.

The form of the CoNLL shared tasks. The first field of a line is the token and the last one the tag; what lies between
is left out. A line is a comment if it begins with `#` and then a space, or has no tab; so `#` can be a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from learning.column_type import ColumnType
from learning.errors import InvalidConfig
from learning.formats.column_types import Records, check_declared, typed
from learning.formats.content import check_text, head, signature
from learning.formats.format import ARROW_TYPES, MAX_RECORD_BYTES, ReadOptions
from learning.formats.row_errors import RowErrors, invalid_file
from learning.formats.text import numbered_lines
from learning.formats.wrong_bytes import Marks

_BATCH_ROWS = 8192
_BATCH_BYTES = 4 << 20
_TYPES: dict[str, ColumnType] = {"tokens": "strings", "tags": "strings"}
_TAG = re.compile(r"O|[BIESLU]-\S+")
_SAMPLE_BYTES = 1 << 16
_SKIP = 'or set on_bad_rows="skip".'


class ConllFormat:
    """Tagged tokens: a token, a tab and a tag a line, and a blank line between sentences; a row is a sentence."""

    name = "conll"
    suffixes = (".conll", ".bio", ".iob", ".iob2")

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why these are tagged tokens: the name, or tags in the last of equally many fields."""
        if signature(path):
            return None
        lines = [_fields(line) for line in _first_lines(path)]
        tokens = [fields for fields in lines if fields]
        widths = {len(fields) for fields in tokens}
        suffix = next((suffix for suffix in self.suffixes if filename.lower().endswith(suffix)), None)
        if suffix and tokens and len(tokens[0]) > 1:
            return f"the name ends in {suffix} and the first line has {len(tokens[0])} tab-separated fields"
        tags = {fields[-1] for fields in tokens}
        if len(widths) == 1 and max(widths) > 1 and "O" in tags and all(_TAG.fullmatch(tag) for tag in tags):
            return "the last of the tab-separated fields of the first lines are tags such as O and B-PER"
        return None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the sentences whose lines all have as many fields as the first one."""
        check_text(path, options.filename, self.row_at)
        check_declared(options.column_types, _TYPES)
        for name, kind in options.column_types.items():
            if kind != _TYPES[name]:
                message = f'Column "{name}" of a file of tagged tokens is strings, not {kind}.'
                raise InvalidConfig(message, hint="Leave column_types out.", param="column_types")
        pending: list[_Sentence] = []
        size = 0
        for sentence in _sentences(path, options):
            pending.append(sentence)
            size += sentence.bytes
            if len(pending) == _BATCH_ROWS or size >= _BATCH_BYTES:
                yield _batch(pending, errors, options.marks)
                pending, size = [], 0
        if pending:
            yield _batch(pending, errors, options.marks)
        if not errors.rows_seen:
            message = "The file has no sentences."
            raise invalid_file("no_rows", message, "Write a token, a tab and a tag a line.", file=options.filename)

    def row_at(self, path: Path, offset: int) -> int | None:
        """Return the sentence that holds a byte."""
        row, inside, end = 0, False, 0
        with path.open("rb") as file:
            while end <= offset and (line := file.readline(MAX_RECORD_BYTES)):
                end += len(line)
                if not _is_comment(line):
                    row += bool(line.strip()) and not inside
                    inside = bool(line.strip())
        return row


@dataclass(slots=True)
class _Sentence:
    """Lines that belong together, each as its fields, with their numbers in the file."""

    row: int
    width: int  # of the first line of the file
    numbers: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, number: int, line: str) -> None:
        """Add a line."""
        self.numbers.append(number)
        self.lines.append(line)
        self.bytes += len(line) + 1


def _sentences(path: Path, options: ReadOptions) -> Iterator[_Sentence]:
    width = 0
    current = _Sentence(1, width)
    for number, line in numbered_lines(path, options, "reading"):
        if not line.strip():
            if current.lines:
                yield current
                current = _Sentence(current.row + 1, width)
        elif not _is_comment(line):
            width = width or len(line.split("\t"))
            current.width = width
            current.add(number, line)
            if current.bytes > MAX_RECORD_BYTES:
                raise invalid_file(
                    "record_too_large",
                    f"Row {current.row}, a sentence that begins on line {current.numbers[0]}, is larger than "
                    f"{MAX_RECORD_BYTES >> 20} MiB.",
                    "Put blank lines between the sentences.",
                    file=options.filename,
                    row=current.row,
                )
        elif options.marks and options.marks.token in line:
            raise options.marks.refusal  # in a comment, which is no row's
    if current.lines:
        yield current


def _batch(sentences: list[_Sentence], errors: RowErrors, marks: Marks | None) -> pa.RecordBatch:
    tokens, tags, bad = [], [], []
    for sentence in sentences:
        errors.rows_seen = sentence.row
        before = errors.count
        if marks:
            whole = "\n".join(sentence.lines)
            for line in sentence.lines:
                marks.report(line, sentence.row, errors, whole=whole)
            sentence.lines = [marks.shown(line) for line in sentence.lines]
        lines = zip(sentence.numbers, sentence.lines, strict=True)
        fields = [_checked(sentence, number, line, errors) for number, line in lines]
        tokens.append([one[0] for one in fields])
        tags.append([one[-1] for one in fields])
        bad.append(errors.count > before)
    rows = np.array([sentence.row for sentence in sentences], dtype=np.int64)
    columns = [pa.array(values, ARROW_TYPES["strings"]) for values in (tokens, tags)]
    return typed(Records(rows, pa.record_batch(columns, names=list(_TYPES)), np.array(bad)), _TYPES, errors)


def _checked(sentence: _Sentence, number: int, line: str, errors: RowErrors) -> list[str]:
    fields = line.split("\t")
    width = sentence.width
    if width < 2 or len(fields) != width:
        what = f"{len(fields)} field{'s' if len(fields) != 1 else ''}; " + (
            f"the first line has {width}" if width > 1 else "a token and a tag are two"
        )
    elif not fields[0].strip() or not fields[-1].strip():
        what = f"an empty {'tag' if fields[0].strip() else 'token'}"
    else:
        return fields
    errors.add(
        "wrong_fields",
        f"Line {number}, in row {sentence.row}, has {what}.",
        f"Separate token and tag by one tab, and sentences by a blank line, {_SKIP}",
        row=sentence.row,
        value=line,
        text="\n".join(sentence.lines),
    )
    return fields


def _is_comment(line: str | bytes) -> bool:
    text = line if isinstance(line, str) else line.decode("utf-8", "replace")
    return text.startswith("#") and (text.startswith("# ") or "\t" not in text)


def _fields(line: str) -> list[str]:
    return [] if not line.strip() or _is_comment(line) else line.split("\t")


def _first_lines(path: Path) -> list[str]:
    text = head(path, _SAMPLE_BYTES).decode("utf-8-sig", "replace")
    lines = text.split("\n")
    whole = lines if len(lines) == 1 or len(text.encode()) < _SAMPLE_BYTES else lines[:-1]
    return [line.removesuffix("\r") for line in whole[:200]]
