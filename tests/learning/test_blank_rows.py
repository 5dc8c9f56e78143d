"""Blank lines between paragraphs: left out where texts are learned from one by one, kept in running text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from runs import spec_of, write

from learning.data import open_table
from learning.device import choose_device
from learning.errors import InvalidData, InvalidRow
from learning.preparation import Prepared, prepare

LINES = ["first line of it", "second line", "", "another paragraph", " \t", "its end", "", ""] * 15
FULL = [line for line in LINES if line.strip()]
BY_TEXT = ["masked-tokens", "denoising", "contrastive-texts"]
WHOLE = {"validation": 0.0}


def prepared(task: str, parts: dict[str, list[Any]], tmp_path: Path, **fields: Any) -> Prepared:
    tables = {name: write(pa.table({"text": texts}), tmp_path / f"{name}.arrow") for name, texts in parts.items()}
    spec = spec_of(task, "pretrain", columns={}, **{"split": WHOLE, **fields})
    return prepare(spec, tables, device=choose_device("cpu"))


@pytest.mark.parametrize("task", BY_TEXT)
def test_blank_rows_are_left_out_and_counted(task: str, tmp_path: Path) -> None:
    found = prepared(task, {"train": LINES, "test": ["a line", ""]}, tmp_path)
    assert [one for one in found.warnings if "blank" in one] == [
        '60 of 120 training rows are blank in column "text" and are left out.',
        '1 of 2 test rows are blank in column "text" and are left out.',
    ]
    assert len(found.train) == len(FULL)
    assert found.test is not None
    assert len(found.test) == 1
    twin = tmp_path / "twin"
    twin.mkdir()
    plain = prepared(task, {"train": FULL, "test": ["a line"]}, twin)
    assert not [one for one in plain.warnings if "blank" in one]
    pairs = zip(found.train.everything(), plain.train.everything(), strict=True)
    assert all(torch.equal(one["token_S"], other["token_S"]) for one, other in pairs)


def test_rows_keep_their_numbers_in_the_file(tmp_path: Path) -> None:
    found = prepared("masked-tokens", {"train": LINES, "test": ["", "a line"]}, tmp_path, split={"validation": 0.25})
    for part in ("train", "validation", "test"):
        table = open_table(tmp_path / ("test.arrow" if part == "test" else "train.arrow"))
        rows = found.rows[part].taken(range(len(found.rows[part])))
        assert all(values["text"].strip() for _, values in rows)
        assert [values["text"] for _, values in rows] == [table["text"][number - 1].as_py() for number, _ in rows]
    assert len(found.rows["train"]) + len(found.rows["validation"]) == len(FULL)
    with pytest.raises(InvalidRow, match='Row 4, column "text": the text is empty'):
        prepared("masked-tokens", {"train": ["a", "", "b", None]}, tmp_path)


@pytest.mark.parametrize("task", [*BY_TEXT, "next-token-prediction"])
def test_nothing_but_blank_rows_is_an_error(task: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match='no text to learn from: column "text" is blank in every training') as caught:
        prepared(task, {"train": ["", " ", "\t"] * 10}, tmp_path)
    assert (caught.value.param, caught.value.hint is not None) == ("columns.text", True)


def test_running_text_keeps_its_blank_lines(tmp_path: Path) -> None:
    found = prepared("next-token-prediction", {"train": LINES, "test": ["", ""]}, tmp_path)
    assert not [one for one in found.warnings if "blank" in one]
    (inputs,) = [found.design.inputs]
    tokens = torch.cat([part["target_S"] for part in found.train.everything()])
    assert inputs.opened.decode(tokens.tolist()) == "\n".join(LINES)
