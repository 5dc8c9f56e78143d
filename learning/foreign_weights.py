"""The weights in a directory's safetensors files: looked at by their headers first, read when they are known to fit."""

from __future__ import annotations

import errno
import math
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from learning.errors import InvalidModel
from learning.model import WEIGHTS_FILE
from learning.model_files import INDEX_FILE, is_shard, read_object

_FLOATING = {"F64", "F32", "F16", "BF16"}
_SHOWN = 5
_NO_MEMORY = (f"os error {errno.ENOMEM}", os.strerror(errno.ENOMEM), "not enough memory", "can't allocate memory")
_COPIES = 3  # that are read, that are saved and read again, and those of the network that is tried with them


class Stored(NamedTuple):
    """A tensor in a file: where, under which name there, of what kind."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


def stored(directory: Path, renamed: Callable[[str], str]) -> dict[str, Stored]:
    """Return what tensors there are, by what they are called here; InvalidModel for files that cannot be read."""
    found = {}
    for path in _files(directory):
        _refuse_above_limit(path.name, path.stat().st_size)
        with _opened(path) as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                piece = opened.get_slice(name)
                found[renamed(name)] = Stored(path, name, piece.get_dtype(), tuple(piece.get_shape()))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of weights; InvalidModel when it is damaged, MemoryError when there is too little memory to read."""
    try:
        with safe_open(path, "pt") as opened:
            yield opened
    except (SafetensorError, OSError, RuntimeError) as error:
        if any(said in str(error) for said in _NO_MEMORY):
            raise MemoryError(f"{path.name}: {error}") from None
        raise InvalidModel(
            f"{path.name} is damaged or no safetensors file: {error}", hint="Save or download the model again."
        ) from None


def _files(directory: Path) -> Sequence[Path]:
    """Return the files with the weights: one, or those that an index names."""
    index = directory / INDEX_FILE
    if (directory / WEIGHTS_FILE).is_file():
        return [directory / WEIGHTS_FILE]
    if not index.is_file():
        raise InvalidModel(
            f"There is no {WEIGHTS_FILE}.",
            hint="Save the model again with save_pretrained(directory, safe_serialization=True).",
        )
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise InvalidModel(f"{INDEX_FILE} is no index of weights: {error}") from None
    for name in names:
        if not is_shard(name) or not (directory / name).is_file():
            raise InvalidModel(f'{INDEX_FILE} names "{str(name)[:80]}", which is not there.', hint="Send all files.")
    return [directory / name for name in names]


def check(found: Mapping[str, Stored], wanted: Mapping[str, Tensor]) -> None:
    """Raise InvalidModel unless every tensor that is wanted is there, with its shape, as floating-point numbers."""
    problems = []
    for name, tensor in wanted.items():
        shape, entry = tuple(tensor.shape), found.get(name)
        if entry is None:
            problems.append(f'"{name}" is missing, {shape} is expected')
        elif entry.shape != shape:
            problems.append(f'"{name}" has the shape {entry.shape}, {shape} is expected')
        elif tensor.is_floating_point() and entry.dtype not in _FLOATING:
            problems.append(f'"{name}" has the type {entry.dtype}, floating-point numbers are expected')
    if problems:
        more = f"; {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidModel(
            f"{len(problems)} of the network's {len(wanted)} tensors do not fit config.json: "
            f"{'; '.join(problems[:_SHOWN])}{more}.",
            hint="config.json and the weights must be of the same model; quantised weights are not read.",
        )


def _refuse_above_limit(what: str, needed: int) -> None:
    """Raise InvalidModel when this process may not have so many bytes of memory."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY and needed > most:
        raise InvalidModel(
            f"{what} would take {needed} bytes of memory; at most {most} are given to an import.",
            hint="Import a smaller model of the same family.",
        )


def read(found: Mapping[str, Stored], names: Sequence[str]) -> dict[str, Tensor]:
    """Return these tensors in fp32; InvalidModel when they are too large, or one has a value that is no number."""
    numbers = sum(math.prod(found[name].shape) for name in names)
    _refuse_above_limit(f"{numbers} weights in fp32, {_COPIES} times,", numbers * _COPIES * torch.float32.itemsize)
    weights: dict[str, Tensor] = {}
    for path in sorted({found[name].path for name in names}):
        with _opened(path) as opened:
            for name in names:
                if found[name].path == path:
                    tensor = opened.get_tensor(found[name].name)
                    weights[name] = tensor.float() if tensor.is_floating_point() else tensor
                    if not torch.isfinite(weights[name]).all():
                        raise InvalidModel(f'"{name}" has values that are infinite or no number.')
    return weights
