"""Spectrograms changed at random, a batch at a time: faster and slower, higher and lower, louder bands, hidden parts.

Everything is drawn from torch's own generator, so that it follows from a run's seed and from its checkpoints. B rows
whose frames stand one after the other, S frames of all of them, F mel bands; values are standardised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learning.config import Config
from learning.interfaces import Batch


class SoundView(Config):
    """How far a view may be from its recording; each draw is uniform within these bounds."""

    speed: float = 0.0  # share by which a recording gets shorter or longer, either way
    pitch: float = 0.0  # share of the bands by which all that is heard moves up or down
    tilt: float = 0.0  # what the lowest and the highest bands gain or lose, as another microphone would
    noise: float = 0.0  # largest deviation of what is added to each value
    crop: float = 0.0  # largest share of a recording's ends, together, that is left out
    time_masks: int = 0  # stretches of time that are hidden, each up to `time_share` of a recording
    time_share: float = 0.0
    time_frames: int = 0  # and up to as many frames, if more than 0
    band_masks: int = 0  # stretches of bands that are hidden, each up to `band_share` of them
    band_share: float = 0.0


# Hidden parts are SpecAugment's (Park et al. 2019, arXiv 1904.08779), without its time warping, which speed stands for.
MASKS = SoundView(noise=0.1, crop=0.1, time_masks=1, time_share=0.15, band_masks=1, band_share=0.15)
# At another speed and pitch the words are the same, and the voice is another one's.
SPEECH = MASKS.model_copy(update={"speed": 0.15, "pitch": 0.04, "tilt": 0.3})

# Two such views of a recording have little in common but what is said, or who says it.
MASKS_APART = SoundView(
    tilt=0.5, noise=0.3, crop=0.2, time_masks=2, time_share=0.15, band_masks=2, band_share=0.15,
)  # fmt: skip
SPEECH_APART = MASKS_APART.model_copy(update={"speed": 0.25, "pitch": 0.1})

# What a transcript can be written from must not be hidden: a word, or the ends of a recording. A share of a recording
# may be a word of it; a tenth of a second is a sound of one.
_HIDDEN_SECONDS = 0.1


def audible(view: SoundView, frame_seconds: float) -> SoundView:
    """Return a view in which every word can still be heard; frames are as far apart as this."""
    frames = max(1, round(_HIDDEN_SECONDS / frame_seconds))
    return view.model_copy(update={"crop": 0.0, "time_masks": 2, "time_frames": frames})


def augment(batch: Batch, view: SoundView) -> Batch:
    """Return a batch whose recordings are each replaced by a view of them; frames become fewer or more with speed."""
    frame_SF, length_B = batch["frame_SF"], batch["length_B"]
    if view.speed or view.crop:
        frame_SF, length_B = _stretched(frame_SF, length_B, view)
    row_S = torch.repeat_interleave(length_B, output_size=len(frame_SF)).to(frame_SF.device)
    if view.pitch:
        frame_SF = _moved(frame_SF, row_S, len(length_B), view.pitch)
    bands = frame_SF.shape[1]
    if view.tilt:
        slope_B1 = _uniform(frame_SF, len(length_B), -view.tilt, view.tilt).unsqueeze(1)
        frame_SF = frame_SF + (slope_B1 * torch.linspace(-1, 1, bands, device=frame_SF.device))[row_S]
    if view.noise:
        level_B1 = _uniform(frame_SF, len(length_B), 0, view.noise).unsqueeze(1)
        frame_SF = frame_SF + level_B1[row_S] * torch.randn_like(frame_SF)
    frame_SF = _hidden(frame_SF, row_S, length_B.to(frame_SF.device), view)
    return {**batch, "frame_SF": frame_SF, "length_B": length_B}


def _uniform(like: Tensor, count: int, low: float, high: float) -> Tensor:
    return torch.empty(count, device=like.device).uniform_(low, high)


def _stretched(frame_SF: Tensor, length_B: Tensor, view: SoundView) -> tuple[Tensor, Tensor]:
    """Return rows read at other speeds, and what is left of them, by linear interpolation between frames."""
    count = len(length_B)
    factor_B = torch.empty(count).uniform_(1 - view.speed, 1 + view.speed)
    left_B = torch.empty(count).uniform_(0, view.crop)
    first_B = left_B * torch.rand(count) * (length_B - 1)
    new_B = ((length_B * (1 - left_B)) / factor_B).round().long().clamp_min(1)
    total = int(new_B.sum())
    row_S = torch.repeat_interleave(new_B, output_size=total)
    start_B, began_B = length_B.cumsum(0) - length_B, new_B.cumsum(0) - new_B
    place_S = (torch.arange(total) - began_B[row_S]) * factor_B[row_S] + first_B[row_S]
    place_S = torch.minimum(place_S, (length_B - 1)[row_S].float())
    below_S = place_S.floor().long()
    above_S = torch.minimum(below_S + 1, (length_B - 1)[row_S])
    share_S1 = (place_S - below_S).unsqueeze(1).to(frame_SF.device)
    below_S, above_S = ((index + start_B[row_S]).to(frame_SF.device) for index in (below_S, above_S))
    return torch.lerp(frame_SF[below_S], frame_SF[above_S], share_S1), new_B


def _moved(frame_SF: Tensor, row_S: Tensor, rows: int, share: float) -> Tensor:
    """Return frames whose bands are each read a little higher or lower; what comes in is like the edge."""
    bands = frame_SF.shape[1]
    by_B1 = _uniform(frame_SF, rows, -share * bands, share * bands).unsqueeze(1)
    place_BF = (torch.arange(bands, device=frame_SF.device) + by_B1).clamp(0, bands - 1)
    below_BF = place_BF.floor().long()
    above_BF = (below_BF + 1).clamp_max(bands - 1)
    share_SF = (place_BF - below_BF)[row_S]
    return torch.lerp(frame_SF.gather(1, below_BF[row_S]), frame_SF.gather(1, above_BF[row_S]), share_SF)


def _hidden(frame_SF: Tensor, row_S: Tensor, length_B: Tensor, view: SoundView) -> Tensor:
    """Return frames of which stretches of time and of bands are 0, a recording's mean."""
    rows, bands = len(length_B), frame_SF.shape[1]
    place_S = torch.arange(len(frame_SF), device=frame_SF.device) - (length_B.cumsum(0) - length_B)[row_S]
    hidden_SF = torch.zeros_like(frame_SF, dtype=torch.bool)
    for _ in range(view.time_masks):
        most_B = view.time_share * length_B
        most_B = most_B.clamp_max(view.time_frames) if view.time_frames else most_B
        wide_B = _uniform(frame_SF, rows, 0, 1) * most_B
        first_B = _uniform(frame_SF, rows, 0, 1) * (length_B - wide_B)
        hidden_SF |= ((place_S >= first_B[row_S]) & (place_S < (first_B + wide_B)[row_S])).unsqueeze(1)
    band_F = torch.arange(bands, device=frame_SF.device)
    for _ in range(view.band_masks):
        wide_B1 = _uniform(frame_SF, rows, 0, view.band_share).unsqueeze(1) * bands
        first_B1 = _uniform(frame_SF, rows, 0, 1).unsqueeze(1) * (bands - wide_B1)
        hidden_SF |= ((band_F >= first_B1) & (band_F < first_B1 + wide_B1))[row_S]
    return frame_SF.masked_fill(hidden_SF, 0.0)
