"""Which training rows a pretraining is measured on: some of them, from the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import CLASSES, IMAGES, TEXTS, prepare, run, small_table, spec_of, table_for, write

from learning import preparation
from learning.data import open_table
from learning.device import choose_device
from learning.evaluation import evaluate
from learning.interfaces import Examples, by_position

EVERY, ROWS = 3, 41


def examples(task: str, kind: str, directory: Path) -> Examples:
    table = write(table_for(task, ROWS), directory / "rows.arrow")
    spec = spec_of(task, kind, split={"validation": 0.0})
    return prepare(spec, {"train": table}, device=choose_device("cpu")).train


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("task", [CLASSES, IMAGES, TEXTS])
def test_one_of_so_many_rows(task: str, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if mapped:  # as what does not fit in memory
        monkeypatch.setattr(preparation, "IN_MEMORY_BYTES", 0)
        monkeypatch.setattr(preparation, "TOKENS_IN_MEMORY_BYTES", 0)
    found = examples(task, "finetune", tmp_path)
    whole, part = (list(found.everything(every)) for every in (1, EVERY))
    length_B = torch.cat([batch.get("length_B", torch.ones(len(next(iter(batch.values()))))) for batch in whole]).long()
    row_S = torch.repeat_interleave(torch.arange(ROWS), length_B)
    for name in whole[0]:
        of_row = row_S if by_position(name) and "length_B" in whole[0] else torch.arange(ROWS)
        wanted = torch.cat([batch[name] for batch in whole])[of_row % EVERY == 0]
        assert torch.equal(torch.cat([batch[name] for batch in part]), wanted), name


def test_one_of_so_many_blocks(tmp_path: Path) -> None:
    found = examples("next-token-prediction", "pretrain", tmp_path)
    whole, part = (torch.cat([batch["target_S"] for batch in found.everything(every)]) for every in (1, EVERY))
    length = 48
    blocks = whole[: len(whole) // length * length].view(-1, length)
    assert torch.equal(part.view(-1, length), blocks[::EVERY])


def test_rows_behind_others_come_with_these(tmp_path: Path) -> None:
    table = write(table_for(TEXTS, 400), tmp_path / "rows.arrow")
    spec = spec_of("contrastive-texts", "pretrain", task_config={"positives": "next-rows"}, split={"validation": 0.0})
    found = prepare(spec, {"train": table}, device=choose_device("cpu")).train
    rows = sum(len(batch["length_B"]) for batch in found.everything(EVERY))
    assert 0.5 / EVERY < rows / 400 < 2 / EVERY
    assert all("next_token_S" in batch for batch in found.everything(EVERY))


def test_pretraining_is_measured_on_a_tenth_of_its_rows_from_the_whole_table(tmp_path: Path) -> None:
    table = write(small_table(10_000), tmp_path / "rows.arrow")
    spec = spec_of("masked-features", "pretrain", hyperparameters={"max_steps": 1}, split={"validation": 0.0})
    found = run(spec, {"train": table}, tmp_path / "run")
    assert found.metrics["train"]["rows"] == 1_000
    tenth = open_table(table).take(np.arange(0, 10_000, 10))
    design = found.prepared.design
    again = evaluate(design, found.prepared.network, preparation.encode_part(design, tenth, torch.device("cpu")))
    assert found.metrics["train"]["loss"] == pytest.approx(again["loss"], rel=1e-6)
