"""The encoder-decoder against Transformers' MarianMTModel: logits, what is remembered, what is written, import."""

import json
import random

import pyarrow as pa
import pytest
import torch
import transformers
from runs import run, saved, spec_of, write

from learning.architectures.seq2seq import Seq2Seq
from learning.errors import IncompatibleModel
from learning.model import load
from learning.prediction import Predictor
from learning.preparation import prepare
from learning.tasks.translation import foretold

CPU = torch.device("cpu")
WORDS = {"one": "一", "two": "二", "three": "三", "four": "四", "five": "五", "six": "六"}


def pairs(rows=120, seed=0):
    draw = random.Random(seed)
    chosen = [draw.choices(list(WORDS), k=draw.randint(1, 5)) for _ in range(rows)]
    return pa.table({"en": [" ".join(some) for some in chosen], "zh": ["".join(map(WORDS.get, s)) for s in chosen]})


def spec(**fields):
    fields = {"hyperparameters": {"epochs": 1, "batch_size": 16}, "preprocessing": {"max_length": 24}, **fields}
    return spec_of("translation", architecture="seq2seq", columns={"text": "en", "target": "zh"}, **fields)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that has learned to write digits in Chinese, with all of its weights moved, in its directory."""
    directory = tmp_path_factory.mktemp("digits")
    chosen = spec(
        hyperparameters={
            "epochs": 60,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "warmup_fraction": 0.2,
            "dropout": 0.0,
        },
        architecture_config={"layers": 2, "decoder_layers": 1, "width": 64, "activation": "swish"},
    )
    result = run(chosen, {"train": write(pairs(), directory / "t.arrow")}, directory)
    assert result.metrics["train"]["exact"] > 0.5
    torch.manual_seed(0)
    for name, weight in result.outcome.weights.items():
        weight.add_(torch.randn_like(weight), alpha=0.1 if name.endswith("bias") else 0.01)
    return saved(result, directory / "model")


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model)


@pytest.fixture(scope="module")
def theirs(model):
    opened, told = transformers.AutoModelForSeq2SeqLM.from_pretrained(model, output_loading_info=True)
    assert type(opened) is transformers.MarianMTModel
    assert told["unexpected_keys"] == set()
    assert not {name for name in told["missing_keys"] if "embed" not in name and "lm_head" not in name}
    return opened.eval()


def drawn(predictor, *lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    most = predictor.design.inputs.vocabulary
    return [torch.randint(5, most, (length,), generator=generator).tolist() for length in lengths]


def packed(sources, targets):
    rows = [source + target for source, target in zip(sources, targets, strict=True)]
    return {
        "token_S": torch.tensor([token for row in rows for token in row]),
        "target_S": torch.tensor(
            [token for s, t in zip(sources, targets, strict=True) for token in [-100] * len(s) + t]
        ),
        "length_B": torch.tensor([len(row) for row in rows]),
        "source_length_B": torch.tensor([len(source) for source in sources]),
    }


def padded(rows):
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def test_logits_are_transformers_s(predictor, theirs):
    sources = drawn(predictor, 7, 3, 7, 1, 12, 3)
    targets = [[0, *row] for row in drawn(predictor, 2, 9, 0, 4, 11, 4)]
    mask_BT = torch.tensor([[1] * len(row) + [0] * (12 - len(row)) for row in sources])
    with torch.no_grad():
        logits_UV, target_U, length_B = foretold(predictor.network, packed(sources, targets))
        together = theirs(padded(sources), attention_mask=mask_BT, decoder_input_ids=padded(targets)).logits
        pairs_of_rows = zip(sources, targets, strict=True)
        alone = [theirs(torch.tensor([s]), decoder_input_ids=torch.tensor([t])).logits[0] for s, t in pairs_of_rows]
    assert target_U.tolist() == [token for row in targets for token in row]
    assert length_B.tolist() == [len(row) for row in targets]
    parts = logits_UV.split(length_B.tolist())
    for row, ours in enumerate(parts):
        torch.testing.assert_close(ours, together[row, : len(ours)], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours, alone[row], atol=1e-5, rtol=0)


def test_what_is_remembered_gives_the_features_of_reading_anew(predictor):
    backbone = predictor.network.backbone
    sources, written = drawn(predictor, 5, 2, 5, 9, 1), [[0] for _ in range(5)]
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        memory = backbone.remember()
        features_BD = backbone.begin(sources[:3], memory)
        rows = [0, 1, 2]
        for step in range(6):
            batch = packed([sources[row] for row in rows], [written[place] for place in range(len(rows))])
            torch.testing.assert_close(features_BD, backbone(batch).last(), atol=1e-5, rtol=0)
            if step in (1, 4):  # one leaves, and another has two beginnings
                kept = [2, 2, 0] if step == 1 else [3, 0, 4, 1]
                memory.select(kept)
                rows, written = [rows[place] for place in kept], [written[place] for place in kept]
            if step == 2:  # others come
                backbone.begin(sources[3:], memory)
                rows, written = [*rows, 3, 4], [*written[:3], [0], [0]]
            token_B = torch.randint(5, 20, (len(rows),), generator=generator)
            written = [[*row, token] for row, token in zip(written, token_B.tolist(), strict=False)]
            features_BD = backbone.step(token_B, memory)


@pytest.mark.parametrize("options", [{}, {"beam_width": 4}, {"beam_width": 3, "length_penalty": 2.5}])
def test_what_is_written_is_transformers_s(predictor, theirs, model, options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = pairs(12, seed=3).column("en").to_pylist()
    ours = predictor.predict(texts, predictor.options({**options, "max_new_tokens": 9})).outputs
    banned = [[token] for token in predictor.design.targets.banned]
    read = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs.generate(
            input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=9, bad_words_ids=banned,
            num_beams=options.get("beam_width", 1), length_penalty=options.get("length_penalty", 1.0),
            early_stopping=False, do_sample=False,
        )  # fmt: skip
    assert [one["translation"] for one in ours] == [tokenizer.decode(row, skip_special_tokens=True) for row in found]


@pytest.fixture
def foreign(theirs, model, tmp_path):
    """What Transformers saves that has never heard of us."""
    directory = tmp_path / "theirs"
    own = Seq2Seq().foreign_config(load(model)[0].architecture_config, load(model)[0].inputs)
    config = transformers.MarianConfig(
        **{name: own[name] for name in own if name not in ("model_type", "architectures")}
    )
    other = transformers.MarianMTModel(config)
    other.load_state_dict(theirs.state_dict())
    other.save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(directory)
    return directory


def test_a_foreign_directory_is_a_base_model(foreign, model, tmp_path):
    tables = {"train": write(pairs(), tmp_path / "t.arrow")}
    found = prepare(spec(), tables, base=foreign, device=CPU).network.state_dict()
    weights = load(model)[1]
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation_function": "tanh"}, "activation_function 'tanh'"),
        ({"encoder_ffn_dim": 77}, "encoder_ffn_dim 77"),
        ({"decoder_attention_heads": 7}, "decoder_attention_heads 7"),
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ({"decoder_start_token_id": 3}, "decoder_start_token_id 3"),
        ({"vocab_size": 999}, "999"),
        ({"encoder_layers": 4}, "encoder.layers.2"),
    ],
)
def test_what_does_not_fit_is_said(foreign, tmp_path, change, said):
    path = foreign / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    tables = {"train": write(pairs(), tmp_path / "t.arrow")}
    with pytest.raises(IncompatibleModel) as caught:
        prepare(spec(), tables, base=foreign, device=CPU)
    assert said in caught.value.message
