"""Pictures of how good models are: what is drawn, that foreign words stay words, and that all stays small."""

import base64
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from media_files import png
from runs import run, spec_of, table_for, write
from sklearn.metrics import precision_recall_curve, roc_curve

from learning.architectures import default_for
from learning.average_precision import found_objects
from learning.capabilities import Illustrated, Judged
from learning.data import FileRows
from learning.images import inspect, small_file
from learning.pictures.confusion import confusion_picture
from learning.pictures.curves import RECALL, Curve, curves_picture
from learning.pictures.sheet import MOST_BYTES, Outline, Tile, percent, sheet_picture
from learning.pictures.svg import fitting, sayable
from learning.tasks import TASKS, mistakes
from learning.tasks.score_pictures import Scored, _points, curves

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '</text><script>alert("1")</script><a href="javascript:alert(2)" onload=\'x\'>&amp;\x00\x1b\u202e\ufffe'
KINDS = {
    "tabular-classification": {"confusion-matrix", "precision-recall", "roc"},
    "text-classification": {"confusion-matrix", "precision-recall", "roc"},
    "image-classification": {"confusion-matrix", "precision-recall", "roc", "mistakes"},
    "multi-label-image-classification": {"precision-recall", "roc", "mistakes"},
    "image-regression": {"mistakes"},
    "image-embedding": {"roc"},
    "object-detection": {"detections"},
    "audio-classification": {"confusion-matrix", "precision-recall", "roc", "mistakes"},
    "speaker-embedding": {"roc"},
    "speech-recognition": {"mistakes"},
}
# What an SVG may have that is only looked at.
ELEMENTS = {"svg", "title", "rect", "polyline", "text", "image"}


