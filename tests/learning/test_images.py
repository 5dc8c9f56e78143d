"""Images as inputs, networks on them beside references, and how images are changed in training."""

import base64
import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from media_files import deep_png, encoded, picture, png
from PIL import Image as Pillow
from PIL import ImageOps
from runs import run, saved, small_images, spec_of, write
from torch import nn
from torch.nn import functional

from learning import images, jpeg
from learning.architectures import ARCHITECTURES
from learning.architectures.resnet import Convolution
from learning.augmentation import DRAWN, PHOTO, View, augment
from learning.config import Columns
from learning.data import epoch_order
from learning.errors import InvalidConfig, InvalidData, InvalidInput
from learning.images import Target
from learning.media_types import MEDIA_TYPES, UnreadableMedia
from learning.modalities.image import Image, ImageConfig
from learning.prediction import Predictor
from learning.preparation import prepare

IMAGE = Image()


def table_of(*contents: bytes) -> pa.Table:
    cells = [None if one is None else {"bytes": one, **images.inspect(one)._asdict()} for one in contents]
    return pa.table({"image": pa.array(cells, MEDIA_TYPES["image"])})


def decoded(content: bytes, **target) -> np.ndarray:
    return images.decode(content, Target(**{"height": 8, "width": 8, "channels": 3, **target}))


def test_pixels_of_the_right_size_are_untouched():
    image = picture(1, (8, 8))
    assert (decoded(encoded(image)) == np.asarray(image)).all()
    grey = decoded(encoded(image.convert("L")))
    assert (grey == np.asarray(image.convert("L"))[:, :, None]).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_turned_are_put_upright(orientation, file_format):
    upright = picture(2, (8, 4))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = stored.getexif()
    exif[0x0112] = orientation
    content = encoded(stored, file_format, exif=exif)
    expected = upright if file_format == "PNG" else ImageOps.exif_transpose(Pillow.open(io.BytesIO(content)))
    assert (decoded(content, height=4) == np.asarray(expected)).all()
    assert images.inspect(content)[2:] == (8, 4)


@pytest.mark.parametrize("shrunk", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (133, 77), (120, 90), (3, 300)])
def test_a_jpeg_has_pillow_s_pixels(size, mode, options, shrunk):
    content = encoded(picture(3, (8, 8), mode).resize(size), "JPEG", **options)
    least = max(1, size[0] // shrunk), max(1, size[1] // shrunk)
    pillow = Pillow.open(io.BytesIO(content))
    pillow.draft(None, least)
    expected = np.asarray(pillow).reshape(pillow.height, pillow.width, -1)
    pixels = jpeg.decode(content, jpeg.header(content), least)
    assert pixels.shape == expected.shape
    assert (pixels == expected).all()


def test_a_jpeg_that_only_pillow_reads():
    content = encoded(picture(4, (40, 24)), "JPEG")
    odd = content[:20] + bytes(5) + content[20:]  # what lies between two markers means nothing
    assert jpeg.header(odd) is None
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 0x55
    assert jpeg.decode(bytes(broken), jpeg.header(bytes(broken)), (1, 1)) is None
    assert images.inspect(bytes(broken)) == images.inspect(content)
    assert images.inspect(odd) == images.inspect(content) == ("JPEG", "RGB", 40, 24)
    assert (decoded(odd) == decoded(content)).all()


def test_fits():
    content = encoded(Pillow.new("RGB", (16, 8), (200, 0, 0)))
    padded = decoded(content, background=10)
    assert (padded[[0, 1, 6, 7]] == 10).all()
    assert (padded[2:6] == [200, 0, 0]).all()
    for fit in ("crop", "stretch"):
        assert (decoded(content, fit=fit) == [200, 0, 0]).all()
    half = Pillow.new("L", (16, 8))
    half.paste(255, (0, 0, 4, 8))
    assert decoded(encoded(half), channels=1, fit="crop").max() == 0
    assert decoded(encoded(half), channels=1, fit="stretch")[:, 0, 0].tolist() == [255] * 8


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (Pillow.new("RGBA", (8, 8), (0, 0, 0, 0)), 77),
        (Pillow.new("LA", (8, 8), (0, 0)), 77),
        (Pillow.fromarray(np.full((8, 8), 50 << 8, np.uint16)), 50),
        (Pillow.new("1", (8, 8), 1), 255),
        (Pillow.new("P", (8, 8), 0), 0),
    ],
)
def test_transparency_and_other_modes(image, value):
    assert (decoded(encoded(image), background=77) == value).all()
    assert (decoded(encoded(image), background=77, channels=1) == value).all()


