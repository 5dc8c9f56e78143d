"""How many rows products in bf16 have on a CPU: few different numbers, since oneDNN compiles a kernel for each.

That takes as long as several products of a small network, and training has three for each layer; 1,024 are kept, until
others are wanted. So rows of nothing are added to packed positions: at most a sixteenth, half of that on average.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_STEPS, _SMALLEST_STEP = 16, 8
NO_TARGET = -100  # of a position of which nothing is learned, as torch's cross-entropy has it


def spare_rows(rows: int, device: torch.device, least: int = 0) -> int:
    """Return how many rows to add to so many, `least` or more if any are of use."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return 0
    step = max(_SMALLEST_STEP, (1 << rows.bit_length()) // (2 * _STEPS))
    spare = -rows % step
    return spare if spare >= least else spare + step


def with_spare_rows(features_SD: Tensor) -> Tensor:
    """Return features with rows of zeros behind them, if these are of use."""
    spare = spare_rows(len(features_SD), features_SD.device)
    return functional.pad(features_SD, (0, 0, 0, spare)) if spare else features_SD


def with_spare_targets(target_S: Tensor, rows: int) -> Tensor:
    """Return targets for so many rows, those behind the given ones without anything to learn."""
    return functional.pad(target_S, (0, rows - len(target_S)), value=NO_TARGET)
