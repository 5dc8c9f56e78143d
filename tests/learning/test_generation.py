"""Texts that go on: blocks that lose nothing, the network against Transformers' own, how texts are drawn and end."""

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from runs import run, saved, spec_of, write

from learning.config import Columns
from learning.errors import InvalidConfig, InvalidData, InvalidInput
from learning.modalities import tokenization
from learning.modalities.text import Text, TextConfig
from learning.prediction import Predictor
from learning.preparation import prepare
from learning.tasks import text_blocks
from learning.tasks.sampling import GenerationOptions, choose

TEXT = Text()
LINES = ["First Citizen:", "Before we proceed, hear  me.", "", "All:", "Speak, speak. \u00e9 e\u0301", ""] * 4
EXACT = {"lower_case": False, "exact": True}
CPU = torch.device("cpu")


def lines(*texts):
    return pa.table({"text": pa.array(texts)})


def fitted(kind, table, **options):
    return TEXT.fit(table, Columns(), TextConfig(tokenizer=kind, **{**EXACT, "max_length": 16, **options}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that has learned the lines, in its directory."""
    directory = tmp_path_factory.mktemp("lines")
    spec = spec_of(
        "next-token-prediction", "pretrain", architecture="gpt", columns={},
        hyperparameters={"epochs": 60, "learning_rate": 1e-2, "batch_size": 8},
        preprocessing={"tokenizer": "characters", "max_length": 16},
    )  # fmt: skip
    result = run(spec, {"train": write(lines(*LINES * 3), directory / "t.arrow")}, directory)
    assert result.metrics["train"]["accuracy"] > 0.9
    return saved(result, directory / "model")


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


def packed(rows):
    tokens = [token for row in rows for token in row]
    return {"token_S": torch.tensor(tokens), "length_B": torch.tensor([len(row) for row in rows])}


def ask(predictor, *prompts, **options):
    served = predictor.predict(list(prompts), predictor.options(options))
    assert served.errors == []
    return served.outputs


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_blocks_give_the_very_text_back_and_count_its_characters(kind):
    table = lines(*LINES)
    state = fitted(kind, table)
    parts = list(text_blocks.cut(table, state, "lines", CPU).everything())
    tokens = torch.cat([part["target_S"] for part in parts]).tolist()
    assert state.opened.decode(tokens) == "\n".join(LINES)
    assert torch.cat([part["target_characters_B"] for part in parts]).sum() == len("\n".join(LINES))
    inputs = torch.cat([part["token_S"] for part in parts]).tolist()
    assert inputs == [state.token(tokenization.FIRST), *tokens[:-1]]


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_transformers_goes_on_with_documents(kind, tmp_path):
    """Each begins with a token of its own, which the exported tokenizer puts there, with none behind."""
    spec = spec_of(
        "next-token-prediction", "pretrain", architecture="gpt", columns={}, task_config={"rows": "documents"},
        hyperparameters={"epochs": 40, "learning_rate": 1e-2, "batch_size": 8},
        preprocessing={"tokenizer": kind, "max_length": 32},
    )  # fmt: skip
    table = lines(*[f"q{n}: the answer is {n * n}." for n in range(8)] * 4)
    result = run(spec, {"train": write(table, tmp_path / "t.arrow")}, tmp_path)
    directory = saved(result, tmp_path / "model")
    prompts = ["q3:", "q5: the", "q1: the answer"]
    found = [one["text"] for one in ask(Predictor(directory), *prompts, max_new_tokens=9)]
    assert continued_by(directory, prompts, 9) == found
    theirs, tokenizer = (of.from_pretrained(directory) for of in (transformers.AutoModel, transformers.AutoTokenizer))
    predictor = Predictor(directory)
    with torch.no_grad():
        for text, answer in zip(prompts, predictor.embed(predictor.parse(prompts).rows), strict=True):
            features_TD = theirs.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            torch.testing.assert_close(torch.tensor(answer["embedding"]), features_TD.mean(0), atol=1e-5, rtol=0)
    assert "ans" in found[0]


def test_documents_stand_apart():
    table = lines("one\ntwo", "three")
    state = fitted("bytes", table)
    assert text_blocks.rows_of(table, "text") == "documents"
    (part,) = text_blocks.cut(table, fitted("bytes", table, max_length=64), "documents", CPU).everything()
    first, last = state.token(tokenization.FIRST), state.token(tokenization.LAST)
    assert part["token_S"].tolist().count(first) == 2
    assert part["target_S"].tolist().count(last) == 2
    assert part["target_characters_B"].tolist() == [12]


def test_every_pass_cuts_elsewhere_and_can_start_at_any_batch():
    draw = np.random.default_rng(0)
    table = lines(*("".join(draw.choice(list("abcdefgh"), 30)) for _ in range(80)))
    blocks = text_blocks.cut(table, fitted("characters", table), "lines", CPU)
    orders = [torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    passes = [list(blocks.batches(order, 8)) for order in orders]
    begins = [{tuple(row.tolist()) for part in some for row in part["token_S"].view(-1, 16)} for some in passes]
    assert len(begins[0] & begins[1]) < len(begins[0]) / 2
    for part in passes[0]:
        shifted = part["token_S"].view(-1, 16)[:, 1:], part["target_S"].view(-1, 16)[:, :-1]
        assert torch.equal(*shifted)
    rest = list(blocks.batches(orders[0], 8, start=2))
    for ours, theirs in zip(passes[0][2:], rest, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def continued_by(model, texts, most):
    """How Transformers goes on with texts, as its pages say that it is asked."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    found = []
    for text in texts:
        prompt = tokenizer(text, return_tensors="pt")
        read = {"input_ids": prompt.input_ids, "attention_mask": prompt.attention_mask}
        written = theirs.generate(**read, max_new_tokens=most, do_sample=False)
        found.append(tokenizer.decode(written[0, prompt.input_ids.shape[1] :], skip_special_tokens=True))
    return found


def test_transformers_opens_the_model_and_agrees(model, predictor):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    assert type(theirs) is transformers.GPT2LMHeadModel
    state, network = predictor.design.inputs, predictor.network
    texts = ["First", "All:\nSpeak, spe", "B", "hear  me.\n\n"]
    rows = [state.opened.encode(text, add_special_tokens=False).ids for text in texts]
    batch = packed(rows)
    with torch.no_grad():
        logits_SV = network.head(network.backbone(batch).features_SD, network.backbone.embedding_VD)
        alone = torch.cat([theirs(torch.tensor([row])).logits[0] for row in rows])
        width = max(map(len, rows))
        mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        padded_BT = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        padded = theirs(padded_BT, attention_mask=mask_BT).logits[mask_BT.bool()]
    torch.testing.assert_close(logits_SV, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits_SV, padded, atol=1e-5, rtol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    assert [tokenizer(text).input_ids for text in texts] == rows
    texts.remove("All:\nSpeak, spe")  # behind which there is room for one token only
    assert continued_by(model, texts, 2) == [one["text"] for one in ask(predictor, *texts, max_new_tokens=2)]


def test_what_is_remembered_gives_the_features_of_reading_anew(predictor):
    backbone = predictor.network.backbone
    rows = [[7, 8, 9, 6], [5], [9, 9, 8, 7, 6, 5, 8]]
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        cache = backbone.remember()
        features_BD = backbone.begin(rows, cache)
        for step in range(5):
            anew = backbone(packed(rows))
            torch.testing.assert_close(features_BD, anew.last(), atol=1e-5, rtol=0)
            if step == 1:  # others leave
                assert cache.keep([1, 2]) == [2, 1]
                rows = [rows[2], rows[1]]
            if step == 3:  # and others come, behind those that are there
                rows = [*rows, [8, 5, 6], [7]]
                backbone.begin(rows[2:], cache)
            token_B = torch.randint(5, 10, (len(rows),), generator=generator)
            rows = [[*row, token] for row, token in zip(rows, token_B.tolist(), strict=True)]
            features_BD = backbone.step(token_B, cache)


def test_it_goes_on_with_what_it_learned_and_never_further_than_it_can_read(predictor):
    (one,) = ask(predictor, "First Cit")
    assert one == {"text": "izen:\nB", "finish_reason": "length", "prompt_tokens": 9, "completion_tokens": 7}
    assert ask(predictor, "First Cit", max_new_tokens=3)[0]["text"] == "ize"
    (empty,) = ask(predictor, "", max_new_tokens=100_000)
    assert (empty["prompt_tokens"], empty["completion_tokens"]) == (1, 15)
    served = predictor.predict(["First Citizen:\nBefore we proceed", "First \u2603"])
    assert served.outputs[0]["text"].startswith(", he")
    assert [(warning.index, warning.code) for warning in served.warnings] == [
        (0, "truncated"),
        (1, "unknown_characters"),
    ]


def test_together_in_any_order_is_alone(predictor):
    prompts = ["First", "", "Before we", "All:", "S", "hear  me.\n"]
    together = ask(predictor, *prompts, max_new_tokens=9)
    assert together == [ask(predictor, prompt, max_new_tokens=9)[0] for prompt in prompts]
    drawn = ask(predictor, *prompts, temperature=1.5, seed=3)
    assert drawn == [ask(predictor, prompt, temperature=1.5, seed=3)[0] for prompt in prompts]


def test_the_same_seed_draws_the_same_text(predictor):
    drawn = [ask(predictor, "F", temperature=3, seed=seed)[0]["text"] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    free = {ask(predictor, "F", temperature=3)[0]["text"] for _ in range(6)}
    assert len(free) > 1


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [("en", "iz", "stop"), (["x", "zen:\n"], "i", "stop"), (["n", "ize"], "", "stop"), ("Z", "izen:\nB", "length")],
)
def test_a_text_ends_before_a_stop_string(predictor, stop, text, reason):
    (one,) = ask(predictor, "First Cit", stop=stop)
    assert (one["text"], one["finish_reason"]) == (text, reason)


def test_draws_have_the_probabilities_that_were_asked_for():
    logits_V = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()

    def shares(**options):
        asked, generator = GenerationOptions(temperature=1, **options), torch.Generator().manual_seed(0)
        drawn = [choose(logits_V, [0], asked, generator) for _ in range(4_000)]
        return np.bincount(drawn, minlength=4) / 4_000

    np.testing.assert_allclose(shares(), [0.5, 0.25, 0.15, 0.1], atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.8), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.5), [1, 0, 0, 0])
    cold = GenerationOptions(temperature=0.5)
    drawn = [choose(logits_V, [], cold, torch.Generator().manual_seed(seed)) for seed in range(2_000)]
    np.testing.assert_allclose(np.bincount(drawn)[0] / 2_000, 0.25 / 0.345, atol=0.04)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[0]]), logits_V[None])[0].softmax(0)
    np.testing.assert_allclose(shares(repetition_penalty=2.0), theirs, atol=0.03)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"),
        ({"top_k": 0}, "top_k"), ({"temperature": 0.001}, "temperature"), ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"), ({"seed": -1}, "seed"), ({"top_q": 1}, "top_q"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(predictor, options, param):
    with pytest.raises(InvalidConfig) as caught:
        predictor.options(options)
    assert (caught.value.param or "").startswith(f"parameters.{param}")


