"""The tokenizer of a directory that Transformers saved: tokenizer.json, or made of the older files beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from learning.errors import InvalidModel
from learning.modalities.tokenization import END_OF_TEXT, FIRST, LAST, SPECIAL, UNKNOWN
from learning.model_files import (
    MERGES_FILE,
    PIECES_FILE,
    SENTENCEPIECE_FILES,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WORDS_FILE,
    read_object,
)

_ENDS = ("<s>", "</s>")
_OF_BART = (*_ENDS, "<unk>", "<pad>", "<mask>")


def tokenizer_of(directory: Path) -> str:
    """Return a tokenizer.json; InvalidModel when there is nothing to make one of, or it does not read."""
    try:
        if (directory / TOKENIZER_FILE).is_file():
            text = (directory / TOKENIZER_FILE).read_text()
            Tokenizer.from_str(text)
            return text
        if (directory / WORDS_FILE).is_file():
            return _of_words(directory / WORDS_FILE, _said(directory))
        if (directory / PIECES_FILE).is_file() and (directory / MERGES_FILE).is_file():
            return _of_pieces(directory, _said(directory))
    except InvalidModel:
        raise
    except Exception as error:  # the library raises no narrower one for what it cannot parse
        raise InvalidModel(f"The tokenizer cannot be read: {error}", hint="Save it again.") from None
    _refuse_sentencepiece(directory)
    raise InvalidModel(
        f"There is no tokenizer: {TOKENIZER_FILE}, or {WORDS_FILE}, or {PIECES_FILE} with {MERGES_FILE}.",
        hint="Save it into the same directory: AutoTokenizer.from_pretrained(...).save_pretrained(directory).",
    )


def _refuse_sentencepiece(directory: Path) -> None:
    """Say what is not read where Transformers would read sentencepiece's models, and what to do."""
    found = [name for name in SENTENCEPIECE_FILES if (directory / name).is_file()]
    if len(found) > 1:
        raise InvalidModel(
            f"The model has two tokenizers, {' and '.join(found)}, of which neither is read: a model here has one "
            f"{TOKENIZER_FILE} for the texts that it reads and those that it writes.",
            hint="Import a model with one tokenizer for both, such as a BART, or train one on pairs with the "
            "architecture seq2seq.",
        )
    if found:
        raise InvalidModel(
            f"There is no {TOKENIZER_FILE}, and {found[0]} is not read.",
            hint="Save it into the same directory: AutoTokenizer.from_pretrained(...).save_pretrained(directory).",
        )


def _said(directory: Path) -> dict[str, Any]:
    path = directory / TOKENIZER_CONFIG_FILE
    return read_object(path) if path.is_file() else {}


def _of_words(path: Path, said: dict[str, Any]) -> str:
    """Return BERT's tokenizer, made of its vocabulary as Transformers makes it."""
    # Only line feeds part words: others, such as U+2028, are words themselves in some vocabularies.
    lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    numbers = {line.removesuffix("\r"): number for number, line in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(said.get("do_lower_case", True)),
        strip_accents=said.get("strip_accents"),
        handle_chinese_chars=bool(said.get("tokenize_chinese_chars", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL if token in numbers])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {LAST}",
        pair=f"{FIRST} $A {LAST} $B:1 {LAST}:1",
        special_tokens=[(token, numbers[token]) for token in (FIRST, LAST)],
    )
    return tokenizer.to_str()


def _of_pieces(directory: Path, said: dict[str, Any]) -> str:
    """Return GPT-2's tokenizer, or BART's, made of its pieces and their merges."""
    model = models.BPE.from_file(str(directory / PIECES_FILE), str(directory / MERGES_FILE))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(said.get("add_prefix_space", False)))
    tokenizer.decoder = decoders.ByteLevel()
    first, last = (tokenizer.token_to_id(token) for token in _ENDS)
    if first is None or last is None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        tokenizer.add_special_tokens([END_OF_TEXT])
    else:
        tokenizer.post_processor = processors.RobertaProcessing(
            (_ENDS[1], last), (_ENDS[0], first), trim_offsets=True,
            add_prefix_space=bool(said.get("add_prefix_space", False)),
        )  # fmt: skip
        tokenizer.add_special_tokens([token for token in _OF_BART if tokenizer.token_to_id(token) is not None])
    return tokenizer.to_str()
