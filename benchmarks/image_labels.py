"""What pretraining gives on images with few labels: from scratch and a classical baseline beside it.

    python benchmarks/image_labels.py [--data DIRECTORY] [--datasets mnist ...] [--seeds 3] [--work DIRECTORY]

The base model learns from the unlabelled images, and where the labelled training images are few in number also from
those, labels ignored; once. Few labelled rows are the given file; everything is measured on the test file. Settings are
the default ones, but for mnist a second stage of pretraining, 24 passes by clusters alone, and for
its few labels a higher rate on both sides, more steps from scratch, and pretrained a linear probe as the first head.
With --choose nothing is tested: settings are compared on labelled images that are neither among the few nor in the
test.
Prints the table and writes benchmarks/results/image_labels.json and .md. With --work the base model stays there, is
used again, and its training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
import pyarrow as pa
from label_efficiency import as_tensor, write
from sklearn.svm import SVC
from text_labels import kept, read, run, summarise

from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.modalities.image import Image, ImageConfig

RESULTS = Path(__file__).parent / "results" / "image_labels.json"
TASK = "image-classification"
MODELS = BASELINE, SCRATCH, PRETRAINING, VGG = "SVM on pixels", "from scratch", "contrastive-images", "VGG from scratch"
CHOOSING_ROWS = 1_500


@dataclass(frozen=True)
class Benchmark:
    """A dataset's files: what to pretrain on, in which stages, what to choose by; what was chosen for few labels."""

    name: str
    unlabelled: tuple[str, ...]
    labelled: str
    apart: tuple[str, ...]
    few: dict[str, Any] = field(default_factory=dict)  # hyperparameters from scratch
    few_pretrained: dict[str, Any] = field(default_factory=dict)
    stages: tuple[dict[str, Any], ...] = ({},)


BENCHMARKS = (
    Benchmark(
        "mnist",
        ("mnist_unlabeled",),
        "mnist_train10k",
        ("mnist_train10k",),
        {"learning_rate": 3e-3, "epochs": 400, "batch_size": 50},
        {
            "learning_rate": 3e-3,
            "epochs": 200,
            "batch_size": 50,
            "head_initialization": "linear-probe",
            "linear_probe_c": 0.1,
        },
        ({}, {"task_config": {"objective": "clusters"}, "hyperparameters": {"epochs": 24}}),
    ),
    Benchmark(
        "clothing10",
        ("clothing_unlabeled", "clothing10_train"),
        "clothing10_train",
        ("clothing10_validation", "clothing10_train"),
    ),
)


def unlabelled(benchmark: Benchmark, data: Path, work: Path) -> Path:
    """Return the images of all files to pretrain on, without their labels."""
    path = work / f"{benchmark.name}-unlabelled.arrow"
    if not path.exists():
        parts = [open_table(read(data, name, "zip", work)).select(["image"]) for name in benchmark.unlabelled]
        write(pa.concat_tables(parts), path)
    return path


