"""Where words begin among tokens that are bytes of text, whatever the language.

A word is what a tokenizer's own rule takes apart before it knows tokens: letters, or digits, with the space before
them. Chinese characters, kana and what is neither letter nor digit are each by themselves, as in WordPiece; a token of
several of them is one word, since no part of it can be hidden alone. Which token begins a word is seen by what it
begins with and what the one before ends with.
"""

from __future__ import annotations

import unicodedata

from tokenizers import Tokenizer, decoders

from learning.modalities.text_rows import is_unspaced

# What a token begins or ends with; INSIDE: no character begins there, the bytes go on with one.
LETTER, DIGIT, SPACE, BREAK, ALONE, INSIDE = "ldsba."

_SPACES = {" ", "\u2581"}
# Of characters cut in two: those that begin with these bytes are Chinese, kana, punctuation or pictures.
_ALONE_FROM = {0xE2, *range(0xE3, 0xEA), 0xEF, *range(0xF0, 0xF5)}


def edges(tokenizer: Tokenizer) -> tuple[str, str]:
    """Return what each token of the vocabulary begins with, and what the last character is that begins in it."""
    vocabulary = tokenizer.get_vocab()
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    signs = _bytes_by_sign() if isinstance(tokenizer.decoder, decoders.ByteLevel) else {}
    found = [
        ALONE + ALONE if token in special else _edges_of(_content(token, signs))
        for token in sorted(vocabulary, key=lambda token: vocabulary[token])
    ]
    return "".join(both[0] for both in found), "".join(both[1] for both in found)


def _content(token: str, signs: dict[str, int]) -> bytes:
    return bytes(signs[sign] for sign in token) if set(token) <= set(signs) else token.encode()


def _edges_of(content: bytes) -> str:
    begins = [place for place, byte in enumerate(content) if byte & 0xC0 != 0x80]
    if not begins:
        return INSIDE + INSIDE
    return (_kind(content, 0) if begins[0] == 0 else INSIDE) + _kind(content, begins[-1])


def _kind(content: bytes, place: int) -> str:
    """Return what the character is that begins at a place, whole or cut."""
    lead = content[place]
    length = 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)
    character = content[place : place + length].decode("utf-8", "replace")
    if character.startswith("\ufffd"):
        return ALONE if lead in _ALONE_FROM else LETTER
    if character in _SPACES:
        return SPACE
    if character.isspace():
        return BREAK
    if is_unspaced(character):
        return ALONE
    return {"L": LETTER, "M": LETTER, "N": DIGIT}.get(unicodedata.category(character)[0], ALONE)


def _bytes_by_sign() -> dict[str, int]:
    """Return the byte that each sign of GPT-2's stands for: printable ones themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
