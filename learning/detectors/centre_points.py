"""Objects by their centres: at each cell, how likely it is the centre of one of each class, and how far its edges are.

Heat maps and their loss as in Zhou et al. 2019 (arXiv 1904.07850); distances to four edges, learned by GIoU at the
cells around a centre, as in Liu et al. 2019 (arXiv 1909.00700). H rows and W columns of cells, C classes, M objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.boxes import best_of_each, generalized_overlap
from learning.capabilities import Level
from learning.config import Config
from learning.detectors.detector import Marked, Scene
from learning.interfaces import Features

# Standard deviation of the heat around a centre, as a share of the object's side, and at least, in cells.
_SPREAD, _LEAST_SPREAD = 0.14, 0.4
# Cells with less heat than this learn nothing about the edges.
_LEAST_HEAT = 0.1
_EDGES_WEIGHT = 2.0
# How seldom a cell is thought to be a centre before anything is learned (Lin et al. 2017, arXiv 1708.02002).
_PRIOR = 0.01
_MOST_FOUND = 100
# Grids down to a stride of so many pixels see what is around an object.
_COARSEST = 32


class CentrePointsConfig(Config):
    """How fine the grid of centres is, how wide the head, and which of two boxes on one object goes."""

    stride: int = Field(
        8, ge=1, le=64, description="Least pixels between two centres; the finest grid of the backbone that keeps it."
    )
    width: int = Field(96, ge=4, le=1024, description="Channels of the head.")
    overlap: float = Field(
        0.6, gt=0, le=1, description="Intersection over union of two boxes above which the less likely one is dropped."
    )


class CentrePointsHead(nn.Module):
    """Grids joined from coarse to fine (Lin et al. 2016, arXiv 1612.03144), and two branches on the finest."""

    def __init__(self, levels: Sequence[Level], scene: Scene, config: CentrePointsConfig) -> None:
        super().__init__()
        strides = [level.stride for level in levels]
        self.first = next((place for place, stride in enumerate(strides) if stride >= config.stride), len(levels) - 1)
        width = config.width
        self.sides = nn.ModuleList(nn.Conv2d(level.width, width, 1) for level in levels[self.first :])
        steps = max(0, round(math.log2(_COARSEST / strides[-1]))) if scene.side >= 2 * _COARSEST else 0
        self.coarser = nn.ModuleList(
            _convolution(levels[-1].width if step == 0 else width, width, 2) for step in range(steps)
        )
        self.joined = _convolution(width, width)
        self.heat = _branch(width, scene.classes, -math.log((1 - _PRIOR) / _PRIOR))
        self.edges = _branch(width, 4, 0.0)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form

    def forward(self, features: Features) -> Tensor:
        """Return logits of the classes and logarithms of the distances to the edges, (B, C + 4, H, W)."""
        grids = features.grids_BDHW[self.first :]
        sides = [side(grid) for side, grid in zip(self.sides, grids, strict=True)]
        coarse = grids[-1]
        for layer in self.coarser:
            coarse = layer(coarse)
            sides.append(coarse)
        joined = sides.pop()
        for side in reversed(sides):
            joined = side + functional.interpolate(joined, side.shape[2:], mode="nearest")
        joined = self.joined(joined)
        return torch.cat([self.heat(joined), self.edges(joined)], 1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _branch(width: int, outputs: int, bias: float) -> nn.Sequential:
    """Return a layer of its own and the outputs, which begin as what is given."""
    last = nn.Conv2d(width, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(_convolution(width, width), last)


class _Wanted(NamedTuple):
    """What cells are to learn: heat, and boxes with how much each cell's counts; the objects are how many there are."""

    heat_BCHW: Tensor
    boxes_BHW4: Tensor
    weight_BHW: Tensor
    objects: Tensor


class CentrePoints:
    """One network output per cell and class, one box per cell; no anchors."""

    name: ClassVar[str] = "centre-points"
    Config: ClassVar[type[CentrePointsConfig]] = CentrePointsConfig

    def head(self, levels: Sequence[Level], scene: Scene, config: CentrePointsConfig) -> nn.Module:
        """Return the pyramid with its two branches."""
        return CentrePointsHead(levels, scene, config)

    def loss(self, outputs: Tensor, marked: Marked, scene: Scene, config: CentrePointsConfig) -> Tensor:
        """Return the focal loss of the heat and the weighted loss of the boxes, by object."""
        outputs = outputs.float()
        wanted = _wanted(outputs, marked, scene)
        heat = _focal(outputs[:, : scene.classes], wanted.heat_BCHW)
        giou_BHW = generalized_overlap(_boxes(outputs, scene), wanted.boxes_BHW4)
        edges = ((1 - giou_BHW) * wanted.weight_BHW).sum()
        return (heat + _EDGES_WEIGHT * edges) / wanted.objects.clamp_min(1)

    def found(self, outputs: Tensor, scene: Scene, config: CentrePointsConfig) -> Tensor:
        """Return the boxes of the cells that are likelier centres than those around them, without double ones."""
        outputs = outputs.float()
        score_BCHW = outputs[:, : scene.classes].sigmoid()
        peak_BCHW = functional.max_pool2d(score_BCHW, 3, 1, 1) == score_BCHW
        cells = score_BCHW.shape[2] * score_BCHW.shape[3]
        flat_BN = (score_BCHW * peak_BCHW).flatten(1)
        score_BK, place_BK = flat_BN.topk(min(_MOST_FOUND, flat_BN.shape[1]), 1)
        class_BK, cell_BK = place_BK // cells, place_BK % cells
        boxes_BN4 = _boxes(outputs, scene).flatten(1, 2).clamp(0, scene.side)
        boxes_BK4 = boxes_BN4.gather(1, cell_BK[..., None].expand(-1, -1, 4))
        score_BK = score_BK * best_of_each(boxes_BK4, class_BK, config.overlap)
        order_BK = score_BK.argsort(dim=1, descending=True, stable=True)
        found_BK6 = torch.cat([boxes_BK4, score_BK[..., None], class_BK[..., None].float()], 2)
        return found_BK6.gather(1, order_BK[..., None].expand(-1, -1, 6))


