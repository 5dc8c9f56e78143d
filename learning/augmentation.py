"""Images changed at random, a batch at a time: moved, turned, mirrored, recoloured, partly hidden.

Everything is drawn from torch's own generator, so that it follows from a run's seed and from its checkpoints. B batch,
C channels, H rows, W columns; numbers of pixels are from 0 to 255.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from learning import random_operations
from learning.config import Config

_ELASTIC_GRID = 5


class View(Config):
    """How far a view may be from its image; each draw is uniform within these bounds."""

    rotation: float = 0.0  # degrees, either way
    scale: tuple[float, float] = (1.0, 1.0)  # side of what is seen, as a share of the image's
    aspect: float = 1.0  # largest ratio of width to height
    shift: float = 0.0  # share of the side, either way; with inside, how much of the room there is is used
    inside: bool = False  # whether what is seen stays within the image, as a crop does
    shear: float = 0.0
    elastic: float = 0.0  # how far points of a coarse grid move, as a share of half the side
    mirror: bool = False  # left and right, every other time
    flip: bool = False  # top and bottom, every other time
    brightness: float = 0.0  # factors of up to 1 ± this
    contrast: float = 0.0
    tint: float = 0.0  # of each channel by itself
    grey: float = 0.0  # probability of losing colour
    erase: float = 0.0  # probability of a hidden rectangle
    operations: int = 0  # random ones that come first


# Digits, drawings, scans: what is mirrored or recoloured may be something else.
DRAWN = View(rotation=12, scale=(0.85, 1.15), shift=0.1)
# Photographs: of things that are the same from another side and in another light.
PHOTO = View(
    scale=(0.74, 1.02), aspect=1.15, shift=1.0, inside=True, mirror=True, rotation=5,
    brightness=0.5, contrast=0.35, tint=0.2, erase=0.5,
)  # fmt: skip

# A few operations drawn for each image, then moved, mirrored and partly hidden like the others.
DRAWN_RANDOM = DRAWN.model_copy(update={"operations": 2})
PHOTO_RANDOM = PHOTO.model_copy(update={"operations": 2, "rotation": 0, "brightness": 0, "contrast": 0, "tint": 0})

# Two such views of an image have little in common but what it shows.
DRAWN_APART = View(rotation=20, scale=(0.75, 1.35), shift=0.15, shear=0.3, elastic=0.12, erase=0.3)
PHOTO_APART = View(
    scale=(0.6, 1.0), aspect=1.25, shift=1.0, inside=True, mirror=True, rotation=10,
    brightness=0.8, contrast=0.5, tint=0.4, grey=0.2,
)  # fmt: skip


def augment(image_BCHW: Tensor, view: View) -> Tensor:
    """Return a view of each image, float32, of the same shape."""
    changed_BCHW = random_operations.apply(image_BCHW, view.operations)
    if view != view.model_copy(update={"rotation": 0, "scale": (1, 1), "aspect": 1, "shift": 0, "shear": 0,
                                       "elastic": 0, "mirror": False, "flip": False}):  # fmt: skip
        grid_BHW2 = functional.affine_grid(_affine(changed_BCHW, view), list(changed_BCHW.shape), align_corners=False)
        if view.elastic:
            grid_BHW2 = grid_BHW2 + _bends(changed_BCHW, view.elastic)
        changed_BCHW = _sampled(changed_BCHW, grid_BHW2)
    return _changed(changed_BCHW, view)


def augment_with_boxes(image_BCHW: Tensor, boxes_BM4: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Return a view of each square image, and boxes, in pixels, that hold in the view what they held in the image.

    A box may end up outside; one of an image that was turned grows. A view must not bend or hide.
    """
    changed_BCHW, side = image_BCHW.float(), image_BCHW.shape[-1]
    affine_B23 = _affine(changed_BCHW, view)
    grid_BHW2 = functional.affine_grid(affine_B23, list(changed_BCHW.shape), align_corners=False)
    corners_BM42 = boxes_BM4[..., [0, 1, 2, 1, 0, 3, 2, 3]].unflatten(-1, (4, 2)) * (2 / side) - 1
    # The affine map says where a pixel of the view is from; a box goes the other way.
    back_B22 = torch.linalg.inv(affine_B23[:, :, :2])
    moved_BM42 = (corners_BM42 - affine_B23[:, None, None, :, 2]) @ back_B22.transpose(1, 2)[:, None]
    moved_BM42 = (moved_BM42 + 1) * (side / 2)
    moved_BM4 = torch.cat([moved_BM42.amin(2), moved_BM42.amax(2)], 2)
    return _changed(_sampled(changed_BCHW, grid_BHW2), view), moved_BM4


def _sampled(image_BCHW: Tensor, grid_BHW2: Tensor) -> Tensor:
    # What lies outside the image is like its edge.
    return functional.grid_sample(image_BCHW, grid_BHW2, padding_mode="border", align_corners=False)


