"""Cells of tables whose every value is a text, as CSV and Hugging Face's tables have them."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


def number(value: Any) -> Any:
    """Return the number that a text spells, None for an empty one, and anything else as it is."""
    if isinstance(value, str):
        if not value.strip():
            return None
        if _NUMBER.fullmatch(value):
            return float(value)
    return value
