"""What connectionist temporal classification says of a recording (Graves et al. 2006): tokens, and when they are heard.

A position has a token or the blank, 0. A row of tokens is what is left of its positions' when repeated ones become
one and blanks are left out, so that many paths are the same tokens. T positions, K of the likeliest tokens of each, L
tokens of a text, 2L + 1 states of a path: every token, with a blank before, between and behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLANK = 0
# What is less likely than this, in nats, at a position is not followed; of tokens beyond the K likeliest no more is
# known than that.
_LEAST = -20.0

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
        for tokens, logs in zip(token_TK.tolist(), log_TK.tolist(), strict=True):
            self._step([(token, log) for token, log in zip(tokens, logs, strict=True) if log > _LEAST])

    def _step(self, heard: list[tuple[int, float]]) -> None:
        beams, said = _grown(self._beams, heard), self._said
        if self._language is not None:
            for prefix in beams.keys() - said.keys():
                said[prefix] = said[prefix[:-1]] + self._language(prefix[:-1], prefix[-1])
        ranked = sorted(beams.items(), key=lambda item: -_added(*item[1]) - said.get(item[0], 0.0))
        self._beams = dict(ranked[: self._width])
        if self._language is not None:
            self._said = {prefix: said[prefix] for prefix in self._beams}

    def best(self) -> list[int]:
        """Return the likeliest tokens, now that everything is heard."""
        if self._language is None:
            return list(next(iter(self._beams)))  # the likeliest come first
        said, language = self._said, self._language
        worth = {prefix: _added(*logs) + said[prefix] + language(prefix, None) for prefix, logs in self._beams.items()}
        best = max(worth, key=worth.__getitem__)
        return list(best)


def _grown(beams: _Beams, heard: list[tuple[int, float]]) -> _Beams:
    """Return what beginnings are after a position in which tokens are heard with these logarithms."""
    grown: _Beams = {}
    for prefix, (blank, last) in beams.items():
        both = _added(blank, last)
        for token, log in heard:
            if token == BLANK:
                _join(grown, prefix, both + log, -math.inf)
            elif prefix and token == prefix[-1]:
                _join(grown, prefix, -math.inf, last + log)
                _join(grown, (*prefix, token), -math.inf, blank + log)
            else:
                _join(grown, (*prefix, token), -math.inf, both + log)
    return grown


def _join(grown: _Beams, prefix: _Prefix, blank: float, last: float) -> None:
    before = grown.get(prefix, (-math.inf, -math.inf))
    grown[prefix] = (_added(before[0], blank), _added(before[1], last))


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
