"""What detection reaches on few marked images: from scratch and from a base model pretrained on unmarked ones.

    python benchmarks/detection.py [--data DIRECTORY] [--seeds 3] [--work DIRECTORY]

Images are squares of 256 pixels, products are bf16 on processors that have it. The base model learns from all training
images, marks ignored, once. Few marked images are the given file; everything is measured on the test file. From all
marked images a lighter network learns, for twice as many steps as by default. With --choose nothing is tested: settings
are compared on the validation file.
Prints the table and writes benchmarks/results/detection.json and .md. With --work models stay there, are used again,
and trainings go on where they were stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import few_labels
import numpy as np
from label_efficiency import grouped, spread
from text_labels import read, run

from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.device import choose_device, is_slow

RESULTS = Path(__file__).parent / "results" / "detection.json"
TASK = "object-detection"
MODELS = (SCRATCH, PRETRAINING) = ("from scratch", "contrastive-images")
FIGURES = ("map50", "map75", "map", "seconds")
PRECISION = {"precision": "fp32" if is_slow("bf16", choose_device("cpu")) else "bf16"}


@dataclass(frozen=True)
class Benchmark:
    """A dataset, which of its files has few images, and how its images may be changed."""

    name: str
    few: str
    augmentation: str
    settings: dict[str, Any] = field(default_factory=dict)


# A network of half the products, whose last grid is twice as coarse, for twice as many passes; chosen on the validation
# file.
LIGHT = {
    "architecture_config": {"depths": [1, 1, 1, 1], "widths": [32, 64, 128, 192]},
    "hyperparameters": {"epochs": 94},
}
BENCHMARKS = (
    Benchmark("bccd", "bccd_few30", "overhead"),
    Benchmark("bccd-all", "bccd_train", "overhead", LIGHT),
)


def pretrained(data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, made if it is not there."""
    directory = work / "bccd-base"
    if not (directory / "model.safetensors").exists():
        spec = TrainingSpec(
            **{
                "kind": "pretrain", "task": PRETRAINING, "architecture": "resnet", "preprocessing": {"size": 256},
                "columns": Columns(ignore=("objects",)), "split": {"validation": 0.0},
                "hyperparameters": {**PRECISION, "batch_size": 32, "epochs": 30}, **settings,
            }
        )  # fmt: skip
        found = run(spec, {"train": read(data, "bccd_train", "zip", work)}, None, directory)
        print(f"pretrained in {found['seconds']:.0f} processor seconds", flush=True)
    return directory


def finetuned(
    benchmark: Benchmark, tables: dict[str, Path], base: Path | None, seed: int, *, work: Path, more: Any
) -> dict[str, Any]:
    """Return the metrics of one training."""
    spec = TrainingSpec(
        **{
            "kind": "finetune", "task": TASK, "architecture": "resnet", "columns": Columns(target="objects"),
            "task_config": {"augmentation": benchmark.augmentation}, "seed": seed, "split": {"validation": 0.0},
            **more, "hyperparameters": {**PRECISION, **more.get("hyperparameters", {})},
        }
    )  # fmt: skip
    which = hashlib.sha256(f"{benchmark.name} {base} {spec.model_dump_json()}".encode()).hexdigest()[:16]
    found = run(spec, tables, base, work / which)
    return {**found["test"], "seconds": found["seconds"]}


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield each run, by model and seed, and what measures it."""
    few = read(options.data, benchmark.few, "zip", work)
    test = read(options.data, "bccd_val" if options.choose else "bccd_test", "zip", work)
    place = {"dataset": benchmark.name, "rows": len(open_table(few))}

    def network(model: str, seed: int) -> dict[str, Any]:
        is_pretrained = model == PRETRAINING
        base = pretrained(options.data, work, json.loads(options.pretrain)) if is_pretrained else None
        more = json.loads(options.finetune if is_pretrained else options.scratch)
        settings = {**({} if is_pretrained else benchmark.settings), **more}
        found = finetuned(benchmark, {"train": few, "test": test}, base, seed, work=work, more=settings)
        return {name: round(found[name], 5) for name in FIGURES}

    for seed in range(options.seeds):
        for model in (model for model in MODELS if model in options.models):
            yield {**place, "model": model, "seed": seed}, partial(network, model, seed)


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = ["| dataset | images | model | runs | mAP@0.5 | mAP@0.75 | mAP@[.5:.95] | seconds |", "|" + "---|" * 8]
    for (dataset, rows, model), group in grouped(results).items():
        figures = " | ".join(spread([result[name] for result in group]) for name in FIGURES[:-1])
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {dataset} | {rows} | {model} | {len(group)} | {figures} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "the validation file")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    report = few_labels.Report(RESULTS, "Detection with few marked images", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
