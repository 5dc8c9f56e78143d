"""Rectangles on images: how far two overlap, which of many to keep, and where they lie in the square that is read.

A box is its left, top, right and lower edge in pixels. B images, M boxes of one, N others of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learning.images import Fit

# Keeps a division by the area of nothing finite.
_TINY = 1e-7


def area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes, (..., 4), of which none is negative."""
    return (boxes[..., 2] - boxes[..., 0]).clamp_min(0) * (boxes[..., 3] - boxes[..., 1]).clamp_min(0)


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """Return the area that boxes share with others, (..., 4) each, as far as their shapes broadcast."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    sides = (high - low).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return intersection over union, 0 to 1, as far as the shapes broadcast."""
    shared = intersection(first, second)
    return shared / (area(first) + area(second) - shared).clamp_min(_TINY)


def generalized_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return GIoU, -1 to 1: the overlap, less the share of the hull that neither covers.

    Rezatofighi et al. 2019, arXiv 1902.09630.
    """
    shared = intersection(first, second)
    union = (area(first) + area(second) - shared).clamp_min(_TINY)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).prod(-1).clamp_min(_TINY)
    return shared / union - (hull - union) / hull


def best_of_each(boxes_BM4: Tensor, class_BM: Tensor, limit: float) -> Tensor:
    """Return which boxes are kept, (B, M): those that overlap no better one of their class by more than `limit`.

    The better of two boxes of an image is the one that stands before the other. A box that is not kept hides none.
    """
    hides_BMM = overlap(boxes_BM4[:, :, None], boxes_BM4[:, None]) > limit
    hides_BMM &= class_BM[:, :, None] == class_BM[:, None]
    kept_BM = torch.ones_like(class_BM, dtype=torch.bool)
    for place in range(boxes_BM4.shape[1] - 1):
        hidden_BN = hides_BMM[:, place, place + 1 :] & kept_BM[:, place, None]
        kept_BM[:, place + 1 :] &= ~hidden_BN
    return kept_BM


def scale_and_shift(size_B2: Tensor, side: int, fit: Fit) -> tuple[Tensor, Tensor]:
    """Return by what coordinates of images (width, height) are multiplied, and what is added, to be those in a square.

    Both are (B, 2). The square is the one that `images.decode` makes.
    """
    size_B2 = size_B2.double()
    ratio_B2 = side / size_B2
    if fit == "stretch":
        return ratio_B2, torch.zeros_like(ratio_B2)
    ratio_B1 = (ratio_B2.amin if fit == "pad" else ratio_B2.amax)(1, keepdim=True)
    scaled_B2 = (size_B2 * ratio_B1).round().clamp_min(1)
    return scaled_B2 / size_B2, torch.div(side - scaled_B2, 2, rounding_mode="floor")


def into_square(boxes_BM4: Tensor, size_B2: Tensor, side: int, fit: Fit) -> Tensor:
    """Return boxes of images of these sizes where they are in the squares, (B, M, 4); a crop may leave them outside."""
    scale_B2, shift_B2 = scale_and_shift(size_B2, side, fit)
    return (boxes_BM4 * scale_B2.repeat(1, 2)[:, None] + shift_B2.repeat(1, 2)[:, None]).to(boxes_BM4.dtype)


def out_of_square(boxes_BM4: Tensor, size_B2: Tensor, side: int, fit: Fit) -> Tensor:
    """Return boxes of squares where they are in the images, (B, M, 4), cut off at the images' edges."""
    scale_B2, shift_B2 = scale_and_shift(size_B2, side, fit)
    found_BM4 = (boxes_BM4 - shift_B2.repeat(1, 2)[:, None]) / scale_B2.repeat(1, 2)[:, None]
    limit_B14 = size_B2.double().repeat(1, 2)[:, None]
    return torch.minimum(found_BM4.clamp_min(0), limit_B14).to(boxes_BM4.dtype)
