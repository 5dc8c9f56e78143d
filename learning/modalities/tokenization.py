"""Tokenizers, fitted on the training rows: the same rows give the same vocabulary in every process. No torch here.

The file format is that of the library `tokenizers`, Transformers' tokenizer.json.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from learning.errors import IncompatibleModel, InvalidConfig

Kind = Literal["wordpiece", "bytes", "characters"]
PADDING, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# The one special token of GPT-2's tokenizer, which stands for all of these but the mask.
END_OF_TEXT = "<|endoftext|>"
# What the special tokens are called elsewhere, by BART and Marian, where they have not the names that they have here.
_ELSEWHERE = {PADDING: "<pad>", UNKNOWN: "<unk>", FIRST: "<s>", LAST: "</s>", MASK: "<mask>"}
# What occurs once teaches nothing, and a vocabulary in which everything occurred would not know the unknown.
_LEAST_COUNT = 2
_CONTINUED = "##"
_AT_ONCE = 1_000
_ANY = Regex(r"[\s\S]")
# While a tokenizer is fitted, words are cut to so many characters: fitting takes the square of a word's length, and the
# longest in a file may be all of it. Words longer than this are unknown to WordPiece anyhow; bytes are three to a
# character in Chinese, which has no spaces.
_LONGEST_WORD, _LONGEST_BYTES = 100, 600


def fit_tokenizer(texts: Sequence[str], kind: Kind, size: int, lower_case: bool, exact: bool = False) -> str:
    """Return a tokenizer.json with at most `size` tokens, or as many as there are characters if that is more.

    An `exact` one knows the ends of lines, and its tokens give back the very text, but for what is unknown.
    """
    if exact:
        texts = [f"{text}\n" for text in texts]
    tokenizer = _FITTERS[kind](texts, size, lower_case, exact)
    tokenizer.add_special_tokens([token for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {LAST}",
        pair=f"{FIRST} $A {LAST} $B:1 {LAST}:1",
        special_tokens=[(token, number_of(tokenizer, token)) for token in (FIRST, LAST)],
    )
    return tokenizer.to_str()


def _wordpiece(texts: Sequence[str], size: int, lower_case: bool, _: bool) -> Tokenizer:
    """Words taken apart into frequent pieces (Schuster and Nakajima 2012); each Chinese character is a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    words = pre_tokenizers.BertPreTokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(_LONGEST_WORD)])
    # The trainer numbers characters within words in the order of a hash table that differs from process to process,
    # and breaks ties by these numbers. Given as special tokens they have theirs beforehand.
    within = [f"{_CONTINUED}{character}" for character in sorted(_within_words(tokenizer, texts))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_LEAST_COUNT,
        special_tokens=[*SPECIAL, *within],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Made anew, since those characters are no special tokens.
    plain = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=UNKNOWN))
    plain.normalizer, plain.pre_tokenizer = tokenizer.normalizer, words
    plain.decoder = decoders.WordPiece(prefix=_CONTINUED)
    return plain


def _within_words(tokenizer: Tokenizer, texts: Iterable[str]) -> set[str]:
    chunks = {chunk for text in texts for chunk in tokenizer.normalizer.normalize_str(text).split()}
    return {
        character
        for chunk in chunks
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(chunk)
        for character in word[1:]
    }


