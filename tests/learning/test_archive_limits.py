"""Archives made to do harm: refused whole, each for its reason, with nothing unpacked."""

import json
import random

import pytest
from format_files import read, refused, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_files import coco, hostile_archives, packed, png

from learning.errors import InvalidDataset
from learning.formats import sniff
from learning.formats.format import ReadOptions
from learning.formats.row_errors import RowErrors

HOSTILE = hostile_archives()


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused(tmp_path, what):
    rule, content = HOSTILE[what]
    path = written(tmp_path, content, "hostile.zip")
    found, _ = sniff(path, path.name)
    error = refused(path, found.name)
    assert error.errors[0].rule == rule
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hostile.zip"]


def test_every_refused_member_is_named(tmp_path):
    names = [f"../{number}.png" for number in range(150)]
    error = refused(packed(tmp_path / "many.zip", {name: png() for name in names}), "zip-files")
    assert (error.error_count, error.errors_by_rule) == (150, {"member_name": 150})
    assert [one.value for one in error.errors] == names[:100]
    assert "149 more members" in error.message


def test_a_size_that_lies_is_never_exceeded(tmp_path):
    content = bytearray(packed(tmp_path / "honest.zip", {"a.png": png(), "b.png": png(1)}).read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    path = written(tmp_path, bytes(content), "lying.zip")
    table, errors = read(path, "zip-files")
    assert [(error.rule, error.value) for error in errors.first()] == [("damaged_member", "a.png")]
    assert table.column("file").to_pylist() == ["b.png"]


NO_ANNOTATIONS = [
    "[1]",
    '{"images": "annotations categories"}',
    "[" * 100_000,
    '{"images": [], "annotations": [], "categories": []}',
    '{"images": [7], "annotations": [], "categories": []}',
]


@pytest.mark.parametrize("document", NO_ANNOTATIONS)
def test_annotations_that_are_none(tmp_path, document):
    padding = '"images" "annotations" "categories"'
    path = packed(tmp_path / "odd.zip", {"a.png": png(), "annotations.json": document})
    assert refused(path, "zip-coco").hint
    path = packed(tmp_path / "odder.zip", {"a.png": png(), "annotations.json": document + padding})
    assert refused(path, "zip-coco").hint


SOUND = {
    "zip-folders": {"a/1.png": png(1), "b/2.png": png(2)},
    "zip-manifest": {"manifest.csv": "file,n\n1.png,1\n2.png,2\n", "1.png": png(1), "2.png": png(2)},
    "zip-coco": {"annotations.json": coco({"1.png": [("x", [1, 1, 2, 2])]}), "1.png": png(1)},
}


DAMAGE = given(seed=st.integers(0, 2**32), count=st.integers(1, 30), name=st.sampled_from(sorted(SOUND)))
FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
@DAMAGE
def test_damage_anywhere_is_an_error_of_ours(tmp_path, seed, count, name):
    damage(tmp_path, seed, count, name)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@settings(deadline=None, max_examples=2_500, suppress_health_check=FIXTURE)
@DAMAGE
def test_very_much_damage_is_an_error_of_ours(tmp_path, seed, count, name):
    damage(tmp_path, seed, count, name)


def damage(tmp_path, seed, count, name):
    """Change bytes at random: either it reads, or it is refused with a reason; never another exception."""
    draw = random.Random(seed)
    content = bytearray(packed(tmp_path / "sound.zip", SOUND[name]).read_bytes())
    for _ in range(count):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path = written(tmp_path, bytes(content), "damaged.zip")
    errors = RowErrors(path.name)
    try:
        found, _ = sniff(path, path.name)
        list(found.read(path, ReadOptions(path.name), errors))
    except InvalidDataset as error:
        json.dumps([one.to_dict() for one in error.errors])
    json.dumps([one.to_dict() for one in errors.first()])
