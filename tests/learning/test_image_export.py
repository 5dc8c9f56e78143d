"""Finetuned image classifiers as Transformers opens them: network, head, names of classes and preprocessing."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import transformers
from media_files import encoded
from PIL import Image as Pillow
from runs import run, saved, spec_of, write
from safetensors.torch import load, load_file, save_file

from learning.extraction import STATE_FILE, extract
from learning.images import inspect
from learning.media_types import MEDIA_TYPES
from learning.model import WEIGHTS_FILE, Design, merged_file
from learning.model import load as load_model

LABELS = ("blue", "green", "red")


def squares(sides=(32, 50), mode="RGB", wider=0, rows=24) -> pa.Table:
    """Noise that is brighter the later its label's place, in squares of these sides, or wider ones."""
    generator = np.random.default_rng(0)
    cells, labels = [], []
    for row in range(rows):
        side, number = sides[row % len(sides)], row % len(LABELS)
        pixels = generator.integers(60 * number, 60 * number + 120, (side, side + wider, 3), dtype=np.uint8)
        content = encoded(Pillow.fromarray(pixels).convert(mode))
        cells.append({"bytes": content, **inspect(content)._asdict()})
        labels.append(LABELS[number])
    return pa.table({"image": pa.array(cells, MEDIA_TYPES["image"]), "label": labels})


def classifier(table, tmp_path, **preprocessing):
    spec = spec_of(
        "image-classification", architecture_config={"stem": "7x7/4"}, hyperparameters={"max_steps": 3},
        preprocessing={"size": 32, **preprocessing}, columns={"target": "label"},
    )  # fmt: skip
    return run(spec, {"train": write(table, tmp_path / "train.arrow")}, tmp_path / "run")


def network_of(design, weights):
    network = design.build().eval()
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize(
    ("fit", "mode", "wider"), [("pad", "RGB", 0), ("crop", "RGB", 0), ("stretch", "RGB", 10), ("pad", "L", 0)]
)
def test_transformers_answers_as_we_do(fit, mode, wider, tmp_path):
    table = squares(mode=mode, wider=wider)
    directory = saved(classifier(table, tmp_path, fit=fit), tmp_path / "model")
    theirs, told = transformers.AutoModelForImageClassification.from_pretrained(directory, output_loading_info=True)
    assert type(theirs) is transformers.ResNetForImageClassification
    assert not any(told.values()), told
    assert theirs.config.architectures == ["ResNetForImageClassification"]
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert theirs.config.label2id == {label: number for number, label in enumerate(LABELS)}
    processor = transformers.AutoImageProcessor.from_pretrained(directory)
    design, weights = load_model(directory)
    for row in range(4):
        one = table.slice(row, 1)
        opened = Pillow.open(pa.BufferReader(one["image"][0].as_py()["bytes"]))
        with torch.inference_mode():
            ours = network_of(design, weights)(design.modality.encode(one, design.inputs))
            found = theirs.eval()(processor(opened, return_tensors="pt")["pixel_values"]).logits
        torch.testing.assert_close(found, ours, atol=1e-4, rtol=0)


def test_only_a_softmax_on_the_usual_stem_is_such_a_classifier(tmp_path):
    table = squares()
    two = classifier(table.filter(pc.field("label") != "red"), tmp_path).prepared.design
    assert two.to_dict()["architectures"] == ["ResNetModel"]
    assert two.names_in_files() == {}
    less = {"hyperparameters": {"max_steps": 1}, "preprocessing": {"size": 32}, "columns": {"target": "label"}}
    spec = spec_of("image-classification", **less)
    small = run(spec, {"train": write(table, tmp_path / "small.arrow")}, tmp_path / "small").prepared.design
    assert "architectures" not in small.to_dict()
    assert small.names_in_files() == {}


def test_a_checkpoint_is_such_a_classifier_and_older_files_still_open(tmp_path):
    result = classifier(squares(), tmp_path)
    directory, design = saved(result, tmp_path / "model"), result.prepared.design
    named = load_file(directory / WEIGHTS_FILE)
    assert {"classifier.1.weight", "classifier.1.bias"} == {name for name in named if not name.startswith("resnet.")}
    state = result.outcome.checkpoint / STATE_FILE
    promoted = load(b"".join(extract(state, "weights", design.names_in_files())))
    assert promoted.keys() == named.keys()
    own = b"".join(extract(state, "weights"))
    assert load(b"".join(merged_file(design, own)[1])).keys() == named.keys()
    older = load(own)
    assert "head.linear.weight" in older
    save_file(older, directory / WEIGHTS_FILE)
    opened, weights = load_model(directory)
    network_of(opened, weights)
    assert torch.equal(weights["head.linear.weight"], older["head.linear.weight"])
    assert Design.from_dict(json.loads((directory / "config.json").read_text())) == opened
