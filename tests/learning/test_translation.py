"""Translations: scores as sacrebleu has them, pairs that do not fit, how far a text goes, noise for pretraining."""

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu
import torch
from pydantic import ValidationError
from runs import run, saved, spec_of, write

from learning.config import Columns
from learning.errors import InvalidConfig, InvalidData, UnknownName
from learning.modalities.text import Text, TextConfig
from learning.prediction import Predictor
from learning.preparation import prepare
from learning.product_rows import NO_TARGET
from learning.tasks import beam_search
from learning.tasks.denoising import Denoising, DenoisingConfig, noised
from learning.tasks.generation import Language
from learning.translation_scores import bleu, chrf

CPU = torch.device("cpu")
ENGLISH = [f"Tom has {n} cats, and I've {n + 1.5}-odd “dogs”…" for n in range(20)] + ["No.", "Is it?"]
CHINESE = [f"汤姆有{n}只猫\uff0c我有{n + 1.5}只狗……好的 OK" for n in range(20)] + ["不。", "是吗\uff1f"]
RARE = "".join(map(chr, range(0x4E00, 0x4E28)))  # characters that occur once are three tokens each


def table(sources=ENGLISH, targets=CHINESE):
    return pa.table({"en": pa.array(sources), "zh": pa.array(targets)})


def made(tmp_path, rows, **fields):
    fields = {"columns": {"text": "en", "target": "zh"}, **fields}
    fields["preprocessing"] = {"max_length": 64, **fields.get("preprocessing", {})}
    spec = spec_of("translation", architecture="seq2seq", **fields)
    return spec, {"train": write(rows, tmp_path / "t.arrow")}


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_scores_are_sacrebleu_s(texts):
    draw = np.random.default_rng(0)
    found = [text[: draw.integers(0, len(text) + 1)] + texts[(row + 1) % 20][:5] for row, text in enumerate(texts)]
    for some, wanted in ((found, texts), (found[:1], texts[:1]), (texts, texts), (["x"], texts[:1]), ([""], ["a b"])):
        assert chrf(some, wanted) == pytest.approx(sacrebleu.corpus_chrf(some, [wanted]).score)
        theirs = sacrebleu.corpus_bleu(some, [wanted], tokenize="zh").score
        assert bleu(some, wanted) == pytest.approx(theirs)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    exactly = {"epochs": 60, "batch_size": 8, "learning_rate": 5e-3, "dropout": 0.0}
    spec, tables = made(directory, table(), hyperparameters=exactly, task_config={"label_smoothing": 0.0})
    return run(spec, tables, directory)


@pytest.fixture(scope="module")
def predictor(result, tmp_path_factory):
    return Predictor(saved(result, tmp_path_factory.mktemp("model")))


def ask(predictor, *texts, **options):
    return predictor.predict(list(texts), predictor.options(options))


def test_metrics_are_of_what_it_answers(result, predictor):
    measured = result.metrics["train"]
    answers = [one["translation"] for one in ask(predictor, *ENGLISH).outputs]
    assert measured["translated_rows"] == 22
    assert measured["exact"] == sum(map(str.__eq__, answers, CHINESE)) / 22 > 0.5
    assert measured["chrf"] == pytest.approx(chrf(answers, CHINESE))
    assert measured["bleu"] == pytest.approx(bleu(answers, CHINESE))


def test_a_beam_finds_what_is_at_least_as_likely_and_nobody_disturbs_others(predictor):
    greedy = ask(predictor, *ENGLISH[:6]).outputs
    beams = ask(predictor, *ENGLISH[:6], beam_width=5, length_penalty=0).outputs
    for one, other in zip(greedy, beams, strict=True):
        lengths = [found["target_tokens"] + (found["finish_reason"] == "stop") for found in (one, other)]
        logs = [np.log(found["score"]) * n for found, n in zip((one, other), lengths, strict=True)]
        assert logs[1] >= logs[0] - 1e-5
    # Texts with beams of different widths, and limits of their own, together.
    asked = [predictor.options({"beam_width": n % 3 + 1, "max_new_tokens": 3 * n + 1}) for n in range(6)]
    rows = [option.asked(row) for option, row in zip(asked, predictor.parse(ENGLISH[:6]).rows, strict=True)]
    together = predictor.answer(rows)
    apart = [predictor.answer([row])[0] for row in rows]
    assert [one["translation"] for one in together] == [one["translation"] for one in apart]


