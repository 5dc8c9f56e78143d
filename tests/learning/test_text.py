"""Texts: tokenizers that never differ, rows without padding, and the network against Transformers' own."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from runs import TINY, run, saved, small_texts, spec_of, write

from learning.architectures.bert import Bert, BertConfig
from learning.architectures.quick_dropout import QuickDropout
from learning.config import Columns
from learning.errors import IncompatibleModel, InvalidConfig, InvalidData, LearningError
from learning.modalities import tokenization
from learning.modalities.text import Text, TextConfig
from learning.model import configure
from learning.packing import POOL_BATCHES, PackedExamples, pieces, plan_batches
from learning.prediction import Predictor
from learning.preparation import prepare
from learning.tasks.masking import Maskable, Masker

TEXT = Text()
KINDS = ("wordpiece", "bytes", "characters")
CHINESE = "今天这个餐馆很好吃"
FIT = """
from runs import small_texts
from learning.modalities.tokenization import fit_tokenizer
texts = small_texts(300).column("text").to_pylist() + ["unfathomable", "unfathomably", "fathoms"] * 2
print([fit_tokenizer(texts, kind, 200, True) for kind in ("wordpiece", "bytes", "characters")])
"""


def fitted(kind="wordpiece", table=None, **options):
    return TEXT.fit(
        table if table is not None else small_texts(), Columns(text="text"), TextConfig(tokenizer=kind, **options)
    )


def texts_of(*texts):
    return pa.table({"text": pa.array(texts)})


def test_every_process_fits_the_same_tokenizers(request):
    script = f"import sys; sys.path = {[str(request.path.parent), *sys.path]!r}\n{FIT}"
    first, second = (subprocess.check_output([sys.executable, "-c", script]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_chinese_needs_no_spaces(kind):
    table = texts_of(*[CHINESE, CHINESE[::-1], "今天好吃"] * 3)
    state = fitted(kind, table)
    batch = TEXT.encode(texts_of(CHINESE, "好"), state)
    if kind != "bytes":
        assert batch["length_B"].tolist() == [len(CHINESE) + 2, 3]
    assert state.token(tokenization.UNKNOWN) not in batch["token_S"].tolist()
    text = tokenization.opened(state.tokenizer).decode(batch["token_S"][: batch["length_B"][0]].tolist())
    assert text.replace(" ", "") == CHINESE


def test_only_while_it_is_fitted_are_words_cut():
    """A long word changes neither how Chinese is read nor, where bytes are read, what is one word to them."""
    sentence = "\u6c49\u8bed\u6ca1\u6709\u7a7a\u683c" * 30
    for kind in ("wordpiece", "bytes"):
        texts = [sentence, "one two", "y" * 5_000]
        tokenizer = tokenization.opened(tokenization.fit_tokenizer(texts, kind, 500, True))
        ids = tokenizer.encode(sentence, add_special_tokens=False).ids
        assert tokenizer.decode(ids).replace(" ", "") == sentence
        assert len(ids) == len(sentence) if kind == "wordpiece" else len(ids) < 30
        one_word = tokenizer.pre_tokenizer.pre_tokenize_str("y" * 5_000)
        assert [len(word) - word.startswith("\u0120") for word, _ in one_word] == [5_000]


def test_bytes_know_everything_and_the_others_say_what_they_do_not():
    strange = texts_of("🦋 ǆ")
    assert fitted("bytes").token(tokenization.UNKNOWN) not in TEXT.encode(strange, fitted("bytes"))["token_S"]
    for kind in ("wordpiece", "characters"):
        assert fitted(kind).token(tokenization.UNKNOWN) in TEXT.encode(strange, fitted(kind))["token_S"]


def test_what_is_too_long_is_cut_and_said():
    table = texts_of("one two three four five six seven eight", "one two", "eight")
    state = fitted("characters", table, max_length=12)
    batch = TEXT.encode(table, state)
    assert batch["length_B"].tolist() == [12, 9, 7]
    first, last = (state.token(token) for token in (tokenization.FIRST, tokenization.LAST))
    assert [batch["token_S"][place] for place in (0, 11, 12)] == [first, last, first]
    (remark,) = TEXT.remarks(table, Columns(), state)
    assert remark.startswith("1 of 3 training rows have more than 12 tokens")
    _, (warning,) = TEXT.parse(table.column("text")[0].as_py(), 3, state)
    assert (warning.index, warning.code) == (3, "truncated")
    assert "only the first 12 of 41 tokens" in warning.message
    row, warnings = TEXT.parse({"text": "eight"}, 0, state)
    assert (row.tokens, warnings) == (batch["token_S"][21:].tolist(), [])
    assert TEXT.positions(row) == 7
    again = TEXT.assemble([TEXT.parse(text, 0, state)[0] for text in table.column("text").to_pylist()], state)
    assert all(torch.equal(again[name], batch[name]) for name in batch)


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (texts_of("a", None, "b"), {}, 'Row 2, column "text": the text is empty'),
        (texts_of("a", " \n"), {}, 'Row 2, column "text": the text is empty'),
        (pa.table({"a": ["x"], "b": ["y"]}), {}, "There are 2 columns with text: a, b"),
        (pa.table({"a": ["x"], "b": [1]}), {"target": "a"}, "There is no column with text"),
        (pa.table({"a": ["x"], "b": [1]}), {"text": "b"}, 'Column "b" holds int64 values'),
        (pa.table({"text": ["x"]}), {"text": "test"}, 'Column "test" not found. Did you mean "text"?'),
    ],
)
def test_what_is_no_text_is_named(table, columns, message):
    with pytest.raises(LearningError) as caught:
        TEXT.fit(table, Columns(**columns), TextConfig())
    assert message in caught.value.message
    assert caught.value.param == "columns.text"


def test_the_only_string_column_is_the_text_and_a_base_model_finds_it_under_another_name():
    table = pa.table({"said": ["a b", "b a"], "n": [1, 2], "label": ["x", "y"]})
    state = TEXT.fit(table, Columns(target="label"), TextConfig())
    assert state.column == "said"
    other = pa.table({"question": ["a"], "label": ["x"]})
    assert TEXT.reuse(other, Columns(target="label"), state).column == "question"
    assert TEXT.reuse(table, Columns(text="label"), state).column == "label"
    assert TEXT.reuse(table, Columns(target="label"), state) is state


def network(norm="post", **options):
    state = fitted()
    torch.manual_seed(0)
    config = BertConfig(norm=norm, **{**TINY["bert"], **options})
    return Bert().build(config, state).eval(), state


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_rows_together_in_any_order_are_rows_alone(norm):
    backbone, state = network(norm)
    texts = small_texts().column("text").to_pylist()
    alone = [backbone(TEXT.encode(texts_of(text), state)).features_SD for text in texts]
    together = backbone(TEXT.encode(texts_of(*texts), state))
    torch.testing.assert_close(together.features_SD, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.pooled(), torch.stack([row.mean(0) for row in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.first(), torch.stack([row[0] for row in alone]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_transformers_opens_the_model_and_agrees(norm, tmp_path):
    result = run(
        spec_of("masked-tokens", "pretrain", hyperparameters={"epochs": 2}, architecture_config={"norm": norm}),
        {"train": write(small_texts(), tmp_path / "t")},
        tmp_path,
    )
    directory = saved(result, tmp_path / "model")
    theirs = transformers.AutoModel.from_pretrained(directory).eval()
    texts = small_texts(9, seed=2).column("text").to_pylist()
    padded = transformers.AutoTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")
    design = result.prepared.design
    ours = TEXT.encode(texts_of(*texts), design.inputs)
    assert ours["token_S"].tolist() == padded.input_ids[padded.attention_mask.bool()].tolist()
    with torch.no_grad():
        hidden_BTD = theirs(**padded).last_hidden_state
        features = result.prepared.network.eval().backbone(ours)
    torch.testing.assert_close(features.features_SD, hidden_BTD[padded.attention_mask.bool()], atol=1e-5, rtol=0)


def test_recomputing_layers_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        backbone, state = network(activation_checkpointing=recompute)
        backbone.train().set_dropout(0.1)
        torch.manual_seed(1)
        backbone(TEXT.encode(small_texts(), state)).features_SD.square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_bf16_trains(tmp_path):
    spec = spec_of("text-classification", hyperparameters={"epochs": 12, "learning_rate": 1e-2, "precision": "bf16"})
    result = run(spec, {"train": write(small_texts(), tmp_path / "t")}, tmp_path)
    assert result.metrics["train"]["accuracy"] > 0.9


def test_batches_hold_each_row_once_and_rows_of_like_length():
    generator = np.random.default_rng(0)
    length_N = generator.lognormal(3, 0.7, 5000).astype(int).clip(1, 256)
    order_N = generator.permutation(5000)
    plan = plan_batches(order_N, length_N, 16)
    assert sorted(np.concatenate(plan).tolist()) == list(range(5000))
    assert {len(rows) for rows in plan} == {16, 5000 % 16}
    padding = 1 - length_N.sum() / sum(length_N[rows].max() * len(rows) for rows in plan)
    assert padding < 0.06
    # Long and short come mixed, and a pool's rows are the order's.
    means = np.array([length_N[rows].mean() for rows in plan])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
    assert set(np.concatenate(plan[:POOL_BATCHES])) == set(order_N[: POOL_BATCHES * 16])
    # As tables do: a last batch of one row is left out.
    assert sum(len(rows) for rows in plan_batches(order_N[:33], length_N, 16)) == 32


def test_a_pass_can_start_at_any_batch_and_everything_is_everything():
    state = fitted()
    batch = {**TEXT.encode(small_texts(), state), "target_B": torch.arange(40), "target_S": None}
    batch["target_S"] = batch["token_S"] * 2
    examples = PackedExamples(batch, torch.device("cpu"))
    order_N = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    whole, rest = list(examples.batches(order_N, 8)), list(examples.batches(order_N, 8, start=3))
    for ours, theirs in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in batch)
    assert sorted(torch.cat([part["target_B"] for part in whole]).tolist()) == list(range(40))
    for part in whole:
        own = TEXT.encode(small_texts().take(part["target_B"].numpy()), state)
        assert torch.equal(part["token_S"], own["token_S"])
        assert torch.equal(part["target_S"], own["token_S"] * 2)
    (everything,) = examples.everything()
    assert all(torch.equal(everything[name], batch[name]) for name in batch)


def test_pieces_are_whole_rows(monkeypatch):
    monkeypatch.setattr("learning.packing.EVALUATION_POSITIONS", 30)
    batch = {"token_S": torch.arange(100), "length_B": torch.tensor([10, 20, 31, 4, 35]), "target_B": torch.arange(5)}
    parts = list(pieces(batch))
    assert [part["length_B"].tolist() for part in parts] == [[10, 20], [31], [4], [35]]
    assert torch.equal(torch.cat([part["token_S"] for part in parts]), batch["token_S"])
    assert [len(part["token_S"]) for part in parts] == [30, 31, 4, 35]


def test_hidden_tokens_are_ordinary_ones_in_the_shares_of_bert():
    state = fitted()
    maskable = Maskable.of(state)
    token_S = torch.randint(state.vocabulary, (40_000,), dtype=torch.int32)
    masker = Masker(maskable)
    hidden_S = masker.draw(token_S, 0.3)
    special_S = torch.isin(token_S, torch.tensor(maskable.special))
    assert not (hidden_S & special_S).any()
    assert float(hidden_S[~special_S].float().mean()) == pytest.approx(0.3, abs=0.01)
    shown_S = masker.disguise(token_S, hidden_S)
    assert torch.equal(shown_S[~hidden_S], token_S[~hidden_S])
    assert float((shown_S[hidden_S] == maskable.mask).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown_S[hidden_S] == token_S[hidden_S]).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_whole_words_are_hidden_together():
    words = texts_of(*["able", "believe", "un"] * 3, "unbelieveable", "ablebelieveableun")
    state = fitted("wordpiece", words, vocabulary_size=64)
    batch = TEXT.encode(words, state)
    masker = Masker(Maskable.of(state, whole_words=True))
    starts = torch.tensor(tokenization.word_starts(state.tokenizer))[batch["token_S"].long()]
    word_S = starts.cumsum(0)
    assert (~starts).sum() > 2
    for _ in range(20):
        hidden_S = masker.draw(batch["token_S"], 0.5)
        for word in word_S.unique():
            assert hidden_S[word_S == word].unique().numel() == 1


def test_quick_dropout_keeps_the_mean_and_repeats_itself():
    layer, ones = QuickDropout(0.25), torch.ones(1000, 77)
    torch.manual_seed(5)
    first = layer(ones)
    assert float((first == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert torch.equal(first.unique(), torch.tensor([0, 1 / 0.75]))
    torch.manual_seed(5)
    assert torch.equal(first, layer(ones))
    assert not torch.equal(first, layer(ones))
    assert layer.eval()(ones) is ones


def test_a_base_model_of_another_modality_is_refused(tmp_path):
    text = run(
        spec_of("masked-tokens", "pretrain", hyperparameters={"epochs": 1}),
        {"train": write(small_texts(), tmp_path / "t")},
        tmp_path,
    )
    base = saved(text, tmp_path / "base")
    from runs import small_table

    with pytest.raises(IncompatibleModel, match="learned from text data"):
        run(spec_of("tabular-classification"), {"train": write(small_table(), tmp_path / "n")}, tmp_path, base=base)
    with pytest.raises(InvalidConfig, match='Architecture "mlp" is for tabular data'):
        run(
            spec_of("text-classification", architecture="mlp"),
            {"train": write(small_texts(), tmp_path / "t")},
            tmp_path,
        )


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    table = texts_of("a", "b", "c").append_column("label", [["x"] * 3])
    with pytest.raises(InvalidData, match='only the class "x"'):
        run(spec_of("text-classification"), {"train": write(table, tmp_path / "t")}, tmp_path)


def test_many_long_inputs_are_answered_in_pieces(tmp_path, monkeypatch):
    result = run(
        spec_of("text-classification", hyperparameters={"epochs": 1}),
        {"train": write(small_texts(), tmp_path / "t")},
        tmp_path,
    )
    predictor = Predictor(saved(result, tmp_path / "model"))
    texts = small_texts(30, seed=4).column("text").to_pylist()
    whole = predictor.predict(texts).outputs
    monkeypatch.setattr("learning.packing.EVALUATION_POSITIONS", 40)
    for one, other in zip(predictor.predict(texts).outputs, whole, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize("kind", ["Bert", "MegatronBert"])
def test_a_bert_that_transformers_saved_is_a_base_model(kind, tmp_path):
    state = fitted()
    directory = tmp_path / "theirs"
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=state.vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=20,
    )  # fmt: skip
    torch.manual_seed(3)
    theirs = getattr(transformers, f"{kind}ForMaskedLM")(config).eval()
    theirs.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(state.tokenizer)
    table = small_texts()
    spec = spec_of("text-classification", hyperparameters={"epochs": 1})
    tables = {"train": write(table, tmp_path / "t")}
    prepared = prepare(spec, tables, base=directory, device=torch.device("cpu"))
    batch = TEXT.encode(table, prepared.design.inputs)
    padded = torch.nn.utils.rnn.pad_sequence(
        batch["token_S"].long().split(batch["length_B"].tolist()), batch_first=True
    )
    mask = torch.arange(padded.shape[1]) < batch["length_B"].unsqueeze(1)
    with torch.no_grad():
        hidden_BTD = theirs.bert(padded, attention_mask=mask.long()).last_hidden_state
        features = prepared.network.eval().backbone(batch)
    torch.testing.assert_close(features.features_SD, hidden_BTD[mask], atol=1e-5, rtol=0)
    assert run(spec, tables, tmp_path, base=directory).outcome.finished

    theirs.config.hidden_act = "relu"
    theirs.save_pretrained(directory)
    with pytest.raises(IncompatibleModel, match="hidden_act 'relu'"):
        prepare(spec, tables, base=directory, device=torch.device("cpu"))
    theirs.config.hidden_act = "gelu"
    theirs.save_pretrained(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(IncompatibleModel, match=r"tokenizer\.json"):
        prepare(spec, tables, base=directory, device=torch.device("cpu"))


def test_heads_divide_the_width() -> None:
    with pytest.raises(InvalidConfig, match=r"^architecture_config: 5 heads do not divide the width, 256"):
        configure(BertConfig, {"heads": 5}, "architecture_config")
    for width in range(16, 1024, 16):
        heads = BertConfig(width=width).shape()[2]
        assert width % heads == 0
        assert width % 64 or heads == width // 64


def test_pretraining_measures_a_part_of_many_training_rows(tmp_path):
    texts = [f"number {n} comes after number {n - 1}, and this goes on for {n * n} more" for n in range(3_000)]
    spec = spec_of(
        "masked-tokens", "pretrain", columns={}, split={"validation": 0.1},
        hyperparameters={"max_steps": 2}, preprocessing={"vocabulary_size": 120, "max_length": 32},
    )  # fmt: skip
    metrics = run(spec, {"train": write(pa.table({"text": texts}), tmp_path / "t")}, tmp_path).metrics
    assert metrics["validation"]["rows"] == 300
    assert 1_000 <= metrics["train"]["rows"] < 2_000
