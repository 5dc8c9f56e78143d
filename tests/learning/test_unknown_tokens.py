"""A tokenizer that does not know the texts is warned of, with the share and what to do, in every task on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from runs import TEXTS, TRANSLATING, WRITING, run, saved, spec_of, write

from learning.device import choose_device
from learning.preparation import prepare
from learning.tasks import TASKS

ENGLISH = ["the card works again", "my order fails today", "this app pleases me", "a bad app but good"] * 10
CHINESE = ["这个餐馆很好", "我的订单今天没到", "汇率今天上涨", "很差"] * 10
TASKS_ON_TEXTS = sorted(name for name, task in TASKS.items() if task.modality == "text")
STEP = {"max_steps": 1}


def table_of(texts: list[str]) -> pa.Table:
    rows = len(texts)
    return pa.table({
        "text": texts, "label": ["good", "bad"] * (rows // 2), "pleased": [True, False] * (rows // 2),
        "chinese": [False, True] * (rows // 2), "amount": [0.5, 1.5] * (rows // 2),
        "tokens": [text.split() for text in texts],
        "tags": [["B-thing", *["O"] * (len(text.split()) - 1)] for text in texts],
    })  # fmt: skip


def unknown(spec: Any, tables: dict[str, Path], **sources: Path) -> list[str]:
    prepared = prepare(spec, tables, device=choose_device("cpu"), **sources)
    return [one for one in prepared.warnings if "unknown" in one]


def columns_of(task: str) -> dict[str, Any]:
    return {"columns": {"text": "text"}} if TASKS[task].kind == "pretrain" else {}


@pytest.mark.parametrize("task", TASKS_ON_TEXTS)
def test_every_task_on_texts_warns_of_a_base_model_that_knows_another_language(task: str, tmp_path: Path) -> None:
    tables = {name: write(table_of(some), tmp_path / name) for name, some in (("en", ENGLISH), ("zh", CHINESE))}
    kind = TASKS[task].kind
    # Tokens of tasks that write are characters here, since bytes know everything.
    architecture = spec_of(task, kind).architecture
    first = {"bert": "masked-tokens", "seq2seq": "denoising"}.get(architecture, "next-token-prediction")
    words = {"tokenizer": "wordpiece" if architecture == "bert" else "characters", "vocabulary_size": 200}
    pretraining = spec_of(
        first,
        "pretrain",
        preprocessing=words,
        hyperparameters=STEP,
        columns={"text": "text"},
        architecture=architecture,
    )
    base = saved(run(pretraining, {"train": tables["en"]}, tmp_path / "run"), tmp_path / "base")
    spec = spec_of(task, kind, preprocessing={}, **columns_of(task))
    (said, *others) = unknown(spec, {"train": tables["zh"]}, base=base)
    assert "% of the tokens of the training rows in column" in said
    assert "Choose a base model that knows this language, or leave base_model out" in said
    assert all('"label"' in one for one in others)
    assert unknown(spec, {"train": tables["en"]}, base=base) == []


def test_the_share_is_that_of_each_part(tmp_path: Path) -> None:
    tables = {
        "train": write(table_of(ENGLISH), tmp_path / "train"),
        "test": write(table_of(CHINESE), tmp_path / "test"),
    }
    (said,) = unknown(spec_of(TEXTS), tables)
    assert said.startswith('100% of the tokens of the test rows in column "text" are unknown to the model')
    assert 'set preprocessing.tokenizer to "bytes"' in said
    few = write(table_of([*ENGLISH[:38], "the card works 汇", "my order 率 fails"]), tmp_path / "few")
    assert unknown(spec_of(TEXTS), {**tables, "test": few}) == []


@pytest.mark.parametrize("task", [WRITING, TRANSLATING])
def test_what_is_to_be_written_counts_too(task: str, tmp_path: Path) -> None:
    rows = table_of(ENGLISH)
    strange = rows.set_column(rows.column_names.index("label"), "label", [CHINESE])
    tables = {"train": write(rows, tmp_path / "train"), "test": write(strange, tmp_path / "test")}
    (said,) = unknown(spec_of(task, preprocessing={"tokenizer": "characters", "max_length": 48}), tables)
    assert 'of the test rows in column "label"' in said
