"""A zip archive of images with marked objects, in the JSON of COCO (Lin et al. 2014, arXiv 1405.0312).

Of that JSON `images`, `categories` and of `annotations` the boxes are read. A row is an entry of `images`.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from learning.errors import InvalidDataset, did_you_mean
from learning.formats.archive import Archive
from learning.formats.column_types import check_declared
from learning.formats.format import ReadOptions
from learning.formats.media import (
    SKIP,
    Contents,
    Look,
    contents,
    look_at,
    media_cell,
    one_kind,
    outline,
    parts,
    say_left_out,
)
from learning.formats.media import Row as MediaRow
from learning.formats.row_errors import RowErrors, invalid_file
from learning.media_types import MEDIA_TYPES, UnreadableMedia

if TYPE_CHECKING:
    from typing_extensions import TypeIs

_MOST_BYTES = 256 << 20
_KEYS = ("images", "annotations", "categories")
# Boxes are written with rounded numbers: so many pixels beyond the image are cut off without a word.
_SLACK = 1.0
_SCHEMA = pa.schema([("image", MEDIA_TYPES["image"]), ("objects", MEDIA_TYPES["objects"]), ("file", pa.string())])


class ZipCocoFormat:
    """Images and a COCO annotations file: a row has the image and its objects, each a label and a box."""

    name = "zip-coco"
    suffixes = (".zip",)

    def sniff(self, path: Path, filename: str) -> str | None:
        """Return why there are annotations: a JSON file at the top of the archive with the keys of COCO."""
        found = outline(path)
        names = found.tops(".json") if found and found.kind == "image" else []
        if found is None or not names:
            return None
        with Archive(path, filename) as archive:
            name = next((name for name in names if _seems_coco(archive, name)), None)
        return f"an archive of {found.nouns()} and {name}, which has the keys {', '.join(_KEYS)}" if name else None

    def read(self, path: Path, options: ReadOptions, errors: RowErrors) -> Iterator[pa.RecordBatch]:
        """Yield the images with their objects; an image with a wrong annotation is left out and named."""
        with Archive(path, options.filename) as archive:
            found = contents(archive)
            one_kind(found, options.filename)
            check_declared(options.column_types, _SCHEMA.names)
            name, document = _annotations(archive, found, options.filename)
            book = _Book(document, name, options.filename)
            prefix = f"{name.rpartition('/')[0]}/" if "/" in name else ""
            rows = book.rows(archive, prefix, errors)
            seen = 0
            for part in parts(archive, rows):
                there = [row for row in part if row.name in archive]
                looks = dict(zip(there, look_at(archive, [row.name for row in there], "image"), strict=True))
                rows_cells = (book.cells(archive, row, looks.get(row), errors) for row in part)
                kept = [cells for cells in rows_cells if cells is not None]
                seen += len(part)
                errors.rows_seen = len(rows) if seen == len(rows) else part[-1].number
                errors.settle(part[-1].number)
                yield pa.RecordBatch.from_pylist(kept, schema=_SCHEMA)
                options.report("reading", seen / len(rows))
            named = {row.name for row in rows}
            left = [member for member in found.media if member not in named]
            say_left_out(left, f"not named in {name}", errors)
            book.say_what_is_not_read(errors)


class Mistake(NamedTuple):
    """What is wrong with an annotation, and by which rule."""

    rule: str
    what: str


@dataclass(slots=True)
class _Book:
    """A document of COCO, its parts by id."""

    document: dict[str, Any]
    name: str
    filename: str
    categories: dict[Any, str] = field(default_factory=dict)
    by_image: dict[Any, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    entries: list[dict[str, Any]] = field(default_factory=list)
    crowds: int = 0

    def __post_init__(self) -> None:
        for category in self._objects("categories"):
            identifier, name = category.get("id"), str(category.get("name", category.get("id")))
            other = self.categories.setdefault(_key(identifier), name)
            if other != name:
                raise self._refuse(
                    "duplicate_category",
                    f'The categories "{other}" and "{name}" have one id, {identifier!r}.',
                    "Give each its own, also in the annotations.",
                )
        self.entries = self._objects("images")
        ids = Counter(_key(entry.get("id")) for entry in self.entries)
        for annotation in self._objects("annotations"):
            image = _key(annotation.get("image_id"))
            if image not in ids:
                raise self._refuse(
                    "unknown_image",
                    f"Annotation {annotation.get('id')} is of image {annotation.get('image_id')!r}, which images "
                    "does not have.",
                    "Add the image, or remove the annotation.",
                )
            self.by_image[image].append(annotation)
        twice = next((image for image, count in ids.items() if count > 1), None)
        if twice is not None:
            raise self._refuse("duplicate_image", f"{ids[twice]} images have the id {twice!r}.", "Number them anew.")
        if not self.entries:
            raise self._refuse("no_rows", "It has no images.", "Add at least one.")

    def _objects(self, key: str) -> list[dict[str, Any]]:
        found = self.document.get(key)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._refuse("annotations", f'"{key}" is no list of objects.', "Write the file as COCO does.")
        return found

    def _refuse(self, rule: str, message: str, remedy: str) -> InvalidDataset:
        return invalid_file(rule, f"{self.name}: {message}", remedy, file=self.filename)

    def rows(self, archive: Archive, prefix: str, errors: RowErrors) -> list[MediaRow]:
        """Return a row for each image, with the member that it is; annotations may lie beside a folder of images."""
        return [
            MediaRow(number, _member(entry.get("file_name"), prefix, archive), (number - 1,))
            for number, entry in enumerate(self.entries, 1)
        ]

    def cells(self, archive: Archive, row: MediaRow, look: Look | None, errors: RowErrors) -> dict[str, Any] | None:
        """Return an image, by what its member is, with its objects; None, and errors, where anything of it is wrong."""
        if look is None:
            self._report(
                errors,
                row,
                "missing_file",
                f'"{row.name}" is not in the archive.{did_you_mean(row.name, archive.names)}',
            )
            return None
        image = media_cell(look, row, "image", errors)
        if image is None:
            return None
        before = errors.count
        entry = self.entries[row.values[0]]
        if (other := _other_size(entry, image)) is not None:
            self._report(errors, row, "other_size", f"{self.name} says {other}: its boxes may be elsewhere.")
            return None
        objects = []
        for annotation in self.by_image[_key(entry.get("id"))]:
            if annotation.get("iscrowd"):
                self.crowds += 1
                continue
            found = self._object(annotation, image)
            if isinstance(found, Mistake):
                self._report(errors, row, *found)
            else:
                objects.append(found)
        return {"image": image, "objects": objects, "file": row.name} if errors.count == before else None

    def _object(self, annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any] | Mistake:
        """Return an annotation as an object, or by which rule it is wrong and what is."""
        which = f"annotation {annotation.get('id')}"
        label = self.categories.get(_key(annotation.get("category_id")))
        box = annotation.get("bbox")
        if label is None:
            return Mistake("unknown_category", f"{which} has the unknown category {annotation.get('category_id')!r}.")
        if not _is_box(box):
            return Mistake("bad_box", f"{which}: {str(box)[:60]} is no box [x, y, width, height].")
        x, y, width, height = (float(number) for number in box)
        size = f"{image['width']} x {image['height']}"
        over = max(-x, -y, x + width - image["width"], y + height - image["height"])
        if over > _SLACK:
            return Mistake("box_outside", f"{which}: the box {box} reaches {over:g} pixels out of the image, {size}.")
        right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
        x, y = max(0.0, x), max(0.0, y)
        if right <= x or bottom <= y:
            return Mistake("bad_box", f"{which}: the box {box} is empty.")
        return {"label": label, "x": x, "y": y, "width": right - x, "height": bottom - y}

    def _report(self, errors: RowErrors, row: MediaRow, rule: str, what: str) -> None:
        errors.add(
            rule,
            f'Row {row.number}, "{row.name}": {what}',
            f"Correct {self.name}, leave the image out, {SKIP}",
            row=row.number,
            column="image" if rule == "missing_file" else "objects",
            value=row.name,
            text=json.dumps(self.entries[row.values[0]]),
        )

    def say_what_is_not_read(self, errors: RowErrors) -> None:
        """Warn of annotations of crowds, whose boxes are of many objects together."""
        if self.crowds:
            errors.remark("crowds", f"{self.crowds} annotations of crowds (iscrowd) were left out.")


def _annotations(archive: Archive, found: Contents, filename: str) -> tuple[str, dict[str, Any]]:
    for name in found.tops(".json"):
        if not _seems_coco(archive, name):
            continue
        try:
            document = json.loads(archive.read(name, _MOST_BYTES))
        except UnreadableMedia as error:
            raise invalid_file(error.rule, f"{name} {error.what}.", error.remedy, file=filename) from None
        except (ValueError, RecursionError) as error:
            raise invalid_file(
                "annotations", f"{name} is no JSON: {error}.", "Write it again.", file=filename
            ) from None
        if isinstance(document, dict):
            return name, document
    raise invalid_file(
        "no_annotations",
        f"No JSON file at the top of the archive has the keys {', '.join(_KEYS)}.",
        "Put annotations.json there, in COCO's form.",
        file=filename,
    )


def _seems_coco(archive: Archive, name: str) -> bool:
    try:
        content = archive.read(name, _MOST_BYTES)
    except UnreadableMedia:
        return False
    return all(f'"{key}"'.encode() in content for key in _KEYS)


def _member(name: Any, prefix: str, archive: Archive) -> str:
    """Return the member that an image's file_name means: from where the annotations are, or in a folder of images."""
    given = str(name).removeprefix("./")
    places = (prefix + given, given, f"{prefix}images/{given}")
    return next((place for place in places if place in archive), given)


def _key(identifier: Any) -> Any:
    """Return an id as a key; lists and objects are none."""
    return identifier if isinstance(identifier, int | str | float) else repr(identifier)


def _other_size(entry: dict[str, Any], image: dict[str, Any]) -> str | None:
    """Return the size that an entry says and that its image has, if they differ; an entry may say none."""
    given = [entry.get("width"), entry.get("height")]
    if not all(isinstance(one, int | float) and one > 0 for one in given):
        return None
    real = [image["width"], image["height"]]
    if all(abs(one - other) <= _SLACK for one, other in zip(given, real, strict=True)):
        return None
    turned = " as it is looked at, turned by EXIF's orientation" if given == real[::-1] else ""
    said = " x ".join(str(one)[:20] for one in given)
    return f"{said}, but it is {real[0]} x {real[1]}{turned}"


def _is_box(box: Any) -> TypeIs[list[float]]:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in box)
        and box[2] > 0
        and box[3] > 0
    )
