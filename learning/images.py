"""Encoded images: which are allowed, what is known of one, and its pixels. Imports no torch.

The bytes are foreign. Three parsers of Pillow's are ever called, and libjpeg-turbo's, by the first bytes and never by a
name, and an image's size is known and bounded before anything of that size is allocated.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning import jpeg
from learning.media_types import UnreadableMedia
from learning.signatures import signature_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

Pixels = NDArray[np.uint8]
Fit = Literal["pad", "crop", "stretch"]

MAX_BYTES = 64 << 20
MAX_PIXELS = 25_000_000

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_CONVERT = "Convert it to PNG, JPEG or WebP."
_WRITE_AGAIN = "Write or copy the image again."
_ORIENTATION = 0x0112
# What a PNG says of its values behind its size, and the mode of those that Pillow calls as it does those of 8 bits.
_DEEP_PNG = {b"\x10\x02": "RGB;16", b"\x10\x04": "LA;16", b"\x10\x06": "RGBA;16"}
# Modes of images whose pixels are not 8 bits of grey or of red, green and blue, and so are changed to be.
CONVERTED_MODES = (
    *("CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"),
    *_DEEP_PNG.values(),
)


class ImageFacts(NamedTuple):
    """What is known of an image: width and height as it is looked at."""

    format: str
    mode: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Target:
    """What pixels are wanted: how many, of how many channels (1 or 3), and how an image gets that shape.

    `pad` shows all of an image and fills the rest with the background, `crop` cuts the longer side, `stretch` distorts.
    """

    height: int
    width: int
    channels: int
    fit: Fit = "pad"
    background: int = 255


def inspect(content: bytes) -> ImageFacts:
    """Decode an image whole and return what is known of it; UnreadableMedia says what is wrong with it."""
    opened = _opened(content)
    _loaded(opened, content, (1, 1))  # of a JPEG an eighth of the work, and all of the bytes are read
    return ImageFacts(opened.kind, _mode(opened, content), *opened.upright_size)


def decode(content: bytes, target: Target) -> Pixels:
    """Return pixels_HWC of the target's shape; UnreadableMedia for what is no image that can be read."""
    return decode_sized(content, target)[0]


def decode_sized(content: bytes, target: Target) -> tuple[Pixels, tuple[int, int]]:
    """Return pixels_HWC of the target's shape, and width and height of the image as it is looked at."""
    opened = _opened(content)
    # A JPEG is scaled by halves for next to nothing, but not below what is wanted.
    image = _loaded(opened, content, _covering(opened.size, max(target.height, target.width)))
    fitted = _fitted(_plain(_upright(image, opened.orientation), target), target)
    pixels: Pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels.reshape(target.height, target.width, target.channels), opened.upright_size


def thumbnail(content: bytes, width: int, height: int, side: int = 64) -> bytes:
    """Return a PNG of an image of this width and height, of its shape and with its longer side as long as `side`.

    UnreadableMedia for what is no image that can be read.
    """
    scale = side / max(width, height)
    small = max(1, round(height * scale)), max(1, round(width * scale))
    return encode_png(decode(content, Target(*small, 3, fit="stretch")))


def small_file(content: bytes, width: int, height: int, side: int) -> tuple[bytes, bool]:
    """Return a file for a page to show of an image of this width and height, and whether its pixels are to stay sharp.

    Of one that is larger than `side` a smaller JPEG; of one that is smaller its very pixels, as PNG.
    """
    from PIL import Image

    scale = min(1.0, side / max(width, height))
    pixels = decode(content, Target(max(1, round(height * scale)), max(1, round(width * scale)), 3, fit="stretch"))
    if scale == 1.0:
        return encode_png(pixels), True
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=82)
    return buffer.getvalue(), False


def encode_png(pixels: Pixels) -> bytes:
    """Return pixels_HWC, of one or three channels, as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """Return a PNG file as text that a page shows."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


