"""What of a foreign model does not fit is named, before a byte of its weights is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from foreign_models import WORDS, changed, reweighted, small_bert, without, zipped
from safetensors.torch import save_file

from learning.errors import InvalidModel
from learning.model_import import import_model

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
NORM = "bert.embeddings.LayerNorm.bias"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_bert(tmp_path_factory.mktemp("small"))


def imported(content: bytes, directory: Path) -> Any:
    archive = directory / "model.zip"
    archive.write_bytes(content)
    return import_model(archive, "model.zip", directory / "work")


def test_what_does_not_fit_is_named(small: dict[str, bytes], tmp_path: Path) -> None:
    pickled = pickle.dumps({"weights": [1.0]}, protocol=4)
    cases = [
        (zipped({**without(small, "model.safetensors"), "pytorch_model.bin": pickled}), '"pytorch_model.bin" may be'),
        (zipped({**small, "extra/optimizer.pt": pickled}), '"extra/optimizer.pt" may be a pickle'),
        (zipped({**small, "model.safetensors": pickled}), '"model.safetensors" is a pickle by its first bytes'),
        (zipped(changed(small, model_type="t5")), 'type "t5" cannot be a base model'),
        (zipped(changed(small, hidden_act="relu")), "hidden_act 'relu'; only 'gelu' is known"),
        (zipped(changed(small, num_hidden_layers=3)), '"bert.encoder.layer.2.attention.self.query.weight" is missing'),
        (zipped(changed(small, hidden_size=8192, intermediate_size=32768, num_hidden_layers=96)), "has the shape"),
        (zipped(changed(small, num_hidden_layers=10**9)), "config.json: layers is 1000000000"),
        (zipped(changed(small, hidden_size=None)), "config.json does not describe a model"),
        (zipped({**small, "config.json": b'{"model_type": "bert"}'}), "config.json has no 'hidden_size'"),
        (zipped({**small, "config.json": b"["}), "config.json is no JSON"),
        (zipped(without(small, "config.json")), "The archive has no config.json"),
        (zipped(without(small, "vocab.txt")), "There is no tokenizer"),
        (zipped({**small, "vocab.txt": "\n".join(WORDS[:-1]).encode()}), "The tokenizer has 10 tokens"),
        (zipped({**small, "tokenizer.json": b"{}"}), "The tokenizer cannot be read"),
        (zipped({**small, "model.safetensors": b"\xff" * 8 + b"{}"}), "model.safetensors is damaged"),
        (zipped(reweighted(small, tmp_path, lambda w: w.pop(NORM))), f'"{NORM}" is missing, (32,) is expected'),
        (zipped(reweighted(small, tmp_path, lambda w: w.update({QUERY: torch.zeros(32, 31)}))),
         f'"{QUERY}" has the shape (32, 31), (32, 32) is expected'),
        (zipped(reweighted(small, tmp_path, lambda w: w.update({QUERY: torch.zeros(32, 32, dtype=torch.int8)}))),
         f'"{QUERY}" has the type I8'),
        (zipped(reweighted(small, tmp_path, lambda w: w[NORM].fill_(float("nan")))), f'"{NORM}" has values that are'),
        (zipped({**small, "../config.json": b"{}"}), '"../config.json" leads out of the archive'),
        (zipped({**small, "zeros.txt": bytes(40 << 20)}), "more than 100 times as many"),
        (b"PK\x03\x04 and no more", "The zip archive cannot be read"),
        (b"no archive at all", "The zip archive cannot be read"),
    ]  # fmt: skip
    for number, (content, said) in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(InvalidModel) as refusal:
            imported(content, directory)
        assert said in refusal.value.message, (said, refusal.value.message)


def test_hidden_tokens_are_found_as_transformers_finds_them(small: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in small.items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    found = imported(zipped(small), tmp_path)
    network = found.design.build().eval()
    network.load_state_dict(found.weights)
    tokens_S = torch.tensor([2, 5, 4, 7, 8, 3])
    batch = {"token_S": tokens_S, "length_B": torch.tensor([6])}
    with torch.no_grad():
        features_SD = network.backbone(batch).features_SD
        ours_SV = network.head(features_SD, network.backbone.embedding_VD)
        theirs_SV = theirs(tokens_S[None]).logits[0]
    torch.testing.assert_close(ours_SV, theirs_SV, atol=1e-5, rtol=0)


def test_a_header_as_long_as_a_pickle_begins_is_read(small: dict[str, bytes], tmp_path: Path) -> None:
    content = small["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    for first in (b"\x80\x02", b"\x80\x05"):
        longer = int.from_bytes(first, "little") + (length // 65536 + 1) * 65536  # spaces fill a header
        weights = longer.to_bytes(8, "little") + content[8 : 8 + length].ljust(longer) + content[8 + length :]
        assert weights.startswith(first)
        directory = tmp_path / first.hex()
        directory.mkdir()
        assert imported(zipped({**small, "model.safetensors": weights}), directory).model_type == "bert"


def test_weights_in_several_files(small: dict[str, bytes], tmp_path: Path) -> None:
    whole = imported(zipped(small), tmp_path)
    names = sorted(name for name in whole.weights if name.startswith("bert."))
    shards, places = {}, {}
    for number, part in enumerate((names[:9], names[9:])):
        file = f"model-{number}.safetensors"
        save_file({name: whole.weights[name] for name in part}, tmp_path / file)
        shards[file] = (tmp_path / file).read_bytes()
        places |= dict.fromkeys(part, file)
    files = {**without(small, "model.safetensors"), **shards}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": places}).encode()}
    (tmp_path / "again").mkdir()
    again = imported(zipped({**files, **index}), tmp_path / "again")
    assert all(torch.equal(again.weights[name], whole.weights[name]) for name in names)
    (tmp_path / "missing").mkdir()
    with pytest.raises(InvalidModel, match=r'names "model-1.safetensors", which is not there'):
        imported(zipped({**without(files, "model-1.safetensors"), **index}), tmp_path / "missing")
