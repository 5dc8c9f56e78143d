"""Convolutions on spectrograms of unequal lengths: the rows as one long strip, with silence between them.

A row begins where every stride so far begins as well, and is followed by at least one position of silence on each
grid, as a row by itself is followed by the padding of a convolution. So nothing of a row depends on its neighbours,
and what is computed beside the rows is a few frames of each, whatever their lengths. S frames of all rows, L frames of
the strip, C channels, F bands.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Strip(NamedTuple):
    """Where rows lie on the strip: the first position of each, how many they have, and which positions are a row's."""

    start_B: Tensor
    length_B: Tensor
    total: int
    inside_L: Tensor

    @classmethod
    def of(cls, length_B: Tensor, stride: int, silence: int = 1) -> Strip:
        """Return rows of these lengths laid out for strides in time of this product.

        `silence` is what follows a row on the coarsest grid, in positions: half of what the longest convolution sees.
        """
        room_B = (torch.div(length_B + stride - 1, stride, rounding_mode="floor") + silence) * stride
        end_B = room_B.cumsum(0)
        return cls._with(end_B - room_B, length_B, _rounded(int(end_B[-1]), stride))

    @classmethod
    def _with(cls, start_B: Tensor, length_B: Tensor, total: int) -> Strip:
        inside_L = torch.zeros(total, dtype=torch.bool)
        inside_L[_places(start_B, length_B)] = True
        return cls(start_B, length_B, total, inside_L)

    def places(self) -> Tensor:
        """Return the position on the strip of every frame of the rows, (S,)."""
        return _places(self.start_B, self.length_B)

    def laid_out(self, frame_SF: Tensor) -> Tensor:
        """Return the frames of the rows on the strip, with silence between them, (1, 1, L, F)."""
        values_LF = frame_SF.new_zeros(self.total, frame_SF.shape[1])
        return values_LF.index_copy(0, self.places().to(frame_SF.device), frame_SF)[None, None]

    def picked(self, values_LD: Tensor) -> Tensor:
        """Return what lies on the rows' positions of the strip, (S, D)."""
        return values_LD[self.places().to(values_LD.device)]

    def halved(self, stride: int) -> Strip:
        """Return the strip after a convolution with this stride in time."""
        if stride == 1:
            return self
        length_B = torch.div(self.length_B + stride - 1, stride, rounding_mode="floor")
        return Strip._with(self.start_B // stride, length_B, -(-self.total // stride))


def _rounded(total: int, stride: int) -> int:
    """Return a length of which there are few, at most a 32nd more: for each new one convolutions are compiled anew."""
    grain = max(1, (1 << total.bit_length()) // (64 * stride)) * stride
    return -(-total // grain) * grain


def _places(start_B: Tensor, length_B: Tensor) -> Tensor:
    total = int(length_B.sum())
    shift_B = start_B - (length_B.cumsum(0) - length_B)
    return torch.repeat_interleave(shift_B, length_B, output_size=total) + torch.arange(total)


class StripConvolution(nn.Module):
    """A convolution over time and bands, its batch normalisation and, if asked for, a ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: tuple[int, int],
        kernel: int | tuple[int, int] = 3,
        activate: bool = True,
    ) -> None:
        super().__init__()
        time, bands = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.convolution = nn.Conv2d(inputs, outputs, (time, bands), stride, (time // 2, bands // 2), bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.stride = stride[0]
        self.activate = activate

    def forward(self, values_1CLF: Tensor) -> Tensor:
        """Return the outputs, (1, outputs, L / stride, F / stride); what lies between rows is to be silenced."""
        outputs_1CLF: Tensor = self.normalization(self.convolution(values_1CLF))
        return outputs_1CLF.relu_() if self.activate else outputs_1CLF


def silenced(values_1CLF: Tensor, strip: Strip) -> Tensor:
    """Return the values with 0 between the rows, where normalisation and shifts have put others."""
    inside_1L1 = strip.inside_L.to(values_1CLF.device, values_1CLF.dtype).view(1, 1, -1, 1)
    return values_1CLF * inside_1L1


class StripBlock(nn.Module):
    """Two convolutions added to the block's input (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        same = inputs == outputs and stride == (1, 1)
        self.first = StripConvolution(inputs, outputs, stride)
        self.second = StripConvolution(outputs, outputs, (1, 1), activate=False)
        self.shortcut = nn.Identity() if same else StripConvolution(inputs, outputs, (1, 1), 1, activate=False)
        self.stride = stride

    def forward(self, values_1CLF: Tensor, strip: Strip) -> tuple[Tensor, Strip]:
        """Return the block's outputs, silenced between rows, and where the rows lie on them."""
        after = strip.halved(self.first.stride)
        inner_1CLF = silenced(self.first(values_1CLF), after)
        # Skipped before the product, not by it: with torch 2.13 and oneDNN, training on a 1 x 1 convolution with a
        # stride of 2, channels last, 8 to 16 of them over 400 frames, ended with "free(): invalid next size".
        kept_1CLF = values_1CLF[:, :, :: self.stride[0], :: self.stride[1]]
        outputs_1CLF = (self.second(inner_1CLF) + self.shortcut(kept_1CLF)).relu_()
        return silenced(outputs_1CLF, after), after
