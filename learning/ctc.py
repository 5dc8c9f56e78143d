"""What connectionist temporal classification says of a recording (Graves et al. 2006): tokens, and when they are heard.

A position has a token or the blank, 0. A row of tokens is what is left of its positions' when repeated ones become
one and blanks are left out, so that many paths are the same tokens. T positions, K of the likeliest tokens of each, L
tokens of a text, 2L + 1 states of a path: every token, with a blank before, between and behind.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLANK = 0
# What is less likely than this, in nats, at a position is not followed; of tokens beyond the K likeliest no more is
# known than that.
_LEAST = -20.0
# Beginnings that a search looks at before others have their turn: a millisecond or two.
_AT_ONCE = 512

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_Prefix = tuple[int, ...]
# What is added to a text's logarithm for a token behind others, or for its end there.
Language = Callable[[_Prefix, int | None], float]
# Of each beginning: the logarithms of its paths that end in a blank, and of those that end in its last token.
_Beams = dict[_Prefix, tuple[float, float]]


class Alignment(NamedTuple):
    """Where a path is in each of a text's tokens: first and last position; and the path's logarithms by position."""

    first_L: Integers
    last_L: Integers
    log_T: Floats

    def score(self, first: int, last: int) -> float:
        """Return the geometric mean of the probabilities from one position to another, both included."""
        return min(1.0, math.exp(float(self.log_T[first : last + 1].mean())))


def positions_needed(tokens: list[int]) -> int:
    """Return the fewest positions of a path through tokens: one each, and a blank between two that are the same."""
    return len(tokens) + sum(one == other for one, other in pairwise(tokens))


def best_path(token_T: Integers) -> list[int]:
    """Return the tokens of the path that has these at its positions."""
    kept = np.ones(len(token_T), dtype=bool)
    kept[1:] = token_T[1:] != token_T[:-1]
    found: list[int] = token_T[kept & (token_T != BLANK)].tolist()
    return found


def likeliest(token_TK: Integers, log_TK: Floats, width: int, language: Language | None = None) -> list[int]:
    """Return the likeliest tokens over all of their paths, as a `Search` finds them."""
    search = Search(width, language)
    search.hear(token_TK, log_TK)
    return search.best()


class Search:
    """Prefix beam search (Hannun et al. 2014, arXiv 1408.2873), some positions at a time.

    After each position the `width` likeliest beginnings are kept. What a language says of tokens is added to the
    logarithms of their paths: of each token behind those before it, and of None, the end.
    """

    def __init__(self, width: int, language: Language | None = None) -> None:
        self._width, self._language = width, language
        self._beams: _Beams = {(): (0.0, -math.inf)}
        self._said: dict[_Prefix, float] = {(): 0.0}  # of the beginnings that are kept, by the language

    def hear(self, token_TK: Integers, log_TK: Floats) -> None:
        """Go on by some positions."""
        for _ in self.hearing(token_TK, log_TK):
            pass

    def hearing(self, token_TK: Integers, log_TK: Floats) -> Iterator[None]:
        """Go on by some positions, and stop whenever some hundred beginnings were looked at, also within a position."""
        looked = 0
        for tokens, logs in zip(token_TK.tolist(), log_TK.tolist(), strict=True):
            for count in self._step(dict(zip(tokens, logs, strict=True))):
                looked += count
                if looked >= _AT_ONCE:
                    yield
                    looked = 0

    def _step(self, log_of: dict[int, float]) -> Iterator[int]:
        """Go on by a position; yield now and then how many beginnings were looked at."""
        growing, said, language = _Growing(self._beams, log_of, self._width), self._said, self._language
        least = growing.least() if language is None else -math.inf
        for prefix in self._beams:
            yield growing.grow(prefix, least)
        if language is not None:
            for prefix in growing.grown.keys() - said.keys():
                said[prefix] = said[prefix[:-1]] + language(prefix[:-1], prefix[-1])
                yield 1
        prefixes, worth = list(growing.grown), []
        for prefix, logs in growing.grown.items():
            worth.append(-_added(*logs) - said.get(prefix, 0.0))
            yield 1
        best = sorted(range(len(worth)), key=worth.__getitem__)[: self._width]
        self._beams = {prefixes[place]: growing.grown[prefixes[place]] for place in best}
        if language is not None:
            self._said = {prefix: said[prefix] for prefix in self._beams}

    def best(self) -> list[int]:
        """Return the likeliest tokens, now that everything is heard."""
        if self._language is None:
            return list(next(iter(self._beams)))  # the likeliest come first
        said, language = self._said, self._language
        worth = {prefix: _added(*logs) + said[prefix] + language(prefix, None) for prefix, logs in self._beams.items()}
        best = max(worth, key=worth.__getitem__)
        return list(best)


class _Growing:
    """What beginnings become by a position at which tokens are heard with these logarithms."""

    def __init__(self, beams: _Beams, log_of: dict[int, float], width: int) -> None:
        self._beams, self._width = beams, width
        self._log_of = {token: log for token, log in log_of.items() if log > _LEAST}
        others = [(token, log) for token, log in self._log_of.items() if token != BLANK]
        self._likeliest_first = sorted(others, key=lambda pair: -pair[1])
        # A beginning that is followed already gets what leads to it, however little that is.
        self._followed: dict[_Prefix, list[int]] = defaultdict(list)
        for prefix in beams:
            self._followed[prefix[:-1]].append(prefix[-1] if prefix else BLANK)
        self.grown: _Beams = {}

    def least(self) -> float:
        """Return what a beginning must at least be worth to be kept: as many as there is room for are, by a blank."""
        if len(self._beams) < self._width or BLANK not in self._log_of:
            return -math.inf
        return min(_added(*logs) for logs in self._beams.values()) + self._log_of[BLANK]

    def grow(self, prefix: _Prefix, least: float) -> int:
        """Go on with one beginning, with new ones worth `least`; return how many were looked at."""
        (blank, last), log_of = self._beams[prefix], self._log_of
        both = _added(blank, last)
        final = prefix[-1] if prefix else BLANK
        if BLANK in log_of:
            self._join(prefix, both + log_of[BLANK], -math.inf)
        if prefix and final in log_of:
            self._join(prefix, -math.inf, last + log_of[final])
        looked = 2
        for token, log in self._likeliest_first:
            looked += 1
            if both + log < least:
                break
            self._join((*prefix, token), -math.inf, (blank if token == final else both) + log)
        for token in self._followed.get(prefix, ()):
            if token != BLANK and token in log_of and both + log_of[token] < least:
                self._join((*prefix, token), -math.inf, (blank if token == final else both) + log_of[token])
        return looked

    def _join(self, prefix: _Prefix, blank: float, last: float) -> None:
        before = self.grown.get(prefix, (-math.inf, -math.inf))
        self.grown[prefix] = (_added(before[0], blank), _added(before[1], last))


def _added(one: float, other: float) -> float:
    """Return the logarithm of the sum of two numbers by their logarithms."""
    high, low = (one, other) if one > other else (other, one)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def align(tokens: list[int], token_TK: Integers, log_TK: Floats) -> Alignment:
    """Return the likeliest path through a text's tokens, of which there must not be more than there is room for."""
    states = np.zeros(2 * len(tokens) + 1, dtype=np.int64)
    states[1::2] = tokens
    log_TS = emissions(states, token_TK, log_TK)
    # A path may skip the blank between two tokens, unless they are the same.
    skips_S = np.zeros(len(states), dtype=bool)
    skips_S[2:] = (states[2:] != BLANK) & (states[2:] != states[:-2])
    best_S = np.full(len(states), -np.inf)
    best_S[:2] = log_TS[0, :2]
    steps_TS = np.zeros(log_TS.shape, dtype=np.int8)
    for place in range(1, len(log_TS)):
        come_3S = np.full((3, len(states)), -np.inf)
        come_3S[0], come_3S[1, 1:] = best_S, best_S[:-1]
        come_3S[2, 2:] = np.where(skips_S[2:], best_S[:-2], -np.inf)
        steps_TS[place] = come_3S.argmax(0)
        best_S = come_3S.max(0) + log_TS[place]
    path_T = np.zeros(len(log_TS), dtype=np.int64)
    state = len(states) - 1 - int(len(states) > 1 and best_S[-2] > best_S[-1])
    for place in range(len(log_TS) - 1, -1, -1):
        path_T[place] = state
        state -= int(steps_TS[place, state])
    token_states_L = np.arange(1, len(states), 2)
    first_L, last_L = (np.searchsorted(path_T, token_states_L, side) for side in ("left", "right"))
    return Alignment(first_L, last_L - 1, log_TS[np.arange(len(path_T)), path_T])


def emissions(states: Integers, token_TK: Integers, log_TK: Floats) -> Floats:
    """Return the logarithm of each state's token at each position, (T, 2L + 1)."""
    wanted, place_S = np.unique(states, return_inverse=True)
    # One known token at a time: of positions and tokens together there may be too many for a table of all.
    log_TU = np.stack([np.where(token_TK == token, log_TK, _LEAST).max(1) for token in wanted.tolist()], 1)
    found: Floats = log_TU[:, place_S]
    return found
