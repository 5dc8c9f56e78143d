"""The types a column can have; apart from everything that reads columns, since naming a type must cost no import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import TypeIs

ColumnType = Literal["integer", "number", "boolean", "timestamp", "string", "strings"]

# What only archives have: no cell of a table is declared as one.
MediaType = Literal["image", "audio", "objects"]
AnyType = ColumnType | MediaType


def is_media(kind: AnyType) -> TypeIs[MediaType]:
    """Return whether a column of this type holds what was taken from an archive."""
    return kind in {"image", "audio", "objects"}
