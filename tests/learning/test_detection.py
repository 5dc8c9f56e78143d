"""Detection: boxes and their loss, what is kept of many, mAP beside a reference, and what every detector must do."""

import base64
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pyarrow as pa
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from media_files import encoded
from PIL import Image as Pillow
from runs import THINGS, run, saved, small_images, spec_of, write

from learning import boxes, images
from learning.augmentation import View, augment_with_boxes
from learning.average_precision import PrecisionTally
from learning.capabilities import Level
from learning.detectors import DETECTORS
from learning.detectors.detector import Marked, Scene
from learning.errors import InvalidConfig, InvalidData
from learning.interfaces import Features
from learning.media_types import MEDIA_TYPES
from learning.prediction import Predictor
from learning.preparation import check

SIDE = 64
SCENE = Scene(SIDE, 3)
LEVELS = (Level(8, 4), Level(8, 8), Level(8, 16))


def random_boxes(generator, *shape, side=100.0):
    low = generator.uniform(0, side * 0.8, (*shape, 2))
    high = low + generator.uniform(1, side * 0.5, (*shape, 2))
    return torch.from_numpy(np.concatenate([low, high.clip(max=side)], -1)).float()


def counted(box, other):
    """Pixels of whole-numbered boxes that both cover, that either covers, and that their hull does."""
    covered = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (box, other)]
    hull = (max(box[2], other[2]) - min(box[0], other[0])) * (max(box[3], other[3]) - min(box[1], other[1]))
    return len(covered[0] & covered[1]), len(covered[0] | covered[1]), hull


@pytest.mark.parametrize(
    ("box", "other"),
    [((0, 0, 4, 4), (2, 1, 6, 5)), ((0, 0, 2, 2), (5, 5, 8, 9)), ((1, 1, 9, 9), (3, 3, 5, 5)), ((0, 0, 3, 3),) * 2],
)
def test_overlaps_are_counts_of_pixels(box, other):
    shared, union, hull = counted(box, other)
    first, second = torch.tensor(box).float(), torch.tensor(other).float()
    assert float(boxes.overlap(first, second)) == pytest.approx(shared / union)
    assert float(boxes.generalized_overlap(first, second)) == pytest.approx(shared / union - (hull - union) / hull)


def greedy(found, classes, limit):
    """Which boxes stay, one after the other, by the definition."""
    kept = []
    for number, box in enumerate(found):
        rivals = [found[other] for other in kept if classes[other] == classes[number]]
        if all(float(boxes.overlap(box, rival)) <= limit for rival in rivals):
            kept.append(number)
    return kept


@pytest.mark.parametrize("limit", [0.2, 0.5, 0.8])
def test_the_boxes_that_are_kept_are_those_of_the_greedy_search(limit):
    generator = np.random.default_rng(1)
    found, classes = random_boxes(generator, 3, 40, side=30.0), torch.from_numpy(generator.integers(0, 2, (3, 40)))
    found[:, 20:30], classes[:, 20:30] = found[:, :10] + 0.2, classes[:, :10]
    kept = boxes.best_of_each(found, classes, limit)
    for row in range(3):
        assert kept[row].nonzero().squeeze(1).tolist() == greedy(found[row], classes[row].tolist(), limit)
    assert 0 < int(kept.sum()) < kept.numel()


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(("width", "height"), [(90, 40), (37, 80), (20, 20)])
def test_a_box_lies_in_the_square_where_its_pixels_do(fit, width, height):
    box = (12, 11, 18, 19)
    picture = Pillow.new("L", (width, height))
    picture.paste(255, box)
    pixels = images.decode(encoded(picture), images.Target(64, 64, 1, fit, background=0))[:, :, 0]
    size_B2, given = torch.tensor([[width, height]]), torch.tensor([[box]]).float()
    moved = boxes.into_square(given, size_B2, 64, fit)
    rows, columns = np.nonzero(pixels > 127)
    if len(rows):
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert moved[0, 0].clamp(0, 64).tolist() == pytest.approx(seen, abs=1.01)
    back = boxes.out_of_square(moved, size_B2, 64, fit)
    assert back[0, 0].tolist() == pytest.approx(box, abs=1e-3)


@pytest.mark.parametrize(
    "view",
    [
        View(mirror=True, flip=True),
        View(scale=(0.6, 1.4), aspect=1.3, shift=0.2, mirror=True),
        View(rotation=30, shear=0.2, scale=(0.9, 1.1)),
    ],
)
def test_boxes_move_with_their_pixels(view):
    torch.manual_seed(3)
    image_BCHW = torch.zeros(24, 1, 96, 96)
    image_BCHW[:, :, 30:46, 36:62] = 255
    given = torch.tensor([36.0, 30, 62, 46]).expand(24, 1, 4)
    seen_BCHW, moved = augment_with_boxes(image_BCHW, given, view)
    places = set()
    for image, box in zip(seen_BCHW[:, 0], moved[:, 0].clamp(0, 96), strict=True):
        rows, columns = (image > 127).nonzero(as_tuple=True)
        around = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert box.tolist() == pytest.approx(around, abs=2.5 if view.rotation else 1.01)
        places.add(tuple(around))
    assert len(places) > 3


