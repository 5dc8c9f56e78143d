"""What was said, as texts: how they are compared, and how many words and characters of them are wrong."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Scripts without spaces between words: Han, kana; there a character is counted as a word, as is usual for them.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")  # fmt: skip # noqa: E501
_SHOWN, _NAMED = 20, 10

Pair = tuple[str | None, str | None]
"""What was said and what was heard in its place; None where one of the two has nothing."""


def normalized(text: str, lower_case: bool) -> str:
    """Return a transcript with one space between words, composed as NFC has it, in small letters if so wanted."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text.lower() if lower_case else text


def words_with_places(text: str) -> list[tuple[str, int, int]]:
    """Return a text's words with the places of their first character and behind their last."""
    return [(found.group(), found.start(), found.end()) for found in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """Return a text's words; each Chinese or Japanese character is one."""
    return _WORD.findall(text)


def unlearned(part: str, characters: Counter[str], known: Iterable[str]) -> list[str]:
    """Return what to warn of a part's characters, with how often each occurs, of which some are not known."""
    learned = frozenset(known)
    missing = Counter({one: count for one, count in characters.items() if one not in learned})
    if not missing:
        return []
    shown = ", ".join(_readable(one) for one, _ in missing.most_common(_NAMED))
    one, more = missing.total() == 1, ", ..." if len(missing) > _NAMED else ""
    return [
        f"{missing.total()} character{'' if one else 's'} of {part} transcripts {'was' if one else 'were'} never "
        f"learned and count{'s' if one else ''} as wrong: {shown}{more}."
    ]


def _readable(character: str) -> str:
    """Return a character, or the number of one that cannot be seen, or not by itself."""
    seen = character.isprintable() and character not in " ," and not unicodedata.combining(character)
    return character if seen else f"U+{ord(character):04X}"


class ErrorTally:
    """Errors of transcripts: the fewest substitutions, deletions and insertions by which what was said is found."""

    def __init__(self) -> None:
        self._words = self._characters = self._character_errors = self._texts = self._right = 0
        self._pairs: Counter[Pair] = Counter()

    def add(self, wanted: str, found: str) -> None:
        """Count what is wrong with one transcript."""
        self._texts += 1
        self._right += wanted == found
        self._characters += len(wanted)
        self._character_errors += distance(wanted, found)
        said = words(wanted)
        self._words += len(said)
        self._pairs.update(differences(said, words(found)))

    def metrics(self) -> dict[str, Any]:
        """Return WER and CER, errors by what was said, the accuracies that follow, and what is confused most often."""
        inserted = sum(count for (said, _), count in self._pairs.items() if said is None)
        deleted = sum(count for (_, heard), count in self._pairs.items() if heard is None)
        wrong = self._pairs.total()
        wer, cer = wrong / max(1, self._words), self._character_errors / max(1, self._characters)
        return {
            "wer": wer,
            "cer": cer,
            "word_accuracy": 1 - wer,
            "character_accuracy": 1 - cer,
            "exact": self._right / max(1, self._texts),
            "words": self._words,
            "substitutions": wrong - inserted - deleted,
            "deletions": deleted,
            "insertions": inserted,
            "errors": [
                {"said": said, "heard": heard, "count": count}
                for (said, heard), count in self._pairs.most_common(_SHOWN)
            ],
        }


def compared(wanted: str, found: str) -> dict[str, Any]:
    """Return what was said and heard in a recording, word by word, and how many errors of each kind there are."""
    pairs = alignment(words(wanted), words(found))
    kinds = [_kind(*pair) for pair in pairs]
    return {
        "said": wanted,
        "heard": found,
        **{f"{kind}s": kinds.count(kind) for kind in ("substitution", "deletion", "insertion")},
        "words": [
            {"said": said, "heard": heard, "kind": kind} for (said, heard), kind in zip(pairs, kinds, strict=True)
        ],
    }


def _kind(said: str | None, heard: str | None) -> str:
    if said == heard:
        return "equal"
    return "insertion" if said is None else "deletion" if heard is None else "substitution"


def distance(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Return the fewest substitutions, deletions and insertions from one sequence to another (Levenshtein 1966)."""
    return int(_table(wanted, found)[-1, -1])


def differences(wanted: Sequence[str], found: Sequence[str]) -> list[Pair]:
    """Return those errors as pairs of what was said and heard."""
    return [pair for pair in alignment(wanted, found) if pair[0] != pair[1]]


def confusions(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the characters of transcripts and what they were heard as, by name and counts_CC: said by heard."""
    counted = Counter(one for wanted, found in pairs for one in alignment(wanted, found))
    names = {character: character for pair in counted for character in pair if character}
    names = dict(sorted(names.items())) | {character: "space" for character in names if character.isspace()}
    numbers = {character: number for number, character in enumerate([*names, None])}
    counts_CC = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
    for (said, heard), count in counted.items():
        counts_CC[numbers[said], numbers[heard]] += count
    return [*names.values(), "nothing"], counts_CC


def alignment(wanted: Sequence[str], found: Sequence[str]) -> list[Pair]:
    """Return all of two sequences side by side, with the fewest errors."""
    table, row, column = _table(wanted, found), len(wanted), len(found)
    pairs: list[Pair] = []
    while row or column:
        cost = int(table[row, column])
        if row and column and table[row - 1, column - 1] + (wanted[row - 1] != found[column - 1]) == cost:
            row, column = row - 1, column - 1
            pairs.append((wanted[row], found[column]))
        elif row and table[row - 1, column] + 1 == cost:
            row -= 1
            pairs.append((wanted[row], None))
        else:
            column -= 1
            pairs.append((None, found[column]))
    return pairs[::-1]


def _table(wanted: Sequence[str], found: Sequence[str]) -> NDArray[np.int32]:
    """Return the distances of all beginnings, a row at a time."""
    numbers: dict[str, int] = {}
    said, heard = (np.array([numbers.setdefault(one, len(numbers)) for one in part], int) for part in (wanted, found))
    along = np.arange(len(heard) + 1, dtype=np.int32)
    table = np.empty((len(said) + 1, len(heard) + 1), dtype=np.int32)
    table[0] = along
    for row, one in enumerate(said, 1):
        table[row] = table[row - 1] + 1
        table[row, 1:] = np.minimum(table[row, 1:], table[row - 1, :-1] + (heard != one))
        # An insertion costs one more than what stands to its left, however many there are.
        table[row] = np.minimum.accumulate(table[row] - along) + along
    return table
