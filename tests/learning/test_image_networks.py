"""Networks on images: beside what Transformers and torch compute, and what they take."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from media_files import png
from runs import run, saved, small_images, spec_of, write
from torch import nn
from torch.nn import functional

from learning import images
from learning.architectures import ARCHITECTURES
from learning.architectures.resnet import Convolution
from learning.config import Columns
from learning.data import epoch_order
from learning.media_types import MEDIA_TYPES
from learning.modalities.image import Image, ImageConfig
from learning.prediction import Predictor
from learning.preparation import prepare


def fitted(**config):
    cells = [{"bytes": one, **images.inspect(one)._asdict()} for one in (png(1), png(2))]
    table = pa.table({"image": pa.array(cells, MEDIA_TYPES["image"])})
    return Image().fit(table, Columns(), ImageConfig(**config))


@pytest.mark.parametrize("size", ["18", "50"])
def test_resnet_computes_what_transformers_does(size, tmp_path):
    state = fitted(size=64, normalization="imagenet")
    architecture = ARCHITECTURES["resnet"]
    options = {"size": size, "stem": "7x7/4", "widths": (32, 64, 128, 256), "depths": (1, 2, 1, 1)}
    config = architecture.Config.model_validate(options)
    torch.manual_seed(0)
    backbone = architecture.build(config, state).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    theirs = transformers.ResNetModel(transformers.ResNetConfig(**{
        name: value for name, value in architecture.foreign_config(config, state).items() if name != "architectures"
    })).eval()  # fmt: skip
    assert theirs.load_state_dict(backbone.state_dict()).missing_keys == []
    image_BCHW = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        ours = backbone({"image_BCHW": image_BCHW})
        numbers = torch.from_numpy(
            (image_BCHW.numpy() / 255 - np.array(state.mean).reshape(-1, 1, 1))
            / np.array(state.deviation).reshape(-1, 1, 1)
        ).float()
        expected = theirs(numbers)
    assert ours.grid == (2, 2)
    grid = expected.last_hidden_state
    assert torch.allclose(ours.features_BTD.transpose(1, 2).reshape(grid.shape), grid, atol=1e-5)
    assert torch.allclose(ours.pooled(), expected.pooler_output.flatten(1), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 2), (3, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2)])
def test_a_convolution_in_training_is_one_however_few_cells_come_out(kernel, stride, shape):
    generator = torch.Generator().manual_seed(0)
    layer = Convolution(5, 6, kernel, stride, activate=False).double()
    layer.normalization = nn.Identity()
    inputs_BCHW = torch.randn(4, 5, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight_OCHW = layer.convolution.weight
    ours_BCHW = layer(inputs_BCHW)
    expected_BCHW = functional.conv2d(inputs_BCHW, weight_OCHW, None, stride, kernel // 2)
    torch.testing.assert_close(ours_BCHW, expected_BCHW)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs_BCHW), expected_BCHW)
    given_BCHW = torch.randn(ours_BCHW.shape, generator=generator, dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad(each, (inputs_BCHW, weight_OCHW), given_BCHW) for each in (ours_BCHW, expected_BCHW)
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_transformers_opens_a_saved_model(tmp_path):
    tables = {"train": write(small_images(), tmp_path / "train.arrow")}
    spec = spec_of("image-classification", architecture_config={"stem": "7x7/4"}, hyperparameters={"max_steps": 3})
    directory = saved(run(spec, tables, tmp_path / "run"), tmp_path / "model")
    predictor = Predictor(directory)
    theirs = transformers.AutoModel.from_pretrained(directory)
    own = predictor.design.build()
    for name, tensor in theirs.state_dict().items():
        assert tensor.shape == own.backbone.state_dict()[name].shape
    assert type(theirs) is transformers.ResNetModel


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_a_transformers_resnet_is_a_base_model(layer_type, tmp_path):
    torch.manual_seed(0)
    widths = [64, 32] if layer_type == "bottleneck" else [16, 32]
    theirs = transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=64 if layer_type == "bottleneck" else 16, hidden_sizes=widths, depths=[1, 1],
        layer_type=layer_type, num_labels=3,
    )).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}'
    )
    tables = {"train": write(small_images(), tmp_path / "train.arrow")}
    spec = spec_of("image-classification", hyperparameters={"max_steps": 1}, preprocessing={}, architecture_config={})
    prepared = prepare(spec, tables, base=tmp_path / "theirs", device=torch.device("cpu"))
    assert (prepared.design.inputs.size, prepared.design.inputs.mean) == (32, (0.5, 0.4, 0.3))
    image_BCHW = prepared.train.tensors["image_BCHW"][:4]
    numbers = (image_BCHW / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(
        3, 1, 1
    )
    with torch.inference_mode():
        ours = prepared.network.eval().backbone({"image_BCHW": image_BCHW}).pooled()
        assert torch.allclose(ours, theirs.resnet(numbers).pooler_output.flatten(1), atol=1e-5)


@pytest.mark.parametrize("stem", ["3x3/1", "3x3/2", "5x5/4", "7x7/4"])
@pytest.mark.parametrize("side", [8, 28, 65])
def test_every_stem_shrinks_as_it_says(stem, side):
    state = fitted(size=side)
    architecture = ARCHITECTURES["resnet"]
    backbone = architecture.build(architecture.Config.model_validate({"size": "tiny", "stem": stem}), state).eval()
    with torch.inference_mode():
        grids = backbone.grids({"image_BCHW": torch.zeros(1, 3, side, side)})
    first = -(-side // int(stem[-1]))
    assert [tuple(grid.shape[2:]) for grid in grids] == [(-(-first // step),) * 2 for step in (1, 2, 4)]


@pytest.mark.parametrize("size", ["small", "11", "16"])
@pytest.mark.parametrize("side", [8, 28])
def test_vgg_takes_small_images(size, side):
    state = fitted(size=side)
    architecture = ARCHITECTURES["vgg"]
    backbone = architecture.build(architecture.Config.model_validate({"size": size}), state).eval()
    with torch.inference_mode():
        features = backbone({"image_BCHW": torch.zeros(2, 3, side, side)})
    assert features.pooled().shape == (2, backbone.width)


def test_the_first_lesson_s_network_is_what_torch_makes_of_it(tmp_path):
    """Flatten, 128 units with ReLU, one with a sigmoid; SGD at 0.01, binary cross-entropy, batches of 32."""
    train, test = small_images(75), small_images(20, seed=1)
    tables = {"train": write(train, tmp_path / "train.arrow"), "test": write(test, tmp_path / "test.arrow")}
    spec = spec_of(
        "image-classification",
        architecture="flatten-mlp",
        architecture_config={"hidden_sizes": [128]},
        preprocessing={"size": 28, "channels": "grey", "normalization": "none"},
        task_config={"label_smoothing": 0.0, "augmentation": "none"},
        hyperparameters={
            "epochs": 10, "batch_size": 32, "learning_rate": 0.01, "optimizer": "sgd", "weight_decay": 0.0,
            "schedule": "constant", "warmup_fraction": 0.0, "dropout": 0.0,
        },
    )  # fmt: skip
    still = spec.hyperparameters.model_copy(update={"learning_rate": 1e-30})
    begun = run(spec.model_copy(update={"hyperparameters": still}), tables, tmp_path / "begun")
    done = run(spec, tables, tmp_path / "run")
    lesson = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 1), nn.Sigmoid())
    weights = list(begun.outcome.weights.values())
    assert [tuple(tensor.shape) for tensor in weights] == [(128, 784), (128,), (1, 128), (1,)]
    lesson.load_state_dict(dict(zip(lesson.state_dict(), weights, strict=True)))
    optimizer, criterion = torch.optim.SGD(lesson.parameters(), lr=0.01), nn.BCELoss()
    tensors = done.prepared.train.tensors
    for epoch in range(10):
        for rows in epoch_order(75, 0, epoch).split(32):
            optimizer.zero_grad()
            output = lesson(tensors["image_BCHW"][rows].float() / 255).squeeze(1)
            criterion(output, tensors["target_B"][rows]).backward()
            optimizer.step()
    for ours, theirs in zip(done.outcome.weights.values(), lesson.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_training_on_few_large_images_does_not_kill_the_process():
    """A 1 x 1 convolution with a stride did, channels last."""
    code = """
import torch
from learning.architectures.resnet import Block
torch.set_num_threads(1)
block = Block(8, 16, 2, bottleneck=False).to(memory_format=torch.channels_last)
for _ in range(100):
    image = torch.randn(2, 8, 64, 64, requires_grad=True).contiguous(memory_format=torch.channels_last)
    block(image).square().sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
