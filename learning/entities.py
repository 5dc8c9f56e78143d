"""Entities as tags: the schemes in which people write them, and how many of them are found.

Within the library they are IOB2, as numbers: 0 is outside, 1 + 2k begins an entity of kind k, 2 + 2k goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scheme = Literal["iob2", "iob1", "iobes"]
OUTSIDE, NO_TAG = 0, -100

_FORMS = {"iob2": "BI", "iob1": "BI", "iobes": "BIESLU"}
_EXPLAINED = {
    "iob2": "O, B-x at the beginning of an entity, and I-x behind B-x or I-x",
    "iob1": "O, I-x, and B-x where an entity begins behind another of its kind",
    "iobes": "O, S-x for an entity of one token, and B-x, I-x, E-x for a longer one (or U-x and L-x for S-x and E-x)",
}


class Span(NamedTuple):
    """An entity: its kind, and its first word and the one behind its last."""

    kind: int
    start: int
    end: int


@dataclass
class WrongTag(Exception):
    """A tag that cannot stand where it does; `position` counts from 0."""

    position: int
    reason: str


def as_iob2(tags: Sequence[str | None], scheme: Scheme) -> list[str]:
    """Return tags of a scheme as IOB2; raises WrongTag for the first that cannot stand where it does."""
    found: list[str] = []
    before, ended = "O", True  # the last tag, and whether an entity may end with it
    for position, tag in enumerate(tags):
        form, kind = _parts(tag or "", scheme)
        inside = found[-1] if found and not (scheme == "iobes" and ended) else "O"
        goes_on = form in "IEL" and inside[2:] == kind
        if form == "?":
            raise WrongTag(position, f'"{tag}" is no tag: {_EXPLAINED[scheme]}')
        if not goes_on and (not ended or (form in "IEL" and scheme != "iob1")):
            where = f'stand behind "{before}"' if position else "come first"
            raise WrongTag(position, f'"{tag}" cannot {where}: {_EXPLAINED[scheme]}')
        found.append("O" if form == "O" else f"{'I' if goes_on else 'B'}-{kind}")
        before, ended = tag or "", scheme != "iobes" or form not in "BI"
    if not ended:
        raise WrongTag(len(tags) - 1, f'"{before}" cannot come last: {_EXPLAINED[scheme]}')
    return found


def _parts(tag: str, scheme: Scheme) -> tuple[str, str]:
    """Return the letter and the kind of a tag, "?" for one that is none of the scheme."""
    if tag == "O":
        return "O", ""
    return (tag[0], tag[2:]) if len(tag) > 2 and tag[1] == "-" and tag[0] in _FORMS[scheme] else ("?", "")


def numbered(tags: Iterable[str], kinds: dict[str, int]) -> list[int]:
    """Return IOB2 tags as numbers, NO_TAG for those of a kind that is not known."""
    return [
        OUTSIDE if tag == "O" else 1 + 2 * kinds[tag[2:]] + (tag[0] == "I") if tag[2:] in kinds else NO_TAG
        for tag in tags
    ]


def spans(numbers: Sequence[int]) -> list[Span]:
    """Return the entities; what goes on with nothing begins, so that any numbers can be read."""
    found: list[Span] = []
    kind = NO_TAG
    for place, number in enumerate(numbers):
        before, kind = kind, (number - 1) // 2 if number > OUTSIDE else NO_TAG
        if kind == NO_TAG:
            continue
        if kind == before and number % 2 == 0:
            found[-1] = found[-1]._replace(end=place + 1)
        else:
            found.append(Span(kind, place, place + 1))
    return found


class Tally:
    """How many entities of each kind there are, are predicted, and are both, to the last word."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._wanted, self._found, self._right = (np.zeros(len(kinds), dtype=np.int64) for _ in range(3))

    def add(self, wanted: Iterable[Span], found: Iterable[Span]) -> None:
        """Count a row's entities."""
        known, given = set(wanted), set(found)
        for counts, entities in ((self._wanted, known), (self._found, given), (self._right, known & given)):
            np.add.at(counts, [entity.kind for entity in entities], 1)

    def add_missed(self, counts: NDArray[np.int64]) -> None:
        """Count entities of each kind that nobody could have found."""
        self._wanted += counts

    def metrics(self) -> dict[str, Any]:
        """Return precision, recall and F1 over all entities, and those of each kind with how many there are."""
        counts = (self._wanted, self._found, self._right)
        each = {
            kind: {**_scores(wanted, found, right), "count": wanted}
            for kind, wanted, found, right in zip(self._kinds, *(part.tolist() for part in counts), strict=True)
        }
        return {**_scores(*(int(part.sum()) for part in counts)), "entities": each}


def _scores(wanted: int, found: int, right: int) -> dict[str, float]:
    return {
        "precision": right / max(1, found),
        "recall": right / max(1, wanted),
        "f1": 2 * right / max(1, wanted + found),
    }