def _changed(changed_BCHW: Tensor, view: View) -> Tensor:
    """Return images in other colours, some with a hidden part."""
    if view.brightness or view.contrast or view.tint or view.grey:
        changed_BCHW = _recoloured(changed_BCHW, view)
    return _erased(changed_BCHW, view.erase) if view.erase else changed_BCHW


def _uniform(image_BCHW: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(image_BCHW), device=image_BCHW.device).uniform_(low, high)


def _affine(image_BCHW: Tensor, view: View) -> Tensor:
    """Return by which map, (B, 2, 3), a pixel of the view lies in its image, in coordinates from -1 to 1."""
    angle_B = _uniform(image_BCHW, -view.rotation, view.rotation) * (math.pi / 180)
    scale_B = _uniform(image_BCHW, *view.scale)
    stretch_B = _uniform(image_BCHW, -math.log(view.aspect), math.log(view.aspect)).div(2).exp()
    shear_B = _uniform(image_BCHW, -view.shear, view.shear)
    wide_B, high_B = scale_B * stretch_B, scale_B / stretch_B
    mirror_B = torch.where(_uniform(image_BCHW, 0, 1) < 0.5 * view.mirror, -1.0, 1.0)
    moves_B2 = torch.stack([_uniform(image_BCHW, -view.shift, view.shift) for _ in range(2)], 1)
    moves_B2 = moves_B2 * (torch.stack([1 - wide_B, 1 - high_B], 1).clamp_min(0) if view.inside else 2)
    if view.flip:
        high_B = torch.where(_uniform(image_BCHW, 0, 1) < 0.5, -high_B, high_B)
    cos_B, sin_B = angle_B.cos(), angle_B.sin()
    first_B3 = torch.stack([cos_B * wide_B * mirror_B, (shear_B * cos_B - sin_B) * high_B, moves_B2[:, 0]], 1)
    second_B3 = torch.stack([sin_B * wide_B * mirror_B, (shear_B * sin_B + cos_B) * high_B, moves_B2[:, 1]], 1)
    return torch.stack([first_B3, second_B3], 1)


def _bends(image_BCHW: Tensor, strength: float) -> Tensor:
    """Return by how much each point moves: random at the points of a coarse grid, smooth between them."""
    coarse = torch.empty(len(image_BCHW), 2, _ELASTIC_GRID, _ELASTIC_GRID, device=image_BCHW.device)
    coarse.uniform_(-strength, strength)
    fine = functional.interpolate(coarse, image_BCHW.shape[2:], mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _recoloured(image_BCHW: Tensor, view: View) -> Tensor:
    count, channels = image_BCHW.shape[:2]
    if view.grey and channels == 3:
        grey_B111 = (_uniform(image_BCHW, 0, 1) < view.grey).view(-1, 1, 1, 1)
        image_BCHW = torch.where(grey_B111, image_BCHW.mean(1, keepdim=True), image_BCHW)
    mean_B111 = image_BCHW.mean((1, 2, 3), keepdim=True)
    contrast_B111 = _uniform(image_BCHW, 1 - view.contrast, 1 + view.contrast).view(-1, 1, 1, 1)
    bright_B111 = _uniform(image_BCHW, 1 - view.brightness, 1 + view.brightness).view(-1, 1, 1, 1)
    tint_BC11 = torch.empty(count, channels, 1, 1, device=image_BCHW.device).uniform_(1 - view.tint, 1 + view.tint)
    changed_BCHW = (image_BCHW - mean_B111) * contrast_B111 + mean_B111
    return (changed_BCHW * (bright_B111 * tint_BC11)).clamp(0, 255)


def _erased(image_BCHW: Tensor, share: float) -> Tensor:
    """Return images of which some have a rectangle of their mean colour (Zhong et al. 2017, arXiv 1708.04896)."""
    height, width = image_BCHW.shape[2:]
    area_B, ratio_B = _uniform(image_BCHW, 0.05, 0.25), _uniform(image_BCHW, -1.0, 1.0).div(2).exp()
    high_B, wide_B = (area_B.sqrt() * ratio_B).clamp_max(1), (area_B.sqrt() / ratio_B).clamp_max(1)
    top_B, left_B = _uniform(image_BCHW, 0, 1) * (1 - high_B), _uniform(image_BCHW, 0, 1) * (1 - wide_B)
    row_H = (torch.arange(height, device=image_BCHW.device) + 0.5) / height
    column_W = (torch.arange(width, device=image_BCHW.device) + 0.5) / width
    rows_BH = (row_H >= top_B[:, None]) & (row_H < (top_B + high_B)[:, None])
    columns_BW = (column_W >= left_B[:, None]) & (column_W < (left_B + wide_B)[:, None])
    hidden_B = _uniform(image_BCHW, 0, 1) < share
    hidden_B1HW = (rows_BH[:, :, None] & columns_BW[:, None, :] & hidden_B[:, None, None]).unsqueeze(1)
    return torch.where(hidden_B1HW, image_BCHW.mean((2, 3), keepdim=True), image_BCHW)