def pretrained(benchmark: Benchmark, data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, whose stages are made if they are not there."""
    base: Path | None = None
    for number, stage in enumerate(benchmark.stages):
        directory = work / "-".join([benchmark.name, "base", *([str(number + 1)] if number else [])])
        if not (directory / "model.safetensors").exists():
            fields = {"split": {"validation": 0.0}, **stage, **settings}
            spec = TrainingSpec(kind="pretrain", task=PRETRAINING, architecture="resnet", **fields)
            found = run(spec, {"train": unlabelled(benchmark, data, work)}, base, directory)
            print(f"{directory.name}: pretrained in {found['seconds']:.0f} processor seconds", flush=True)
        base = directory
    assert base is not None
    return base


def finetuned(few: Path, test: Path, base: Path | None, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of one finetuning."""
    spec = TrainingSpec(
        **{
            "kind": "finetune", "task": TASK, "architecture": "resnet", "columns": Columns(target="label"),
            "seed": seed, "split": {"validation": 0.0}, **settings,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, {"train": few, "test": test}, base, Path(directory))
    return {**found["test"], "seconds": found["seconds"]}


def classical(few: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Fit a support vector machine with an RBF kernel on pixels; measured with the same metrics."""
    started = process_time()
    state = Image().fit(few, Columns(), ImageConfig())
    pixels, others = (Image().encode(table, state)["image_BCHW"].flatten(1).numpy() / 255 for table in (few, test))
    model = SVC(C=10).fit(pixels, few.column("label").to_pylist())
    right = np.array(model.predict(others)) == np.array(test.column("label").to_pylist())
    return {"accuracy": float(as_tensor(right).double().mean()), "seconds": process_time() - started}


def apart(benchmark: Benchmark, data: Path, work: Path, few: Path) -> Path:
    """Return labelled images that are neither among the few nor in the test, to choose settings by."""
    parts = [open_table(read(data, name, "zip", work)) for name in benchmark.apart]
    whole = pa.concat_tables(parts, promote_options="permissive")
    known = {cell["bytes"] for cell in open_table(few).column("image").to_pylist()}
    rows = [row for row, cell in enumerate(whole.column("image").to_pylist()) if cell["bytes"] not in known]
    # Where there are several files all of the first one's, whose images nothing else has seen, come first.
    first, others = [row for row in rows if row < len(parts[0])], [row for row in rows if row >= len(parts[0])]
    generator = np.random.default_rng(0)
    chosen = np.sort([*generator.permutation(first), *generator.permutation(others)][:CHOOSING_ROWS])
    return write(whole.take(chosen), work / f"{benchmark.name}-apart.arrow")


def labelled(benchmark: Benchmark, data: Path, work: Path, without: Path | None) -> Path:
    """Return all labelled images to learn from, without those that settings are chosen by."""
    whole = read(data, benchmark.labelled, "zip", work)
    if without is None:
        return whole
    table, known = open_table(whole), {cell["bytes"] for cell in open_table(without).column("image").to_pylist()}
    rows = [row for row, cell in enumerate(table.column("image").to_pylist()) if cell["bytes"] not in known]
    return write(table.take(rows), work / f"{benchmark.name}-labelled.arrow")


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per number of labelled images, model and seed."""
    few = read(options.data, f"{benchmark.name}_few10", "zip", work)
    test = (
        apart(benchmark, options.data, work, few)
        if options.choose
        else read(options.data, f"{benchmark.name}_test", "zip", work)
    )

    def baseline(rows: Path) -> dict[str, float]:
        return kept(classical(open_table(rows), open_table(test)))

    def network(rows: Path, model: str, seed: int) -> dict[str, float]:
        chosen = benchmark.few_pretrained if model == PRETRAINING else benchmark.few
        settings: dict[str, Any] = {"hyperparameters": chosen} if rows == few else {}
        if model == PRETRAINING:
            base = pretrained(benchmark, options.data, work, json.loads(options.pretrain))
            return kept(finetuned(rows, test, base, seed, {**settings, **json.loads(options.finetune)}))
        settings |= json.loads(options.scratch)
        settings |= {"architecture": "vgg"} if model == VGG else {}
        return kept(finetuned(rows, test, None, seed, settings))

    parts = [few]
    if options.all:
        parts.append(labelled(benchmark, options.data, work, test if options.choose else None))
    for rows in parts:
        place = {"dataset": benchmark.name, "rows": len(open_table(rows))}
        if BASELINE in options.models:
            yield {**place, "model": BASELINE, "seed": 0}, partial(baseline, rows)
        for seed in range(options.seeds):
            for model in (model for model in MODELS[1:] if model in options.models):
                yield {**place, "model": model, "seed": seed}, partial(network, rows, model, seed)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "labelled images apart from few and test")
    parser.add_argument("--all", action="store_true", help="learn from all labelled images too, which takes longer")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    report = few_labels.Report(RESULTS, "Label efficiency of images", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
