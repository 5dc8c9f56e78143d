"""Text that goes on: how well characters are foretold after three minutes of training, beside counting them.

    python benchmarks/language_models.py [--data DIRECTORY] [--datasets song_ci] [--models "gpt, muon"] [--seeds 3]

Networks have 4 layers of width 128 and read 64 characters. Training is held to three minutes on two cores of a quiet
machine by the steps in MODELS; with the thousands of characters of song_ci they take half as long again. The 4-gram
mixes the counts behind three, two, one and no characters (Witten and Bell 1991, method C). Everything is measured on
the validation file, every character of it; there is no other, so what was chosen by it is somewhat too good.
With --choose it is the same, and nothing is written.
Prints the table and writes benchmarks/results/language_models.json and .md. With --work trainings go on where they were
stopped.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
from label_efficiency import grouped, spread
from text_labels import read, run

from learning.config import TrainingSpec
from learning.data import open_table

RESULTS = Path(__file__).parent / "results" / "language_models.json"
TASK, ORDER = "next-token-prediction", 4
NETWORK = {"layers": 4, "width": 128, "heads": 4}
SETTINGS = {"epochs": 20, "batch_size": 32, "precision": "bf16", "evaluate_every_epochs": 20}
MODELS: dict[str, dict[str, Any]] = {
    "gpt, adamw": {"architecture": "gpt", "hyperparameters": {"max_steps": 1_500, "learning_rate": 2e-3}},
    "gpt, muon": {
        "architecture": "gpt",
        "hyperparameters": {"max_steps": 1_450, "optimizer": "muon", "learning_rate": 4e-3},
    },
    "llama, muon": {
        "architecture": "llama",
        "hyperparameters": {"max_steps": 1_250, "optimizer": "muon", "learning_rate": 4e-3},
    },
}


@dataclass(frozen=True)
class Benchmark:
    """A running text, and how it becomes tokens."""

    name: str
    preprocessing: dict[str, Any] = field(default_factory=dict)


BENCHMARKS = (Benchmark("tinyshakespeare"), Benchmark("song_ci", {"vocabulary_size": 8_000}))


def network(benchmark: Benchmark, model: str, seed: int, options: argparse.Namespace, work: Path) -> dict[str, float]:
    """Return the figures of one training."""
    settings = MODELS[model]
    spec = TrainingSpec(
        kind="pretrain", task=TASK, architecture=settings["architecture"], architecture_config=NETWORK, seed=seed,
        preprocessing={"tokenizer": "characters", "max_length": 64, **benchmark.preprocessing},
        hyperparameters={**SETTINGS, **settings["hyperparameters"], **json.loads(options.pretrain)},
    )  # fmt: skip
    tables = {part: read(options.data, f"{benchmark.name}_{name}", "txt", work) for part, name in PARTS.items()}
    found = run(spec, tables, None, work / f"{benchmark.name}-{model.replace(', ', '-')}-{seed}")
    return {
        "nats": round(found["validation"]["nats_per_character"], 4),
        "train_nats": round(found["train"]["nats_per_character"], 4),
        "seconds": round(found["seconds"]),
    }


PARTS = {"train": "train", "validation": "valid"}


def counted(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> dict[str, float]:
    """Return the figures of counting."""
    started = process_time()
    train, valid = (
        "\n".join(open_table(read(options.data, f"{benchmark.name}_{name}", "txt", work)).column("text").to_pylist())
        for name in PARTS.values()
    )
    following: dict[str, Counter[str]] = defaultdict(Counter)
    for place in range(ORDER, len(train)):
        for known in range(ORDER):
            following[train[place - known : place]][train[place]] += 1
    characters = len(set(train)) + 1  # the last one stands for all that were never seen
    sums = {key: (sum(seen.values()), len(seen)) for key, seen in following.items()}
    cost = 0.0
    for place in range(ORDER, len(valid)):
        probability = 1 / characters
        for known in range(ORDER):
            key = valid[place - known : place]
            if key not in sums:
                break
            count, kinds = sums[key]
            probability = (following[key][valid[place]] + kinds * probability) / (count + kinds)
        cost -= math.log(probability)
    return {"nats": round(cost / (len(valid) - ORDER), 4), "seconds": round(process_time() - started)}


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per model and seed."""
    rows = open_table(read(options.data, f"{benchmark.name}_train", "txt", work)).num_rows
    place = {"dataset": benchmark.name, "rows": rows}
    yield {**place, "model": f"{ORDER}-gram", "seed": 0}, partial(counted, benchmark, options, work)
    for seed in range(options.seeds):
        for model in MODELS:
            if options.models is None or model in options.models:
                yield {**place, "model": model, "seed": seed}, partial(network, benchmark, model, seed, options, work)


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = [
        "| text | model | runs | nats per character | on rows learned from | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for (dataset, _, model), group in grouped(results).items():
        cells = [spread([one[name] for one in group]) if name in group[0] else "" for name in ("nats", "train_nats")]
        seconds = np.mean([one["seconds"] for one in group])
        lines.append(f"| {dataset} | {model} | {len(group)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "the validation file, and write nothing")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=None, help="these networks alone")
    report = few_labels.Report(RESULTS, "Language models", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
