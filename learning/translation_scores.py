"""How like translations are to a reference, from 0 to 100: chrF and BLEU of a whole corpus, as sacrebleu counts.

chrF (Popovic 2015) compares character n-grams without spaces, BLEU (Papineni et al. 2002) n-grams of words, where each
Chinese character and each punctuation mark is a word.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_CHARACTERS, _WORDS = 6, 4  # the longest n-grams
_RECALL = 4.0  # beta of 2, squared: recall counts so many times as much as precision
# What sacrebleu's tokenisation for Chinese sets apart: characters, their punctuation, full-width forms, and, by how it
# writes its ranges, all punctuation and symbols from U+2001 on.
_APART = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)
_MARK = re.compile(r"([!-&(-+/:-@\[-`{-~ ])")
# Points and commas stay in numbers, dashes unless behind one.
_NOT_IN_NUMBERS = (
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def words(text: str) -> list[str]:
    """Return what BLEU counts as the words of a text."""
    spaced = _MARK.sub(r" \1 ", _APART.sub(r" \1 ", text.strip()))
    for pattern, apart in _NOT_IN_NUMBERS:
        spaced = pattern.sub(apart, spaced)
    return spaced.split()


def chrf(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Return chrF of translations beside one reference each."""
    pairs = [("".join(one.split()), "".join(other.split())) for one, other in zip(found, wanted, strict=True)]
    precisions, recalls = [], []
    for size in range(1, _CHARACTERS + 1):
        there, known, right = _counted(pairs, size)
        if there and known:
            precisions.append(right / there)
            recalls.append(right / known)
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if not precision + recall:
        return 0.0
    return 100 * (1 + _RECALL) * precision * recall / (_RECALL * precision + recall)


def _counted(pairs: Sequence[tuple[str, str]], size: int) -> tuple[int, int, int]:
    """Return n-grams found, wanted and both; found ones only of texts whose reference has any."""
    there = known = right = 0
    for one, other in pairs:
        found, wanted = _grams(one, size), _grams(other, size)
        known += wanted.total()
        if wanted:
            there += found.total()
            right += (found & wanted).total()
    return there, known, right


def bleu(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Return BLEU of translations beside one reference each; where no n-gram of a size is right, half of one is taken
    to be, a quarter at the next such size, and so on.
    """
    pairs = [(words(one), words(other)) for one, other in zip(found, wanted, strict=True)]
    length, wanted_length = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    logarithms, share = 0.0, 1.0
    is_any_right = False
    for size in range(1, _WORDS + 1):
        grams = [(_grams(one, size), _grams(other, size)) for one, other in pairs]
        there = sum(one.total() for one, _ in grams)
        right = sum((one & other).total() for one, other in grams)
        is_any_right = is_any_right or right > 0
        if not there:
            return 0.0
        if not right:
            share /= 2
        logarithms += math.log((right or share) / there) / _WORDS
    if not is_any_right:
        return 0.0
    brevity = min(0.0, 1 - wanted_length / length)
    return 100 * math.exp(logarithms + brevity)


def _grams(text: Sequence[str], size: int) -> Counter[Sequence[str]]:
    if isinstance(text, str):
        return Counter(text[place : place + size] for place in range(len(text) - size + 1))
    return Counter(tuple(text[place : place + size]) for place in range(len(text) - size + 1))
