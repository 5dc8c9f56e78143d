"""Texts as tokens, by a tokenizer fitted on the training rows; it is part of the model and never fitted again.

Rows are as long as their texts: token_S, with length_B tokens to each row. A column of lists of words is read as one
text each; then word_S says which word of its row each token belongs to, -1 if it belongs to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import Tokenizer

from learning.config import Columns, Config
from learning.errors import InvalidData, InvalidInput, InvalidRow, did_you_mean
from learning.interfaces import Batch, InputWarning, Part
from learning.modalities import tokenization
from learning.modalities.text_rows import TextRow, words_of, write_out
from learning.modalities.tokenization import Kind
from learning.splits import require_column

_EXAMPLE = "How long does it take?"
# Of more text than this, tokenizers are fitted on so many stretches that are spread over it.
FITTED_BYTES, _STRETCHES = 16 << 20, 256


class TextConfig(Config):
    """How texts become tokens."""

    tokenizer: Kind = Field(
        "wordpiece",
        description="Frequent pieces of words, each Chinese character by itself; frequent sequences of bytes, where "
        "nothing is unknown; or characters.",
    )
    vocabulary_size: int = Field(4_000, ge=64, le=250_000, description="Most tokens that are told apart.")
    lower_case: bool = Field(True, description="Read capital letters as small ones.")
    exact: bool = Field(
        False,
        description="Leave texts as they are, so that tokens give the very text back: no Unicode normalisation, no "
        "space before a text, ends of lines kept; for bytes and characters.",
    )
    max_length: int = Field(
        256,
        ge=4,
        le=8_192,
        description="Tokens of a row, the first and the last one included; what is longer is cut, with a warning.",
    )


class TextState(Config):
    """What was fitted: the column, and the tokenizer as a tokenizer.json."""

    column: str
    tokenizer: str
    max_length: int

    @cached_property
    def opened(self) -> Tokenizer:
        """Return the tokenizer, opened once; it is gone from memory with the state."""
        return tokenization.opened(self.tokenizer)

    @property
    def vocabulary(self) -> int:
        """V, the number of tokens."""
        return self.opened.get_vocab_size()

    def token(self, name: str) -> int:
        """Return a token's number."""
        return tokenization.number_of(self.opened, name)

    def special_tokens(self) -> tuple[int, ...]:
        """Return the numbers of the tokens that stand for no text."""
        added = self.opened.get_added_tokens_decoder()
        return tuple(sorted(number for number, token in added.items() if token.special))


