"""A network's shapes without its weights: nothing is stored and nothing is drawn, however large it would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where something is to be written into them.

    What draws numbers goes a way on the device "meta" on which torch imports its compiler first, some ten seconds long.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__setitem__" or (name.endswith("_") and not name.startswith("__")):
            return args[0] if args else None
        return func(*args, **(kwargs or {}))


@contextmanager
def undrawn() -> Iterator[None]:
    """Build networks that have shapes alone."""
    with torch.device("meta"), _Undrawn():
        yield
