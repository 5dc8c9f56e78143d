"""Images, recordings and marked objects as columns: their Arrow types, and what is wrong with one that cannot be read.

A cell holds the file as it was uploaded, with what is known of it, so that statistics and previews decode nothing.
"""

from __future__ import annotations

import pyarrow as pa

from learning.column_type import AnyType

MEDIA_TYPES: dict[AnyType, pa.DataType] = {
    # Width and height are those of the picture as it is looked at, its orientation applied.
    "image": pa.struct(
        [
            ("bytes", pa.large_binary()),
            ("format", pa.string()),
            ("mode", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    ),
    "audio": pa.struct(
        [
            ("bytes", pa.large_binary()),
            ("format", pa.string()),
            ("seconds", pa.float64()),
            ("rate", pa.int32()),
            ("channels", pa.int32()),
        ]
    ),
    # Boxes in pixels of the image as it is looked at: the left upper corner, and how wide and high.
    "objects": pa.list_(
        pa.struct(
            [
                ("label", pa.string()),
                ("x", pa.float64()),
                ("y", pa.float64()),
                ("width", pa.float64()),
                ("height", pa.float64()),
            ]
        )
    ),
}

# What the column with the files' names may be called, the first one first.
FILE_COLUMNS = ("file", "file_name", "filename", "path")


class UnreadableMedia(Exception):
    """A file that is no image or recording that can be read: by which rule, what it is, and what to do.

    `what` continues a sentence that begins with the file's name.
    """

    def __init__(self, rule: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.rule = rule
        self.what = what
        self.remedy = remedy


def file_column(schema: pa.Schema) -> str | None:
    """Return the column with the names of the files whose content another column has; None without such content."""
    has_media = any(kind in MEDIA_TYPES.values() for kind in schema.types)
    return next((name for name in FILE_COLUMNS if name in schema.names), None) if has_media else None
