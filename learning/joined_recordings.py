"""Recordings of a batch put one after another at random, so that short ones have something around them.

Everything is drawn from torch's own generator. B rows whose frames stand one after the other, J joined rows, S frames
of all of them, F mel bands; values are standardised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learning.spectrograms import LEAST_DEVIATION, Normalization


def neighbours(length_B: Tensor, most: int, most_frames: float) -> Tensor:
    """Return count_J: how many rows, each the next ones, are one, up to `most` and as long as that: drawn for each."""
    found: list[int] = []
    length = left = 0
    draws = torch.randint(most, (len(length_B),)).tolist()
    for one, draw in zip(length_B.tolist(), draws, strict=True):
        if left and length + one <= most_frames:
            found[-1] += 1
            length += one
            left -= 1
        else:
            found.append(1)
            length, left = one, draw
    return torch.tensor(found)


def summed(value_B: Tensor, count_J: Tensor) -> Tensor:
    """Return the sum of each joined row's values."""
    return value_B.new_zeros(len(count_J)).index_add(0, _group(count_J, len(value_B)), value_B)


def put_together(
    frame_SF: Tensor, length_B: Tensor, count_J: Tensor, gaps: tuple[int, int], normalization: Normalization
) -> tuple[Tensor, Tensor]:
    """Return the frames and lengths of joined rows, with silence between the recordings of each.

    `gaps` are the fewest and the most frames of a silence; it is as quiet as anything in that row, which is then
    normalised as one recording.
    """
    device = frame_SF.device
    gap_B = torch.randint(gaps[0], gaps[1] + 1, (len(length_B),))
    gap_B[count_J.cumsum(0) - 1] = 0  # behind the last of a row
    length_J = summed(length_B + gap_B, count_J)
    total = int(length_J.sum())
    row_S = torch.repeat_interleave(length_B, output_size=len(frame_SF))
    place_S = torch.arange(len(frame_SF)) + (gap_B.cumsum(0) - gap_B)[row_S]
    joined_S = torch.repeat_interleave(length_J, output_size=total).to(device)
    group_S = _group(count_J, len(length_B))[row_S].to(device)
    least_J = frame_SF.new_full((len(count_J),), torch.inf).scatter_reduce(0, group_S, frame_SF.amin(1), "amin")
    whole_SF = least_J[joined_S].unsqueeze(1).repeat(1, frame_SF.shape[1])
    whole_SF[place_S.to(device)] = frame_SF
    if normalization == "none":
        return whole_SF, length_J
    again_S1 = (count_J > 1).to(device)[joined_S].unsqueeze(1)
    normal_SF = _normalised(whole_SF, joined_S, length_J.to(device), by_band=normalization == "bands")
    return torch.where(again_S1, normal_SF, whole_SF), length_J


def _group(count_J: Tensor, rows: int) -> Tensor:
    return torch.repeat_interleave(count_J, output_size=rows)


def _normalised(frame_SF: Tensor, row_S: Tensor, length_J: Tensor, *, by_band: bool) -> Tensor:
    """Return rows with a mean of 0 and a deviation of 1, of all values or of each band's."""

    def mean(value_SF: Tensor) -> Tensor:
        sum_JF = value_SF.new_zeros(len(length_J), value_SF.shape[1]).index_add(0, row_S, value_SF)
        mean_JF = sum_JF / length_J.unsqueeze(1)
        return (mean_JF if by_band else mean_JF.mean(1, keepdim=True))[row_S]

    centred_SF = frame_SF - mean(frame_SF)
    return centred_SF / mean(centred_SF.square()).sqrt().clamp_min(LEAST_DEVIATION)
