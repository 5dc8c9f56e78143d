"""The types a column can have; apart from everything that reads columns, since naming a type must cost no import."""

from __future__ import annotations

from typing import Literal

ColumnType = Literal["integer", "number", "boolean", "timestamp", "string", "strings"]