class _Opened(NamedTuple):
    """An image of which the header was read: its size is as it is stored, and `pillow` is there if Pillow read it."""

    kind: str
    mode: str
    size: tuple[int, int]
    orientation: int = 1
    pillow: ImageFile | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as it is looked at."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def _opened(content: bytes) -> _Opened:
    if len(content) > MAX_BYTES:
        raise UnreadableMedia(
            "too_large", f"has {len(content)} bytes; at most {MAX_BYTES >> 20} MiB are read", "Make the image smaller."
        )
    kind = _kind(content)
    if kind is None:
        what = "is empty" if not content else f"is {signature_of(content) or 'no image'}"
        raise UnreadableMedia("not_an_image", what, _CONVERT if content else _WRITE_AGAIN)
    found = jpeg.header(content) if kind == "JPEG" else None
    if found is not None:
        _check_pixels(found.width, found.height)
        return _Opened(kind, found.mode, (found.width, found.height))
    image = _opened_by_pillow(content, kind)
    _check_pixels(*image.size)
    return _Opened(kind, image.mode, image.size, _orientation(image), image)


def _mode(opened: _Opened, content: bytes) -> str:
    """Return the mode, which says 16 bits too where Pillow's name of it does not."""
    return _DEEP_PNG.get(content[24:26], opened.mode) if opened.kind == "PNG" else opened.mode


def _opened_by_pillow(content: bytes, kind: str) -> ImageFile:
    # Imported here because it costs every start of a process.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    kinds: dict[str, Any] = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WebP": WebPImageFile}
    if kind == "WebP":
        _check_pixels(*_webp_size(content))  # its decoder makes room for the pixels when it is opened
    try:
        image: ImageFile = kinds[kind](io.BytesIO(content))
    # A parser of foreign bytes may fail in any way.
    except Exception as error:
        raise _damaged(kind, error) from None
    return image


def _kind(content: bytes) -> str | None:
    if content.startswith(_PNG):
        return "PNG"
    if content.startswith(_JPEG):
        return "JPEG"
    return "WebP" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def is_image(content: bytes) -> bool:
    """Return whether bytes begin like an image of a format that is read."""
    return _kind(content) is not None


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height from the header of a WebP file (RFC 9649), or of none what no check minds."""
    kind, body = content[12:16], content[20:30]
    if len(body) < 10:
        return 1, 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableMedia(
            "too_many_pixels",
            f"has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are read",
            "Make the image smaller.",
        )


def _loaded(opened: _Opened, content: bytes, least: tuple[int, int]) -> Image:
    """Return the image, a JPEG perhaps smaller than it is, but not smaller than `least`."""
    if opened.kind == "JPEG" and opened.mode in jpeg.MODES.values():
        pixels_HWC = jpeg.decode(content, jpeg.Header(opened.mode, *opened.size), least)
        if pixels_HWC is not None:
            from PIL.Image import fromarray

            return fromarray(pixels_HWC[:, :, 0] if opened.mode == "L" else pixels_HWC)
    image = opened.pillow or _opened_by_pillow(content, opened.kind)
    if opened.kind == "JPEG":
        image.draft(None, least)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(opened.kind, error) from None
    return image


def _damaged(kind: str, error: Exception) -> UnreadableMedia:
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return UnreadableMedia("damaged_image", f"is a {kind} image that cannot be decoded: {reason}", _WRITE_AGAIN)


def _orientation(image: Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1, upright, where there is none that can be read."""
    if "exif" not in image.info:
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _plain(image: Image, target: Target) -> Image:
    """Return an image of one or three channels of 8 bits, what is transparent laid on the background."""
    from PIL import Image as Images

    mode = "L" if target.channels == 1 else "RGB"
    if image.mode.startswith("I;16"):
        image = Images.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in {"I", "F"}:
        image = Images.fromarray(np.clip(np.asarray(image), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        ground = Images.new("RGBA", shown.size, (target.background,) * 3 + (255,))
        image = Images.alpha_composite(ground, shown)
    return image if image.mode == mode else image.convert(mode)


def _covering(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return a size of the same shape whose shorter side is still what is wanted."""
    scale = min(1.0, longest / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fitted(image: Image, target: Target) -> Image:
    from PIL import Image as Images

    wanted = (target.width, target.height)
    if image.size == wanted:
        return image
    if target.fit == "stretch":
        return image.resize(wanted, Images.Resampling.BILINEAR)
    scales = target.width / image.width, target.height / image.height
    scale = min(scales) if target.fit == "pad" else max(scales)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    scaled = image if image.size == size else image.resize(size, Images.Resampling.BILINEAR)
    if scaled.size == wanted:
        return scaled
    left, top = (target.width - scaled.width) // 2, (target.height - scaled.height) // 2
    ground = Images.new(image.mode, wanted, (target.background,) * 3 if target.channels == 3 else target.background)
    ground.paste(scaled, (left, top))  # where the image is larger than the ground, what stands over is cut
    return ground
