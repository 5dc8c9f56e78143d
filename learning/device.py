"""Which device, how many threads, which versions: what a run's bits depend on beside its seed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import nn

from learning.errors import InvalidConfig


def choose_device(wanted: str) -> torch.device:
    """Return the device asked for; "auto" is a GPU where there is one. InvalidConfig when it is not there."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InvalidConfig(
            "This worker has no CUDA device.",
            hint='Set resources.device to "auto" or "cpu", or start a worker on a GPU machine.',
            param="resources.device",
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


# Below this many parameters a second thread waits longer than it works, and starves whoever else needs the core.
_WORTH_A_THREAD = 2_000_000


def pin(seed: int, threads: int | None, network: nn.Module | None = None) -> None:
    """Fix the seed and the number of threads: one thread and two give different bits.

    Without a number asked for, a network of some size gets every core and all else one.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0
    every = os.cpu_count() or 1
    torch.set_num_threads(threads or (every if parameters >= _WORTH_A_THREAD else 1))
    torch.manual_seed(seed)


def is_slow(precision: str, device: torch.device) -> bool:
    """Return whether a processor has no instructions for an arithmetic, so that it only costs."""
    native = device.type != "cpu" or precision != "bf16" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return not native


def describe(device: torch.device) -> dict[str, Any]:
    """Return what a later run must match to reproduce this one."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


# What a run's bits depend on; the seed and the data are in its specification.
_BINDING = ("device", "threads", "torch", "numpy", "machine")


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two environments and may change a resumed run's last digits."""
    return [
        f"{name} was {saved[name]}, is {now[name]}" for name in _BINDING if name in saved and saved[name] != now[name]
    ]
