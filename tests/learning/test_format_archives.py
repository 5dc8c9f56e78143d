"""Archives of images and recordings: what they become, and every mistake in them by row, member and reason."""

import json

import pytest
from format_files import read, refused
from media_files import coco, deep_png, encoded, packed, picture, png, tone

from learning.errors import InvalidDataset
from learning.formats import sniff


def recognised(path):
    found, why = sniff(path, path.name)
    return found.name, why


def test_folders_are_labels(tmp_path):
    members = {
        "pets/cat/1.png": png(1),
        "pets/cat/2.jpg": encoded(picture(2), "JPEG"),
        "pets/dog/1.webp": encoded(picture(3), "WEBP"),
    }
    path = packed(tmp_path / "pets.zip", {**members, "pets/.DS_Store": b"x", "__MACOSX/pets/cat/._1.png": b"x"})
    assert recognised(path) == ("zip-folders", "an archive of 3 images in 2 folders")
    table, errors = read(path, "zip-folders")
    assert (errors.count, errors.remarks, errors.rows_seen) == (0, [], 3)
    assert table.select(["label", "file"]).to_pylist() == [
        {"label": "cat", "file": "pets/cat/1.png"},
        {"label": "cat", "file": "pets/cat/2.jpg"},
        {"label": "dog", "file": "pets/dog/1.webp"},
    ]
    cells = table.column("image").to_pylist()
    assert [cell["bytes"] for cell in cells] == list(members.values())
    assert [(cell["format"], cell["mode"], cell["width"], cell["height"]) for cell in cells] == [
        ("PNG", "RGB", 12, 8),
        ("JPEG", "RGB", 12, 8),
        ("WebP", "RGB", 12, 8),
    ]


def test_folders_of_parts_become_a_column(tmp_path):
    names = ["train/a/1.png", "train/b/1.png", "val/a/2.png", "test/b/3.png"]
    path = packed(tmp_path / "parts.zip", {name: png(number) for number, name in enumerate(names)})
    table, _ = read(path, "zip-folders")
    assert table.select(["label", "split"]).to_pylist() == [
        {"label": "a", "split": "train"},
        {"label": "b", "split": "train"},
        {"label": "a", "split": "validation"},
        {"label": "b", "split": "test"},
    ]


def test_files_without_labels(tmp_path):
    path = packed(tmp_path / "sounds.zip", {"a.wav": tone(0.25), "b.wav": tone(0.5, rate=16_000), "notes.txt": "x"})
    assert recognised(path) == ("zip-files", "an archive of 2 recordings in one folder")
    table, errors = read(path, "zip-files")
    assert errors.remarks == [("left_out_files", '1 file was left out (no audio by name): "notes.txt".')]
    assert [
        (cell["format"], cell["seconds"], cell["rate"], cell["channels"]) for cell in table["audio"].to_pylist()
    ] == [
        ("WAV", 0.25, 8000, 1),
        ("WAV", 0.5, 16_000, 1),
    ]


MANIFEST = "file,text,age\nwav/a.wav,one,3\nwav/b.wav,two,4\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_s_columns_are_the_files_own(tmp_path, encoding):
    members = {"set/wav/b.wav": tone(0.2), "set/manifest.csv": MANIFEST.encode(encoding), "set/wav/a.wav": tone(0.1)}
    path = packed(tmp_path / "speech.zip", members)
    assert recognised(path) == ("zip-manifest", "an archive of 2 recordings and set/manifest.csv, which names them")
    table, errors = read(path, "zip-manifest")
    assert errors.count == 0
    rows = [{**row, "audio": row["audio"]["seconds"]} for row in table.to_pylist()]
    assert rows == [
        {"audio": 0.1, "file": "wav/a.wav", "text": "one", "age": 3},
        {"audio": 0.2, "file": "wav/b.wav", "text": "two", "age": 4},
    ]


def test_a_manifest_of_json_lines_may_have_lists(tmp_path):
    lines = ['{"file_name": "b.png", "labels": ["cat", "dog"]}', '{"file_name": "a.png", "labels": []}', ""]
    path = packed(tmp_path / "m.zip", {"metadata.jsonl": "\n".join(lines), "a.png": png(1), "b.png": png(2)})
    assert recognised(path) == ("zip-manifest", "an archive of 2 images and metadata.jsonl, which names them")
    table, errors = read(path, "zip-manifest")
    assert errors.count == 0
    assert table.column_names == ["image", "file_name", "labels"]
    assert table.column("labels").to_pylist() == [["cat", "dog"], []]
    broken = ['{"file_name": "a.png", "labels": ["cat"]}', '{"file_name": "b.png", "labels": ["dog"]}'] * 2
    broken += ['{"file_name": "c.png", "labels": []}', '{"file_name": "a.png", "labels": "cat"}', "{", "[]"]
    path = packed(tmp_path / "b.zip", {"metadata.jsonl": "\n".join(broken), "a.png": png(1), "b.png": png(2)})
    table, errors = read(path, "zip-manifest")
    assert table.num_rows == 4
    assert sorted((error.row, error.rule) for error in errors.first()) == [
        (5, "missing_file"),
        (6, "wrong_type"),
        (7, "invalid_json"),
        (8, "invalid_json"),
    ]


