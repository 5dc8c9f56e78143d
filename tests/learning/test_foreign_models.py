"""What of a foreign model does not fit is named, before a byte of its weights is read."""

from __future__ import annotations

import json
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from foreign_models import WORDS, changed, contents, reweighted, small_bert, without, zipped
from pydantic import ValidationError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from learning.errors import InvalidModel
from learning.foreign_tokenizers import tokenizer_of
from learning.modalities.audio import AudioState
from learning.model import save
from learning.model_import import import_model

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
DEEP = b"[" * 100_000
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
        (zipped(changed(small, num_attention_heads=3)), "config.json: 3 heads do not divide the width, 32"),
        (zipped({**small, "config.json": DEEP}), "config.json is no JSON"),
        (zipped({**small, "tokenizer_config.json": DEEP}), "tokenizer_config.json is no JSON"),
        (zipped({**small, "tokenizer_config.json": b"{"}), "tokenizer_config.json is no JSON"),
        (zipped({**without(small, "model.safetensors"), "model.safetensors.index.json": DEEP}),
         "model.safetensors.index.json is no JSON"),
        (zipped(changed(small, hidden_size=None)), "config.json does not describe a model"),
        (zipped({**small, "config.json": b'{"model_type": "bert"}'}), "config.json has no 'hidden_size'"),
        (zipped({**small, "config.json": b"["}), "config.json is no JSON"),
        (zipped(without(small, "config.json")), "The archive has no config.json"),
        (zipped(without(small, "vocab.txt")), "There is no tokenizer"),
        (zipped({**without(small, "vocab.txt"), "source.spm": b"s", "target.spm": b"t", "vocab.json": b"{}"}),
         "two tokenizers, source.spm and target.spm, of which neither is read"),
        (zipped({**without(small, "vocab.txt"), "spiece.model": b"s"}), "no tokenizer.json, and spiece.model is not"),
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


def test_what_images_cannot_be_is_named(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=2
    )
    transformers.ResNetModel(config).save_pretrained(tmp_path / "small")
    small = contents(tmp_path / "small")

    def processed(**said: Any) -> bytes:
        return zipped({**small, "preprocessor_config.json": json.dumps(said).encode()})

    cases = [
        (zipped(changed(small, num_channels=1)), "3 means and 3 deviations do not fit 1 channels"),
        (zipped(changed(small, num_channels=2)), "channels is 2"),
        (zipped(changed(small, hidden_sizes=[], depths=[])), "config.json: depths is ()"),
        (zipped({**small, "preprocessor_config.json": DEEP}), "preprocessor_config.json is no JSON"),
        (processed(image_std=[0, 0, 0]), "preprocessor_config.json, or what is usual where it says nothing"),
        (processed(image_std=[0, 0, 0]), "deviation.0 is 0"),
        (processed(image_mean=5), "preprocessor_config.json is not understood"),
        (processed(size=8000), "size"),
    ]
    for number, (content, said) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(InvalidModel) as refusal:
            imported(content, tmp_path / str(number))
        assert said in refusal.value.message, (said, refusal.value.message)

    # One that was downloaded here, and changed.
    (tmp_path / "whole").mkdir()
    found = imported(zipped(small), tmp_path / "whole")
    save(found.design, found.weights, tmp_path / "ours")
    ours = contents(tmp_path / "ours")
    inputs = json.loads(ours["config.json"])["inputs"]
    for number, (field, value, said) in enumerate([
        ("size", 8000, "ImageState: size is 8000"),
        ("deviation", [0, 1, 1], "ImageState: deviation.0 is 0"),
        ("mean", [0], "ImageState: 1 means and 3 deviations"),
    ]):  # fmt: skip
        (tmp_path / f"ours-{number}").mkdir()
        with pytest.raises(InvalidModel) as refusal:
            imported(zipped(changed(ours, inputs={**inputs, field: value})), tmp_path / f"ours-{number}")
        assert said in refusal.value.message, (said, refusal.value.message)


@pytest.mark.parametrize(("field", "value"), [("max_seconds", 1e9), ("rate", 1), ("window", 0), ("mels", 0)])
def test_recordings_are_read_within_bounds(field: str, value: float) -> None:
    good = {"column": "a", "rate": 16_000, "window": 400, "hop": 160, "mels": 40, "normalization": "recording"}
    AudioState.model_validate({**good, "max_seconds": 30})
    with pytest.raises(ValidationError, match=field):
        AudioState.model_validate({**good, "max_seconds": 30, field: value})


def test_weights_that_no_memory_holds_are_refused(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(small["model.safetensors"])
    for number, (most, said) in enumerate([(size - 1, f"model.safetensors would take {size} bytes"), (size, "fp32")]):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (most, most))
        (tmp_path / str(number)).mkdir()
        with pytest.raises(InvalidModel) as refusal:
            imported(zipped(small), tmp_path / str(number))
        assert said in refusal.value.message
        assert f"at most {most} " in refusal.value.message


def test_a_damaged_member_is_named(small: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(zipped(small))
    content[content.index(b"vocab.txt") + len("vocab.txt")] ^= 0xFF  # the first byte of what is compressed
    with pytest.raises(InvalidModel, match=r'"vocab\.txt" of the archive cannot be unpacked'):
        imported(bytes(content), tmp_path)


def test_words_may_hold_what_parts_lines_elsewhere(tmp_path: Path) -> None:
    words = [*WORDS, "a\u2028", "\x85", "\x0c"]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(words).encode())
    read = Tokenizer.from_str(tokenizer_of(tmp_path))
    assert [read.id_to_token(number) for number in range(read.get_vocab_size())] == words


@pytest.mark.parametrize("prefix", [False, True])
def test_pieces_begin_with_a_space_as_transformers_reads_them(tmp_path: Path, prefix: bool) -> None:
    pieces = ["<|endoftext|>", "a", "b", "\u0120", "\u0120a"]  # a space in bytes that are shown
    (tmp_path / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n\u0120 a\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": prefix}))
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_str(tokenizer_of(tmp_path)).encode("a b")
    assert ours.ids == theirs("a b").input_ids == [4 if prefix else 1, 3, 2]


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
