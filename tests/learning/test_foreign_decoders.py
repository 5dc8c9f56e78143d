"""GPT-2, LLaMA and Qwen3 as Transformers saves them: base models here, and opened there again with the same logits."""

import json
from itertools import chain

import pyarrow as pa
import pytest
import torch
import transformers
from foreign_models import ARCHITECTURES, DECODERS, END, TEXTS, small_decoder
from runs import run, saved, spec_of, write

from learning.errors import IncompatibleModel
from learning.prediction import Predictor
from learning.preparation import prepare

CPU = torch.device("cpu")


def logits_of(directory, rows):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row])).logits[0] for row in rows])


def ours(network, rows):
    batch = {"token_S": torch.tensor(list(chain(*rows))), "length_B": torch.tensor([len(row) for row in rows])}
    with torch.no_grad():
        network.eval()
        return network.head(network.backbone(batch).features_SD, network.backbone.embedding_VD)


@pytest.mark.parametrize("kind", DECODERS)
def test_it_is_a_base_model_and_goes_back(tmp_path, kind):
    theirs = small_decoder(kind, tmp_path / "theirs")
    tables = {"train": write(pa.table({"text": TEXTS}), tmp_path / "t")}
    spec = spec_of("text-generation", architecture=ARCHITECTURES[kind], columns={}, hyperparameters={"epochs": 20})
    prepared = prepare(spec, tables, base=theirs, device=CPU)
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    rows = [tokenizer(text).input_ids for text in ("Number 7", TEXTS[3], END, "数")]
    torch.testing.assert_close(ours(prepared.network, rows), logits_of(theirs, rows), atol=1e-5, rtol=0)

    result = run(spec, tables, tmp_path, base=theirs)
    back = saved(result, tmp_path / "model")
    predictor = Predictor(back)
    torch.testing.assert_close(ours(predictor.network, rows), logits_of(back, rows), atol=1e-5, rtol=0)
    assert not torch.allclose(logits_of(back, rows), logits_of(theirs, rows), atol=1e-3)  # it has learned
    again = transformers.AutoTokenizer.from_pretrained(back)
    assert [again(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]
    assert (again.eos_token, again.bos_token) == (END, END)

    (answer,) = predictor.predict(["Number 7 comes"], predictor.options({"max_new_tokens": 12})).outputs
    model = transformers.AutoModelForCausalLM.from_pretrained(back).eval()
    begun = torch.tensor([[again.eos_token_id, *again("Number 7 comes").input_ids]])
    written = model.generate(begun, attention_mask=torch.ones_like(begun), max_new_tokens=12, do_sample=False)
    assert answer["text"] == again.decode(written[0, begun.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("gpt", {"activation_function": "relu"}, "activation_function 'relu'"),
        ("gpt", {"n_inner": 77}, "n_inner 77"),
        ("gpt", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt", {"vocab_size": 999}, "999"),
        ("gpt", {"model_type": "gpt_neox"}, 'type "gpt_neox"'),
        ("gpt", {"n_layer": 4}, "h.3"),
        ("llama", {"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window True"),
        ("qwen3", {"head_dim": 13}, "head_width"),
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, kind, change, said):
    theirs = small_decoder(kind, tmp_path / "theirs")
    path = theirs / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    tables = {"train": write(pa.table({"text": TEXTS}), tmp_path / "t")}
    spec = spec_of("text-generation", architecture=ARCHITECTURES[kind], columns={})
    with pytest.raises(IncompatibleModel) as caught:
        prepare(spec, tables, base=theirs, device=CPU)
    assert said in caught.value.message
