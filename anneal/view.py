"""Read-only views over the JSON objects that the service answers."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any


class View:
    """One JSON object: fields are attributes (`job.status`) or items (`job["metrics"]`), and cannot be set.

    Where a method has a field's name (`job.metrics()`), the item gives the field.
    """

    __slots__ = ("_data",)
    __hash__ = None  # type: ignore[assignment] # refreshed in place; object's own is a method
    _data: dict[str, Any]

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._replace(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON as the service sent it (a copy)."""
        return copy.deepcopy(self._data)

    def _replace(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))

    def __getattr__(self, name: str) -> Any:
        # Underscored names are Python's own protocols (copy, pickle), asked for before `_data` exists.
        if not name.startswith("_") and name in self._data:
            return wrapped(self._data[name])
        fields = "" if name.startswith("_") else f" Fields: {', '.join(self._data)}."
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.{fields}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is read-only: {name!r} cannot be set.")

    def __getitem__(self, name: str) -> Any:
        return wrapped(self._data[name])

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return True

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._data]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._data == other._data

    def __repr__(self) -> str:
        shown = [name for name in ("id", "name", "ref", "status", "version") if name in self._data]
        inner = ", ".join(f"{name}={self._data[name]!r}" for name in shown or list(self._data)[:4])
        return f"{type(self).__name__}({inner})"


def wrapped(value: Any) -> Any:
    """Return JSON with its objects as views, to any depth."""
    if isinstance(value, dict):
        return View(value)
    if isinstance(value, list):
        return [wrapped(item) for item in value]
    return value
