"""Texts that a tokenizer does not know: what is [UNK] everywhere cannot be told apart, and nothing is learned of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from learning.errors import IncompatibleModel
from learning.interfaces import CALLED
from learning.modalities import tokenization
from learning.modalities.text import TextState, texts_in
from learning.sampling import sample

# A few rare characters are unknown in any text.
_MOST_UNKNOWN = 0.1
_ROWS, _CHARACTERS = 2_000, 2_000  # that are looked at, of a part and of a text


def unknown_warnings(
    parts: Mapping[str, pa.Table], state: object, written: Sequence[str], *, is_given: bool
) -> Iterator[str]:
    """Yield a warning for each column of a part of which more than a tenth of the tokens are unknown.

    Those are the text column and the columns that are `written`; the tokenizer `is_given` by a base model, or fitted.
    """
    if not isinstance(state, TextState):
        return
    remedy = (
        "Choose a base model that knows this language, or leave base_model out: a tokenizer is then fitted on the rows."
        if is_given
        else 'Raise preprocessing.vocabulary_size, or set preprocessing.tokenizer to "bytes": no byte is unknown.'
    )
    for name, table in parts.items():
        some = sample(table, _ROWS)
        for column in (state.column, *(one for one in written if one in table.column_names)):
            share = _share(some, column, state)
            if share > _MOST_UNKNOWN:
                yield (
                    f'{share:.0%} of the tokens of the {CALLED[name]} rows in column "{column}" are unknown to the '
                    f"model's tokenizer, and are all alike to the model. {remedy}"
                )


def _share(table: pa.Table, column: str, state: TextState) -> float:
    try:
        unknown = state.token(tokenization.UNKNOWN)
    except IncompatibleModel:
        return 0.0
    texts = [text[:_CHARACTERS] for text in texts_in(table, column, may_be_blank=True)]
    total = found = 0
    for ids in tokenization.encode_plain(state.opened, texts):
        total += len(ids)
        found += ids.count(unknown)
    return found / max(1, total)
