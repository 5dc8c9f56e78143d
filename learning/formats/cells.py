"""The cells of a text as values: exactly what each type takes, and the fast ways for batches without surprises.

Arrow's casts are fast for a batch that they take whole and slow for every cell that they do not, and they take more
than is meant: hexadecimal, dates without separators. So a batch is cast as it is only after a look at its bytes says
that nothing of the kind is in it; every other goes through patterns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from learning.column_type import ColumnType
from learning.formats.format import ARROW_TYPES

# What stands for "no value" in a column that is not text, whatever its case.
MISSING = pa.array(["", "na", "n/a", "nan", "null", "none", "?", "-"])

_INTEGER = r"^[+-]?[0-9]+$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)
_ZONE = r":[0-9]{2}.*(?:Z|[+-][0-9]{2}:?[0-9]{2})$"


def parse(cells: pa.Array, kind: ColumnType) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Return the cells as values of a type, null where missing or bad, and the mask of bad ones if any."""
    if cells.type == ARROW_TYPES[kind]:
        return cells, None
    if (fast := plain(cells, kind)) is not None:
        return fast, None
    wanted = _present(cells)
    values = _PARSERS[kind](wanted)
    if values.null_count == wanted.null_count:
        return values, None
    bad = pc.and_(wanted.is_valid(), values.is_null())
    return values, bad.to_numpy(zero_copy_only=False)


def plain(cells: pa.Array, kind: ColumnType) -> pa.Array | None:
    """Return a batch whose every cell is an ordinary value of the type, or None."""
    try:
        return _PLAIN[kind](cells) if kind in _PLAIN else None
    except pa.ArrowInvalid:
        return None


def _probed(cells: pa.Array, to: pa.DataType) -> None:
    """Raise ArrowInvalid when the first cells cannot be cast, before all the others are tried and fail one by one."""
    cells.slice(0, _PROBE).cast(to)


def _plain_integers(cells: pa.Array) -> pa.Array | None:
    _probed(cells, pa.int64())
    text = _bytes(cells)
    return None if b"x" in text or b"X" in text else cells.cast(pa.int64())


def _plain_numbers(cells: pa.Array) -> pa.Array | None:
    _probed(cells, pa.float64())
    numbers = cells.cast(pa.float64())
    return numbers if pc.all(pc.is_finite(numbers), min_count=0).as_py() else None


def _plain_booleans(cells: pa.Array) -> pa.Array | None:
    if len(cells.slice(0, _PROBE).unique()) > _BOOLEANS:
        return None
    encoded = cells.dictionary_encode()
    if len(encoded.dictionary) > _BOOLEANS:
        return None
    values = _booleans(encoded.dictionary)
    return None if values.null_count else values.take(encoded.indices)


def _plain_timestamps(cells: pa.Array) -> pa.Array | None:
    """Take dates, or dates with times, all in the same of the plainest forms."""
    lengths = pc.min_max(pc.binary_length(cells)).as_py()
    length, colons = lengths["max"], _COLONS.get(lengths["max"])
    if colons is None or lengths["min"] != length:
        return None
    text = _bytes(cells)
    if text.count(b":") != colons * (len(cells) - cells.null_count) or b"." in text or b"Z" in text:
        return None
    _probed(cells, pa.timestamp("us"))
    return cells.cast(pa.timestamp("us"))


def _bytes(cells: pa.Array) -> bytes:
    """Return the text of all cells after one another."""
    data = cells.buffers()[2]
    if data is None or not len(cells):
        return b""
    ends = _ends(cells)
    return bytes(data.slice(int(ends[0]), int(ends[-1] - ends[0])).to_pybytes())


def _ends(cells: pa.Array) -> NDArray[np.int32]:
    ends = np.frombuffer(cells.buffers()[1], dtype=np.int32, count=cells.offset + len(cells) + 1)
    found: NDArray[np.int32] = ends[cells.offset :]
    return found


def count_kinds(cells: pa.Array, counts: Counter[str], guess: ColumnType | None = None) -> pa.Array | None:
    """Add how many cells hold a value, and of these how many would parse as each type that is guessed.

    Returns the cells as values of the `guess` when every one is an ordinary value of it.
    """
    if guess in _ALSO and (values := plain(cells, guess)) is not None:
        for also in _ALSO[guess]:
            counts[also] += len(cells) - cells.null_count
        # Of a column of numbers one is known to be no integer, or it would be taken for a column of integers.
        return values
    _count(cells, counts)
    return None


def _count(cells: pa.Array, counts: Counter[str]) -> None:
    filled = cells.drop_null() if cells.null_count else cells
    special = _special(filled)
    if special.all():
        for kind in _BY_COST:
            if plain(filled, kind) is not None:
                for also in _ALSO[kind]:
                    counts[also] += len(filled)
                if kind == "number":
                    counts["integer"] += _valid(_integers(filled))
                return
    else:
        counts["present"] += len(filled) - int(special.sum())
        filled = filled.filter(pa.array(special))
    _count_each(filled, counts)


def _count_each(cells: pa.Array, counts: Counter[str]) -> None:
    wanted = _present(cells)
    wanted = wanted.drop_null()
    counts["present"] += len(wanted)
    numbers = _numbers(wanted)
    counts["number"] += _valid(numbers)
    counts["integer"] += _valid(_integers(wanted.filter(numbers.is_valid())))
    lengths = pc.binary_length(wanted)
    counts["boolean"] += _valid(_booleans(wanted.filter(pc.less_equal(lengths, len("false")))))
    counts["timestamp"] += _valid(_timestamps(wanted.filter(pc.greater_equal(lengths, len("2024-01-01")))))


