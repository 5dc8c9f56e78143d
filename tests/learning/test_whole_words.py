"""Words that are hidden together, where tokens are bytes: also in texts that have no spaces."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
import pytest
import torch

from learning.config import Columns
from learning.modalities.text import Text, TextConfig, TextState
from learning.tasks.masking import Maskable, Masker

CHINESE = ["这个餐馆很好吃", "我的订单今天没有到", "汇率今天上涨了", "人民币兑美元汇率今天下跌"]
MIXED = ["the unbelievable card works, really!", "我用app付了123元。 ok", "привет мир", "naïve\nfaçade", "a  b"]


def fitted(texts: list[str], size: int, exact: bool = True) -> TextState:
    config = TextConfig(tokenizer="bytes", vocabulary_size=size, exact=exact, lower_case=False)
    return Text().fit(pa.table({"text": texts}), Columns(), config)


def words_of(state: TextState, text: str) -> list[str]:
    """Return a text cut where words begin."""
    masker = Masker(Maskable.of(state, whole_words=True))
    token_S = Text().encode(pa.table({"text": [text]}), state)["token_S"]
    starts = [place for place, start in enumerate(masker.word_starts(token_S).tolist()) if start]
    cut = [token_S[first:last].tolist() for first, last in pairwise([*starts, len(token_S)])]
    return [word for one in cut if (word := state.opened.decode(one))]


@pytest.mark.parametrize("size", [64, 4_000])  # single bytes; whole words and runs of characters
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unbelievable card", ["unbelievable", " card"]),
        ("works, really!", ["works", ",", " really", "!"]),
        ("привет мир", ["привет", " мир"]),
        ("naïve\nfaçade", ["naïve", "\n", "façade"]),
        ("app付了123元", ["app", "付", "了", "123", "元"]),
        ("好。 ok", ["好", "。", " ok"]),
        ("a  b", ["a", " ", " b"]),
    ],
)
def test_words_begin_where_the_tokenizer_s_own_rule_has_them(size: int, text: str, words: list[str]) -> None:
    assert words_of(fitted(MIXED, size), text) == words


def test_each_chinese_character_is_a_word() -> None:
    for text in CHINESE:
        assert words_of(fitted(CHINESE, 64), text) == list(text)
        merged = words_of(fitted(CHINESE * 3, 4_000), text)  # whose tokens have several
        assert "".join(merged) == text
        tokens = fitted(CHINESE * 3, 4_000).opened.encode(text, add_special_tokens=False).ids
        assert len(merged) == len(tokens)


@pytest.mark.parametrize("exact", [True, False])
def test_rows_of_chinese_are_hidden_in_part(exact: bool) -> None:
    state = fitted(CHINESE, 64, exact)
    batch = Text().encode(pa.table({"text": CHINESE * 50}), state)
    masker = Masker(Maskable.of(state, whole_words=True))
    torch.manual_seed(0)
    hidden_S = masker.draw(batch["token_S"], 0.3)
    shares = [float(row[1:-1].float().mean()) for row in hidden_S.split(batch["length_B"].tolist())]
    assert sum(share in (0.0, 1.0) for share in shares) < 0.2 * len(shares)
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.03)
    word_S = masker.word_starts(batch["token_S"]).cumsum(0)
    for word in range(1, 200):
        assert hidden_S[word_S == word].unique().numel() == 1


def test_nothing_changes_where_words_are_not_asked_for() -> None:
    maskable = Maskable.of(fitted(CHINESE, 64))
    assert (maskable.begins, maskable.ends, maskable.continued) == ("", "", ())
