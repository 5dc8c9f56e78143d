"""What is too much for memory: parts, tokens and decoded rows in files are those that they would be in memory."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from runs import IMAGES, SOUNDS, SPEECH, Recorder, run, small_texts, spec_of, table_for, write

from learning import data, preparation, spill
from learning.config import Columns
from learning.data import MappedExamples, TableExamples, open_table
from learning.errors import InvalidData
from learning.modalities import text
from learning.modalities.text import Text, TextConfig
from learning.packing import PackedExamples
from learning.spill import Growing, taken


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(spill, "MOST_BYTES", 1_000)
    monkeypatch.setattr(spill, "_MOST_AT_ONCE", 400)
    monkeypatch.setattr(preparation, "TOKENS_IN_MEMORY_BYTES", 1_000)
    monkeypatch.setattr(text, "FITTED_BYTES", 2_000)
    monkeypatch.setattr(text, "_STRETCHES", 8)


@pytest.fixture
def table(tmp_path):
    parts = [small_texts(60, seed) for seed in range(3)]
    whole = pa.concat_tables(parts)  # in several chunks, as files have
    path = tmp_path / "t.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=50)
    return open_table(path)


@pytest.mark.usefixtures("little_memory")
def test_rows_that_are_taken_are_the_same_in_a_file(table):
    for rows in (np.arange(20, 120), np.arange(0, 180, 3), np.array([0, 1, 2, 99, 179]), np.zeros(0, dtype=np.int64)):
        found = taken(table, rows)
        assert found.to_pylist() == table.take(rows).to_pylist()
        found.validate(full=True)
    before = pa.total_allocated_bytes()
    slice_of_it = taken(table, np.arange(20, 120))
    assert pa.total_allocated_bytes() == before
    assert slice_of_it.num_rows == 100


def test_an_array_that_grows_is_what_was_put_into_it():
    growing = Growing(np.int64)
    assert Growing(np.int32).whole().tolist() == []
    for begin in range(0, 30, 10):
        growing.append(np.arange(begin, begin + 10))
    assert (len(growing), growing.whole().tolist()) == (30, list(range(30)))


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("task", ["masked-tokens", "next-token-prediction"])
def test_pretraining_learns_from_files_as_from_memory(table, tmp_path, task, monkeypatch):
    path = write(table, tmp_path / "whole.arrow")
    spec = spec_of(task, "pretrain", hyperparameters={"max_steps": 6, "batch_size": 8}, split={"validation": 0.2})
    found = run(spec, {"train": path}, tmp_path / "a", Recorder())
    if task == "masked-tokens":
        assert isinstance(found.prepared.train, TableExamples)
    monkeypatch.undo()
    whole = run(spec, {"train": path}, tmp_path / "b", Recorder())
    if task == "masked-tokens":
        assert isinstance(whole.prepared.train, PackedExamples)
    assert len(found.prepared.train) == pytest.approx(len(whole.prepared.train), rel=0.3)
    for result in (found, whole):
        assert np.isfinite(result.metrics["validation"]["loss"])


@pytest.mark.parametrize(
    ("task", "mapped"), [(IMAGES, MappedExamples), (SOUNDS, PackedExamples), (SPEECH, PackedExamples)]
)
def test_what_was_decoded_is_learned_from_files_as_from_memory(task, mapped, tmp_path, monkeypatch):
    path = write(table_for(task, 40), tmp_path / "rows.arrow")
    spec = spec_of(task, hyperparameters={"max_steps": 8, "batch_size": 8}, split={"validation": 0.2})
    whole = run(spec, {"train": path}, tmp_path / "a", Recorder())
    monkeypatch.setattr(preparation, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(data, "_ENCODED_AT_ONCE", 10_000)
    found = run(spec, {"train": path}, tmp_path / "b", Recorder())
    assert isinstance(found.prepared.train, mapped)
    for name, weights in whole.prepared.network.state_dict().items():
        assert torch.equal(weights, found.prepared.network.state_dict()[name]), name
    assert found.metrics == whole.metrics
    monkeypatch.setattr(data, "_MOST_OF_DISK", 0)
    assert isinstance(run(spec, {"train": path}, tmp_path / "c", Recorder()).prepared.train, TableExamples)


@pytest.mark.usefixtures("little_memory")
def test_a_tokenizer_is_fitted_on_stretches_and_every_row_is_looked_at(table):
    config = TextConfig(vocabulary_size=100, max_length=6)
    state = Text().fit(table, Columns(text="text"), config)
    assert state.tokenizer == Text().fit(table, Columns(text="text"), config).tokenizer
    (said,) = [one for one in Text().remarks(table, Columns(text="text"), state) if "looked at" in one]
    assert "training rows that were looked at have more than 6 tokens" in said
    texts = table.column("text").to_pylist()
    texts[133] = "  "
    blank = table.set_column(0, "text", [texts])
    with pytest.raises(InvalidData, match='Row 134, column "text": the text is empty'):
        Text().fit(blank, Columns(text="text"), config)
    assert torch.equal(Text().encode(table, state)["length_B"][:5], Text().encode(table.slice(0, 5), state)["length_B"])
