"""Find objects in an image: what each of them is, and the box that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import pyarrow as pa
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from learning import boxes, images
from learning.augmentation import View, augment_with_boxes
from learning.average_precision import PrecisionTally
from learning.capabilities import Judged, Level, Picture
from learning.config import Columns, Config, Defaults, Situation
from learning.detectors import DETECTORS
from learning.detectors.detector import Marked, Scene
from learning.drawing import Drawn, draw
from learning.errors import InvalidData, InvalidRow
from learning.images import Fit
from learning.interfaces import Batch, Kind, Link, Network, PredictionOptions, Target
from learning.media_types import MEDIA_TYPES
from learning.modalities.image import ImageRow, ImageState
from learning.splits import require_column
from learning.tasks import detection_pictures
from learning.tasks.classification import only_target

_OTHER = "other classes"
# An object of which a view shows less than this share is not looked for in it.
_LEAST_SHOWN = 0.3
_PHOTO = View(
    scale=(0.75, 1.35), aspect=1.1, shift=0.15, mirror=True, brightness=0.3, contrast=0.3, tint=0.1
)  # fmt: skip
_OVERHEAD = _PHOTO.model_copy(update={"flip": True})
_VIEWS = {"none": None, "photo": _PHOTO, "overhead": _OVERHEAD}


class ObjectDetectionConfig(Config):
    """How objects are found, and how images and their boxes are changed while they are learned from."""

    detector: str = Field("centre-points", description="How the backbone's features become boxes.")
    detector_config: dict[str, Any] = Field(default_factory=dict, description="The detector's own options.")
    augmentation: Literal["none", "photo", "overhead"] = Field(
        "photo",
        description="How images are changed in training, and boxes with them: scaled, moved, mirrored and recoloured, "
        "as for photographs; or also upside down, as for what is seen from above or through a microscope.",
    )

    @model_validator(mode="after")
    def _detector_is_known(self) -> ObjectDetectionConfig:
        if self.detector not in DETECTORS:
            raise ValueError(f'there is no detector "{self.detector}"; choose one of {", ".join(DETECTORS)}')
        schema = DETECTORS[self.detector].Config
        try:
            schema.model_validate(self.detector_config)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ValueError(
                f"detector_config.{name}: {first['msg']}, not {first['input']!r}; "
                f"{self.detector} has {', '.join(schema.model_fields)}"
            ) from None
        return self


class ObjectDetectionState(Config):
    """The columns, the classes, sorted by name, the square that images become, and how objects are found in it."""

    target: str
    column: str
    labels: tuple[str, ...]
    side: int
    fit: Fit
    view: View | None
    detector: str
    detector_config: dict[str, Any]

    @property
    def scene(self) -> Scene:
        """What the detector is built for."""
        return Scene(self.side, len(self.labels))


class ObjectDetectionOptions(PredictionOptions):
    """Which of the objects are wanted, and whether as a picture too."""

    threshold: float = Field(0.3, ge=0, le=1, description="Least score of an object.")
    top_k: int | None = Field(None, ge=1, description="Most objects, those of the highest scores.")
    drawn: bool = Field(False, description="Whether an answer has the image with the objects drawn on it, as a PNG.")

    def asked(self, row: ImageRow) -> ImageRow:
        """Return a parsed image with these options."""
        return row._replace(asked=self)


class ObjectDetection:
    """Boxes in pixels of the image as it was sent, each with a class and a score."""

    name: ClassVar[str] = "object-detection"
    modality: ClassVar[str] = "image"
    kind: ClassVar[Kind] = "finetune"
    target: ClassVar[Target] = "objects"
    stratified: ClassVar[bool] = False
    score: ClassVar[str] = "map50"
    monitor: ClassVar[str] = "map"
    # Most things are small beside the image that they are on.
    preprocessing: ClassVar[dict[str, Any]] = {"size": 256}
    Config: ClassVar[type[ObjectDetectionConfig]] = ObjectDetectionConfig
    State: ClassVar[type[ObjectDetectionState]] = ObjectDetectionState
    Options: ClassVar[type[PredictionOptions]] = ObjectDetectionOptions

    def fit(
        self, table: pa.Table, columns: Columns, config: ObjectDetectionConfig, inputs: ImageState
    ) -> ObjectDetectionState:
        """Collect the classes; InvalidData when nothing is marked."""
        target = only_target(self.name, columns)
        labels = sorted({one["label"] for row in _objects(table, target) for one in row})
        if not labels:
            raise InvalidData(
                f'Column "{target}" has no object in any of the {table.num_rows} training images.',
                hint="Mark objects: add annotations with a category and a bbox to the COCO file.",
                param="columns.target",
            )
        return ObjectDetectionState(
            target=target,
            column=inputs.column,
            labels=tuple(labels),
            side=inputs.size,
            fit=inputs.fit,
            view=_VIEWS[config.augmentation],
            detector=config.detector,
            detector_config=config.detector_config,
        )

    def targets(self, table: pa.Table, state: ObjectDetectionState, encoded: Batch) -> Batch:
        """Return target_boxes_BM4, in pixels of the image, target_class_BM, -1 where an image has fewer objects and C
        where training knows no such class, and target_size_B2, the images' widths and heights.
        """
        known = {label: number for number, label in enumerate(state.labels)}
        rows = _objects(table, state.target)
        most = max(1, *map(len, rows)) if rows else 1
        boxes_BM4 = torch.full((len(rows), most, 4), -1.0)
        class_BM = torch.full((len(rows), most), -1, dtype=torch.int16)
        for row, objects in enumerate(rows):
            for place, one in enumerate(objects):
                left, top = one["x"], one["y"]
                boxes_BM4[row, place] = torch.tensor([left, top, left + one["width"], top + one["height"]])
                class_BM[row, place] = known.get(one["label"], len(known))
        sizes = [
            [width, height]
            for chunk in table.column(state.column).chunks
            for width, height in zip(chunk.field("width").to_pylist(), chunk.field("height").to_pylist(), strict=True)
        ]
        size_B2 = torch.tensor(sizes, dtype=torch.int32).reshape(-1, 2)
        return {"target_boxes_BM4": boxes_BM4, "target_class_BM": class_BM, "target_size_B2": size_B2}

    def head(self, width: int, state: ObjectDetectionState) -> nn.Module:
        """Return the detector on one grid alone."""
        return self.head_on((Level(width, 1),), state)

    def head_on(self, levels: Sequence[Level], state: ObjectDetectionState) -> nn.Module:
        """Return the detector on some grids."""
        return DETECTORS[state.detector].head(levels, state.scene, _detector_config(state))

    def defaults(self, usual: Defaults, situation: Situation) -> Defaults:
        """Return batches of few images, each of which has many objects, and so more steps, over which boxes waver."""
        return replace(usual, batch_size=8, least_steps=1_200, least_epochs=30, ema_decay=0.998)

    def loss(self, network: Network, batch: Batch, state: ObjectDetectionState) -> Tensor:
        """Return the detector's loss; in training of a view of each image."""
        image_BCHW, class_BM = batch["image_BCHW"], batch["target_class_BM"].long()
        boxes_BM4 = boxes.into_square(batch["target_boxes_BM4"], batch["target_size_B2"], state.side, state.fit)
        whole_BM = boxes.area(boxes_BM4)
        if network.training and state.view is not None:
            image_BCHW, boxes_BM4 = augment_with_boxes(image_BCHW, boxes_BM4, state.view)
            whole_BM = boxes.area(boxes_BM4)
        boxes_BM4 = boxes_BM4.clamp(0, state.side)
        is_there_BM = (class_BM >= 0) & (class_BM < len(state.labels))
        is_there_BM &= boxes.area(boxes_BM4) > _LEAST_SHOWN * whole_BM
        outputs = network({**batch, "image_BCHW": image_BCHW})
        marked = Marked(boxes_BM4, class_BM.masked_fill(~is_there_BM, -1))
        return DETECTORS[state.detector].loss(outputs, marked, state.scene, _detector_config(state))

    def link(self, state: ObjectDetectionState) -> Link | None:
        """Return None: outputs are by cell."""
        return None

    def predict(self, network: Network, batch: Batch, state: ObjectDetectionState) -> Tensor:
        """Return detections in pixels of the square, (B, K, 6), the best first."""
        return DETECTORS[state.detector].found(network(batch), state.scene, _detector_config(state))

    def answers(
        self, predictions: Tensor, state: ObjectDetectionState, rows: Sequence[ImageRow]
    ) -> list[dict[str, Any]]:
        """Return each image's objects, as they are asked for."""
        size_B2 = torch.tensor([row.size for row in rows])
        return [
            _answer(row, found_K6.tolist(), state)
            for row, found_K6 in zip(rows, _on_image(predictions, size_B2, state), strict=True)
        ]

    def metrics(self, predictions: Tensor, targets: Batch, state: ObjectDetectionState) -> dict[str, Any]:
        """Return mean average precision over overlaps of 0.5 to 0.95, at 0.5 and at 0.75, and each class's."""
        return _tally(_on_image(predictions, targets["target_size_B2"], state), targets, state).metrics()

    def pictures(self, judged: Judged, inputs: ImageState, state: ObjectDetectionState) -> Iterator[Picture]:
        """Yield precision over recall, and images with objects and detections drawn on them."""
        found_NK6 = _on_image(judged.predictions, judged.targets["target_size_B2"], state)
        tally = _tally(found_NK6, judged.targets, state)
        yield from detection_pictures.precision_curves(tally, judged.part, len(found_NK6))
        threshold = ObjectDetectionOptions().threshold
        yield from detection_pictures.drawn(found_NK6, judged, state.labels, state.column, threshold)

    def schema(self, state: ObjectDetectionState) -> dict[str, Any]:
        """Return the JSON Schema of an answer."""
        pixels = {"type": "number", "minimum": 0}
        one = {
            "label": {"type": "string", "enum": list(state.labels)},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            **dict.fromkeys(("x", "y", "width", "height"), pixels),
        }
        return {
            "type": "object",
            "properties": {
                "objects": {"type": "array", "items": {"type": "object", "properties": one}},
                "image": {"type": ["string", "null"], "description": "A PNG as a data URL, if one was asked for."},
            },
        }


