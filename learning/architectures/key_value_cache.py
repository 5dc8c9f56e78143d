"""Keys and values of what a network has read, so that a text is gone on with token by token, and nothing read twice.

Texts join and leave between tokens: the first B of R rows are theirs, each with a length of its own; T places in memory
for each row, H heads, K width of a head. Both R and T grow as needed, by doubling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_FEWEST_PLACES = 32


class KeyValueCache:
    """One tensor of keys and one of values for each layer, (R, H, T, K), of which B rows are filled up to `lengths`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.set_lengths([])

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Say how many positions of each row are filled."""
        self.lengths = list(lengths)  # kept twice: asking a tensor would wait for the device
        self.length_B = torch.tensor(self.lengths, dtype=torch.long, device=self.device)

    def arrive(self, lengths: Sequence[int], order: Sequence[int]) -> Arrival:
        """Make place for more rows of these lengths, whose positions will come packed, row after row in `order`."""
        before = len(self.lengths)
        self.set_lengths([*self.lengths, *lengths])
        self._grow(max(self.lengths))
        return Arrival(self, [before + row for row in order], [lengths[row] for row in order])

    def make_place(self) -> None:
        """Make place for one more position of each row."""
        self._grow(max(self.lengths) + 1)

    def _grow(self, places: int) -> None:
        rows = len(self.lengths)
        for layers in (self.keys, self.values):
            for number, layer in enumerate(layers):
                layers[number] = _grown(layer, rows, places)

    def extend(self, layer: int, key_BHK: Tensor, value_BHK: Tensor) -> tuple[Tensor, Tensor]:
        """Put one more position of each row behind a layer's others; return those of all positions that any row has."""
        rows, end = len(self.lengths), max(self.lengths) + 1
        row_B = torch.arange(rows, device=self.device)
        for new_BHK, layers in ((key_BHK, self.keys), (value_BHK, self.values)):
            layers[layer][row_B, :, self.length_B] = new_BHK.to(layers[layer].dtype)
        return self.keys[layer][:rows, :, :end], self.values[layer][:rows, :, :end]

    def seen(self) -> Tensor | None:
        """Return which positions a new one of each row sees, itself included, (B, 1, 1, T); None: all of them."""
        end = max(self.lengths) + 1
        if min(self.lengths) + 1 == end:
            return None
        seen_BT = torch.arange(end, device=self.device) <= self.length_B.unsqueeze(1)
        return seen_BT[:, None, None]

    def filled(self) -> Tensor | None:
        """Return which positions each row has, (B, 1, 1, T); None: all of them, T being the longest row's length."""
        end = max(self.lengths)
        if min(self.lengths) == end:
            return None
        return (torch.arange(end, device=self.device) < self.length_B.unsqueeze(1))[:, None, None]

    def all_of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values of all rows, (B, H, T, K), T being the longest row's length."""
        rows, end = len(self.lengths), max(self.lengths)
        return self.keys[layer][:rows, :, :end], self.values[layer][:rows, :, :end]

    def select(self, rows: Sequence[int]) -> None:
        """Have these rows from now on, in this order; one may be there several times, as a beam's beginnings are."""
        if list(rows) == list(range(len(self.lengths))):
            return
        self.set_lengths([self.lengths[row] for row in rows])
        row_B, end = torch.tensor(rows, device=self.device), max(self.lengths)
        for layers in (self.keys, self.values):
            for number, layer in enumerate(layers):
                taken_BHTK = layer[row_B, :, :end]
                layers[number] = _grown(layer, len(rows), end)
                layers[number][: len(rows), :, :end] = taken_BHTK

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Forget all rows but these; return which of them is where now. The last ones fill the places of others."""
        kept, places = set(rows), list(range(len(rows)))
        late = [row for row in rows if row >= len(rows)]
        for place, row in zip([place for place in places if place not in kept], late, strict=True):
            length = self.lengths[row]
            for layer in (*self.keys, *self.values):
                layer[place, :, :length] = layer[row, :, :length]
            self.lengths[place], places[place] = length, row
        self.set_lengths(self.lengths[: len(rows)])
        return places


class Arrival:
    """Rows that a network is reading: each of its layers hands over their keys and values, one after the other."""

    def __init__(self, cache: KeyValueCache, rows: Sequence[int], lengths: Sequence[int]) -> None:
        self._cache = cache
        length_N = torch.tensor(lengths)
        row_S = torch.repeat_interleave(torch.tensor(rows), length_N)
        start_S = torch.repeat_interleave(length_N.cumsum(0) - length_N, length_N)
        self._row_S = row_S.to(cache.device)
        self._place_S = (torch.arange(len(row_S)) - start_S).to(cache.device)
        self._layer = 0

    def fill(self, key_SD: Tensor, value_SD: Tensor, heads: int) -> None:
        """Take a layer's keys and values of all positions, packed."""
        cache = self._cache
        for packed_SD, layers in ((key_SD, cache.keys), (value_SD, cache.values)):
            packed_SHK = packed_SD.view(len(packed_SD), heads, -1)
            if len(layers) == self._layer:
                none = packed_SHK.new_zeros(0, heads, _FEWEST_PLACES, packed_SHK.shape[2])
                layers.append(_grown(none, len(cache.lengths), max(cache.lengths)))
            layers[self._layer][self._row_S, :, self._place_S] = packed_SHK
        self._layer += 1


class PairMemory:
    """What was written of each text, and what was read, from which it is written: rows of both belong together."""

    def __init__(self, device: torch.device) -> None:
        self.written, self.read = KeyValueCache(device), KeyValueCache(device)
        self._sources: list[int] = []  # of each row; those of a beam have one source
        self._count = 0

    def arrive(self, lengths: Sequence[int], order: Sequence[int]) -> tuple[Arrival, Arrival]:
        """Make place for texts whose sources have these lengths, and for the first position of each."""
        self._sources += range(self._count, self._count + len(lengths))
        self._count += len(lengths)
        return self.written.arrive([1] * len(lengths), order), self.read.arrive(lengths, order)

    def select(self, rows: Sequence[int]) -> None:
        """Have these rows from now on, in this order; one may be there several times."""
        self.written.select(rows)
        sources = [self._sources[row] for row in rows]
        if sources != self._sources:
            self.read.select(rows)
        self._sources = sources

    def rows(self) -> int:
        """Return how many rows there are."""
        return len(self._sources)

    def cut(self, rows: int) -> None:
        """Forget all rows but the first ones."""
        del self._sources[rows:]
        for cache in (self.written, self.read):
            cache.set_lengths(cache.lengths[:rows])


def _grown(layer: Tensor, rows: int, places: int) -> Tensor:
    """Return a layer with at least so many rows and places, zero where nobody has been: 0 times NaN is not 0."""
    before_rows, heads, before_places, width = layer.shape
    if rows <= before_rows and places <= before_places:
        return layer
    after_rows = before_rows if rows <= before_rows else max(rows, 2 * before_rows)
    after_places = before_places if places <= before_places else max(places, 2 * before_places)
    grown = layer.new_zeros(after_rows, heads, after_places, width)
    grown[:before_rows, :, :before_places] = layer
    return grown