def _centres(cells: int, side: int, like: Tensor) -> Tensor:
    """Return the middles of a row of cells, in pixels."""
    return (torch.arange(cells, device=like.device, dtype=torch.float32) + 0.5) * (side / cells)


def _boxes(outputs: Tensor, scene: Scene) -> Tensor:
    """Return each cell's box, (B, H, W, 4)."""
    height, width = outputs.shape[2:]
    unit = 2 * scene.side / height
    away_BHW4 = outputs[:, scene.classes :].permute(0, 2, 3, 1).clamp(-8, 8).exp() * unit
    middle_HW2 = torch.stack(
        torch.meshgrid(_centres(width, scene.side, outputs), _centres(height, scene.side, outputs), indexing="xy"), 2
    )
    return torch.cat([middle_HW2 - away_BHW4[..., :2], middle_HW2 + away_BHW4[..., 2:]], 3)


def _wanted(outputs: Tensor, marked: Marked, scene: Scene) -> _Wanted:
    """Return what the cells are to learn about the objects."""
    height, width = outputs.shape[2:]
    is_one_BM = marked.class_BM >= 0
    boxes_BM4 = marked.boxes_BM4.float()
    along_BMW = _heat(boxes_BM4[..., 0::2], width, scene.side)
    down_BMH = _heat(boxes_BM4[..., 1::2], height, scene.side)
    heat_BMHW = down_BMH[..., None] * along_BMW[..., None, :] * is_one_BM[..., None, None]
    class_BMHW = marked.class_BM.long().clamp_min(0)[..., None, None].expand_as(heat_BMHW)
    heat_BCHW = outputs.new_zeros(len(outputs), scene.classes, height, width)
    heat_BCHW = heat_BCHW.scatter_reduce(1, class_BMHW, heat_BMHW, "amax")
    # A cell's box is that of the object whose heat is greatest there, and objects count alike, however large.
    hottest_BHW, owner_BHW = heat_BMHW.max(1)
    weight_BHW = torch.where(hottest_BHW > _LEAST_HEAT, hottest_BHW, 0.0)
    total_BM = outputs.new_zeros(is_one_BM.shape).scatter_add(1, owner_BHW.flatten(1), weight_BHW.flatten(1))
    weight_BN = weight_BHW.flatten(1) / total_BM.gather(1, owner_BHW.flatten(1)).clamp_min(_LEAST_HEAT)
    boxes_BN4 = boxes_BM4.gather(1, owner_BHW.flatten(1)[..., None].expand(-1, -1, 4))
    return _Wanted(heat_BCHW, boxes_BN4.unflatten(1, (height, width)), weight_BN.view_as(weight_BHW), is_one_BM.sum())


def _heat(edges_BM2: Tensor, cells: int, side: int) -> Tensor:
    """Return a bell along one side, (B, M, cells), that is 1 at the cell where an object's middle lies."""
    pixels = side / cells
    middle_BM = edges_BM2.mean(2).div(pixels).floor().clamp(0, cells - 1)
    spread_BM = ((edges_BM2[..., 1] - edges_BM2[..., 0]) * (_SPREAD / pixels)).clamp_min(_LEAST_SPREAD)
    place_N = torch.arange(cells, device=edges_BM2.device)
    return (-((place_N - middle_BM[..., None]) ** 2) / (2 * spread_BM[..., None] ** 2)).exp()


def _focal(logits_BCHW: Tensor, heat_BCHW: Tensor) -> Tensor:
    """Return the sum of the focal loss that forgives cells near a centre (Law and Deng 2018, arXiv 1808.01244)."""
    score_BCHW = logits_BCHW.sigmoid()
    centre_BCHW = (1 - score_BCHW) ** 2 * functional.logsigmoid(logits_BCHW)
    other_BCHW = (1 - heat_BCHW) ** 4 * score_BCHW**2 * functional.logsigmoid(-logits_BCHW)
    return -torch.where(heat_BCHW == 1, centre_BCHW, other_BCHW).sum()
