"""BART's layout against Transformers' BartForConditionalGeneration: logits, what is written, import and export."""

import json
import random

import pyarrow as pa
import pytest
import torch
import transformers
from foreign_models import SENTENCES, changed, contents, reweighted, small_bart, without, zipped
from runs import run, saved, spec_of, write

from learning.errors import InvalidModel
from learning.modalities import tokenization
from learning.model import load, save
from learning.model_import import import_model
from learning.prediction import Predictor
from learning.tasks.translation import foretold


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_bart(tmp_path_factory.mktemp("bart"))


def imported(content, directory):
    directory.mkdir(exist_ok=True)
    (directory / "model.zip").write_bytes(zipped(content))
    return import_model(directory / "model.zip", "model.zip", directory / "work")


@pytest.fixture(scope="module")
def found(small, tmp_path_factory):
    return imported(small[0], tmp_path_factory.mktemp("found"))


def packed(sources, targets):
    pairs = list(zip(sources, targets, strict=True))
    return {
        "token_S": torch.tensor([token for source, target in pairs for token in [*source, *target]]),
        "target_S": torch.tensor([token for source, target in pairs for token in [-100] * len(source) + target]),
        "length_B": torch.tensor([len(source) + len(target) for source, target in pairs]),
        "source_length_B": torch.tensor([len(source) for source in sources]),
    }


def padded(rows):
    width = max(map(len, rows))
    return torch.tensor([row + [1] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("scale", [False, True])
def test_logits_are_transformers_s(tmp_path, scale):
    files, theirs = small_bart(tmp_path / "bart", scale_embedding=scale)
    found = imported(files, tmp_path / "found")
    assert (found.model_type, found.design.task.name, found.warnings) == ("bart", "denoising", [])
    network = found.design.build().eval()
    network.load_state_dict(found.weights)
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randint(5, 200, (length,), generator=generator).tolist() for length in (7, 3, 40, 1, 7)]
    targets = [[2, *torch.randint(5, 200, (length,), generator=generator).tolist()] for length in (2, 9, 0, 39, 4)]
    mask_BT = torch.tensor([[1] * len(row) + [0] * (40 - len(row)) for row in sources])
    with torch.no_grad():
        logits_UV, _, length_B = foretold(network, packed(sources, targets))
        together = theirs(padded(sources), attention_mask=mask_BT, decoder_input_ids=padded(targets)).logits
        alone = [
            theirs(torch.tensor([s]), decoder_input_ids=torch.tensor([t])).logits[0]
            for s, t in zip(sources, targets, strict=True)
        ]
    for row, ours in enumerate(logits_UV.split(length_B.tolist())):
        assert (ours - together[row, : len(ours)]).abs().max() < 1e-5
        assert (ours - alone[row]).abs().max() < 1e-5
        assert ours.abs().max() > 0.5  # they say something


def test_a_vocabulary_with_merges_is_read_as_transformers_reads_it(small, found, tmp_path):
    for name, content in small[0].items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.BartTokenizer.from_pretrained(tmp_path)
    state = found.design.inputs
    for text in (*SENTENCES, "A Card,  two spaces", "汇率"):
        assert tokenization.encode_one(state.opened, text, 99)[0] == theirs(text).input_ids
    roles = [state.token(name) for name in tokenization.SPECIAL]
    assert roles == [theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id, 4]


def test_what_is_saved_opens_as_bart_with_the_same_weights(small, found, tmp_path):
    save(found.design, found.weights, tmp_path)
    opened, told = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(opened) is transformers.BartForConditionalGeneration
    assert told["unexpected_keys"] == set()
    assert not {name for name in told["missing_keys"] if "embed_tokens" not in name and "lm_head" not in name}
    before = small[1].state_dict()
    assert all(torch.equal(before[name], weight) for name, weight in opened.state_dict().items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.mask_token) == ("<pad>", "</s>", "<mask>")
    again = imported(contents(tmp_path), tmp_path / "again")
    assert all(torch.equal(again.weights[name], weight) for name, weight in found.weights.items())


@pytest.fixture(scope="module")
def tuned(found, tmp_path_factory):
    """A model that was finetuned from the imported one, to write the last word of a sentence."""
    directory = tmp_path_factory.mktemp("tuned")
    save(found.design, found.weights, directory / "base")
    draw = random.Random(0)
    rows = [draw.choice(SENTENCES) for _ in range(60)]
    table = pa.table({"en": rows, "word": [row.split(" is ")[1].split(",")[0] for row in rows]})
    spec = spec_of(
        "translation", architecture="seq2seq", columns={"text": "en", "target": "word"}, preprocessing={},
        hyperparameters={"epochs": 40, "batch_size": 10, "learning_rate": 3e-3, "dropout": 0.0},
        architecture_config={},
    )  # fmt: skip
    spec = spec.model_copy(update={"architecture_config": {}})
    result = run(spec, {"train": write(table, directory / "t.arrow")}, directory, base=directory / "base")
    assert result.metrics["train"]["exact"] > 0.9
    return saved(result, directory / "model")


@pytest.mark.parametrize("options", [{}, {"beam_width": 4}])
def test_what_is_written_is_transformers_s(tuned, options):
    """Step by step with what is remembered, from BART's own first token on."""
    predictor = Predictor(tuned)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tuned).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tuned)
    ours = predictor.predict(SENTENCES, predictor.options({**options, "max_new_tokens": 9})).outputs
    read = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs.generate(
            input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=9, do_sample=False,
            bad_words_ids=[[token] for token in predictor.design.targets.banned], early_stopping=False,
            num_beams=options.get("beam_width", 1),
        )  # fmt: skip
    assert [one["translation"] for one in ours] == [tokenizer.decode(row, skip_special_tokens=True) for row in found]
    assert load(tuned)[0].architecture_config.layout == "bart"


def test_a_checkpoint_without_a_head_is_read_as_if_its_bias_were_zero(small, tmp_path):
    files = reweighted(small[0], tmp_path, lambda weights: weights.pop("final_logits_bias"))
    found = imported(files, tmp_path / "found")
    assert found.weights["model.final_logits_bias"].abs().max() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"normalize_before": True}, "normalize_before True"),
        ({"decoder_start_token_id": 0}, "decoder_start_token_id 0"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"encoder_ffn_dim": 77}, "encoder_ffn_dim 77"),
        ({"vocab_size": 999}, "the network knows 999"),
        ({"max_position_embeddings": 41}, '"model.encoder.embed_positions.weight" has the shape (42, 32), (43, 32)'),
        ({"encoder_layers": 3}, '"model.encoder.layers.2.'),
    ],
)
def test_what_does_not_fit_is_said(small, tmp_path, change, said):
    with pytest.raises(InvalidModel) as refusal:
        imported(changed(small[0], **change), tmp_path / "refused")
    assert said in refusal.value.message


def test_a_vocabulary_without_merges_is_no_tokenizer(small, tmp_path):
    with pytest.raises(InvalidModel, match="There is no tokenizer"):
        imported(without(small[0], "merges.txt"), tmp_path / "refused")
    assert json.loads(small[0]["config.json"])["model_type"] == "bart"