def by_the_reference(found, truth, labels):
    """COCO's twelve numbers and those of the classes, by faster-coco-eval."""

    def box(edges):
        return [edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]]

    count = len(found)
    sheet = {
        "images": [{"id": number, "width": 100, "height": 100} for number in range(1, count + 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(labels)],
        "annotations": [],
    }
    for number, (edges, classes) in enumerate(truth, 1):
        for one, kind in zip(edges.tolist(), classes.tolist(), strict=True):
            if kind >= 0:
                left = box(one)
                sheet["annotations"].append(
                    {"id": len(sheet["annotations"]) + 1, "image_id": number, "category_id": kind, "bbox": left,
                     "area": left[2] * left[3], "iscrowd": 0}
                )  # fmt: skip
    answers = [
        {"image_id": number, "category_id": int(kind), "bbox": box(edges), "score": score}
        for number, part in enumerate(found, 1)
        for *edges, score, kind in part.tolist()
        if score > 0
    ]
    with redirect_stdout(io.StringIO()):
        known = COCO(sheet)
        judge = COCOeval_faster(known, known.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_the_reference(seed):
    generator = np.random.default_rng(seed)
    labels = ("cell", "rod", "star")
    truth, found = [], []
    for _ in range(12):
        count = int(generator.integers(0, 7))
        edges = random_boxes(generator, count)
        kinds = torch.from_numpy(generator.integers(0, 3, count))
        truth.append((edges, kinds))
        near = edges + torch.from_numpy(generator.normal(0, 2.5, (count, 4))).float()
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        far = random_boxes(generator, 5)
        # Scores that repeat, as well: their order is part of what is counted.
        scores = torch.from_numpy(generator.integers(1, 20, (count + 5, 1)) / 20)
        wrong = torch.from_numpy(generator.integers(0, 3, (count + 5, 1)))
        kind = torch.cat([kinds[:, None], wrong[count:]])
        kind = torch.where(torch.from_numpy(generator.random((count + 5, 1))) < 0.15, wrong, kind)
        found.append(torch.cat([torch.cat([near, far]).double(), scores, kind], 1))
    tally = PrecisionTally(labels)
    for part, (edges, kinds) in zip(found, truth, strict=True):
        tally.add(part, edges, kinds)
    measured, reference = tally.metrics(), by_the_reference(found, truth, labels)
    assert [measured[name] for name in ("map", "map50", "map75")] == pytest.approx(list(reference[:3]), abs=1e-6)
    assert 0.05 < measured["map"] < 0.9


def test_what_is_found_of_nothing_and_nothing_of_what_is_there():
    tally = PrecisionTally(("a", "b"))
    assert (tally.metrics()["map"], tally.metrics()["objects"]) == (0.0, 0)
    one = torch.tensor([[10.0, 10, 20, 20]])
    tally.add(torch.tensor([[10.0, 10, 20, 20, 0.9, 0], [0, 0, 5, 5, 0.0, 0]]), one, torch.tensor([0]))
    tally.add(torch.empty(0, 6), one, torch.tensor([1]))
    measured = tally.metrics()
    assert {label: part["ap"] for label, part in measured["classes"].items()} == {"a": 1.0, "b": 0.0}
    assert (measured["map"], measured["best_threshold"]) == (0.5, pytest.approx(0.9))
    assert measured["f1"] == pytest.approx(2 / 3)


def squares(generator, count):
    """Squares on a ground, as features of three grids as they are, and where they are."""
    image = torch.zeros(count, 8, SIDE, SIDE)
    marked = torch.full((count, 4, 4), -1.0)
    kinds = torch.full((count, 4), -1)
    for row in range(count):
        for place in range(int(generator.integers(0, 4))):
            left, top = generator.integers(0, SIDE - 20, 2)
            wide, high = generator.integers(8, 20, 2)
            kind = int(generator.integers(0, 3))
            image[row, kind, top : top + high, left : left + wide] = 1
            marked[row, place] = torch.tensor([left, top, left + wide, top + high]).float()
            kinds[row, place] = kind
    grids = tuple(torch.nn.functional.avg_pool2d(image, level.stride) for level in LEVELS)
    return Features(grids[-1].flatten(2).transpose(1, 2), grids_BDHW=grids), Marked(marked, kinds)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_learns_where_things_are(name):
    torch.manual_seed(0)
    detector, generator = DETECTORS[name], np.random.default_rng(0)
    config = detector.Config(**({"width": 24, "stride": 4} if name == "centre-points" else {}))
    head = detector.head(LEVELS, SCENE, config)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    features, marked = squares(generator, 24)
    losses = []
    for _ in range(150):
        loss = detector.loss(head(features), marked, SCENE, config)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    with torch.inference_mode():
        found = detector.found(head.eval()(features), SCENE, config)
    assert found.shape[::2] == (24, 6)
    assert (found[:, :-1, 4] >= found[:, 1:, 4]).all()
    assert ((found[..., :4] >= 0) & (found[..., :4] <= SIDE)).all()
    assert set(found[..., 5].unique().tolist()) <= {0.0, 1.0, 2.0}
    tally = PrecisionTally(("a", "b", "c"))
    for part, edges, kinds in zip(found, *marked, strict=True):
        tally.add(part, edges, kinds)
    assert tally.metrics()["map50"] > 0.8


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_takes_squares_without_an_object(name):
    detector = DETECTORS[name]
    config = detector.Config()
    head = detector.head(LEVELS, SCENE, config)
    features, marked = squares(np.random.default_rng(0), 4)
    empty = Marked(marked.boxes_BM4, torch.full_like(marked.class_BM, -1))
    outputs = head(features)
    loss = detector.loss(outputs, empty, SCENE, config)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters() if parameter.grad is not None)
    assert detector.loss(outputs.detach(), marked, SCENE, config) > 0


def marked_table(objects) -> pa.Table:
    return small_images(len(objects)).set_column(1, "objects", pa.array(objects, MEDIA_TYPES["objects"]))


def test_images_without_any_object_are_refused(tmp_path):
    with pytest.raises(InvalidData, match='"objects" has no object in any of the 8 training images') as caught:
        run(spec_of(THINGS), {"train": write(marked_table([[]] * 8), tmp_path / "t.arrow")}, tmp_path)
    assert caught.value.param == "columns.target"


def test_a_column_that_is_no_list_of_objects_is_refused(tmp_path):
    columns = {"target": "label"}
    with pytest.raises(InvalidData, match="which are no marked objects"):
        run(spec_of(THINGS, columns=columns), {"train": write(small_images(8), tmp_path / "t.arrow")}, tmp_path)


def test_classes_that_training_does_not_know_count_as_missed(tmp_path):
    train, test = small_images(24), small_images(10, seed=1)
    objects = test.column("objects").to_pylist()
    objects[0].append({"label": "moon", "x": 5.0, "y": 1.0, "width": 3.0, "height": 3.0})
    tables = {
        "train": write(train, tmp_path / "train.arrow"),
        "test": write(test.set_column(1, "objects", pa.array(objects, MEDIA_TYPES["objects"])), tmp_path / "t.arrow"),
    }
    metrics = run(spec_of(THINGS, hyperparameters={"epochs": 2}), tables, tmp_path / "run").metrics["test"]
    assert metrics["objects"] == 11
    assert metrics["classes"]["other classes"] == {"ap": 0.0, "ap50": 0.0, "objects": 1}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"detector": "anchors"}, 'there is no detector "anchors"; choose one of centre-points'),
        (
            {"detector_config": {"width": 3}},
            "detector_config.width: .* not 3; centre-points has stride, width",
        ),
        ({"detector_config": {"wide": 3}}, "detector_config.wide"),
    ],
)
def test_what_a_detector_does_not_take_is_told_before_anything_is_read(config, said):
    with pytest.raises(InvalidConfig, match=said):
        check(spec_of(THINGS, task_config=config))


