"""One group of a checkpoint's tensors as a model's weights: copied as bytes, without torch and in constant memory.

The format is that of safetensors: eight bytes with the length of a JSON header, the header with each tensor's dtype,
shape and place, and the tensors' bytes. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STATE_FILE = "state.safetensors"
_CHUNK = 1 << 20
_ALIGNMENT = 8


def has_group(state: Path, group: str) -> bool:
    """Return whether a checkpoint's state has any tensor of a group."""
    return bool(_tensors(_header(state)[0], group))


def extract(state: Path, group: str, names: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """Iterate over the pieces of a safetensors file that holds one group's tensors, by `names` or their own ones."""
    header, data = _header(state)
    tensors = _tensors(header, group)
    places, at = {}, 0
    for name, entry in tensors.items():
        begin, end = entry["data_offsets"]
        places[(names or {}).get(name, name)] = {**entry, "data_offsets": [at, at + end - begin]}
        at += end - begin
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield struct.pack("<Q", len(text)) + text
    with state.open("rb") as file:
        for entry in tensors.values():
            begin, end = entry["data_offsets"]
            file.seek(data + begin)
            left = end - begin
            while left:
                chunk = file.read(min(_CHUNK, left))
                left -= len(chunk)
                yield chunk


def _header(state: Path) -> tuple[dict[str, Any], int]:
    with state.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def _tensors(header: dict[str, Any], group: str) -> dict[str, Any]:
    found = {name.removeprefix(f"{group}/"): entry for name, entry in header.items() if name.startswith(f"{group}/")}
    # In the order of the bytes, so that widely typed tensors stay before narrow ones, and so aligned.
    return dict(sorted(found.items(), key=lambda item: item[1]["data_offsets"][0]))
