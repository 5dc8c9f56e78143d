"""What of a part's rows is not read is said of every part, and what columns are not read once."""

import pyarrow as pa
import pytest
import torch
from media_files import tone
from runs import spec_of, write

from learning import audio
from learning.media_types import MEDIA_TYPES
from learning.preparation import prepare

LONG = "one two three four five six seven eight nine ten"


def warned(spec, tmp_path, **parts):
    tables = {name: write(table, tmp_path / f"{name}.arrow") for name, table in parts.items()}
    return prepare(spec, tables, device=torch.device("cpu")).warnings


@pytest.mark.parametrize("kind", ["text-classification", "text-generation", "translation"])
def test_texts_that_are_cut_are_counted_in_each_part(tmp_path, kind):
    def part(text, rows):
        texts = [f"{text} {n}" for n in range(rows)]
        return pa.table({"text": texts, "label": ["yes", "no"] * (rows // 2), "note": ["x"] * rows})

    architecture = {"text-classification": "bert", "text-generation": "gpt", "translation": "seq2seq"}[kind]
    spec = spec_of(
        kind, architecture=architecture, columns={"text": "text", "target": "label"},
        preprocessing={"tokenizer": "characters", "max_length": 24},
    )  # fmt: skip
    found = warned(spec, tmp_path, train=part("one", 20), validation=part(LONG, 6), test=part(LONG, 8))
    cut = [one for one in found if "have more than 24 tokens" in one]
    assert [one.split(" rows")[0] for one in cut] == ["6 of 6 validation", "8 of 8 test"]
    assert sum("these columns are not used: note" in one for one in found) == 1


def test_rows_that_are_cut_out_of_one_file_are_counted_too(tmp_path):
    rows = {"text": ["a b"] * 20 + [LONG] * 10, "label": ["yes", "no"] * 15, "part": ["train"] * 20 + ["test"] * 10}
    spec = spec_of(
        "text-classification", columns={"text": "text", "target": "label"}, split={"column": "part"},
        preprocessing={"tokenizer": "characters", "max_length": 24},
    )  # fmt: skip
    found = warned(spec, tmp_path, train=pa.table(rows))
    assert [one.split(" rows")[0] for one in found if "have more than" in one] == ["10 of 10 test"]


def test_recordings_are_counted_in_each_part(tmp_path):
    def part(rows, **other):
        contents = [tone(0.1 + n / 100, **other) for n in range(rows)]
        cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in contents]
        return pa.table(
            {"audio": pa.array(cells, MEDIA_TYPES["audio"]), "label": ["a", "b"] * (rows // 2), "n": list(range(rows))}
        )

    spec = spec_of("audio-classification", columns={"target": "label"}, preprocessing={"rate": 8_000})
    parts = {"train": part(8), "validation": part(2, channels=2), "test": part(4, rate=16_000)}
    found = warned(spec, tmp_path, **parts)
    assert "2 validation recordings have more than one channel; their mean is read." in found
    assert [one.split(" than")[0] for one in found if "rate" in one] == ["4 test recordings have another rate"]
    assert sum("these columns are not used: n" in one for one in found) == 1
