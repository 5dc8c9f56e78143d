"""Small images, recordings and archives of them for the tests."""

import io
import json
import math
import struct
import warnings
import wave
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> Image.Image:
    """Noise, so that no two pictures are alike."""
    generator = np.random.default_rng(seed)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(seed: int = 0, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> bytes:
    return encoded(picture(seed, size, mode))


def deep_png(colour_type: int, channels: int, side: int = 4) -> bytes:
    """A PNG of 16 bits a value, which Pillow does not write in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 16, colour_type, 0, 0, 0)
    rows = (b"\0" + struct.pack(">H", 40_000) * channels * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tone(seconds: float = 0.1, rate: int = 8000, pitch: float = 440.0, rise: float = 1.0, channels: int = 1) -> bytes:
    """A WAV recording of a sine that ends at `rise` times its pitch, the same in each channel."""
    time_N = np.arange(round(seconds * rate)) / rate
    phase_N = 2 * math.pi * pitch * (time_N + (rise - 1) * time_N**2 / (2 * seconds))
    samples_N = (20_000 * np.sin(phase_N)).astype("<i2")
    return wav(samples_N[:, None].repeat(channels, 1), rate)


def wav(samples_NC: np.ndarray, rate: int = 8000) -> bytes:
    """A WAV recording of 16-bit samples, a column for each channel."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples_NC.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples_NC.astype("<i2").tobytes())
    return buffer.getvalue()


def packed(path: Path, members: Mapping[str, bytes | str] | Iterable[tuple[str, bytes | str]]) -> Path:
    """An archive with members of these names, in order; a name may occur twice."""
    pairs = members.items() if isinstance(members, Mapping) else members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pairs:
            archive.writestr(name, content)
    return path


def coco(images: Mapping[str, list[tuple[str, list[float]]]], size: tuple[int, int] = (12, 8), **more) -> str:
    """Annotations: the boxes of each file, with their labels."""
    labels = sorted({label for boxes in images.values() for label, _ in boxes})
    pairs = [(number, box) for number, boxes in enumerate(images.values(), 1) for box in boxes]
    document = {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            for number, name in enumerate(images, 1)
        ],
        "categories": [{"id": 7 + number, "name": label} for number, label in enumerate(labels)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 7 + labels.index(label), "bbox": box}
            for number, (image, (label, box)) in enumerate(pairs, 1)
        ],
    }
    return json.dumps({**document, **more})


def hostile_archives() -> dict[str, tuple[str, bytes]]:
    """Archives that must not be read, by what is wrong with them: the rule that says so, and the bytes."""
    good = [("a/1.png", png(1)), ("b/2.png", png(2))]
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    return {
        "a step up": ("member_name", _zipped([*good, ("../../anneal-was-here.png", png())])),
        "a step up inside": ("member_name", _zipped([*good, ("a/../../anneal-was-here.png", png())])),
        "an absolute name": ("member_name", _zipped([*good, ("/tmp/anneal-was-here.png", png())])),
        "a drive": ("member_name", _zipped([*good, ("C:/anneal-was-here.png", png())])),
        "a backslash": ("member_name", _zipped([*good, ("..\\anneal-was-here.png", png())])),
        "no name": ("member_name", _zipped([*good, ("~", png())]).replace(b"~", b"\0")),
        "a name with a NUL": ("member_name", _zipped([*good, ("a/~.png", png(3))]).replace(b"~", b"\0")),
        "a name twice": ("duplicate_member", _zipped([*good, ("a/1.png", png(3))])),
        "a link": ("special_member", _zipped([*good, (link, b"/etc/passwd")])),
        "a password": ("encrypted_member", _flagged(_zipped(good))),
        "another compression": ("compression", _zipped([*good, ("a/3.png", png(3))], zipfile.ZIP_BZIP2)),
        "a bomb": ("archive_bomb", _zipped([*good, *((f"a/{n}.bmp", bytes(8 << 20)) for n in range(8))])),
        "overlapping members": ("overlapping_members", _overlapping(_zipped(good, zipfile.ZIP_STORED))),
        "a cut": ("damaged_archive", _zipped(good)[:-30]),
        "no beginning": ("damaged_archive", b"PK\x03\x04" + _zipped(good)[40:]),
        "no end": ("damaged_archive", b"PK\x03\x04" + bytes(100)),
        "a lying count": ("too_many_members", _counted(_zipped(good), 60_000, 1 << 30)),
        "no image": ("no_media", _zipped([("a/x.exe", b"MZ"), ("b/y.pkl", b"\x80\x04")])),
        "an archive inside": ("no_media", _zipped([("inner.zip", _zipped(good))])),
    }


def _zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", how) as archive:
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _directory(content: bytes) -> int:
    return int.from_bytes(content[content.rindex(b"PK\x05\x06") + 16 :][:4], "little")


def _flagged(content: bytes) -> bytes:
    """The same with the flag of encryption on its first member."""
    at = _directory(content) + 8
    return content[:at] + bytes([content[at] | 1]) + content[at + 1 :]


def _overlapping(content: bytes) -> bytes:
    """The same with its second member where the first one is."""
    at = content.index(b"PK\x01\x02", _directory(content) + 4) + 42
    return content[:at] + (4).to_bytes(4, "little") + content[at + 4 :]


def _counted(content: bytes, count: int, length: int) -> bytes:
    """The same with a directory that says to be as large."""
    at = content.rindex(b"PK\x05\x06")
    return content[: at + 10] + count.to_bytes(2, "little") + length.to_bytes(4, "little") + content[at + 16 :]