def _detector_config(state: ObjectDetectionState) -> Any:
    return DETECTORS[state.detector].Config.model_validate(state.detector_config)


def _on_image(found_BK6: Tensor, size_B2: Tensor, state: ObjectDetectionState) -> Tensor:
    """Return detections in pixels of the images; one that lies on what fills up a square has no score."""
    boxes_BK4 = boxes.out_of_square(found_BK6[..., :4], size_B2, state.side, state.fit)
    score_BK = torch.where(boxes.area(boxes_BK4) > 0, found_BK6[..., 4], 0.0)
    return torch.cat([boxes_BK4, score_BK[..., None], found_BK6[..., 5:]], 2)


def _tally(found_NK6: Tensor, targets: Batch, state: ObjectDetectionState) -> PrecisionTally:
    tally = PrecisionTally((*state.labels, _OTHER))
    for found_K6, boxes_M4, class_M in zip(
        found_NK6, targets["target_boxes_BM4"], targets["target_class_BM"], strict=True
    ):
        tally.add(found_K6, boxes_M4, class_M)
    return tally


def _answer(row: ImageRow, found: list[list[float]], state: ObjectDetectionState) -> dict[str, Any]:
    options = cast("ObjectDetectionOptions", row.asked or ObjectDetectionOptions())
    wanted = [one for one in found if one[4] > 0 and one[4] >= options.threshold][: options.top_k]
    objects = [
        {
            "label": state.labels[int(number)],
            "score": score,
            "x": left,
            "y": top,
            "width": right - left,
            "height": low - top,
        }
        for left, top, right, low, score, number in wanted
    ]
    if not options.drawn:
        return {"objects": objects, "image": None}
    marks = [
        Drawn((left, top, right, low), f"{state.labels[int(number)]} {score:.2f}", int(number))
        for left, top, right, low, score, number in wanted
    ]
    return {"objects": objects, "image": images.data_url(draw(row.content, row.size, marks))}


def _objects(table: pa.Table, target: str) -> list[list[dict[str, Any]]]:
    """Return each row's objects; InvalidData for a column that has none, InvalidRow for a row without a list."""
    require_column(table, target, "columns.target")
    kind = table.schema.field(target).type
    if kind != MEDIA_TYPES["objects"]:
        raise InvalidData(
            f'Column "{target}" holds {kind} values, which are no marked objects.',
            hint="Upload a zip archive with images and their annotations in COCO's form.",
            param="columns.target",
        )
    rows: list[list[dict[str, Any]]] = table.column(target).to_pylist()
    missing = next((row for row, objects in enumerate(rows) if objects is None), None)
    if missing is not None:
        raise InvalidRow(
            missing, f', column "{target}": no list of objects.', hint="Remove the row.", param="columns.target"
        )
    return rows
