"""Log-mel spectrograms: how loud a recording is in bands that are as wide as hearing resolves, frame by frame.

N samples of one channel, T frames, K frequencies of the Fourier transform, F mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from learning import images
from learning.audio import Samples

Normalization = Literal["recording", "bands", "none"]

_LEAST_POWER = 1e-10
# What is quieter than this below a recording's loudest frame and band is noise of the file's numbers.
_RANGE_DB = 80.0
LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class LogMel:
    """Of recordings at `rate` samples a second: frames of `window` samples, one every `hop`, in `bands` mel bands."""

    rate: int
    window: int
    hop: int
    bands: int
    normalization: Normalization = "recording"

    @property
    def transform(self) -> int:
        """Return the length of the Fourier transform: the next power of two."""
        return 1 << (self.window - 1).bit_length()

    @cached_property
    def filters_KF(self) -> Tensor:  # noqa: N802 - a shape
        """Return the mel bands' triangles."""
        return mel_filters(self.rate, self.transform, self.bands)

    @cached_property
    def _window_N(self) -> Tensor:  # noqa: N802 - a shape
        return torch.hann_window(self.window)

    def frames(self, samples_N: Samples) -> Tensor:
        """Return the natural logarithm of the power in each band, normalised, frame_TF, float32.

        Frame t is centred on sample t * hop, beyond the ends of the recording is silence.
        """
        power_TF = self.power(samples_N)
        loudest = power_TF.max().clamp_min(_LEAST_POWER)
        log_TF = power_TF.clamp_min(float(loudest) * 10 ** (-_RANGE_DB / 10)).clamp_min(_LEAST_POWER).log()
        if self.normalization == "none":
            return log_TF
        # From the loudest down, so that equal values, as silence has, become 0 and not the rounding of their mean.
        log_TF = log_TF - log_TF.max()
        over = (0,) if self.normalization == "bands" else (0, 1)
        mean, deviation = log_TF.mean(over, keepdim=True), log_TF.std(over, correction=0, keepdim=True)
        return (log_TF - mean) / deviation.clamp_min(LEAST_DEVIATION)

    def power(self, samples_N: Samples) -> Tensor:
        """Return the power in each band, power_TF."""
        spectrum_KT = torch.stft(
            torch.from_numpy(samples_N),
            self.transform,
            self.hop,
            self.window,
            self._window_N,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power_KT = torch.view_as_real(spectrum_KT).square().sum(-1)
        return power_KT.T @ self.filters_KF


def mel_filters(rate: int, transform: int, bands: int) -> Tensor:
    """Return triangles over the frequencies of a Fourier transform, (K, F), whose tops are 1.

    Their corners are equally far apart in mels, 2595 log10(1 + f / 700) (O'Shaughnessy 1987), from 0 to rate / 2.
    """
    highest = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700, dtype=torch.float64))
    corner_G = 700 * (10 ** (torch.linspace(0, float(highest), bands + 2, dtype=torch.float64) / 2595) - 1)
    frequency_K1 = torch.linspace(0, rate / 2, transform // 2 + 1, dtype=torch.float64).unsqueeze(1)
    low_F, top_F, high_F = corner_G[:-2], corner_G[1:-1], corner_G[2:]
    rising_KF = (frequency_K1 - low_F) / (top_F - low_F)
    falling_KF = (high_F - frequency_K1) / (high_F - top_F)
    return torch.minimum(rising_KF, falling_KF).clamp_min(0).float()


def picture(frame_TF: Tensor) -> bytes:
    """Return a grey PNG of a spectrogram: time to the right, frequency upwards, the louder the darker."""
    span = (frame_TF.max() - frame_TF.min()).clamp_min(1e-6)
    grey_TF = 255 * (frame_TF.max() - frame_TF) / span
    return images.encode_png(grey_TF.T.flip(0).to(torch.uint8).unsqueeze(-1).numpy())