def test_architectures_without_grids_are_refused():
    with pytest.raises(InvalidConfig, match='"flatten-mlp" cannot learn the task "object-detection": it keeps nothing'):
        check(spec_of(THINGS, architecture="flatten-mlp"))


def test_answers_are_in_pixels_of_the_image_and_can_be_fewer_or_drawn(tmp_path):
    exactly = {"epochs": 60, "learning_rate": 3e-3}
    config = {"augmentation": "none", "detector_config": {"stride": 2, "width": 16}}
    spec = spec_of(THINGS, hyperparameters=exactly, task_config=config)
    result = run(spec, {"train": write(small_images(24), tmp_path / "t.arrow")}, tmp_path / "run")
    predictor = Predictor(saved(result, tmp_path / "model"))
    row = small_images(24).slice(3, 1).to_pylist()[0]
    small = Pillow.open(io.BytesIO(row["image"]["bytes"]))
    large = encoded(small.resize((small.width * 10, small.height * 10), Pillow.Resampling.NEAREST))
    options = predictor.options({"threshold": 0.2, "top_k": 1})
    (near, far) = predictor.predict([row["image"]["bytes"], large], options).outputs
    wanted = row["objects"][0]
    assert near["objects"][0]["label"] == wanted["label"]
    for side in ("x", "y", "width", "height"):
        assert near["objects"][0][side] == pytest.approx(wanted[side], abs=1.5)
        assert far["objects"][0][side] == pytest.approx(10 * wanted[side], abs=15)
    assert predictor.predict([large], predictor.options({"threshold": 1.0})).outputs[0]["objects"] == []
    (drawn,) = predictor.predict([large], predictor.options({"drawn": True, "threshold": 0.2})).outputs
    picture = Pillow.open(io.BytesIO(base64.b64decode(drawn["image"].removeprefix("data:image/png;base64,"))))
    assert picture.size == (small.width * 10, small.height * 10)
    changed = np.abs(np.asarray(picture).astype(int) - np.asarray(Pillow.open(io.BytesIO(large)))).sum(2) > 0
    assert 0.005 < changed.mean() < 0.5
    assert json.dumps(drawn)
