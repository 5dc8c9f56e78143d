"""Whether lists of tags are valid IOB2: an entity begins with B-x and goes on with I-x."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TAG = r"^(?:O|[BI]-.+)$"
_SHOWN = 10
# So many items that look like tags make the others mistakes.
_MOST = 0.8


@dataclass(frozen=True, slots=True)
class WrongTag:
    """A tag that cannot stand where it does; row and position count from 1."""

    row: int
    position: int
    tag: str
    before: str | None


@dataclass(slots=True)
class TagErrors:
    """How many tags are wrong, and the first of them."""

    count: int = 0
    first: list[WrongTag] = field(default_factory=list)


class TagCheck:
    """Looks at the lists of one column; those whose items are no tags at all are none of its business."""

    def __init__(self) -> None:
        self._are_tags: bool | None = None
        self.errors = TagErrors()

    def add(self, lists: pa.Array, first_row: int) -> None:
        """Look at some lists; `first_row` is the number of the first one's row."""
        flat = lists.flatten()
        if self._are_tags is None:
            self._are_tags = _are_tags(flat)
        if not self._are_tags or not len(flat):
            return
        rows = pc.list_parent_indices(lists).to_numpy()
        starts = np.ones(len(flat), dtype=bool)
        starts[1:] = rows[1:] != rows[:-1]
        wrong = np.flatnonzero(_wrong(flat, starts))
        self.errors.count += len(wrong)
        for place in wrong[: _SHOWN - len(self.errors.first)].tolist():
            begin = place - int(np.argmax(starts[place::-1]))
            before = None if starts[place] else flat[place - 1].as_py()
            row, tag = first_row + int(rows[place]), flat[place].as_py()
            self.errors.first.append(WrongTag(row, place - begin + 1, tag, before))


def _are_tags(flat: pa.Array) -> bool | None:
    """Return whether nearly all items look like tags; None when there are none."""
    if not len(flat):
        return None
    alike = pc.sum(pc.match_substring_regex(flat, _TAG)).as_py()
    return bool(alike >= _MOST * len(flat) and pc.any(pc.starts_with(flat, "B-")).as_py())


def _wrong(flat: pa.Array, starts: np.ndarray) -> np.ndarray:
    """Return which items are no tag, or an I-x that follows neither B-x nor I-x."""
    inside = pc.starts_with(flat, "I-").to_numpy(zero_copy_only=False)
    kinds = pc.utf8_slice_codeunits(flat, 2)
    same = np.zeros(len(flat), dtype=bool)
    outside = pc.equal(flat, "O").to_numpy(zero_copy_only=False)
    same[1:] = pc.equal(kinds.slice(1), kinds.slice(0, len(flat) - 1)).to_numpy(zero_copy_only=False) & ~outside[:-1]
    no_tag = pc.invert(pc.match_substring_regex(flat, _TAG)).to_numpy(zero_copy_only=False)
    wrong: np.ndarray = no_tag | (inside & (starts | ~same))
    return wrong
