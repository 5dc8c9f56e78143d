"""What a run needs to go on as if it had never stopped, written so that it is whole or not there.

A directory with state.safetensors, state.json, config.json (the design) and checksums.json: written beside, synced,
renamed. Random states are tensors like the weights, so nothing needs to be pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from learning.errors import CorruptCheckpoint
from learning.extraction import STATE_FILE
from learning.model import CONFIG_FILE

_VALUES, _CHECKSUMS = "state.json", "checksums.json"
_FILES = (STATE_FILE, _VALUES, CONFIG_FILE)
_GROUPS = ("weights", "optimizer", "best_weights", "random", "average")


@dataclass(slots=True)
class Position:
    """Where a run is: counters and what they were chosen by."""

    step: int = 0
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    evaluated_step: int = 0
    stopped_early: bool = False
    score: float | None = None  # of the last evaluation; more is better
    finished: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class TrainingState:
    """The position and every tensor that goes with it."""

    position: Position
    design: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    random: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)  # of the weights, where one is kept
    environment: dict[str, Any] = field(default_factory=dict)  # device, threads and versions: what bits depend on


def random_states() -> dict[str, Tensor]:
    """Return the state of every generator that training draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Set every generator to a saved state."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def write(state: TrainingState, directory: Path) -> Path:
    """Write a checkpoint as `directory`, atomically."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group in _GROUPS
        for name, tensor in getattr(state, group).items()
    }
    save_file(tensors, partial / STATE_FILE)
    values = {"position": asdict(state.position), "environment": state.environment}
    (partial / _VALUES).write_text(json.dumps(values))
    (partial / CONFIG_FILE).write_text(json.dumps(state.design))
    sums = {name: _sha256(partial / name) for name in _FILES}
    (partial / _CHECKSUMS).write_text(json.dumps(sums))
    for path in (*partial.iterdir(), partial):
        _sync(path)
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    _sync(directory.parent)
    return directory


def read(directory: Path) -> TrainingState:
    """Read a checkpoint; CorruptCheckpoint when a byte is not as it was written."""
    try:
        sums = json.loads((directory / _CHECKSUMS).read_text())
        for name in _FILES:
            if _sha256(directory / name) != sums[name]:
                raise CorruptCheckpoint(f"{name} of checkpoint {directory.name} does not match its checksum.")
        values = json.loads((directory / _VALUES).read_text())
        position = Position(**values["position"])
        design = json.loads((directory / CONFIG_FILE).read_text())
        tensors = load_file(directory / STATE_FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CorruptCheckpoint(f"Checkpoint {directory.name} cannot be read: {error}") from None
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = tensor
    return TrainingState(position, design, **groups, environment=values["environment"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