class Text:
    """One column of texts, whatever the language."""

    name: ClassVar[str] = "text"
    Config: ClassVar[type[TextConfig]] = TextConfig
    State: ClassVar[type[TextState]] = TextState

    def fit(self, table: pa.Table, columns: Columns, config: TextConfig) -> TextState:
        """Fit the tokenizer on the texts; InvalidData for a missing one, or when it is not clear which column."""
        column = text_column(table, columns)
        require_texts(table, column, may_be_blank=config.exact)
        some = _some(table, column)
        texts = texts_in(some, column, may_be_blank=config.exact)
        if config.exact:  # what is written must be known as well as what is read
            texts += [text for name in columns.target_names() for text in _written_in(some, name)]
        tokenizer = tokenization.fit_tokenizer(
            texts, config.tokenizer, config.vocabulary_size, config.lower_case, config.exact
        )
        return TextState(column=column, tokenizer=tokenizer, max_length=config.max_length)

    def reuse(self, table: pa.Table, columns: Columns, state: TextState) -> TextState:
        """Return the state for this table's text column, whatever it is called."""
        known = state.column in _candidates(table, columns) and columns.text is None and columns.inputs is None
        return state if known else state.model_copy(update={"column": text_column(table, columns)})

    def remarks(self, table: pa.Table, columns: Columns, state: TextState, part: Part = "training") -> list[str]:
        """Say how many texts are cut, and name the columns that are not read."""
        require_texts(table, state.column)
        found = []
        some = _some(table, state.column)
        texts = [text for text in texts_in(some, state.column) if _may_be_cut(text, state)]
        cut = sum(length > state.max_length for length in tokenization.lengths(state.opened, texts))
        if cut:
            of = f"{part} rows" if some is table else f"{part} rows that were looked at"
            found.append(
                f"{cut} of {some.num_rows} {of} have more than {state.max_length} tokens; the rest of them "
                "is not read. Raise preprocessing.max_length, or divide the texts."
            )
        if part != "training":
            return found
        read = {state.column, *columns.target_names(), *columns.ignore}
        unused = [name for name in table.column_names if name not in read]
        if unused:
            found.append(f"Only text is read; these columns are not used: {', '.join(unused)}.")
        return found

    def files(self, state: TextState) -> dict[str, str]:
        """Return the tokenizer as Transformers expects it."""
        return {
            "tokenizer.json": state.tokenizer,
            "tokenizer_config.json": tokenization.transformers_config(state.opened, state.max_length),
        }

    def encode(self, table: pa.Table, state: TextState) -> Batch:
        """Return token_S, int32, and length_B; of lists of words also word_S and words_B, how many there are."""
        if not _holds_words(table, state.column):
            texts = texts_in(table, state.column)
            return _packed(
                [np.array(ids, np.int32) for ids in tokenization.encode(state.opened, texts, state.max_length)]
            )
        rows = [write_out(words) for words in _lists(table, state.column)]
        encoded = list(tokenization.encode_with_offsets(state.opened, [row.text for row in rows], state.max_length))
        word_S = np.concatenate([words_of(offsets, row) for row, (_, offsets) in zip(rows, encoded, strict=True)])
        return {
            **_packed([tokens for tokens, _ in encoded]),
            "word_S": torch.from_numpy(word_S),
            "words_B": torch.tensor([len(row.spans) for row in rows]),
        }

    def column_names(self, state: TextState) -> tuple[str, ...]:
        """Return the text column."""
        return (state.column,)

    def parse(self, value: Any, index: int, state: TextState) -> tuple[TextRow, list[InputWarning]]:
        """Return a text or a list of words, or an object with either; warns when it is too long to be read whole."""
        given = given_text(value, index, state)
        # Half of a surrogate pair is no character.
        if isinstance(given, str):
            text, words = given.encode("utf-8", "replace").decode(), None
        else:
            words = write_out([word.encode("utf-8", "replace").decode() for word in given])
            text = words.text
        if not text.strip():
            raise InvalidInput(
                f'Input {index}, "{state.column}": the text is empty.',
                index=index,
                hint="Leave the input out.",
                param=state.column,
            )
        tokens, length = tokenization.encode_one(state.opened, text, state.max_length)
        row = TextRow(text, tokens, state.opened, words)
        if length == len(tokens):
            return row, []
        message = f'Input {index}, "{state.column}": only the first {state.max_length} of {length} tokens are read.'
        return row, [InputWarning(index, "truncated", message)]

    def assemble(self, rows: Sequence[TextRow], state: TextState) -> Batch:
        """Return token_S and length_B of parsed texts."""
        return _packed([row.tokens for row in rows])

    def positions(self, row: TextRow) -> int:
        """Return the number of tokens."""
        return len(row.tokens)

    def shown(self, row: TextRow, state: TextState) -> dict[str, Any]:
        """Return the tokens."""
        return {"tokens": [state.opened.id_to_token(token) for token in row.tokens]}

    def schema(self, state: TextState) -> dict[str, Any]:
        """Return the JSON Schema of an input."""
        text = {"type": "string", "minLength": 1}
        words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        either = {"type": ["string", "array"], "items": {"type": "string"}, "minLength": 1, "minItems": 1}
        row = {"type": "object", "required": [state.column], "properties": {state.column: either}}
        return {"anyOf": [text, words, row], "example": _EXAMPLE}


def given_text(value: Any, index: int, state: TextState) -> str | list[str]:
    """Return the text or the words of an input; InvalidInput when it has neither."""
    given = value
    if isinstance(value, dict):
        key = state.column if state.column in value else "text"
        if key not in value:
            raise InvalidInput(
                f'Input {index}: "{state.column}" is missing.{did_you_mean(state.column, value)}',
                index=index,
                hint=f'Send a string, or {{"{state.column}": "..."}}.',
                param=state.column,
            )
        given = value[key]
    if isinstance(given, str) or (isinstance(given, list) and all(isinstance(word, str) for word in given)):
        return given
    raise InvalidInput(
        f'Input {index}, "{state.column}": {str(given)[:80]} is neither a text nor a list of words.',
        index=index,
        hint='Send {"inputs": ["a text", ...]}.',
        param=state.column,
    )


def _packed(rows: Sequence[Sequence[int] | NDArray[np.int32]]) -> Batch:
    length_B = torch.tensor([len(row) for row in rows])
    token_S = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    return {"token_S": torch.from_numpy(token_S), "length_B": length_B}


