"""The files of a small BERT or BART that Transformers saved, and what can be wrong with them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "my", "card", "is", "lost", "here", "##s"]
_OF_BART = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTENCES = [f"the {one} is {two}, or so they say" for one in ("card", "order") for two in ("lost", "here", "late")]


def small_bert(directory: Path) -> dict[str, bytes]:
    """Return the files of a BERT with its head for hidden tokens and a vocabulary, but no tokenizer.json."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=40,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return contents(directory)


def small_bart(directory: Path, **config: Any) -> tuple[dict[str, bytes], transformers.BartForConditionalGeneration]:
    """The files of a small BART with a vocabulary and merges, but no tokenizer.json; every weight is moved."""
    fitted = ByteLevelBPETokenizer()
    fitted.train_from_iterator(SENTENCES * 3, 300, 2, special_tokens=_OF_BART, show_progress=False)
    torch.manual_seed(3)
    asked = {
        "vocab_size": fitted.get_vocab_size(), "max_position_embeddings": 40, "d_model": 32, "encoder_layers": 2,
        "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": None, "init_std": 0.1,
    }  # fmt: skip
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**{**asked, **config}))
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), ("bias", model.final_logits_bias)]:
            weight.add_(torch.randn_like(weight), alpha=0.3 if name.endswith("bias") else 0.05)
    model.save_pretrained(directory)
    fitted.save_model(str(directory))
    return contents(directory), model.eval()


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def changed(files: dict[str, bytes], **config: Any) -> dict[str, bytes]:
    return {**files, "config.json": json.dumps({**json.loads(files["config.json"]), **config}).encode()}


def reweighted(files: dict[str, bytes], tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(files["model.safetensors"])
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(weights)
    save_file(weights, path)
    return {**files, "model.safetensors": path.read_bytes()}


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: content for key, content in files.items() if key != name}
