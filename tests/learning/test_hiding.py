"""Tokens that are hidden: by what, and how well BERT's head finds them, against Transformers' own."""

import pytest
import torch
import transformers
from foreign_models import END
from runs import run, saved, small_texts, spec_of, write
from tokenizers import Tokenizer, models, pre_tokenizers

from learning.errors import IncompatibleModel
from learning.foreign import HEADS
from learning.modalities.text import Text, TextState
from learning.modalities.tokenization import fit_tokenizer
from learning.tasks.masking import Maskable, Masker


def state_of(*special):
    words = [*special, "my", "card"]
    tokenizer = Tokenizer(models.WordLevel(dict(zip(words, range(len(words)), strict=True)), unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return TextState(column="text", tokenizer=tokenizer.to_str(), max_length=8)


@pytest.mark.parametrize(
    ("special", "found"),
    [
        (("[UNK]", "[SEP]", "[MASK]"), 2),
        (("<unk>", "</s>", "<mask>"), 2),
        (("<unk>", "<s>", "</s>"), 0),  # Llama
        ((END,), None),  # GPT-2, Qwen: the end of a text stands for what is unknown, but must not part a text
    ],
)
def test_what_hides_a_token_where_there_is_no_mask(special, found):
    state = state_of(*special)
    masker = Masker(Maskable.if_possible(state))
    token_S = torch.tensor([len(special), len(special) + 1] * 50)
    shown_S = masker.mask(token_S, masker.draw(token_S, 0.99))
    assert (shown_S == token_S).all() if found is None else (shown_S == found).sum() > 80
    if len(special) < 3 or found != 2:  # to restore hidden tokens is to see that they are hidden
        with pytest.raises(IncompatibleModel, match=r"no token \[MASK\]"):
            Maskable.of(state)


def test_own_tokenizers_hide_by_their_mask():
    state = TextState(column="text", tokenizer=fit_tokenizer(["a b"] * 9, "wordpiece", 64, True), max_length=8)
    assert Maskable.if_possible(state) == Maskable.of(state)


@pytest.mark.parametrize("task", ["masked-tokens", "contrastive-texts"])
def test_scores_of_all_tokens_are_transformers_s(task, tmp_path):
    """Of a network that was pretrained here, rows one behind the other here and padded there."""
    spec = spec_of(task, "pretrain", hyperparameters={"epochs": 3, "learning_rate": 1e-2})
    result = run(spec, {"train": write(small_texts(), tmp_path / "t")}, tmp_path)
    directory = saved(result, tmp_path / "model")
    design, network = result.prepared.design, result.prepared.network.eval()
    network.load_state_dict(result.outcome.weights)
    theirs = transformers.BertForMaskedLM.from_pretrained(directory).eval()
    head = {name: result.outcome.weights[here] for name, here in HEADS.items()}
    missing, unknown = theirs.load_state_dict(head, strict=False)
    assert (unknown, [name for name in missing if name.startswith("cls") and "decoder" not in name]) == ([], [])

    table = small_texts(9, seed=2)
    packed = Text().encode(table, design.inputs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    padded = tokenizer(table.column("text").to_pylist(), padding=True, return_tensors="pt")
    hidden_BT = (torch.rand(padded.input_ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3) & (
        padded.input_ids > tokenizer.mask_token_id
    )
    padded["input_ids"] = padded.input_ids.masked_fill(hidden_BT, tokenizer.mask_token_id)
    read_BT = padded.attention_mask.bool()
    assert len(set(packed["length_B"].tolist())) > 2
    with torch.no_grad():
        features_SD = network.backbone({**packed, "token_S": padded.input_ids[read_BT]}).features_SD
        ours_SV = network.head(features_SD, network.backbone.embedding_VD)
        theirs_BTV = theirs(**padded).logits
    torch.testing.assert_close(ours_SV, theirs_BTV[read_BT], atol=1e-5, rtol=0)
    assert ours_SV.std() > 0.1  # it says something
