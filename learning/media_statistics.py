"""What is known of a column of images, recordings or marked objects, gathered while its rows are written."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from learning.column_type import MediaType


@dataclass(frozen=True, slots=True)
class Span:
    """The smallest, mean and largest of some numbers."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Sizes in pixels, as an image is looked at; how many there are of each format, and of each of Pillow's modes."""

    width: Span
    height: Span
    formats: dict[str, int]
    modes: dict[str, int]


@dataclass(frozen=True, slots=True)
class AudioLengths:
    """Lengths in seconds; how many recordings there are of each format, sampling rate and number of channels."""

    seconds: Span
    total_seconds: float
    formats: dict[str, int]
    rates: dict[str, int]
    channels: dict[str, int]


@dataclass(frozen=True, slots=True)
class MarkedObjects:
    """Objects in an image, and how often each label occurs."""

    objects: Span
    total: int
    labels: dict[str, int]


Media = ImageSizes | AudioLengths | MarkedObjects


class MediaStatistics:
    """Gathers what is known of one such column."""

    def __init__(self, kind: MediaType) -> None:
        self._kind = kind
        self._sums: dict[str, tuple[float, float, float, int]] = {}  # least, sum, most, how many
        self._counts: dict[str, Counter[str]] = {}

    def add(self, cells: pa.Array) -> None:
        """Look at some cells, of which none is null."""
        if self._kind == "objects":
            self._measure("objects", pc.list_value_length(cells))
            self._count("label", pc.struct_field(cells.flatten(), "label"))
            return
        measured = ("width", "height") if self._kind == "image" else ("seconds",)
        counted = ("format", "mode") if self._kind == "image" else ("format", "rate", "channels")
        for name in measured:
            self._measure(name, pc.struct_field(cells, name))
        for name in counted:
            self._count(name, pc.struct_field(cells, name))

    def _measure(self, name: str, values: pa.Array) -> None:
        ends = pc.min_max(values)
        low, high, total = ends["min"].as_py(), ends["max"].as_py(), pc.sum(values).as_py()
        least, summed, most, count = self._sums.get(name, (low, 0.0, high, 0))
        self._sums[name] = (min(least, low), summed + total, max(most, high), count + len(values))

    def _count(self, name: str, values: pa.Array) -> None:
        counts = self._counts.setdefault(name, Counter())
        for found in values.value_counts().to_pylist():
            counts[str(found["values"])] += found["counts"]

    def summary(self) -> Media | None:
        """Return what was found; None for a column without a value."""
        if not self._sums:
            return None
        if self._kind == "image":
            return ImageSizes(self._span("width"), self._span("height"), self._table("format"), self._table("mode"))
        if self._kind == "audio":
            seconds, tables = self._span("seconds"), (self._table(name) for name in ("format", "rate", "channels"))
            return AudioLengths(seconds, self._sums["seconds"][1], *tables)
        return MarkedObjects(self._span("objects"), int(self._sums["objects"][1]), self._table("label"))

    def _span(self, name: str) -> Span:
        least, summed, most, count = self._sums[name]
        return Span(least, summed / count, most)

    def _table(self, name: str) -> dict[str, int]:
        return dict(self._counts[name].most_common())


def digests(cells: pa.Array) -> pa.Array:
    """Return a number for each cell, by which equal ones are counted; none is null."""
    values: list[Any] = (
        [repr(cell).encode() for cell in cells.to_pylist()]
        if pa.types.is_list(cells.type)
        else pc.struct_field(cells, "bytes").to_pylist()
    )
    found = (hashlib.blake2b(value, digest_size=8).digest() for value in values)
    return pa.array([int.from_bytes(digest, "little", signed=True) for digest in found], pa.int64())
