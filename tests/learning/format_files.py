"""Writing a small file, reading it in a format, and expecting that it is refused."""

from pathlib import Path

import pyarrow as pa
import pytest

from learning.errors import InvalidDataset
from learning.formats import FORMATS
from learning.formats.format import Misjudged, ReadOptions
from learning.formats.row_errors import RowErrors


def written(tmp_path: Path, content: bytes | str, filename: str = "table.csv") -> Path:
    path = tmp_path / filename
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, format: str = "csv", **column_types):
    options, errors = ReadOptions(path.name, column_types), RowErrors(path.name)
    try:
        batches = list(FORMATS[format].read(path, options, errors))
    except Misjudged as misjudged:
        errors = RowErrors(path.name)
        again = ReadOptions(path.name, column_types, known_types=misjudged.types)
        batches = list(FORMATS[format].read(path, again, errors))
    assert all(batch.schema == batches[0].schema for batch in batches)
    return pa.Table.from_batches(batches) if batches else None, errors


def refused(path: Path, format: str = "csv", **column_types) -> InvalidDataset:
    with pytest.raises(InvalidDataset) as caught:
        read(path, format, **column_types)
    assert caught.value.error_count >= 1
    assert caught.value.hint
    assert all(error.file == path.name for error in caught.value.errors)
    return caught.value


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}
