"""Two examples learned as one: an image of both, and the loss of both targets by how much there is of each.

MixUp (Zhang et al. 2017, arXiv 1710.09412) shows both at once, CutMix (Yun et al. 2019, arXiv 1905.04899) a rectangle
of the second in the first. B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Beta

from learning.config import Config
from learning.interfaces import Batch, Network

Mix = Literal["none", "mixup", "cutmix", "both"]
# Of the Beta distribution that says how much is whose, by the papers.
_MIXUP, _CUTMIX = 0.2, 1.0


class MixingConfig(Config):
    """Whether two images are learned as one."""

    mix: Mix = Field(
        "none",
        description="Whether two images are learned as one in training, and both of their targets: laid over each "
        "other (`mixup`), or a rectangle of one in the other (`cutmix`), or now this, now that (`both`).",
    )


def mixed_loss(
    loss: Callable[[Network, Batch, Any], Tensor], network: Network, batch: Batch, state: Any, mix: Mix
) -> Tensor:
    """Return a loss, in training of images mixed with others of the batch."""
    if mix == "none" or not network.training:
        return loss(network, batch, state)
    if mix == "both":
        mix = "mixup" if float(torch.rand(())) < 0.5 else "cutmix"
    image_BCHW = batch["image_BCHW"].float()
    other_B = torch.randperm(len(image_BCHW), device=image_BCHW.device)
    spread = _MIXUP if mix == "mixup" else _CUTMIX
    share = float(Beta(spread, spread).sample())
    if mix == "mixup":
        mixed_BCHW = share * image_BCHW + (1 - share) * image_BCHW[other_B]
    else:
        mixed_BCHW, share = _with_cut(image_BCHW, image_BCHW[other_B], share)
    outputs = network({**batch, "image_BCHW": mixed_BCHW})
    others = {name: tensor[other_B] for name, tensor in batch.items() if name.startswith("target_")}
    known = cast("Network", lambda _: outputs)
    return share * loss(known, batch, state) + (1 - share) * loss(known, {**batch, **others}, state)


def _with_cut(image_BCHW: Tensor, other_BCHW: Tensor, share: float) -> tuple[Tensor, float]:
    """Return images with a rectangle of others, the same for all, and the share of an image that is its own."""
    height, width = image_BCHW.shape[2:]
    high, wide = (round(side * math.sqrt(1 - share)) for side in (height, width))
    # Its middle may be anywhere, so it may lie outside in part.
    middle, centre = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, left = max(0, middle - high // 2), max(0, centre - wide // 2)
    bottom, right = min(height, middle - high // 2 + high), min(width, centre - wide // 2 + wide)
    mixed_BCHW = image_BCHW.clone()
    mixed_BCHW[:, :, top:bottom, left:right] = other_BCHW[:, :, top:bottom, left:right]
    return mixed_BCHW, 1 - (bottom - top) * (right - left) / (height * width)