@pytest.mark.parametrize("kind", ["zip-files", "zip-folders", "zip-manifest", "zip-coco"])
def test_images_that_are_decoded_at_once_come_in_order(tmp_path, monkeypatch, kind):
    members = {f"{'ab'[n % 2]}/{n:02}.png": png(n, (60, 60)) for n in range(40)}
    for broken in ("a/06.png", "b/07.png", "a/30.png"):
        members[broken] = members[broken][:-500]
    if kind == "zip-files":
        members = {name.replace("/", "-"): content for name, content in members.items()}
    names = list(members)
    lines = ["file", *names[:20], "none.png", *names[20:]]
    document = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(lines[1:])],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    more = {"zip-manifest": {"m.csv": "\n".join(lines)}, "zip-coco": {"c.json": json.dumps(document)}}
    path = packed(tmp_path / "a.zip", {**members, **more.get(kind, {})})
    read_at_once = []
    for threads in (1, 4):
        monkeypatch.setattr("learning.formats.media._MOST_THREADS", threads)
        monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
        table, errors = read(path, kind)
        wrong = [(error.row, error.rule, error.value) for error in errors.first()]
        read_at_once.append((table.column("file").to_pylist(), table.column("image").to_pylist(), wrong))
    assert read_at_once[0] == read_at_once[1]
    assert len(read_at_once[0][0]) == 37
    assert [rule for _, rule, _ in wrong].count("damaged_image") == 3


def test_mistakes_of_a_manifest_and_of_its_files_are_named_together(tmp_path):
    manifest = "file,age\na.png,1\nb.png,2\n,3\nc.png,x\nd.png,5\na.png,1,1\ne.png,6\nf.png,7\n"
    names = "acdef"
    members = {f"{name}.png": png(number) for number, name in enumerate(names)} | {
        "d.png": b"GIF89a",
        "left.png": png(),
    }
    path = packed(tmp_path / "m.zip", {"manifest.csv": manifest, **members})
    table, errors = read(path, "zip-manifest")
    assert [(error.row, error.column, error.rule, error.value) for error in errors.first()] == [
        (2, "file", "missing_file", "b.png"),
        (3, "file", "missing_file", None),
        (4, "age", "wrong_type", "x"),
        (5, "image", "not_an_image", "d.png"),
        (6, None, "ragged_row", "a.png,1,1"),
    ]
    assert table.column("file").to_pylist() == ["a.png", "e.png", "f.png"]
    assert table.column("age").to_pylist() == [1, 6, 7]
    assert errors.remarks == [("left_out_files", '1 file was left out (not named in manifest.csv): "left.png".')]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "manifest.csv",
            "fil,label\na/1.png,cat\nb/2.png,dog\n",
            '("fil", "label") is file, file_name, filename or path',
        ),
        ("manifest.csv", "fil,label\na/1.png,cat\nb/2.png,dog\n", '. Did you mean "file"?'),
        ("labels.tsv", "Filename\tlabel\na/1.png\tcat\n", '. Did you mean "filename"?'),
        ("manifest.jsonl", '{"fil": "a/1.png", "label": "cat"}\n', '. Did you mean "file"?'),
        ("manifest.jsonl", '["a/1.png", "cat"]\n', "none of its columns () is file"),
        ("manifest.parquet", "PAR1", "manifest.parquet is not read: a manifest is a table as CSV or JSON lines"),
    ],
)
def test_a_manifest_that_is_none_is_warned_of(tmp_path, name, content, said):
    for members in ({"a/1.png": png(1), "b/2.png": png(2)}, {"1.png": png(1), "2.png": png(2)}):
        path = packed(tmp_path / "m.zip", {name: content, **members})
        format_name = "zip-folders" if "a/1.png" in members else "zip-files"
        assert recognised(path)[0] == format_name
        table, errors = read(path, format_name)
        assert table.num_rows == 2
        assert [code for code, _ in errors.remarks] == ["unread_manifest", "left_out_files"]
        assert said in errors.remarks[0][1]


