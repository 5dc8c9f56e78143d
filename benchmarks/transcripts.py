"""What pretraining gives on transcripts: from scratch and a classical baseline beside it.

    python benchmarks/transcripts.py [--data DIRECTORY] [--datasets strings ...] [--seeds 3] [--work DIRECTORY]

Strings of three to five words are learned by themselves, or together with recordings of single words. The base model
learns from all of these recordings, their transcripts ignored, once. The baseline cuts a string where it is silent, as
these were put together, and knows each word by a support vector machine on its spectrogram. Everything is measured on
the test file, by the likeliest path, without a model of the language. Single words that are said too fast for the
positions of the network, about one in a hundred, are not learned from by themselves. Where single words are among the
recordings, up to four of these are put one after another at random, in training alone. With --choose nothing is tested:
settings are compared on strings made of training recordings that are in no training string; the single words and the
base model then do without these recordings.
Prints the table and writes benchmarks/results/transcripts.json and .md. With --work the base model stays there, is
used again, and its training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
import pyarrow as pa
import torch
from audio_labels import FRAMES
from label_efficiency import grouped, spread, write
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from text_labels import read, run
from torch.nn import functional

from learning import audio
from learning.config import Columns, TrainingSpec
from learning.ctc import positions_needed
from learning.data import open_table
from learning.media_types import MEDIA_TYPES
from learning.modalities.audio import Audio, AudioConfig
from learning.transcripts import ErrorTally

RESULTS = Path(__file__).parent / "results" / "transcripts.json"
TASK = "speech-recognition"
MODELS = BASELINE, SCRATCH, PRETRAINING = "cut at silences, SVM on spectrograms", "from scratch", "masked-audio"
# How strings were put together: samples of silence before each word and behind the last.
RATE, LEAST_SILENCE, MOST_SILENCE = 8_000, 400, 1_600
CHOOSING_STRINGS = 102
# What is learned by; the same for both, and chosen on strings that are not tested.
# A position of that architecture; in so many a transcript must have room.
POSITION_SECONDS = 0.04
SETTINGS: dict[str, Any] = {"architecture": "conv-transformer"}

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Benchmark:
    """What transcripts are learned from, whether words by themselves are among it, and by which settings."""

    name: str
    with_words: bool
    joined: int = 1
    hyperparameters: dict[str, Any] = field(default_factory=dict)


BENCHMARKS = Benchmark("strings", False), Benchmark("strings_and_words", True, 4, {"epochs": 25})


@dataclass(frozen=True)
class Files:
    """Tables of recordings with transcripts: to learn from, and to measure on."""

    strings: Path
    words: Path
    test: Path
    unlabelled: Path

    def learned(self, benchmark: Benchmark, work: Path) -> Path:
        """Return what a benchmark learns from."""
        if not benchmark.with_words:
            return self.strings
        both = open_table(self.strings), spoken_slowly(open_table(self.words))
        return write(pa.concat_tables(both).combine_chunks(), work / f"{self.words.stem}-and-strings.arrow")


def files(data: Path, work: Path, choose: bool) -> Files:
    """Return the tables, made of the data files."""
    strings, words, test = (
        open_table(read(data, name, "zip", work)).select(["audio", "text"])
        for name in ("fsdd_strings_train", "fsdd_train", "fsdd_strings_test")
    )
    if choose:
        words, test = held_out(open_table(read(data, "fsdd_train", "zip", work)), strings)
    kind = "choosing" if choose else "tested"
    unlabelled = pa.concat_tables([words, strings]).select(["audio"]).combine_chunks()
    tables = {"strings": strings, "words": words, "test": test, "unlabelled": unlabelled}
    return Files(**{name: write(table, work / f"{kind}-{name}.arrow") for name, table in tables.items()})


def spoken_slowly(words: pa.Table) -> pa.Table:
    """Return the recordings that have room for their transcripts."""
    rows = []
    for row, (cell, text) in enumerate(
        zip(*(words.column(name).to_pylist() for name in ("audio", "text")), strict=True)
    ):
        if positions_needed([ord(one) for one in text]) <= cell["seconds"] // POSITION_SECONDS:
            rows.append(row)
    return words.take(rows)


def held_out(words: pa.Table, strings: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return single words, and strings made of others, none of which is in one of the given strings."""
    known = {piece.tobytes() for string in samples(strings) for piece in pieces(string)}
    found, said = samples(words), words.column("text").to_pylist()
    generator = np.random.default_rng(1)
    free: dict[str, list[int]] = {}
    for row in generator.permutation(len(found)).tolist():
        if np.trim_zeros(found[row]).tobytes() not in known:
            free.setdefault(words.column("speaker")[row].as_py(), []).append(row)
    cells, texts, held = [], [], set()
    for number in range(CHOOSING_STRINGS):
        rows = [free[sorted(free)[number % len(free)]].pop() for _ in range(int(generator.integers(3, 6)))]
        held.update(rows)
        silences = [np.zeros(int(generator.integers(LEAST_SILENCE, MOST_SILENCE + 1)), np.int16) for _ in rows]
        parts = [part for silence, row in zip(silences, rows, strict=True) for part in (silence, found[row])]
        content = wav(np.concatenate([*parts, np.zeros(LEAST_SILENCE, np.int16)]))
        cells.append({"bytes": content, **audio.inspect(content)._asdict()})
        texts.append(" ".join(said[row] for row in rows))
    kept = words.take([row for row in range(len(found)) if row not in held]).select(["audio", "text"])
    return kept, pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"]), "text": texts})


