"""Batch normalisation folded into the convolution before it: in evaluation it is a fixed scale and shift of outputs."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(network: nn.Module) -> None:
    """Fold, in a network in evaluation, what normalises right after a convolution; outputs stay what they are, but for
    rounding.

    Looked for are neighbours of an `nn.Sequential`, and the modules `convolution` and `normalization` of one that
    applies the second to the first.
    """
    for module in list(network.modules()):
        names = list(module._modules) if isinstance(module, nn.Sequential) else ["convolution", "normalization"]
        for before, after in pairwise(names):
            convolution, normalization = module._modules.get(before), module._modules.get(after)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(convolution, normalization))
                setattr(module, after, nn.Identity())