def _bytes(texts: Sequence[str], size: int, lower_case: bool, exact: bool) -> Tokenizer:
    """Frequent pairs of bytes merged (Radford et al. 2019): nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(lower_case, exact)
    words = pre_tokenizers.ByteLevel(add_prefix_space=not exact)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.FixedLength(_LONGEST_BYTES)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_LEAST_COUNT,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    return tokenizer


def _characters(texts: Sequence[str], size: int, lower_case: bool, exact: bool) -> Tokenizer:
    """Each character by itself, spaces too."""
    normalizer = _normalizer(lower_case, exact)
    counts = Counter(character for text in texts for character in normalizer.normalize_str(text))
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    known = [character for character in ranked if counts[character] >= _LEAST_COUNT][: max(1, size - len(SPECIAL))]
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *known))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_ANY, "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _normalizer(lower_case: bool, exact: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = [] if exact else [normalizers.NFC()]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lower_case else steps)


_FITTERS = {"wordpiece": _wordpiece, "bytes": _bytes, "characters": _characters}


def number_of(tokenizer: Tokenizer, token: str) -> int:
    """Return a token's number, or that of another's in its place; IncompatibleModel when the tokenizer has none."""
    number = tokenizer.token_to_id(_called(tokenizer, token))
    if number is None:
        raise IncompatibleModel(f"The tokenizer has no token {token}.", param="base_model")
    return number


def hiding_token(tokenizer: Tokenizer) -> int | None:
    """Return the number of the token that hides others: the mask, or else the unknown; None when there is neither.

    The end of a text, which stands for the unknown in GPT-2's tokenizer, is none: it would part what it stands in.
    """
    names = (_called(tokenizer, token) for token in (MASK, UNKNOWN))
    numbers = [tokenizer.token_to_id(name) for name in names if name != END_OF_TEXT]
    return next((number for number in numbers if number is not None), None)


def _called(tokenizer: Tokenizer, token: str) -> str:
    """Return what a tokenizer calls a special token."""
    if token not in SPECIAL:
        return token
    names = (token, _ELSEWHERE[token], *((END_OF_TEXT,) if token != MASK else ()))
    return next((name for name in names if tokenizer.token_to_id(name) is not None), token)


def opened(text: str) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, ready to encode whole texts of any length.

    A special token's name in a text is read as the characters that it is written with: it stands for no token, so that
    whoever writes a text can forge neither its end nor a hidden token.
    """
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = {_called(tokenizer, token) for token in SPECIAL}
    tokenizer.add_special_tokens(sorted(name for name in names if tokenizer.token_to_id(name) is not None))
    tokenizer.encode_special_tokens = True
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    found = [name for name, number in special.items() if len(name) > 1 and _is_read_as(tokenizer, name, number)]
    if found:
        _take_apart(tokenizer, found)
    return tokenizer


def _is_read_as(tokenizer: Tokenizer, name: str, number: int) -> bool:
    """Return whether the model itself has a special token's name for a piece of text."""
    if name == _called(tokenizer, UNKNOWN):
        return False  # what is unknown may be read as that
    return any(number in tokenizer.encode(text, add_special_tokens=False).ids for text in (name, f"a {name} a"))


def _take_apart(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    """Have these names come to the model in two pieces."""
    within = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
    apart = pre_tokenizers.Split(Regex(within), "isolated")
    before = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart] if before is None else [before, apart])