def test_only_completions_are_learned_and_they_end(tmp_path):
    prompts = [f"{a} plus {b} is " for a in range(4) for b in range(4)]
    answers = [str(a + b) for a in range(4) for b in range(4)]
    # Twice: a character that occurs once is unknown.
    table = pa.table({"prompt": prompts * 2, "completion": answers * 2})
    spec = spec_of(
        "text-generation", architecture="gpt", columns={"text": "prompt", "target": "completion"},
        hyperparameters={"epochs": 150, "learning_rate": 5e-3, "dropout": 0.0, "batch_size": 8},
        preprocessing={"tokenizer": "characters", "max_length": 20},
    )  # fmt: skip
    result = run(spec, {"train": write(table, tmp_path / "t.arrow")}, tmp_path)
    (batch,) = result.prepared.train.everything()
    assert int((batch["target_S"] >= 0).sum()) == 2 * 32
    assert int(batch["target_characters_B"].sum()) == 32
    directory = saved(result, tmp_path / "model")
    served = ask(Predictor(directory), *prompts)
    assert [one["text"] for one in served] == answers
    assert {one["finish_reason"] for one in served} == {"stop"}
    assert continued_by(directory, prompts, 4) == answers
    # What only reads texts finds the end of each, as before.
    beginning, end = (result.prepared.design.inputs.token(name) for name in (tokenization.FIRST, tokenization.LAST))
    read = transformers.AutoTokenizer.from_pretrained(directory)(prompts[0]).input_ids
    assert (read[0], end in read) == (beginning, False)
    spec = spec_of("text-classification", architecture="gpt", columns={"text": "prompt", "target": "completion"},
                   hyperparameters={"epochs": 1})  # fmt: skip
    classes = run(spec, {"train": tmp_path / "t.arrow"}, tmp_path / "b", base=directory)
    again = transformers.AutoTokenizer.from_pretrained(saved(classes, tmp_path / "classes"))
    assert again(prompts[0]).input_ids == [*read, end]


