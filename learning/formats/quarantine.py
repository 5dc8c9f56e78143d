"""The bad rows of a file, kept in a file of their own: one JSON object a row, in the order of the rows.

`{"row": 3, "values": {"age": "abc", ...}, "errors": [{"rule", "column", "value", "message", "remedy"}]}`; a row that
could not be taken apart has its `text` instead of `values`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from learning.errors import RowError


class Quarantine:
    """Writes bad rows as soon as nothing more can be found wrong with them; few are in memory at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._waiting: dict[int, dict[str, Any]] = {}
        self.rows = 0

    def note(self, error: RowError) -> None:
        """Add an error to its row."""
        about = {
            "rule": error.rule,
            "column": error.column,
            "value": error.value,
            "message": error.message,
            "remedy": error.remedy,
        }
        self._entry(error.row or 0).setdefault("errors", []).append(about)

    def keep(self, row: int, *, text: str | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Keep what stands in a row; its text says more than its values."""
        entry = self._entry(row)
        if text is not None:
            entry.pop("values", None)
            entry["text"] = text
        elif "text" not in entry:
            entry["values"] = dict(values or {})

    def _entry(self, row: int) -> dict[str, Any]:
        return self._waiting.setdefault(row, {"row": row})

    def settle(self, row: float) -> None:
        """Write the rows up to and with this one."""
        for done in sorted(number for number in self._waiting if number <= row):
            self._file.write(json.dumps(self._waiting.pop(done), ensure_ascii=False, default=str) + "\n")
            self.rows += 1

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