def test_steps_let_texts_leave_and_join(predictor):
    rows = [
        predictor.options({"beam_width": n}).asked(row) for n, row in enumerate(predictor.parse(ENGLISH[:3]).rows, 1)
    ]
    with predictor.computing():
        steps = predictor.steps()
        first, gone = steps.join(rows[:2])
        assert steps.step() == []
        steps.leave([gone])
        (late,) = steps.join(rows[2:])
        pieces = []
        while not (first.is_done and late.is_done):
            steps.step()
            pieces.append(first.fresh())
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces) == first.answer()["translation"]
    for text, row in ((first, rows[0]), (late, rows[2])):
        assert text.answer() == pytest.approx(predictor.answer([row])[0])


def test_a_text_ends_where_it_must(predictor):
    (short,) = ask(predictor, ENGLISH[3], max_new_tokens=2).outputs
    assert (short["target_tokens"], short["finish_reason"]) == (2, "length")
    assert ask(predictor, ENGLISH[3], beam_width=3, max_new_tokens=2).outputs[0]["target_tokens"] <= 2
    (most,) = ask(predictor, ENGLISH[3], max_new_tokens=100_000).outputs
    assert most["target_tokens"] < 64
    served = ask(predictor, "Tom has " * 100, "", 5)
    assert [(warning.index, warning.code) for warning in served.warnings] == [(0, "truncated")]
    assert served.outputs[0]["source_tokens"] == 64
    assert [error.index for error in served.errors] == [1, 2]


def test_what_never_ends_is_cut_where_targets_have_long_ended(tmp_path):
    spec, tables = made(tmp_path, table(), hyperparameters={"max_steps": 2, "batch_size": 8})
    predictor = Predictor(saved(run(spec, tables, tmp_path / "job"), tmp_path / "model"))
    read, opened = predictor.parse(ENGLISH).rows, predictor.design.inputs.opened
    ratios = sorted(
        len(opened.encode(zh, add_special_tokens=False).tokens) / len(row.tokens)
        for row, zh in zip(read, CHINESE, strict=True)
    )
    ratio = predictor.design.targets.longest_ratio
    assert ratios[-2] < ratio < ratios[-1]
    (usual,) = ask(predictor, ENGLISH[3]).outputs
    most = int(np.ceil(ratio * len(read[3].tokens))) + 10
    assert (usual["target_tokens"], usual["finish_reason"]) == (most, "length")
    (longer,) = ask(predictor, ENGLISH[3], max_new_tokens=60).outputs
    assert longer["target_tokens"] == 60 > most


@pytest.mark.parametrize(("asked", "written"), [(None, [7]), (3, [8, 8, 8])])
def test_what_ends_is_preferred_to_what_goes_round_in_circles(predictor, asked, written):
    language = Language(predictor.design.inputs.opened, 3, [], 64)
    options = beam_search.BeamOptions(beam_width=2, max_new_tokens=asked)
    text = beam_search.Translating(beam_search.Source([5, 6], 3, options), language)
    end, circle, other = 3, (8, -0.1), (7, -1.0)
    text.advance([[circle, other, (9, -3.0), (10, -3.0)]])
    text.advance([[circle, (9, -4.0), (10, -4.0), (11, -4.0)], [(end, -0.5), (9, -6.0), (10, -6.0), (11, -6.0)]])
    assert not text.is_done
    text.advance([[circle, (end, -9.0), (9, -9.0), (10, -9.0)]] * 2)
    assert text.is_done
    assert text.answer()["target_tokens"] == len(written)
    assert text.ended[0].tokens == written


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"beam_width": 0}, "beam_width"), ({"beam_width": 1_000}, "beam_width"), ({"length_penalty": -1}, "length"),
        ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": 1}, "temperature"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(predictor, options, param):
    with pytest.raises(InvalidConfig) as caught:
        predictor.options(options)
    assert (caught.value.param or "").startswith(f"parameters.{param}")


