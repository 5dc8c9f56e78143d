"""What pretraining gives on recordings with few labels: from scratch and a classical baseline beside it.

    python benchmarks/audio_labels.py [--data DIRECTORY] [--datasets fsdd_word ...] [--seeds 3] [--work DIRECTORY]

Networks have the default settings, but that speakers are learned by `speaker-net` and without changes of speed and
pitch, and words by `conv-transformer`. The base model learns from the training recordings, labels ignored, once for
words and once for speakers. Few labelled rows are the given file; everything is measured on the test file. From all
labelled rows a network learns from scratch alone. With --choose nothing is tested: settings are compared on training
recordings that are not among those that are learned from.
Prints the table and writes benchmarks/results/audio_labels.json and .md. With --work the base model stays there, is
used again, and its training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
import pyarrow as pa
import torch
from label_efficiency import as_tensor, write
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from text_labels import kept, read, run, summarise
from torch.nn import functional

from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.modalities.audio import Audio, AudioConfig

RESULTS = Path(__file__).parent / "results" / "audio_labels.json"
TASK = "audio-classification"
MODELS = BASELINE, SCRATCH, PRETRAINING = "SVM on spectrograms", "from scratch", "contrastive-audio"
CHOOSING_ROWS = 1_500
# Frames that a spectrogram is brought to where all must be of one length.
FRAMES = 32


@dataclass(frozen=True)
class Benchmark:
    """A file of labels, the column they are in, and how views differ, in pretraining and in finetuning."""

    name: str
    file: str
    target: str
    augmentation: str
    architecture: str
    models: tuple[str, ...] = MODELS


WHOLE = "fsdd_train"
# At another speed and pitch a voice is another one's.
WORD, SPEAKER = ("text", "speech", "conv-transformer"), ("speaker", "masks", "speaker-net")
BENCHMARKS = (
    Benchmark("fsdd_word", "fsdd_few10_word", *WORD),
    Benchmark("fsdd_speaker", "fsdd_few10_speaker", *SPEAKER),
    Benchmark("fsdd_word_all", WHOLE, *WORD, (BASELINE, SCRATCH)),
    Benchmark("fsdd_speaker_all", WHOLE, *SPEAKER, (BASELINE, SCRATCH)),
)


def unlabelled(data: Path, work: Path) -> Path:
    """Return the training recordings without their labels."""
    path = work / "fsdd-unlabelled.arrow"
    return path if path.exists() else write(open_table(read(data, "fsdd_train", "zip", work)).select(["audio"]), path)


def pretrained(benchmark: Benchmark, data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, made if it is not there."""
    directory = work / f"{benchmark.name}-base"
    if not (directory / "model.safetensors").exists():
        spec = TrainingSpec(
            **{
                "kind": "pretrain", "task": PRETRAINING, "architecture": benchmark.architecture,
                "task_config": {"augmentation": benchmark.augmentation}, "split": {"validation": 0.0}, **settings,
            }
        )  # fmt: skip
        found = run(spec, {"train": unlabelled(data, work)}, None, directory)
        print(f"{benchmark.name}: pretrained in {found['seconds']:.0f} processor seconds", flush=True)
    return directory


def finetuned(
    benchmark: Benchmark, tables: dict[str, Path], base: Path | None, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the metrics of one finetuning."""
    spec = TrainingSpec(
        **{
            "kind": "finetune", "task": TASK, "architecture": benchmark.architecture, "seed": seed,
            "columns": Columns(target=benchmark.target), "task_config": {"augmentation": benchmark.augmentation},
            "split": {"validation": 0.0}, **settings,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, tables, base, Path(directory))
    return {**found["test"], "seconds": found["seconds"]}


def classical(benchmark: Benchmark, few: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Fit a support vector machine with an RBF kernel on spectrograms of one length; measured with the same metrics."""
    started = process_time()
    labels, others = (table.column(benchmark.target).to_pylist() for table in (few, test))
    model = make_pipeline(StandardScaler(), SVC(C=10)).fit(_spectrograms(few), labels)
    right = np.array(model.predict(_spectrograms(test))) == np.array(others)
    return {"accuracy": float(as_tensor(right).double().mean()), "seconds": process_time() - started}


def _spectrograms(table: pa.Table) -> NDArray[np.float32]:
    batch = Audio().encode(table, Audio().fit(table, Columns(), AudioConfig()))
    rows = batch["frame_SF"].split(batch["length_B"].tolist())
    resized = [functional.interpolate(row.T[None], FRAMES, mode="linear").flatten() for row in rows]
    found: NDArray[np.float32] = torch.stack(resized).numpy()
    return found


def apart(benchmark: Benchmark, data: Path, work: Path, few: Path) -> Path:
    """Return training recordings that are not among the few, to choose settings by."""
    whole = open_table(read(data, "fsdd_train", "zip", work))
    known = {cell["bytes"] for cell in open_table(few).column("audio").to_pylist()}
    rows = [row for row, cell in enumerate(whole.column("audio").to_pylist()) if cell["bytes"] not in known]
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:CHOOSING_ROWS])
    return write(whole.take(chosen), work / f"{benchmark.name}-apart.arrow")


def parted(benchmark: Benchmark, work: Path, whole: Path) -> tuple[Path, Path]:
    """Return most of the training recordings to learn from, and the others to choose settings by."""
    order = np.random.default_rng(0).permutation(len(open_table(whole)))
    parts = {"learned": order[CHOOSING_ROWS // 5 :], "held": order[: CHOOSING_ROWS // 5]}
    learned, held = (
        write(open_table(whole).take(np.sort(rows)), work / f"{benchmark.name}-{name}.arrow")
        for name, rows in parts.items()
    )
    return learned, held


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per model and seed."""
    learned = read(options.data, benchmark.file, "zip", work)
    if not options.choose:
        test = read(options.data, "fsdd_test", "zip", work)
    elif benchmark.file == WHOLE:
        learned, test = parted(benchmark, work, learned)
    else:
        test = apart(benchmark, options.data, work, learned)

    def baseline() -> dict[str, float]:
        return kept(classical(benchmark, open_table(learned), open_table(test)))

    def network(model: str, seed: int) -> dict[str, float]:
        scratch = model == SCRATCH
        base = None if scratch else pretrained(benchmark, options.data, work, json.loads(options.pretrain))
        settings = json.loads(options.scratch if scratch else options.finetune)
        return kept(finetuned(benchmark, {"train": learned, "test": test}, base, seed, settings))

    place = {"dataset": benchmark.name, "rows": len(open_table(learned))}
    if BASELINE in options.models:
        yield {**place, "model": BASELINE, "seed": 0}, baseline
    for seed in range(options.seeds):
        for model in (model for model in benchmark.models[1:] if model in options.models):
            yield {**place, "model": model, "seed": seed}, partial(network, model, seed)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "training recordings apart from few")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    report = few_labels.Report(RESULTS, "Label efficiency of recordings", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