BOXES = {"images/1.png": [("cell", [1, 2, 3, 4]), ("dot", [0, 0, 12, 8])], "images/2.png": []}


def test_annotations_are_objects(tmp_path):
    path = packed(tmp_path / "cells.zip", {"annotations.json": coco(BOXES), **{name: png(len(name)) for name in BOXES}})
    found, why = recognised(path)
    assert (found, why.startswith("an archive of 2 images and annotations.json")) == ("zip-coco", True)
    table, errors = read(path, "zip-coco")
    assert errors.count == 0
    assert table.column("objects").to_pylist() == [
        [
            {"label": "cell", "x": 1, "y": 2, "width": 3, "height": 4},
            {"label": "dot", "x": 0, "y": 0, "width": 12, "height": 8},
        ],
        [],
    ]


def test_wrong_annotations_are_named_by_their_image(tmp_path):
    boxes = {
        "a.png": [("cell", [0, 0, 12.5, 8])],  # half a pixel over the edge is cut off
        "b.png": [("cell", [5, 5, 30, 2])],
        "c.png": [("cell", [1, 1, 0, 2])],
        "d.png": [("cell", [1, 1, 2])],
        "e.png": [("cell", [1, 1, 2, 2])],
        "f.png": [("cell", [1, 1, 2, 2])],
    }
    document = json.loads(coco(boxes))
    document["annotations"][4]["category_id"] = 99
    document["annotations"].append({"id": 90, "image_id": 6, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    members = {name: png(number) for number, name in enumerate(boxes)}
    del members["f.png"]
    members["f.webp"] = png(9)
    path = packed(tmp_path / "wrong.zip", {"annotations.json": json.dumps(document), **members})
    table, errors = read(path, "zip-coco")
    assert [(error.row, error.rule, error.value) for error in errors.first()] == [
        (2, "box_outside", "b.png"),
        (3, "bad_box", "c.png"),
        (4, "bad_box", "d.png"),
        (5, "unknown_category", "e.png"),
        (6, "missing_file", "f.png"),
    ]
    assert "reaches 23 pixels out of the image, 12 x 8" in errors.first()[0].message
    assert [cell[0]["width"] for cell in table.column("objects").to_pylist()] == [12]


def test_an_annotation_of_no_image_makes_the_file_unreadable(tmp_path):
    document = json.loads(coco({"a.png": [("cell", [1, 1, 2, 2])]}))
    document["annotations"][0]["image_id"] = 5
    path = packed(tmp_path / "lost.zip", {"a.png": png(), "x.json": json.dumps(document)})
    assert "Annotation 1 is of image 5" in refused(path, "zip-coco").message


def test_images_of_another_size_than_annotated_are_named(tmp_path):
    boxes = {f"{name}.png": [("cell", [1, 1, 2, 2])] for name in "abcdef"}
    document = json.loads(coco(boxes))
    sizes = [(24, 16), (8, 12), (13, 8), (None, 8), (0, 0), (12, 1e9)]
    for entry, size in zip(document["images"], sizes, strict=True):
        entry["width"], entry["height"] = size
    members = {name: png(number) for number, name in enumerate(boxes)}
    path = packed(tmp_path / "sizes.zip", {"annotations.json": json.dumps(document), **members})
    table, errors = read(path, "zip-coco")
    assert [(error.row, error.rule, error.value) for error in errors.first()] == [
        (1, "other_size", "a.png"),
        (2, "other_size", "b.png"),
        (6, "other_size", "f.png"),
    ]
    assert 'Row 1, "a.png": annotations.json says 24 x 16, but it is 12 x 8:' in errors.first()[0].message
    assert "12 x 8 as it is looked at, turned by EXIF's orientation" in errors.first()[1].message
    assert table.column("file").to_pylist() == ["c.png", "d.png", "e.png"]


def test_categories_of_one_id_make_the_file_unreadable(tmp_path):
    members = {"a.png": png(), "b.png": png(1)}
    document = json.loads(coco({"a.png": [("cell", [1, 1, 2, 2])]}))
    document["categories"] *= 2  # the same one twice means one thing
    path = packed(tmp_path / "twice.zip", {**members, "x.json": json.dumps(document)})
    assert read(path, "zip-coco")[1].count == 0
    document["categories"][1] = {"id": 7, "name": "scratch"}
    path = packed(tmp_path / "other.zip", {**members, "x.json": json.dumps(document)})
    assert 'categories "cell" and "scratch" have one id, 7' in refused(path, "zip-coco").message


def sixteen_bit() -> bytes:
    import numpy as np
    from PIL import Image

    return encoded(Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)))