def test_a_beam_that_takes_too_much_memory_is_refused(predictor, monkeypatch):
    bytes_ = predictor.network.backbone.position_bytes * (64 + 63)
    monkeypatch.setattr(beam_search, "_MOST_BYTES_ALONE", 9 * bytes_)
    assert ask(predictor, ENGLISH[3], beam_width=9).errors == []
    with pytest.raises(InvalidConfig, match="10 beginnings of up to 127 tokens") as caught:
        predictor.options({"beam_width": 10})
    assert "at most 9, or for fewer" in (caught.value.hint or "")
    assert predictor.options({"beam_width": 10, "max_new_tokens": 40}) is not None
    monkeypatch.setattr(beam_search, "_MOST_BYTES_ALONE", 1)
    assert ask(predictor, ENGLISH[3], length_penalty=1).errors == []  # without a beam always


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (table(["a", " "], ["b", "c"]), {}, 'Row 2, column "en": the text is empty'),
        (table(["a", "b"], ["c", None]), {}, 'Row 2, column "zh": the text is empty'),
        (table(["a", "b"], ["c", ""]), {}, 'Row 2, column "zh": the text is empty'),
        (table(["a", "b"], ["c", RARE]), {}, 'Row 2, column "zh": the target has'),
        (pa.table({"en": ["a"], "zh": [1]}), {}, 'Column "zh" holds int64 values, which are no text'),
        (table(), {"columns": {"text": "en", "target": "cn"}}, 'Column "cn" not found'),
        (table(), {"columns": {"text": "eng", "target": "zh"}}, 'Column "eng" not found'),
        (table(), {"columns": {"text": "en"}}, "translation predicts exactly one column"),
        (table(), {"columns": {"text": "en", "targets": ["zh", "zh"]}}, "translation predicts exactly one column"),
        (table(), {"preprocessing": {"tokenizer": "wordpiece"}}, "pieces of words say nothing of the spaces"),
        (table(), {"architecture": "gpt"}, 'Architecture "gpt" cannot learn the task "translation"'),
    ],
)
def test_what_cannot_be_learned_is_said(rows, fields, message, tmp_path):
    spec, tables = made(tmp_path, rows)
    spec = spec.model_copy(
        update={**fields, "columns": Columns(**fields["columns"])} if "columns" in fields else fields
    )
    with pytest.raises((InvalidConfig, InvalidData, UnknownName)) as caught:
        prepare(spec, tables, device=CPU)
    assert message in caught.value.message


def test_a_column_cannot_be_source_and_target():
    with pytest.raises(ValidationError, match='column "en" is to be predicted'):
        Columns(text="en", target="en")


def test_cut_sources_and_columns_that_are_not_read_are_told(tmp_path):
    rows = table([RARE, "b"], ["c", "d"]).append_column("note", pa.array(["x", "y"]))
    spec, tables = made(tmp_path, rows)
    warnings = " ".join(prepare(spec, tables, device=CPU).warnings)
    assert "1 of 2 training rows have more than 64 tokens" in warnings
    assert "these columns are not used: note" in warnings


def test_noise_takes_a_share_out_and_the_whole_text_is_to_be_written():
    rows = pa.table({"text": ENGLISH + CHINESE})
    state = Text().fit(rows, Columns(), TextConfig(tokenizer="bytes", exact=True, vocabulary_size=400))
    task = Denoising()
    config = DenoisingConfig(mask_share=0.4)
    fitted = task.fit(rows, Columns(), config, state)
    batch = Text().encode(rows, state)
    whole = [row.tolist() for row in batch["token_S"].split(batch["length_B"].tolist())]
    gone = masks = 0
    for seed in range(20):
        torch.manual_seed(seed)
        pairs = noised(batch, fitted)
        tokens, targets = (pairs[name].split(pairs["length_B"].tolist()) for name in ("token_S", "target_S"))
        for row, length, text, target in zip(whole, pairs["source_length_B"].tolist(), tokens, targets, strict=True):
            source, written = text[:length].tolist(), text[length:].tolist()
            assert (source[0], source[-1]) == (row[0], row[-1])
            assert length <= len(row)
            assert written == [fitted.begin, *row[1:-1]]
            assert target.tolist() == [*[NO_TARGET] * length, *row[1:]]
            left = [token for token in source if token != fitted.mask]
            places = iter(row)
            assert all(token in places for token in left)  # in order, and nothing is made up
            gone += len(row) - len(left)
            masks += len(source) - len(left)
    total = 20 * (int(batch["length_B"].sum()) - 2 * len(whole))
    assert 0.3 < gone / total < 0.4  # some masks stand where nothing was, and stretches overlap
    assert 2 < gone / masks < 4
    torch.manual_seed(19)
    assert torch.equal(noised(batch, fitted)["token_S"], pairs["token_S"])