def text_column(table: pa.Table, columns: Columns) -> str:
    """Return the column to read: the one named, or the only one with strings that is neither target nor ignored."""
    if columns.text is not None:
        require_column(table, columns.text, "columns.text")
        return columns.text
    candidates = _candidates(table, columns)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InvalidData(
            "There is no column with text to learn from.",
            hint=f"Columns: {', '.join(f'{field.name} ({field.type})' for field in table.schema)}.",
            param="columns.text",
        )
    raise InvalidData(
        f"There are {len(candidates)} columns with text: {', '.join(candidates)}.",
        hint=f'Say which one to read: columns.text="{candidates[0]}".',
        param="columns.text",
    )


def _candidates(table: pa.Table, columns: Columns) -> list[str]:
    """Return the columns with texts, or with lists of words where there are none or their tags are to be predicted."""
    names = columns.inputs if columns.inputs is not None else table.column_names
    left_out = {*columns.target_names(), *columns.ignore}
    kept = [name for name in names if name not in left_out]
    texts = [name for name in kept if _is_text(table.schema.field(name).type)]
    words = [name for name in kept if _holds_words(table, name)]
    targets = [name for name in columns.target_names() if name in table.column_names]
    tagged = [name for name in words if any(_are_paired(table, name, target) for target in targets)]
    return tagged or texts or words


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_words(table: pa.Table, column: str) -> bool:
    kind = table.schema.field(column).type
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type))


def _are_paired(table: pa.Table, words: str, target: str) -> bool:
    """Return whether most lists are as long as those of the target: labels of a row are no tags of its words."""
    if not _holds_words(table, target):
        return False
    lengths = (pc.list_value_length(table.column(name)) for name in (words, target))
    return bool(2 * (pc.sum(pc.equal(*lengths)).as_py() or 0) > table.num_rows)


def texts_in(table: pa.Table, column: str, may_be_blank: bool = False, param: str = "columns.text") -> list[str]:
    """Return a column's texts, lists of words as one each; InvalidData names the first row that has none."""
    require_texts(table, column, may_be_blank, param)
    if _holds_words(table, column):
        return [write_out(words).text for words in _lists(table, column)]
    texts: list[str] = table.column(column).to_pylist()
    return texts


def require_texts(table: pa.Table, column: str, may_be_blank: bool = False, param: str = "columns.text") -> None:
    """Raise InvalidData for a column that holds no texts, which names the first row that has none."""
    require_column(table, column, param)
    values = table.column(column)
    if _holds_words(table, column):
        return
    if not _is_text(values.type):
        raise InvalidData(
            f'Column "{column}" holds {values.type} values, which are no text.',
            hint=f"Choose another column with {param}.",
            param=param,
        )
    before = 0
    for chunk in values.iterchunks():  # since the whole column may be larger than memory
        empty = chunk.is_null()
        if not may_be_blank:
            empty = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(chunk)), 0), True)
        row = pc.index(empty, True).as_py()
        if row >= 0:
            raise _empty(before + row, column, param)
        before += len(chunk)


def _some(table: pa.Table, column: str) -> pa.Table:
    """Return rows of a table that fit in memory: all, or of a large one stretches that are spread evenly over it."""
    total = table.column(column).nbytes
    if total <= FITTED_BYTES:
        return table
    wanted = max(1, table.num_rows * FITTED_BYTES // total)
    stretches = min(_STRETCHES, wanted)
    starts = [table.num_rows * number // stretches for number in range(stretches)]
    return pa.concat_tables([table.slice(start, wanted // stretches) for start in starts])


def _written_in(table: pa.Table, column: str) -> list[str]:
    is_text = column in table.column_names and _is_text(table.schema.field(column).type)
    return [text for text in table.column(column).to_pylist() if text] if is_text else []


def _lists(table: pa.Table, column: str) -> list[list[str]]:
    lists: list[list[str] | None] = table.column(column).to_pylist()
    for row, words in enumerate(lists):
        if not any(word and word.strip() for word in words or ()):
            raise _empty(row, column, "columns.text")
    return [[word or "" for word in words or ()] for words in lists]


def _empty(row: int, column: str, param: str) -> InvalidRow:
    return InvalidRow(
        row,
        f', column "{column}": the text is empty.',
        hint="Fill in or remove the row.",
        param=param,
    )


def _may_be_cut(text: str, state: TextState) -> bool:
    """Return false for a text too short to have too many tokens, since a token is at least one byte."""
    return len(text) * 4 + 2 > state.max_length
