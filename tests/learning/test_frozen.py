"""A backbone whose learning rate is nothing keeps every weight, while the head learns."""

import pytest
import torch
from runs import run, saved, spec_of, table_for, write

from learning.model import load

BASES = {
    "text-classification": "masked-tokens",
    "token-classification": "masked-tokens",
    "image-classification": "contrastive-images",
    "audio-classification": "contrastive-audio",
    "tabular-regression": "masked-features",
}


@pytest.mark.parametrize("task", BASES)
def test_a_factor_of_nothing_leaves_the_backbone_as_it_was(task, tmp_path):
    tables = {"train": write(table_for(task), tmp_path / "t.arrow")}
    pretrained = run(spec_of(BASES[task], "pretrain", hyperparameters={"epochs": 1}), tables, tmp_path / "a")
    base = saved(pretrained, tmp_path / "base")
    wanted = load(base)[1]

    def learned(factor, name):
        hyperparameters = {"epochs": 2, "backbone_learning_rate_factor": factor, "learning_rate": 1e-2}
        result = run(spec_of(task, hyperparameters=hyperparameters), tables, tmp_path / name, base=base)
        found = load(saved(result, tmp_path / f"{name}-model"))[1]
        prefix = f"{result.prepared.network.backbone.prefix}."
        moved = {key for key, weight in found.items() if key in wanted and not torch.equal(weight, wanted[key])}
        heads = {key for key in found if not key.startswith(prefix)}
        # Means and variances of batch normalisation are no weights: they follow the rows that are read.
        backbone = {key for key, _ in result.prepared.network.named_parameters() if key.startswith(prefix)}
        assert backbone <= found.keys()
        return moved, backbone, heads

    moved, backbone, heads = learned(0.0, "frozen")
    assert backbone
    assert backbone <= wanted.keys()
    assert heads
    assert moved & backbone == set()
    moved, *_ = learned(1.0, "free")
    assert moved & backbone
