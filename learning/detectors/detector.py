"""What a detector is to the task of detection: how a pyramid of grids becomes boxes, and what is lost by wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel
from torch import Tensor, nn

from learning.capabilities import Level


class Scene(NamedTuple):
    """What a detector is built for: squares of so many pixels, on which there are things of so many classes."""

    side: int
    classes: int


class Marked(NamedTuple):
    """Where the objects of B squares are, at most M on one: boxes in pixels and classes, -1 where there is none."""

    boxes_BM4: Tensor
    class_BM: Tensor


class Detector(Protocol):
    """A way to find objects; its options are a class of its own.

    A detection is six numbers: the box's four edges in pixels of the square, its score from 0 to 1, and its class.
    """

    name: ClassVar[str]

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802 - a class
        """Return the Config class."""
        ...

    def head(self, levels: Sequence[Level], scene: Scene, config: Any) -> nn.Module:
        """Return a fresh head from Features with these grids, from fine to coarse, to outputs whose first is B."""
        ...

    def loss(self, outputs: Tensor, marked: Marked, scene: Scene, config: Any) -> Tensor:
        """Return the mean loss of a batch, a scalar; of squares without an object as well."""
        ...

    def found(self, outputs: Tensor, scene: Scene, config: Any) -> Tensor:
        """Return detections, (B, K, 6), the best first; where there are fewer than K the score is 0."""
        ...