def encode(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> Iterator[list[int]]:
    """Iterate over the ids of each text, first and last token included, cut to `most` tokens."""
    end = number_of(tokenizer, LAST)
    for begin in range(0, len(texts), _AT_ONCE):
        for encoding in tokenizer.encode_batch_fast(list(texts[begin : begin + _AT_ONCE])):
            yield _cut(encoding.ids, most, end)


def encode_plain(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """Iterate over the ids of each text as it stands, whole, with nothing before or behind it."""
    for begin in range(0, len(texts), _AT_ONCE):
        for encoding in tokenizer.encode_batch_fast(list(texts[begin : begin + _AT_ONCE]), add_special_tokens=False):
            yield encoding.ids


def for_prompts(text: str, first: str | None) -> str:
    """Return a tokenizer.json that puts no last token behind a text, and before it the `first` alone, if any."""
    tokenizer = Tokenizer.from_str(text)
    around = tokenizer.encode("").ids
    if not around or around[-1] != number_of(tokenizer, LAST):
        return text
    begin = "" if first is None else f"{_called(tokenizer, first)} "
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A",
        pair=f"{begin}$A $B:1",
        special_tokens=[] if first is None else [(begin.strip(), number_of(tokenizer, first))],
    )
    return tokenizer.to_str()


def require_text_back(tokenizer: Tokenizer, task: str) -> None:
    """Raise InvalidConfig unless tokens are written out as they were read, spaces and ends of lines included."""
    if isinstance(tokenizer.model, models.WordPiece):
        raise _without_spaces(task)


def check_text_back(kind: Kind, task: str) -> None:
    """Raise InvalidConfig for a kind of tokenizer whose tokens do not give the text back."""
    if kind == "wordpiece":
        raise _without_spaces(task)


def _without_spaces(task: str) -> InvalidConfig:
    return InvalidConfig(
        f"{task} writes texts, but pieces of words say nothing of the spaces between them.",
        hint='Set preprocessing.tokenizer to "bytes" or "characters".',
        param="preprocessing.tokenizer",
    )


def encode_one(tokenizer: Tokenizer, text: str, most: int) -> tuple[list[int], int]:
    """Return a text's ids like `encode`, and how many there are uncut."""
    (encoding,) = tokenizer.encode_batch_fast([text])
    ids = encoding.ids
    return _cut(ids, most, number_of(tokenizer, LAST)), len(ids)


def encode_with_offsets(
    tokenizer: Tokenizer, texts: Sequence[str], most: int
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Iterate over each text's ids like `encode`, and where in it each stands; (0, 0) for those of no text."""
    end = number_of(tokenizer, LAST)
    for begin in range(0, len(texts), _AT_ONCE):
        for encoding in tokenizer.encode_batch(list(texts[begin : begin + _AT_ONCE])):
            places = encoding.offsets
            yield _cut(encoding.ids, most, end), places if len(places) <= most else [*places[: most - 1], (0, 0)]


def continued(tokenizer: Tokenizer, ids: Sequence[int]) -> list[bool]:
    """Return for each token whether it goes on with the word of the one before; only pieces of words say so."""
    if not isinstance(tokenizer.model, models.WordPiece):
        return [False] * len(ids)
    prefix = tokenizer.model.continuing_subword_prefix
    return [(tokenizer.id_to_token(number) or "").startswith(prefix) for number in ids]


def _cut(ids: list[int], most: int, end: int) -> list[int]:
    return ids if len(ids) <= most else [*ids[: most - 1], end]


def lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has, uncut."""
    return [
        len(encoding.ids)
        for begin in range(0, len(texts), _AT_ONCE)
        for encoding in tokenizer.encode_batch_fast(list(texts[begin : begin + _AT_ONCE]))
    ]


def word_starts(tokenizer: str) -> list[bool]:
    """Return for each token whether it begins a word, as pieces of words say by their names."""
    vocabulary = opened(tokenizer).get_vocab()
    by_number = sorted(vocabulary, key=lambda token: vocabulary[token])
    if json.loads(tokenizer)["model"]["type"] == "WordPiece":
        return [not token.startswith(_CONTINUED) for token in by_number]
    return [True] * len(by_number)


def transformers_config(tokenizer: Tokenizer, most: int) -> str:
    """Return the tokenizer_config.json by which Transformers' AutoTokenizer opens what is beside it."""
    roles = {"pad": PADDING, "unk": UNKNOWN, "cls": FIRST, "sep": LAST, "mask": MASK}
    if tokenizer.token_to_id(FIRST) is None:
        named = tokenizer.token_to_id(END_OF_TEXT) is None  # else one token is all that there is
        roles = {"unk": UNKNOWN, "bos": FIRST, "eos": LAST, **({"pad": PADDING, "mask": MASK} if named else {})}
    names = {role: _called(tokenizer, token) for role, token in roles.items()}
    config = {f"{role}_token": name for role, name in names.items() if tokenizer.token_to_id(name) is not None}
    return json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": most, **config}, indent=1)