def looked_at(svg: str) -> ElementTree.Element:
    """The picture, once nothing is in it that runs or is fetched."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            if name.endswith("href"):
                assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
    return root


def words(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in looked_at(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if isinstance(task, Illustrated)])
def test_every_task_that_has_pictures_draws_them(task, tmp_path):
    tables = {
        "train": write(table_for(task), tmp_path / "train.arrow"),
        "test": write(table_for(task, 14, seed=1), tmp_path / "test.arrow"),
    }
    spec = spec_of(task, architecture=default_for(TASKS[task]), hyperparameters={"max_steps": 1, "batch_size": 8})
    result = run(spec, tables, tmp_path)
    part, measured = result.outcome.judged
    design = result.prepared.design
    judged = Judged(part, measured.predictions, measured.targets, result.prepared.rows[part])
    pictures = {name: svg for name, svg in design.task.pictures(judged, design.inputs, design.targets)}
    assert part == "test"
    assert KINDS.get(task, set()) <= set(pictures) | {"mistakes"}
    assert pictures
    for name, svg in pictures.items():
        looked_at(svg)
        assert "test" in words(svg)[1], name
        assert len(svg) < 2 * MOST_BYTES


def test_no_words_are_more_than_words():
    matrix = confusion_picture([EVIL, "b"], np.array([[3, 1], [0, 4]]), "test")
    curve = curves_picture(RECALL, [Curve(EVIL, np.array([0.0, 1.0]), np.array([1.0, 0.5]), 0.5)], EVIL)
    tile = Tile(png(), (12, 8), [(EVIL, "#000000")], [Outline((0, 0, 1, 1), "#000000", EVIL)])
    sheet = sheet_picture(EVIL, EVIL, [tile], frame=(200, 100), columns=3, legend=[Outline((0, 0, 1, 1), "#000", EVIL)])
    for svg in (matrix, curve, sheet):
        looked_at(svg)
        assert "<script" not in svg
        assert not re.search("[\x00\x1b\u202e\ufffe]", svg)
        assert '</text><script>alert("1")</script>' in "".join(ElementTree.fromstring(svg).itertext())
    assert sayable("a\tb\nc\x07") == "a b c\ufffd"
    assert len(sayable("x" * 10_000)) == 300


def test_a_text_is_cut_where_there_is_no_room():
    assert fitting("short", 10, 100) == "short"
    assert fitting("much longer than that", 10, 60).endswith("…")
    assert len(fitting("猫" * 20, 10, 60)) < len(fitting("i" * 20, 10, 60))


def test_the_confusion_matrix_of_many_classes_keeps_every_row():
    generator = np.random.default_rng(0)
    counts = np.diag(generator.integers(10, 20, 100))
    for place in range(0, 100, 3):
        counts[place, (place + 1) % 100] = 1 + place
    svg = confusion_picture([f"class {n}" for n in range(100)], counts, "validation")
    names = words(svg)
    assert f"{np.trace(counts)} of {counts.sum()} validation rows right" in names[1]
    assert "the 29 classes with most mistakes of 100" in names[1]
    assert "71 others" in names
    totals = [int(found.group(1)) for name in names if (found := re.fullmatch(r"[\d.]+% of (\d+)", name))]
    assert sum(totals) == counts.sum()
    assert len(svg) < 300_000


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_those_of_scikit_learn(ties):
    generator = np.random.default_rng(1)
    positive = generator.random(200) < 0.3
    score = generator.normal(0, 1, 200) + positive
    score = score.round(1) if ties else score
    recall, precision, false = _points(Scored("a", torch.tensor(score), torch.tensor(positive)))
    theirs = precision_recall_curve(positive, score)
    np.testing.assert_allclose(recall[1:], theirs[1][::-1][1:])
    np.testing.assert_allclose(precision[1:], theirs[0][::-1][1:])
    false_theirs, true_theirs, _ = roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false, false_theirs)
    np.testing.assert_allclose(recall, true_theirs)


def test_of_many_labels_the_worst_curves_are_shown_and_none_without_rows():
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(300, generator=generator) < 0.4
    noise = torch.rand(300, generator=generator)
    scored = [Scored(f"label {n}", noise + n * positive, positive) for n in range(9)]
    never = Scored("never", noise, torch.zeros(300, dtype=torch.bool))
    pictures = dict(curves([*scored, never], "300 test rows"))
    for svg in pictures.values():
        shown = words(svg)
        assert "the 7 lowest of 9" in shown[1]
        assert "label 0" in shown
        assert "label 8" not in shown
    assert list(curves([never], "300 test rows")) == []
    # However many rows there are, a line has no more points than the picture can tell apart.
    positive = torch.rand(200_000, generator=generator) < 0.4
    many = Scored("many", torch.rand(200_000, generator=generator) + 0.3 * positive, positive)
    assert all(len(svg) < 60_000 for _, svg in curves([many], "200000 test rows"))


def test_a_sheet_is_bounded_in_bytes():
    noise = png(0, (400, 400))
    tiles = [Tile(noise, (400, 400), [("a", "#000000")]) for _ in range(20)]
    svg = sheet_picture("Sheet", "rows", tiles, frame=(100, 100), columns=4)
    images = [element for element in looked_at(svg).iter(f"{SVG}image")]
    assert len(images) == MOST_BYTES // len(noise)
    assert base64.b64decode(images[0].attrib["href"].partition(",")[2]) == noise


def test_small_images_keep_their_pixels_and_large_ones_become_small():
    assert small_file(png(0, (12, 8)), 12, 8, 64) == (small_file(png(0, (12, 8)), 12, 8, 64)[0], True)
    content, sharp = small_file(png(0, (400, 200)), 400, 200, 100)
    assert not sharp
    assert inspect(content) == ("JPEG", "RGB", 100, 50)


def test_the_worst_mistakes_come_first_and_name_their_rows(tmp_path):
    probability = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.05, 0.95]])
    wrong = mistakes.of_classes(probability, torch.tensor([1, 1, 1, 0]), ("cat", "dog"), "test", 24)
    assert wrong.places == [3, 0, 2]
    assert [line for line, _ in wrong.lines[0]] == ["dog 95.0%", "is cat, 5.0%"]
    assert wrong.said == "all 3 mistakes on 4 test rows"
    few = mistakes.of_classes(probability, torch.tensor([1, 1, 1, 0]), ("cat", "dog"), "test", 2)
    assert few.said == "2 of 3 mistakes on 4 test rows"
    table = table_for("image-classification", 10)
    rows = FileRows(write(table, tmp_path / "t.arrow"), np.array([2, 5, 7, 9]))
    assert [(number, row["file"]) for number, row in rows.taken(wrong.places)] == [
        (10, "9.png"),
        (3, "2.png"),
        (8, "7.png"),
    ]
    assert len(rows) == 4
    assert rows.taken([]) == []


def test_labels_that_are_wrong_and_missed_are_said():
    probability = torch.tensor([[0.9, 0.2, 0.7], [0.1, 0.1, 0.9]])
    has = torch.tensor([[False, True, True], [False, False, True]])
    wrong = mistakes.of_labels(probability, has, ("a", "b", "c"), 0.5, "test")
    assert wrong.places == [0]
    assert [line for line, _ in wrong.lines[0]] == ["wrong: a 90.0%", "missed: b 20.0%", "has c"]
    assert wrong.said == "the only mistake on 2 test rows"


def test_numbers_farthest_off_are_said_in_their_units():
    value, true = torch.tensor([[1.0], [12.5], [3.0]]), torch.tensor([[2.0], [10.0], [3.0]])
    wrong = mistakes.of_numbers(value.double(), true.double(), ("age",), (4.0,), "test")
    assert wrong.places == [1, 0]
    assert [line for line, _ in wrong.lines[0]] == ["12.5", "is 10"]
    assert wrong.said == "the 2 largest errors on 3 test rows"
    # A column of small numbers counts as one of large ones.
    several, right = torch.tensor([[101.0, 0.1], [100.0, 0.5]]), torch.tensor([[100.0, 0.1], [100.0, 0.1]])
    wrong = mistakes.of_numbers(several, right, ("weight", "share"), (10.0, 0.1), "test")
    assert wrong.places == [1, 0]
    assert [line for line, _ in wrong.lines[0]] == ["share: 0.5, is 0.1", "weight: 100, is 100"]
    many = mistakes.of_numbers(torch.ones(1, 5), torch.zeros(1, 5), tuple("abcde"), (1.0,) * 5, "test")
    assert many.lines[0][-1][0] == "and 2 more"
    assert many.said == "the only error on 1 test row"
    assert mistakes.of_numbers(true, true, ("age",), (4.0,), "test").places == []


def test_each_object_is_found_once():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    found = torch.tensor(
        [[0, 0, 10, 10, 0.9, 0], [1, 1, 10, 10, 0.8, 0], [20, 20, 30, 30, 0.7, 1], [50, 50, 60, 60, 0.6, 0]]
    )
    right, seen = found_objects(found, boxes, torch.tensor([0, 0]))
    assert right.tolist() == [True, False, False, False]
    assert seen.tolist() == [True, False]
    right, seen = found_objects(found, boxes[:0], torch.tensor([], dtype=torch.int64))
    assert (right.any(), len(seen)) == (False, 0)


def test_nothing_is_called_certain_that_is_not():
    assert [percent(one) for one in (0.99999, 1, 0, 0.123)] == ["99.9%", "100.0%", "0.0%", "12.3%"]
