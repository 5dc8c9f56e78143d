"""Images as squares of equal size, kept as bytes; a network's first layer makes numbers around zero of them.

C channels (1 of grey, 3 of colour), H rows and W columns of pixels.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from learning import images
from learning.config import Auto, Columns, Config
from learning.errors import InvalidConfig, InvalidRow
from learning.images import Fit, Pixels, Target
from learning.interfaces import Batch, InputWarning, Part, PredictionOptions
from learning.media_types import UnreadableMedia
from learning.modalities.media_columns import MediaKind, field_of
from learning.spill import Parted

_LARGEST_AUTO = 64
_FITTED_ROWS = 2_000
# Means and deviations of red, green and blue in ImageNet, by which public checkpoints were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LEAST_DEVIATION, _LEAST_READ_DEVIATION = 1 / 255, 1e-6  # of what is fitted, and of what is read
# Decoding smaller files than this is mostly work that one thread does at a time.
_WORTH_A_THREAD_BYTES = 4 << 10
_PIXELS_A_POSITION = 64
_CHANNELS = {1: "grey", 3: "red, green, blue"}
PREPROCESSOR_FILE = "preprocessor_config.json"
_BILINEAR = 2  # Pillow's number of the filter
IMAGES = MediaKind("image", "image", "a", "images", "PNG, JPEG or WebP", images.MAX_BYTES)


_Side = Annotated[int, Field(ge=8, le=1024)]


class GivenNormalization(Config):
    """Means and deviations that are given, one of each for every channel."""

    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        description="Mean of each channel where 255 is 1: one number of grey, three of red, green and blue."
    )
    deviation: tuple[Annotated[float, Field(ge=_LEAST_READ_DEVIATION, le=1)], ...] = Field(
        description="Deviation of each channel where 255 is 1."
    )

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> GivenNormalization:
        if len(self.mean) != len(self.deviation) or len(self.mean) not in _CHANNELS:
            raise ValueError(
                f"mean has {len(self.mean)} numbers and deviation {len(self.deviation)}; each needs 1 (grey) or 3 "
                "(red, green, blue)"
            )
        return self

    def fit(self, channels: int) -> GivenNormalization:
        """Return the same; InvalidConfig when the images have other channels."""
        if len(self.mean) != channels:
            asked = "grey" if len(self.mean) == 1 else "colour"
            raise InvalidConfig(
                f"preprocessing.normalization has means and deviations of {_counted(len(self.mean))}, but images are "
                f"read in {_counted(channels)}.",
                hint=f'Give {channels} of each, or set preprocessing.channels to "{asked}".',
                param="preprocessing.normalization",
            )
        return self


def _counted(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)} ({_CHANNELS[channels]})"


def _is_given(value: Any) -> str:
    return "dict" if isinstance(value, dict | GivenNormalization) else "str"


# By its form, so that what is wrong with an object is said of the object.
_Normalization = Annotated[
    Annotated[GivenNormalization, Tag("dict")] | Annotated[Literal["fitted", "imagenet", "none"], Tag("str")],
    Discriminator(_is_given),
]


class ImageConfig(Config):
    """How images become squares of pixels, and pixels numbers."""

    size: _Side | Auto = Field(
        "auto",
        description='Side in pixels of the square that every image becomes; "auto": the usual longer side, at most 64.',
    )
    fit: Fit = Field(
        "pad", description="Show all of an image and fill the rest, crop its longer side, or stretch it to a square."
    )
    background: int = Field(
        255, ge=0, le=255, description="Grey value of what an image does not fill, and under what is transparent."
    )
    channels: Literal["auto", "grey", "colour"] = Field(
        "auto", description='Read grey values or colours; "auto": colours, unless every image is grey.'
    )
    normalization: _Normalization = Field(
        "fitted",
        description="Subtract a mean and divide by a deviation: those of the training rows, or ImageNet's as public "
        "checkpoints want, or those that an object gives; or only scale to 0 to 1.",
    )

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> ImageConfig:
        if self.channels != "auto" and isinstance(self.normalization, GivenNormalization):
            self.normalization.fit(1 if self.channels == "grey" else 3)
        return self


class ImageState(Config):
    """What was fitted: the column, the shape of the pixels, and each channel's mean and deviation (of 0 to 1)."""

    column: str
    size: _Side
    fit: Fit
    background: int = Field(ge=0, le=255)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    deviation: tuple[Annotated[float, Field(ge=_LEAST_READ_DEVIATION)], ...]

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> ImageState:
        if not len(self.mean) == len(self.deviation) == self.channels:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.deviation)} deviations do not fit {self.channels} channels"
            )
        return self

    @property
    def target(self) -> Target:
        """The shape that images are decoded to."""
        return Target(self.size, self.size, self.channels, self.fit, self.background)


