"""Images changed by a few operations drawn for each (RandAugment, Cubuk et al. 2019, arXiv 1909.13719).

Every operation is as strong as a number drawn for each image says, from 0, nothing, to 1. All is drawn from torch's own
generator. N images that get an operation, C channels, H rows, W columns; numbers of pixels are from 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Operation = Callable[[Tensor, Tensor], Tensor]

# How far each goes at most, either way: degrees, shares of the side, factors, bits.
_ROTATION, _SHEAR, _MOVE, _FACTOR, _BITS = 30.0, 0.3, 0.3, 0.9, 4.0


def apply(image_BCHW: Tensor, count: int) -> Tensor:
    """Return each image after so many operations, drawn one by one; float32, of the same shape."""
    changed_BCHW = image_BCHW.float()
    for _ in range(count):
        chosen_B = torch.randint(len(OPERATIONS), (len(changed_BCHW),), device=changed_BCHW.device)
        strength_B = torch.rand(len(changed_BCHW), device=changed_BCHW.device)
        for number, operation in enumerate(OPERATIONS.values()):
            row_N = (chosen_B == number).nonzero().squeeze(1)
            if len(row_N):
                found_NCHW = operation(changed_BCHW[row_N], strength_B[row_N])
                changed_BCHW = changed_BCHW.index_copy(0, row_N, found_NCHW.clamp(0, 255))
    return changed_BCHW


def _either_way(strength_N: Tensor) -> Tensor:
    return strength_N * torch.where(torch.rand_like(strength_N) < 0.5, -1.0, 1.0)


def _warped(image_NCHW: Tensor, map_N23: Tensor) -> Tensor:
    grid_NHW2 = functional.affine_grid(map_N23, list(image_NCHW.shape), align_corners=False)
    return functional.grid_sample(image_NCHW, grid_NHW2, padding_mode="border", align_corners=False)


def _by_map(place: tuple[int, int], most: float) -> Operation:
    """Return what changes one number of the map by which a pixel of the result lies in its image."""

    def operation(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
        map_N23 = torch.eye(2, 3, device=image_NCHW.device).repeat(len(image_NCHW), 1, 1)
        map_N23[:, place[0], place[1]] += most * _either_way(strength_N)
        return _warped(image_NCHW, map_N23)

    return operation


def _rotated(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
    angle_N = _either_way(strength_N) * (_ROTATION * math.pi / 180)
    cos_N, sin_N, none_N = angle_N.cos(), angle_N.sin(), torch.zeros_like(angle_N)
    rows = [torch.stack([cos_N, -sin_N, none_N], 1), torch.stack([sin_N, cos_N, none_N], 1)]
    return _warped(image_NCHW, torch.stack(rows, 1))


def _from(base: Callable[[Tensor], Tensor]) -> Operation:
    """Return what moves an image away from a plainer one, or towards it."""

    def operation(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
        factor_N111 = 1 + _FACTOR * _either_way(strength_N).view(-1, 1, 1, 1)
        base_NCHW = base(image_NCHW)
        return base_NCHW + factor_N111 * (image_NCHW - base_NCHW)

    return operation


def _blurred(image_NCHW: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(image_NCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _posterized(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
    step_N111 = 2 ** (_BITS * strength_N).round().view(-1, 1, 1, 1)
    return (image_NCHW / step_N111).floor() * step_N111


def _solarized(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
    above_N111 = 256 * (1 - strength_N).view(-1, 1, 1, 1)
    return torch.where(image_NCHW >= above_N111, 255 - image_NCHW, image_NCHW)


def _stretched(image_NCHW: Tensor, strength_N: Tensor) -> Tensor:
    """Return images whose darkest and lightest numbers in each channel are moved towards 0 and 255."""
    low_NC11, high_NC11 = image_NCHW.amin((2, 3), keepdim=True), image_NCHW.amax((2, 3), keepdim=True)
    whole_NCHW = (image_NCHW - low_NC11) * (255 / (high_NC11 - low_NC11).clamp_min(1))
    return image_NCHW + strength_N.view(-1, 1, 1, 1) * (whole_NCHW - image_NCHW)


OPERATIONS: dict[str, Operation] = {
    "rotation": _rotated,
    "shear across": _by_map((0, 1), _SHEAR),
    "shear down": _by_map((1, 0), _SHEAR),
    "move across": _by_map((0, 2), 2 * _MOVE),
    "move down": _by_map((1, 2), 2 * _MOVE),
    "brightness": _from(torch.zeros_like),
    "contrast": _from(lambda image_NCHW: image_NCHW.mean((1, 2, 3), keepdim=True)),
    "colour": _from(lambda image_NCHW: image_NCHW.mean(1, keepdim=True)),
    "sharpness": _from(_blurred),
    "posterize": _posterized,
    "solarize": _solarized,
    "stretch": _stretched,
}
