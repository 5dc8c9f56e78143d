"""The files of small models that Transformers saved, and what can be wrong with them."""

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
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "my", "card", "is", "lost", "here", "##s"]
_OF_BART = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTENCES = [f"the {one} is {two}, or so they say" for one in ("card", "order") for two in ("lost", "here", "late")]

END = "<|endoftext|>"
TEXTS = [f"Number {n} comes after number {n - 1}. 数字 {n} \u2603\n" for n in range(40)]
_SIZES: Any = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "max_position_embeddings": 48}
# Fewer heads of keys than of queries, and heads wider than the network by their number.
_SHARED: Any = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": True}
_ROTARY = {"rope_type": "default", "rope_theta": 5_000.0}
DECODERS: dict[str, Callable[..., Any]] = {
    "gpt": lambda **more: transformers.GPT2Config(n_positions=48, n_embd=32, n_layer=3, n_head=2, **more),
    "llama": lambda **more: transformers.LlamaConfig(
        **_SIZES, **_SHARED, rope_parameters=_ROTARY, rms_norm_eps=1e-5, **more
    ),
    "qwen3": lambda **more: transformers.Qwen3Config(**_SIZES, **_SHARED, rope_parameters=_ROTARY, **more),
}
ARCHITECTURES = {"gpt": "gpt", "llama": "llama", "qwen3": "llama"}


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


def small_decoder(kind: str, directory: Path) -> Path:
    """Save a model of random weights and a tokenizer such as GPT-2's, of bytes with one special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder, tokenizer.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token=END)
    fast.save_pretrained(directory)
    end = tokenizer.token_to_id(END)
    config = DECODERS[kind](vocab_size=tokenizer.get_vocab_size(), bos_token_id=end, eos_token_id=end)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():  # as they come, biases are zero and norms do nothing
        weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(directory)
    return directory


def small_marian(directory: Path) -> transformers.MarianMTModel:
    """Save a Marian of random weights with one tokenizer for both languages, whose special tokens are Marian's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["</s>", "<unk>", "<pad>"]
    tokenizer.train_from_iterator(
        SENTENCES * 3, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    fast.save_pretrained(directory)
    torch.manual_seed(3)
    model = transformers.MarianMTModel(transformers.MarianConfig(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=40, d_model=32, encoder_layers=2,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=128,
        decoder_ffn_dim=128, pad_token_id=2, eos_token_id=0, decoder_start_token_id=2, forced_eos_token_id=None,
        init_std=0.3,
    ))  # fmt: skip
    model.save_pretrained(directory)
    return model.eval()


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