@pytest.mark.parametrize(
    ("name", "content", "rule", "said"),
    [
        ("1.png", b"", "not_an_image", "is empty"),
        ("1.png", png()[:-30], "damaged_image", "PNG image that cannot be decoded"),
        ("1.jpg", encoded(picture(1, (64, 64)), "JPEG")[:-200], "damaged_image", "JPEG image that cannot be decoded"),
        ("1.webp", encoded(picture(1, (64, 64)), "WEBP")[:-200], "damaged_image", "WebP image that cannot be decoded"),
        ("1.jpg", b"not a picture", "not_an_image", "is no image"),
        ("1.gif", encoded(picture(), "GIF"), "not_an_image", "is a GIF image"),
        ("1.png", encoded(picture(), "TIFF"), "not_an_image", "is a TIFF image"),
        ("1.png", encoded(picture(0, (8000, 4000), "L").point(lambda _: 0)), "too_many_pixels", "8000 x 4000"),
        ("1.wav", tone()[:-100], "damaged_audio", "cut off"),
        ("1.mp3", b"ID3" + bytes(100), "damaged_audio", "MP3 recording"),
        ("1.flac", tone()[:8] + bytes(50), "not_audio", "no recording"),
        ("1.wav", tone(0), "no_samples", "without a sample"),
    ],
)
def test_what_cannot_be_read_is_named_and_its_neighbours_stay(tmp_path, name, content, rule, said):
    good = (
        {"0.png": png(), "2.png": png(2)} if "image" in rule or "pixel" in rule else {"0.wav": tone(), "2.wav": tone()}
    )
    first, last = good.items()
    path = packed(tmp_path / "mixed.zip", [first, (name, content), last])
    table, errors = read(path, "zip-files")
    (error,) = errors.first()
    assert (error.row, error.rule, error.value) == (2, rule, name)
    assert said in error.message
    assert error.remedy.endswith('or set on_bad_rows="skip".')
    assert table.column("file").to_pylist() == list(good)


@pytest.mark.parametrize(
    ("content", "mode", "size"),
    [
        (encoded(picture(0, mode="CMYK"), "JPEG"), "CMYK", (12, 8)),
        (sixteen_bit(), "I;16", (4, 4)),
        (deep_png(2, 3), "RGB;16", (4, 4)),
        (deep_png(6, 4), "RGBA;16", (4, 4)),
        (deep_png(4, 2), "LA;16", (4, 4)),
        (encoded(picture(0, mode="RGBA")), "RGBA", (12, 8)),
        (encoded(picture(0).convert("P")), "P", (12, 8)),
        (encoded(picture(0).convert("1")), "1", (12, 8)),
    ],
)
def test_other_ways_to_write_colours_are_read(tmp_path, content, mode, size):
    path = packed(tmp_path / "colours.zip", {"0.png": content, "1.jpg": png()})
    table, errors = read(path, "zip-files")
    assert errors.count == 0
    cell = table.column("image")[0].as_py()
    assert (cell["mode"], (cell["width"], cell["height"])) == (mode, size)


def test_the_turned_are_measured_as_they_are_looked_at(tmp_path):
    image = picture(0, (12, 8))
    exif = image.getexif()
    exif[0x0112] = 6
    path = packed(tmp_path / "turned.zip", {"0.jpg": encoded(image, "JPEG", exif=exif)})
    cell = read(path, "zip-files")[0].column("image")[0].as_py()
    assert (cell["width"], cell["height"]) == (8, 12)


def test_images_and_recordings_do_not_mix(tmp_path):
    path = packed(tmp_path / "both.zip", {"a.png": png(), "b.wav": tone(), "c.png": png(1)})
    error = refused(path, recognised(path)[0])
    assert error.message == "The archive has 2 images and 1 recordings, which no model reads together."


def test_a_file_in_no_folder_has_no_label(tmp_path):
    path = packed(tmp_path / "loose.zip", {"a/1.png": png(1), "b/1.png": png(2), "1.png": png(3)})
    table, errors = read(path, "zip-folders")
    assert [(error.row, error.rule, error.value) for error in errors.first()] == [(3, "no_folder", "1.png")]
    assert (table.num_rows, errors.rows_seen) == (2, 3)


def test_a_lone_image_says_how_it_becomes_a_dataset(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(png())
    with pytest.raises(InvalidDataset) as caught:
        sniff(path, "cat.png")
    assert "begins like a PNG image" in caught.value.message
    assert "zip archive" in caught.value.hint
