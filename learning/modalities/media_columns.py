"""What modalities that read one column of files have in common: finding it, its bytes, and files in requests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from learning.column_type import MediaType
from learning.config import Columns
from learning.errors import InvalidData, InvalidInput, InvalidRow, did_you_mean
from learning.media_types import MEDIA_TYPES
from learning.splits import require_column

# What travels with a column of files and needs no word.
_OWN_COLUMNS = ("file", "split")


@dataclass(frozen=True, slots=True)
class MediaKind:
    """A kind of file, and how it is called in messages."""

    type: MediaType
    noun: str  # one of them, with its article left out
    article: str
    plural: str
    formats: str  # which formats there are, as a text
    most_bytes: int

    def column(self, table: pa.Table, columns: Columns) -> str:
        """Return the column to read: the only one of this kind among the inputs."""
        for name in columns.inputs or ():
            require_column(table, name, "columns.inputs")
        names = columns.inputs if columns.inputs is not None else table.column_names
        candidates = [
            name
            for name in names
            if name not in columns.ignore and table.schema.field(name).type == MEDIA_TYPES[self.type]
        ]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise InvalidData(
                f"There are {len(candidates)} columns of {self.plural}: {', '.join(candidates)}.",
                hint=f'Say which one to read: columns.inputs=["{candidates[0]}"].',
                param="columns.inputs",
            )
        raise InvalidData(
            f"There is no column of {self.plural} to learn from.",
            hint=f"Upload {self.plural} as a zip archive.",
            param="columns",
        )

    def unused(self, table: pa.Table, columns: Columns, column: str) -> list[str]:
        """Return a remark that names the columns that are not read."""
        read = {column, *columns.target_names(), *columns.ignore, *_OWN_COLUMNS}
        names = [name for name in table.column_names if name not in read]
        what = f"Only {self.plural} are read; these columns are not used: {', '.join(names)}."
        return [what] if names else []

    def cells(self, table: pa.Table, column: str) -> pa.ChunkedArray:
        """Return a column's files; InvalidData names the first row that has none."""
        require_column(table, column, "columns")
        if table.schema.field(column).type != MEDIA_TYPES[self.type]:
            raise InvalidData(
                f'Column "{column}" holds {table.schema.field(column).type} values, which are no {self.plural}.',
                param="columns",
            )
        cells = table.column(column)
        row = pc.index(cells.is_null(), True).as_py()
        if row >= 0:
            what = f', column "{column}": there is no {self.noun}.'
            raise InvalidRow(row, what, hint="Remove the row.", param="columns")
        return cells

    def contents(self, table: pa.Table, column: str) -> list[bytes]:
        """Return the bytes of a column's files."""
        return [content for chunk in self.cells(table, column).chunks for content in chunk.field("bytes").to_pylist()]

    def given(self, value: Any, index: int, column: str) -> bytes:
        """Return the file of an input: its bytes, their base64, a data URL, or an object with one of these."""
        content = value
        if isinstance(value, Mapping):
            key = next((key for key in (column, self.type) if key in value), None)
            if key is None:
                meant = did_you_mean(str(next(iter(value), "")), [column])
                raise self.refused(index, column, f"is missing.{meant}")
            content = value[key]
        if isinstance(content, str):
            content = self._from_text(content, index, column)
        if not isinstance(content, bytes):
            raise self.refused(index, column, f"{str(content)[:80]} is no {self.noun}")
        return content

    def refused(self, index: int, column: str, what: str) -> InvalidInput:
        """Return the error of an input that is no such file."""
        return InvalidInput(
            f'Input {index}, "{column}": {what}{"" if what.endswith((".", "?")) else "."}',
            index=index,
            hint=f"Send {self.article} {self.formats} file as base64.",
            param=column,
        )

    def schema(self, column: str) -> dict[str, Any]:
        """Return the JSON Schema of an input."""
        file = {
            "type": "string",
            "contentEncoding": "base64",
            "contentMediaType": f"{self.type}/*",
            "description": f"{self.article.capitalize()} {self.formats} file as base64, or as a data URL.",
        }
        return {"anyOf": [file, {"type": "object", "required": [column], "properties": {column: file}}]}

    def _from_text(self, text: str, index: int, column: str) -> bytes:
        if text.startswith(("http://", "https://")):
            raise self.refused(index, column, "an address is not fetched")
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if len(text) > self.most_bytes * 3 // 2:
            raise self.refused(index, column, f"the base64 is longer than that of {self.most_bytes >> 20} MiB")
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise self.refused(index, column, f'"{text[:40]}" is no base64') from None


def field_of(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return one field of a column's files, such as how wide they are."""
    return pa.chunked_array([chunk.field(name) for chunk in cells.chunks], cells.type.field(name).type)
