"""Keys and values of what a network has read, so that a text is gone on with token by token, and nothing read twice.

B rows, each with a length of its own; T places in memory for each of them, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class KeyValueCache:
    """One tensor of keys and one of values for each layer, (B, H, T, K), filled up to `length_B`."""

    length_B: Tensor
    capacity: int  # T
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def fill(self, key_SD: Tensor, value_SD: Tensor, heads: int) -> None:
        """Add a layer: keys and values of all rows' positions, packed."""
        rows, device = len(self.length_B), key_SD.device
        row_S = torch.repeat_interleave(torch.arange(rows, device=device), self.length_B)
        start_B = self.length_B.cumsum(0) - self.length_B
        place_S = torch.arange(len(row_S), device=device) - start_B[row_S]
        for packed_SD, layers in ((key_SD, self.keys), (value_SD, self.values)):
            packed_SHK = packed_SD.view(len(packed_SD), heads, -1)
            padded_BTHK = packed_SHK.new_zeros(rows, self.capacity, *packed_SHK.shape[1:])
            padded_BTHK[row_S, place_S] = packed_SHK
            layers.append(padded_BTHK.transpose(1, 2).contiguous())

    def extend(self, layer: int, key_BHK: Tensor, value_BHK: Tensor) -> tuple[Tensor, Tensor]:
        """Put one more position of each row behind a layer's others; return those of all positions that any row has."""
        row_B, end = torch.arange(len(self.length_B), device=key_BHK.device), int(self.length_B.max()) + 1
        for new_BHK, layers in ((key_BHK, self.keys), (value_BHK, self.values)):
            layers[layer][row_B, :, self.length_B] = new_BHK.to(layers[layer].dtype)
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def seen(self) -> Tensor | None:
        """Return which positions a new one of each row sees, itself included, (B, 1, 1, T); None: all of them."""
        end = int(self.length_B.max()) + 1
        if int(self.length_B.min()) + 1 == end:
            return None
        seen_BT = torch.arange(end, device=self.length_B.device) <= self.length_B.unsqueeze(1)
        return seen_BT[:, None, None]

    def keep(self, rows_B: Tensor) -> None:
        """Forget all rows but these."""
        self.length_B = self.length_B[rows_B]
        self.keys = [layer[rows_B] for layer in self.keys]
        self.values = [layer[rows_B] for layer in self.values]