def test_cmyk_is_read_as_colour():
    pixels = decoded(encoded(Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert pixels[0, 0, 0] > 200
    assert pixels[0, 0, 1:].max() < 60


@pytest.mark.parametrize(("size", "small"), [((12, 8), (64, 43)), ((90, 300), (19, 64)), ((500, 1), (64, 1))])
def test_a_thumbnail_has_its_picture_s_shape(size, small):
    shown = Pillow.open(io.BytesIO(images.thumbnail(encoded(Pillow.new("RGB", size, (200, 10, 10))), *size)))
    assert shown.size == small
    assert shown.getpixel((0, 0)) == shown.getpixel((small[0] - 1, small[1] - 1)) == (200, 10, 10)


def test_a_large_jpeg_is_scaled_while_it_is_decoded():
    ramp = Pillow.fromarray(np.tile(np.linspace(0, 255, 512, dtype=np.uint8), (256, 1)))
    pixels = decoded(encoded(ramp, "JPEG", quality=95), height=32, width=32, channels=1, fit="crop").astype(int)
    expected = np.linspace(64, 191, 32)
    assert np.abs(pixels[:, :, 0] - expected).max() < 6


@pytest.mark.parametrize(
    ("width", "height", "lossless"), [(17, 9, False), (17, 9, True), (300, 200, False), (300, 200, True)]
)
def test_the_size_of_webp_is_seen_before_it_is_decoded(width, height, lossless):
    content = encoded(picture(0, (width, height)), "WEBP", lossless=lossless)
    assert images._webp_size(content) == (width, height)
    assert images._webp_size(encoded(picture(0, (width, height), "RGBA"), "WEBP")) == (width, height)


def test_what_is_fitted():
    contents = [png(number, (20, 10)) for number in range(6)]
    state = IMAGE.fit(table_of(*contents), Columns(), ImageConfig())
    assert (state.column, state.size, state.channels) == ("image", 20, 3)
    pixels = np.stack([decoded(one, height=20, width=20) for one in contents]) / 255
    assert state.mean == pytest.approx(pixels.mean((0, 1, 2)))
    assert state.deviation == pytest.approx(pixels.std((0, 1, 2)))
    grey = [encoded(picture(number, (100, 200), "L")) for number in range(3)]
    state = IMAGE.fit(table_of(*grey), Columns(), ImageConfig(normalization="none"))
    assert (state.size, state.channels, state.mean, state.deviation) == (64, 1, (0.0,), (1.0,))


def test_normalization_that_is_given():
    given = {"mean": [0.5, 0.25, 0], "deviation": [0.25, 1, 0.5]}
    config = ImageConfig.model_validate({"normalization": given})
    assert ImageConfig.model_validate(config.model_dump(mode="json")) == config
    state = IMAGE.fit(table_of(png(1)), Columns(), config)
    assert (state.mean, state.deviation) == ((0.5, 0.25, 0.0), (0.25, 1.0, 0.5))
    with pytest.raises(InvalidConfig) as caught:
        IMAGE.fit(table_of(png(1, mode="L")), Columns(), config)
    assert "of 3 channels (red, green, blue), but images are read in 1 channel (grey)" in caught.value.message
    assert (caught.value.param, "channels" in caught.value.hint) == ("preprocessing.normalization", True)
    grey = ImageConfig.model_validate({"normalization": {"mean": [0.5], "deviation": [0.25]}})
    state = IMAGE.fit(table_of(png(1, mode="L"), deep_png(4, 2)), Columns(), grey)
    assert (state.mean, state.deviation) == ((0.5,), (0.25,))


def test_many_larger_files_are_decoded_as_few_are():
    contents = [encoded(picture(number, (96, 64))) for number in range(40)]
    state = IMAGE.fit(table_of(*contents), Columns(), ImageConfig(size=16))
    together = IMAGE.encode(table_of(*contents), state)["image_BCHW"]
    apart = torch.cat([IMAGE.encode(table_of(one), state)["image_BCHW"] for one in contents])
    assert together.dtype == torch.uint8
    assert torch.equal(together, apart)


def test_a_missing_image_is_named():
    with pytest.raises(InvalidData, match='Row 2, column "image": there is no image'):
        IMAGE.fit(table_of(png(), None), Columns(), ImageConfig())
    with pytest.raises(InvalidData, match="There is no column of images"):
        IMAGE.fit(pa.table({"age": [1]}), Columns(), ImageConfig())


GOOD = base64.b64encode(png(3)).decode()


@pytest.mark.parametrize(
    "value",
    [png(3), GOOD, f"data:image/png;base64,{GOOD}", {"image": GOOD}, {"photo": GOOD}, GOOD[:40] + "\n" + GOOD[40:]],
)
def test_inputs_that_are_the_same_image(value):
    state = IMAGE.fit(table_of(png(3)), Columns(), ImageConfig()).model_copy(update={"column": "photo"})
    row, warnings = IMAGE.parse(value, 0, state)
    assert warnings == []
    assert (row.pixels_CHW == decoded(png(3), height=12, width=12).transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("not base64!", "is no base64"),
        ("", "is empty"),
        (7, "7 is no image"),
        ({"imge": GOOD}, 'Did you mean "image"'),
        ({"image": 7}, "7 is no image"),
        ("https://example.org/cat.png", "an address is not fetched"),
        (base64.b64encode(b"GIF89a").decode(), "is a GIF image"),
        (base64.b64encode(png()[:-60]).decode(), "cannot be decoded"),
        (base64.b64encode(encoded(Pillow.new("L", (6000, 5000)))).decode(), "6000 x 5000 pixels"),
    ],
)
def test_inputs_that_are_no_image(value, said):
    state = IMAGE.fit(table_of(png()), Columns(), ImageConfig())
    with pytest.raises(InvalidInput) as caught:
        IMAGE.parse(value, 4, state)
    assert said in caught.value.message
    assert caught.value.message.startswith('Input 4, "image": ')
    assert (caught.value.param, caught.value.index) == ("image", 4)


@pytest.mark.parametrize("size", ["18", "50"])
def test_resnet_computes_what_transformers_does(size, tmp_path):
    state = IMAGE.fit(table_of(png(1), png(2)), Columns(), ImageConfig(size=64, normalization="imagenet"))
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
    state = IMAGE.fit(table_of(png()), Columns(), ImageConfig(size=side))
    architecture = ARCHITECTURES["resnet"]
    backbone = architecture.build(architecture.Config.model_validate({"size": "tiny", "stem": stem}), state).eval()
    with torch.inference_mode():
        grids = backbone.grids({"image_BCHW": torch.zeros(1, 3, side, side)})
    first = -(-side // int(stem[-1]))
    assert [tuple(grid.shape[2:]) for grid in grids] == [(-(-first // step),) * 2 for step in (1, 2, 4)]


@pytest.mark.parametrize("size", ["small", "11", "16"])
@pytest.mark.parametrize("side", [8, 28])
def test_vgg_takes_small_images(size, side):
    state = IMAGE.fit(table_of(png()), Columns(), ImageConfig(size=side))
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


def test_views():
    torch.manual_seed(0)
    image_BCHW = torch.randint(0, 256, (64, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(augment(image_BCHW, View()), image_BCHW.float())
    for view in (DRAWN, PHOTO, View(elastic=0.2, shear=0.3, grey=0.5)):
        torch.manual_seed(1)
        first = augment(image_BCHW, view)
        assert not torch.equal(first, augment(image_BCHW, view))
        torch.manual_seed(1)
        assert torch.equal(first, augment(image_BCHW, view))
        assert (first.shape, first.dtype) == (image_BCHW.shape, torch.float32)
        assert first.min() >= -1e-3
        assert first.max() <= 255.001
    mirrored = augment(image_BCHW, View(mirror=True)).round().byte()
    kinds = [
        "same" if torch.equal(new, old) else "mirrored" if torch.equal(new, old.flip(2)) else "other"
        for new, old in zip(mirrored, image_BCHW, strict=True)
    ]
    assert 15 < kinds.count("same") < 49
    assert kinds.count("other") == 0


def test_a_crop_stays_inside_its_image():
    inner = torch.zeros(200, 1, 32, 32)
    inner[:, :, 0, 0] = 255  # a corner that only a view of all of the image sees
    seen = augment(inner, View(scale=(0.5, 0.5), shift=1.0, inside=True))
    assert 0 < (seen.amax((1, 2, 3)) > 0).float().mean() < 0.2
    framed = torch.full((200, 1, 32, 32), 255.0)
    framed[:, :, 1:-1, 1:-1] = 100
    assert torch.allclose(augment(framed, View(scale=(0.4, 0.4))), torch.tensor(100.0))


def test_hidden_rectangles_have_the_mean_colour():
    image_BCHW = torch.rand(300, 1, 20, 20) * 255
    hidden = augment(image_BCHW, View(erase=0.5))
    changed = (hidden != image_BCHW).flatten(1)
    assert 0.35 < changed.any(1).float().mean() < 0.65
    shares = changed[changed.any(1)].float().mean(1)
    assert 0.02 < shares.min() < shares.max() < 0.4
    assert torch.allclose(hidden[changed.view_as(hidden)].view(-1)[0], image_BCHW[changed.any(1)][0].mean())


def test_a_cell_that_no_longer_decodes_is_named():
    table = table_of(png(1), png(2))
    state = IMAGE.fit(table, Columns(), ImageConfig())
    cells = table.column("image").to_pylist()
    cells[1]["bytes"] = cells[1]["bytes"][:50]
    with pytest.raises(InvalidData, match='Row 2, column "image": the file is a PNG image that cannot be decoded'):
        IMAGE.encode(pa.table({"image": pa.array(cells, MEDIA_TYPES["image"])}), state)
    with pytest.raises(UnreadableMedia):
        images.inspect(b"")


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