def samples(table: pa.Table) -> list[Samples]:
    """Return what is in a table's WAV files."""
    found = []
    for cell in table.column("audio").to_pylist():
        with wave.open(io.BytesIO(cell["bytes"])) as file:
            found.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    return found


def wav(samples_N: Samples) -> bytes:
    """Return samples as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples_N.astype("<i2").tobytes())
    return file.getvalue()


def pieces(string_N: Samples) -> list[Samples]:
    """Return what lies between a string's silences."""
    loud_L = string_N.nonzero()[0]
    cuts = (np.diff(loud_L) > LEAST_SILENCE).nonzero()[0]
    first, last = loud_L[np.r_[0, cuts + 1]], loud_L[np.r_[cuts, len(loud_L) - 1]]
    return [string_N[begin : end + 1] for begin, end in zip(first, last, strict=True)]


def classical(learned: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Cut strings at silences and classify the pieces; measured with the same metrics."""
    started = process_time()
    spectrograms, labels = [], []
    for string, text in zip(samples(learned), learned.column("text").to_pylist(), strict=True):
        found = pieces(string)
        if len(found) == len(text.split()):
            spectrograms += found
            labels += text.split()
    model = make_pipeline(StandardScaler(), SVC(C=10)).fit(seen(spectrograms), labels)
    tally = ErrorTally()
    for string, text in zip(samples(test), test.column("text").to_pylist(), strict=True):
        tally.add(text, " ".join(model.predict(seen(pieces(string)))))
    return {**tally.metrics(), "seconds": process_time() - started}


def seen(recordings: list[Samples]) -> NDArray[np.float32]:
    """Return spectrograms, all of one length."""
    contents = [wav(recording) for recording in recordings]
    cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in contents]
    table = pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"])})
    batch = Audio().encode(table, Audio().fit(table, Columns(), AudioConfig()))
    rows = batch["frame_SF"].split(batch["length_B"].tolist())
    found: NDArray[np.float32] = torch.stack(
        [functional.interpolate(row.T[None], FRAMES, mode="linear").flatten() for row in rows]
    ).numpy()
    return found


def pretrained(unlabelled: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, made if it is not there."""
    directory = work / f"{unlabelled.stem}-base"
    if not (directory / "model.safetensors").exists():
        spec = TrainingSpec(
            **{"kind": "pretrain", "task": PRETRAINING, "split": {"validation": 0.0}, **SETTINGS, **settings}
        )
        found = run(spec, {"train": unlabelled}, None, directory)
        print(f"pretrained in {found['seconds']:.0f} processor seconds", flush=True)
    return directory


def finetuned(
    benchmark: Benchmark, tables: dict[str, Path], base: Path | None, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the metrics of one finetuning."""
    spec = TrainingSpec(
        **{
            "kind": "finetune", "task": TASK, "seed": seed, "columns": Columns(target="text"),
            "task_config": {"joined": benchmark.joined}, "hyperparameters": benchmark.hyperparameters,
            "split": {"validation": 0.0}, **SETTINGS, **settings,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, tables, base, Path(directory))
    return {**found["test"], "seconds": found["seconds"]}


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per model and seed."""
    found = files(options.data, work, options.choose)
    tables = {"train": found.learned(benchmark, work), "test": found.test}

    def baseline() -> dict[str, float]:
        return kept(classical(*(open_table(path) for path in tables.values())))

    def network(model: str, seed: int) -> dict[str, float]:
        scratch = model == SCRATCH
        base = None if scratch else pretrained(found.unlabelled, work, json.loads(options.pretrain))
        return kept(
            finetuned(benchmark, tables, base, seed, json.loads(options.scratch if scratch else options.finetune))
        )

    place = {"dataset": benchmark.name, "rows": len(open_table(tables["train"]))}
    if BASELINE in options.models:
        yield {**place, "model": BASELINE, "seed": 0}, baseline
    for seed in range(options.seeds):
        for model in (model for model in (SCRATCH, PRETRAINING) if model in options.models):
            yield {**place, "model": model, "seed": seed}, partial(network, model, seed)


def kept(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table."""
    return {name: round(found[name], 5) for name in ("wer", "cer", "exact", "seconds")}


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = [
        "| learned from | recordings | model | runs | WER | CER | strings without an error | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (dataset, rows, model), group in grouped(results).items():
        figures = " | ".join(spread([result[name] for result in group]) for name in ("wer", "cer", "exact"))
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {dataset} | {rows} | {model} | {len(group)} | {figures} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "strings made of other training recordings")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    report = few_labels.Report(RESULTS, "Transcripts of strings of words", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
