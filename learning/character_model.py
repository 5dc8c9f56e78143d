"""How likely a text is, character by character, by what came before: counts of sentences, smoothed.

A character's probability behind some others is that by its counts there, mixed with that behind one of them fewer, by
how many different characters have followed (Witten and Bell 1991, method C).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from learning.config import Config

# Begins and ends a text, in which it does not occur.
EDGE = "\n"
# What is counted of sentences, and how many counts are kept: they are part of the model.
_MOST_READ = 1_000_000
_MOST_COUNTS = 50_000
# Of logarithms that were looked for, which are forgotten when there are more: a beam asks the same again and again.
_MOST_FOUND = 50_000


class CharacterCounts(Config):
    """What follows up to `order` - 1 characters, and how often; and how many different characters there are."""

    order: int
    characters: int
    counts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, sentences: Iterable[str], order: int) -> CharacterCounts:
        """Count sentences, up to a million characters; where there would be too many counts, by fewer characters."""
        following: dict[str, Counter[str]] = defaultdict(Counter)
        read = 0
        for sentence in sentences:
            whole = EDGE + sentence + EDGE
            for place in range(1, len(whole)):
                for known in range(min(order, place + 1)):
                    following[whole[place - known : place]][whole[place]] += 1
            read += len(whole)
            if read > _MOST_READ:
                break
        while order > 1 and sum(map(len, following.values())) > _MOST_COUNTS:
            order -= 1
            following = defaultdict(Counter, {key: seen for key, seen in following.items() if len(key) < order})
        seen = following.get("", Counter())
        return cls(
            order=order, characters=len(seen.keys() | {EDGE}), counts={key: dict(following[key]) for key in following}
        )


class CharacterModel:
    """Probabilities by counts."""

    def __init__(self, counts: CharacterCounts) -> None:
        self.known = counts.order - 1  # characters before one that say anything of it
        self._characters = counts.characters
        self._counts = {key: (sum(seen.values()), seen) for key, seen in counts.counts.items()}
        self._found: dict[tuple[str, str], float] = {}

    def log(self, before: str, character: str) -> float:
        """Return the logarithm of the probability of a character, or the `EDGE`, behind what came before."""
        whole = EDGE + before
        context = whole[max(0, len(whole) - self.known) :]
        found = self._found.get((context, character))
        if found is None:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            found = self._found[context, character] = math.log(self._share(context, character))
        return found

    def _share(self, context: str, character: str) -> float:
        # One more than there are: something may come that never came.
        below = self._share(context[1:], character) if context else 1 / (self._characters + 1)
        total, seen = self._counts.get(context, (0, {}))
        return (seen.get(character, 0) + len(seen) * below) / (total + len(seen)) if total else below