def _special(cells: pa.Array) -> NDArray[np.bool_]:
    """Return which cells could be anything but a string: by their first byte, of which most text has another."""
    if not len(cells):
        return np.ones(0, dtype=bool)
    ends = _ends(cells)
    if ends[-1] == ends[0]:
        return np.ones(len(cells), dtype=bool)
    data = np.frombuffer(cells.buffers()[2], dtype=np.uint8)
    # An empty cell, also the last one, has no first byte.
    special: NDArray[np.bool_] = _SPECIAL[data[np.minimum(ends[:-1], len(data) - 1)]]
    special[ends[1:] == ends[:-1]] = True
    return special


def texts(cells: pa.Array) -> pa.Array:
    """Return values as the text they would have in a file of text: lists as JSON."""
    if pa.types.is_string(cells.type):
        return cells
    if pa.types.is_nested(cells.type):
        written = [None if cell is None else orjson.dumps(cell, default=str).decode() for cell in cells.to_pylist()]
        return pa.array(written, pa.string())
    return cells.cast(pa.string())


def _present(cells: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(pc.utf8_lower(trimmed), value_set=MISSING)
    return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)


def _valid(values: pa.Array) -> int:
    return len(values) - int(values.null_count)


def _matching(cells: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(cells, pattern), cells, pa.scalar(None, pa.string()))


def _integers(cells: pa.Array) -> pa.Array:
    digits = pc.replace_substring_regex(_matching(cells, _INTEGER), r"^\+", "")
    return _cast(digits, pa.int64(), _one_integer)


def _numbers(cells: pa.Array) -> pa.Array:
    values = _matching(cells, _NUMBER).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def _booleans(cells: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(cells)
    is_true = pc.equal(lower, "true")
    return pc.if_else(pc.or_(is_true, pc.equal(lower, "false")), is_true, pa.scalar(None, pa.bool_()))


def _timestamps(cells: pa.Array) -> pa.Array:
    shaped = pc.replace_substring_regex(_matching(cells, _TIMESTAMP), r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = pc.fill_null(pc.match_substring_regex(shaped, _ZONE), False)
    none = pa.scalar(None, pa.string())
    local = _cast(pc.if_else(zoned, none, shaped), pa.timestamp("us"), _one_timestamp)
    if not pc.any(zoned).as_py():
        return local
    shifted = _cast(pc.if_else(zoned, shaped, none), pa.timestamp("us", "UTC"), _one_timestamp)
    return pc.coalesce(local, shifted.cast(pa.timestamp("us")))


def _cast(cells: pa.Array, to: pa.DataType, one: Callable[[str], Any]) -> pa.Array:
    try:
        return cells.cast(to)
    except pa.ArrowInvalid:
        # Rare: right in shape but out of range, like 30 February; only these batches go cell by cell.
        return pa.array([None if cell is None else one(cell) for cell in cells.to_pylist()], to)


def _one_integer(cell: str) -> int | None:
    value = int(cell) if len(cell) < 25 else 1 << 64
    return value if -(1 << 63) <= value < 1 << 63 else None


def _one_timestamp(cell: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(cell)
        return value.astimezone(UTC) if value.tzinfo else value
    except (ValueError, OverflowError):
        return None


def _string_lists(cells: pa.Array) -> pa.Array:
    return pa.array([None if cell is None else _one_list(cell) for cell in cells.to_pylist()], pa.list_(pa.string()))


def _one_list(cell: str) -> list[str] | None:
    """Return what a cell lists: as JSON, or one item or several with bars between."""
    if not cell.startswith("["):
        items = [item.strip() for item in cell.split("|")]
        return items if all(items) else None
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return None
    return value if is_string_list(value) else None


def is_string_list(value: object) -> bool:
    """Return whether a JSON value is a list of nothing but strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_PARSERS: dict[ColumnType, Callable[[pa.Array], pa.Array]] = {
    "number": _numbers,
    "integer": _integers,
    "boolean": _booleans,
    "timestamp": _timestamps,
    "strings": _string_lists,
}

_PROBE = 16
_BOOLEANS = 4  # true and false, written in one way or two
# How many colons the plainest forms have, by their length.
_COLONS = {len("2024-01-31"): 0, len("2024-01-31T10:15"): 1, len("2024-01-31T10:15:30"): 2}
_PLAIN: dict[ColumnType, Callable[[pa.Array], pa.Array | None]] = {
    "integer": _plain_integers,
    "number": _plain_numbers,
    "boolean": _plain_booleans,
    "timestamp": _plain_timestamps,
}
# The types that are guessed, those first that are soon known not to fit; and what else a value of each counts as.
_BY_COST: tuple[ColumnType, ...] = ("integer", "number", "timestamp", "boolean")
_ALSO: dict[ColumnType, tuple[str, ...]] = {
    "integer": ("present", "integer", "number"),
    "number": ("present", "number"),
    "timestamp": ("present", "timestamp"),
    "boolean": ("present", "boolean"),
}
# First bytes of numbers, times, booleans, marks of missing values, and space, also that beyond ASCII.
_SPECIAL = np.zeros(256, dtype=bool)
_SPECIAL[list(b"+-.0123456789 \t\n\v\f\r\x1c\x1d\x1e\x1fnN?tTfF\xc2\xe1\xe2\xe3")] = True
