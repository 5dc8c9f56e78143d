"""Which labels the answers of a model tell apart, for whoever writes their probabilities as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def labels_in(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels that an answer's JSON Schema names, of which an answer has one, or several; none of others."""
    properties = schema.get("properties", {})
    one = properties.get("label", {}).get("enum", ())
    several = properties.get("labels", {}).get("items", {}).get("enum", ())
    return tuple(label for label in (one or several) if label is not None)
