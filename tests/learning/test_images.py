"""Images as inputs, and how they are changed in training."""

import base64
import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from media_files import deep_png, encoded, picture, png
from PIL import Image as Pillow
from PIL import ImageOps

from learning import images, jpeg
from learning.augmentation import DRAWN, PHOTO, View, augment
from learning.config import Columns
from learning.errors import InvalidConfig, InvalidData, InvalidInput
from learning.images import Target
from learning.media_types import MEDIA_TYPES, UnreadableMedia
from learning.modalities.image import Image, ImageConfig

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
