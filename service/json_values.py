"""What of JSON can be kept: finite numbers, and text that is Unicode without NUL, which PostgreSQL does not take."""

from __future__ import annotations

import math
from typing import Any

MOST_LEVELS = 64


def check_storable(value: Any, path: str = "", level: int = 0) -> None:
    """Raise ValueError with the place of the first value that cannot be stored and given back."""
    if level > MOST_LEVELS:
        raise ValueError(f"{path[:40]}... is nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, dict):
        for name, entry in value.items():
            _check_text(name, f"a name in {path or 'the body'}")
            check_storable(entry, f"{path}.{name}" if path else str(name), level + 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            check_storable(entry, f"{path}.{index}", level + 1)
    elif isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}, which is no JSON number; send a finite number or null")


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise ValueError(f"{path} contains the character NUL (U+0000); leave it out")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{path} contains half of a surrogate pair; send whole characters")