@pytest.mark.parametrize(
    ("fields", "table", "message"),
    [
        ({"architecture": "bert"}, lines("a b"), 'Architecture "bert" cannot learn the task'),
        ({"preprocessing": {"tokenizer": "wordpiece"}}, lines("a b"), "pieces of words say nothing of the spaces"),
        ({}, lines(""), "There is no text to learn from"),
        ({}, lines("a", None), 'Row 2, column "text"'),
        ({"columns": {"text": "text", "target": "n"}}, pa.table({"text": ["a"], "n": [1]}), 'Column "n" holds int64'),
        (
            {"columns": {"text": "text", "target": "b"}}, pa.table({"text": ["a", "b"], "b": ["c", "c" * 40]}),
            'Row 2, column "b": the completion has 40 tokens',
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_said(fields, table, message, tmp_path):
    fields = {
        "architecture": "gpt", "columns": {}, **fields,
        "preprocessing": {"tokenizer": "characters", "max_length": 16, **fields.get("preprocessing", {})},
    }  # fmt: skip
    with pytest.raises((InvalidConfig, InvalidData)) as caught:
        prepare(spec_of("text-generation", **fields), {"train": write(table, tmp_path / "t.arrow")}, device=CPU)
    assert message in caught.value.message


def test_a_frozen_backbone_leaves_nothing_to_train(tmp_path):
    spec = spec_of(
        "text-generation", architecture="gpt", columns={}, hyperparameters={"backbone_learning_rate_factor": 0.0}
    )
    with pytest.raises(InvalidConfig, match="nothing to train") as caught:
        run(spec, {"train": write(lines(*LINES), tmp_path / "t.arrow")}, tmp_path)
    assert caught.value.param == "hyperparameters.backbone_learning_rate_factor"


def test_what_is_no_beginning_is_named(predictor):
    served = predictor.predict(["First", 7])
    assert [type(error) for error in served.errors] == [InvalidInput]
    assert served.outputs[1] is None


def test_the_last_lines_are_held_out(tmp_path):
    table = lines(*[f"line {number}" for number in range(200)])
    spec = spec_of(
        "next-token-prediction", "pretrain", architecture="gpt", columns={}, preprocessing={"max_length": 64}
    )
    prepared = prepare(spec, {"train": write(table, tmp_path / "t.arrow")}, device=CPU)
    parts = list(prepared.validation.everything())
    tokens = torch.cat([part["target_S"] for part in parts]).tolist()
    text = prepared.design.inputs.opened.decode(tokens)
    assert text == "\n".join(f"line {number}" for number in range(160, 200))