class ImageRow(NamedTuple):
    """A parsed image: its square of pixels, and the file, as wide and high as it is looked at."""

    pixels_CHW: Pixels
    size: tuple[int, int]
    content: bytes
    asked: PredictionOptions | None = None  # what its answer has to be made by, where a task has options for that


class Image:
    """One column of images."""

    name: ClassVar[str] = "image"
    Config: ClassVar[type[ImageConfig]] = ImageConfig
    State: ClassVar[type[ImageState]] = ImageState

    def fit(self, table: pa.Table, columns: Columns, config: ImageConfig) -> ImageState:
        """Choose size and channels, and measure mean and deviation; InvalidData when there is no column of images."""
        column = IMAGES.column(table, columns)
        cells = IMAGES.cells(table, column)
        grey = config.channels == "grey" or (config.channels == "auto" and _all_grey(cells))
        channels: Literal[1, 3] = 1 if grey else 3
        state = ImageState(
            column=column,
            size=_usual_side(cells) if config.size == "auto" else config.size,
            fit=config.fit,
            background=config.background,
            channels=channels,
            mean=(0.0,) * channels,
            deviation=(1.0,) * channels,
        )
        mean, deviation = _normalization(table, state, config.normalization)
        return state.model_copy(update={"mean": mean, "deviation": deviation})

    def reuse(self, table: pa.Table, columns: Columns, state: ImageState) -> ImageState:
        """Return the state for this table's column of images, whatever it is called."""
        return state.model_copy(update={"column": IMAGES.column(table, columns)})

    def remarks(self, table: pa.Table, columns: Columns, state: ImageState, part: Part = "training") -> list[str]:
        """Name the columns that are not read."""
        if part != "training":
            return []
        return IMAGES.unused(table, columns, state.column)

    def files(self, state: ImageState) -> dict[str, str]:
        """Return what Transformers' image processors read, so far as they can do what is done here."""
        return {PREPROCESSOR_FILE: json.dumps(_foreign_processor(state), indent=1)}

    def encode(self, table: pa.Table, state: ImageState) -> Batch:
        """Return image_BCHW, uint8."""
        contents = IMAGES.contents(table, state.column)
        pixels_NCHW = np.empty((len(contents), state.channels, state.size, state.size), dtype=np.uint8)

        def put(row: int) -> None:
            try:
                pixels_NCHW[row] = _pixels(contents[row], state)
            except UnreadableMedia as error:
                raise InvalidRow(
                    row,
                    f', column "{state.column}": the file {error.what}.',
                    hint=error.remedy,
                    param="columns",
                ) from None

        threads = min(8, os.cpu_count() or 1)
        if threads > 1 and sum(map(len, contents)) > _WORTH_A_THREAD_BYTES * max(16, len(contents)):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(put, range(len(contents))))
        else:
            for row in range(len(contents)):
                put(row)
        return {"image_BCHW": torch.from_numpy(pixels_NCHW)}

    def column_names(self, state: ImageState) -> tuple[str, ...]:
        """Return the column of images."""
        return (state.column,)

    def content(self, value: Any, index: int, state: ImageState) -> bytes:
        """Return the file of an input, read or not: its bytes, their base64, a data URL, or an object with one."""
        return IMAGES.given(value, index, state.column)

    def parse(self, value: Any, index: int, state: ImageState) -> tuple[ImageRow, list[InputWarning]]:
        """Return an image file's pixels: of its bytes, their base64, a data URL, or an object with one of these."""
        content = IMAGES.given(value, index, state.column)
        try:
            pixels_HWC, size = images.decode_sized(content, state.target)
            return ImageRow(pixels_HWC.transpose(2, 0, 1), size, content), []
        except UnreadableMedia as error:
            raise IMAGES.refused(index, state.column, f"the file {error.what}. {error.remedy}") from None

    def assemble(self, rows: Sequence[ImageRow], state: ImageState) -> Batch:
        """Return image_BCHW of parsed images."""
        return {"image_BCHW": torch.from_numpy(np.stack([row.pixels_CHW for row in rows]))}

    def positions(self, row: ImageRow) -> int:
        """Return how many blocks of 64 pixels there are: what an image costs beside others."""
        return max(1, int(row.pixels_CHW[0].size) // _PIXELS_A_POSITION)

    def shown(self, row: ImageRow, state: ImageState) -> dict[str, Any]:
        """Return the square of pixels, before it is normalised."""
        png = images.encode_png(row.pixels_CHW.transpose(1, 2, 0))
        return {"image": images.data_url(png), "channels": state.channels}

    def schema(self, state: ImageState) -> dict[str, Any]:
        """Return the JSON Schema of an input."""
        grey = images.encode_png(np.full((8, 8, 1), 128, dtype=np.uint8))
        return {**IMAGES.schema(state.column), "example": base64.b64encode(grey).decode()}


def _foreign_processor(state: ImageState) -> dict[str, Any]:
    """Return a preprocessor_config.json: of a square image it makes the same numbers, of others what it can."""
    square = {"height": state.size, "width": state.size}
    crops = state.fit == "crop"
    return {
        "image_processor_type": "CLIPImageProcessor" if crops else "ViTImageProcessor",
        "do_convert_rgb": state.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": state.size} if crops else square,
        "resample": _BILINEAR,
        "do_center_crop": crops,
        **({"crop_size": square} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(state.mean),
        "image_std": list(state.deviation),
    }


def _pixels(content: bytes, state: ImageState) -> Pixels:
    return images.decode(content, state.target).transpose(2, 0, 1)


def _all_grey(cells: pa.ChunkedArray) -> bool:
    modes = set(field_of(cells, "mode").unique().to_pylist())
    return modes <= {"L", "LA", "LA;16", "1", "I", "I;16", "I;16B", "I;16L", "F"}


def _usual_side(cells: pa.ChunkedArray) -> int:
    sides = pc.max_element_wise(field_of(cells, "width"), field_of(cells, "height"))
    usual = pc.quantile(sides, 0.5, interpolation="nearest")[0].as_py() or _LARGEST_AUTO
    return max(8, min(_LARGEST_AUTO, int(usual)))


def _normalization(
    table: pa.Table, state: ImageState, kind: str | GivenNormalization
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(kind, GivenNormalization):
        given = kind.fit(state.channels)
        return given.mean, given.deviation
    if kind == "none":
        return (0.0,) * state.channels, (1.0,) * state.channels
    if kind == "imagenet":
        mean, deviation = IMAGENET
        grey = sum(mean) / 3, sum(deviation) / 3
        return (mean, deviation) if state.channels == 3 else ((grey[0],), (grey[1],))
    step = max(1, table.num_rows // _FITTED_ROWS)
    rows = np.arange(0, table.num_rows, step)
    pixels_NCHW = Image().encode(Parted(table).take(rows), state)["image_BCHW"].numpy()
    moments = [_moments(pixels_NCHW[:, channel]) for channel in range(state.channels)]
    return tuple(mean for mean, _ in moments), tuple(deviation for _, deviation in moments)


def _moments(values: NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and deviation of bytes, as shares of 255, from how often each of them occurs."""
    counts = np.bincount(values.reshape(-1), minlength=256)
    level = np.arange(256) / 255
    mean = float((counts * level).sum() / counts.sum())
    deviation = float(np.sqrt((counts * (level - mean) ** 2).sum() / counts.sum()))
    return mean, max(deviation, _LEAST_DEVIATION)
