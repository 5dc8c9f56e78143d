"""Rows of a text model: a text with its tokens and what they cover, and lists of words as one text.

Words are put together as they are written: with spaces, but none beside characters of a script that has none. So a
model that learned from lists of words reads running text as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from learning.modalities import tokenization

# Chinese characters, kana, and the punctuation that comes with them.
_UNSPACED = re.compile("[\u2e80-\u30ff\u31c0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")
NO_WORD = -1


class Unit(NamedTuple):
    """The least that a label can be about: the place of its first token in the row, and where it stands.

    `start` and `end` count characters of the text, or words where the row is a list of words.
    """

    place: int
    start: int
    end: int


class Words(NamedTuple):
    """A list of words as one text, and where in it each of them stands."""

    text: str
    spans: list[tuple[int, int]]


def is_unspaced(character: str) -> bool:
    """Return whether a character is of a script without spaces between words, or its punctuation."""
    return _UNSPACED.match(character) is not None


def write_out(words: Sequence[str]) -> Words:
    """Return words as one text."""
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    end, last = 0, ""
    for word in words:
        spaced = last and word and not (_UNSPACED.match(last) or _UNSPACED.match(word))
        start = end + bool(spaced)
        parts.append(f" {word}" if spaced else word)
        end = start + len(word)
        spans.append((start, end))
        last = word[-1:] or last
    return Words("".join(parts), spans)


def words_of(offsets: Sequence[tuple[int, int]], words: Words) -> NDArray[np.int32]:
    """Return the number of the word that each token belongs to, NO_WORD for tokens of no word."""
    starts_W = [start for start, _ in words.spans]
    firsts_T = np.array([_first(words.text, start, end) for start, end in offsets], dtype=np.int64)
    found_T = (np.searchsorted(starts_W, firsts_T, side="right") - 1).astype(np.int32)
    return np.where(firsts_T == NO_WORD, np.int32(NO_WORD), found_T)


def _first(text: str, start: int, end: int) -> int:
    """Return where what a token covers begins behind its spaces, NO_WORD if there is nothing else."""
    covered = text[start:end].lstrip()
    return end - len(covered) if covered else NO_WORD


@dataclass(frozen=True)
class TextRow:
    """One text, cut to what the model reads; `words` where it came as a list of them."""

    text: str
    tokens: list[int]
    tokenizer: Tokenizer
    words: Words | None = None

    @cached_property
    def units(self) -> list[Unit]:
        """Return what labels are about, in order: the words, or else the words that the tokenizer sees."""
        ((_, offsets),) = tokenization.encode_with_offsets(self.tokenizer, [self.text], len(self.tokens))
        if self.words is not None:
            word_T = words_of(offsets, self.words)
            places = np.flatnonzero((word_T != NO_WORD) & (word_T != np.concatenate([[NO_WORD], word_T[:-1]])))
            return [Unit(int(place), int(word_T[place]), int(word_T[place]) + 1) for place in places]
        units: list[Unit] = []
        continued = tokenization.continued(self.tokenizer, self.tokens)
        for place, (start, end) in enumerate(offsets):
            first = _first(self.text, start, end)
            if continued[place] and units:
                units[-1] = units[-1]._replace(end=end)
            elif first != NO_WORD:
                units.append(Unit(place, first, end))
        return units

    def covered(self, start: int, end: int) -> str:
        """Return the text between two units' ends, counted as units are."""
        if self.words is None:
            return self.text[start:end]
        return self.text[self.words.spans[start][0] : self.words.spans[end - 1][1]]
