"""What pretraining gives on texts with few labels: from scratch and a classical baseline beside it.

    python benchmarks/text_labels.py [--data DIRECTORY] [--datasets banking77 ...] [--seeds 3] [--work DIRECTORY]

Networks have the default settings but where BENCHMARKS says otherwise. The base model learns from the unlabelled file,
once; few labelled rows are the given file; everything is measured on the test file. From all labelled rows the model
from elsewhere alone learns, in five passes. With --choose nothing is tested: settings are compared on rows of the
training file that are not in the few.
Prints the table and writes benchmarks/results/text_labels.json and .md. With --work the base model stays there, is
used again, and its training goes on where it was stopped. With --base a model from elsewhere is finetuned instead.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
import pyarrow as pa
from label_efficiency import Silent, as_tensor, grouped, spread, write
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from learning import checkpoint
from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.device import choose_device, pin
from learning.ingestion import IngestOptions, ingest
from learning.model import Design, save
from learning.preparation import prepare
from learning.training import Plan, train

RESULTS = Path(__file__).parent / "results" / "text_labels.json"
TASK = "text-classification"
CHOOSING_ROWS = 1_500
SCRATCH = "from scratch"
# How a model from elsewhere is finetuned; chosen on training rows that are not among the few.
IMPORTED: dict[str, Any] = {
    "hyperparameters": {
        "epochs": 15,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "backbone_learning_rate_factor": 0.02,
        "schedule": "one-cycle",
    },
    "task_config": {"token_masking": 0.0, "label_smoothing": 0.0},
}
# From all labels there are more steps in fewer passes; not chosen by anything.
IMPORTED_ALL = {**IMPORTED, "hyperparameters": {**IMPORTED["hyperparameters"], "epochs": 5}}


@dataclass(frozen=True)
class Benchmark:
    """A dataset's files, and how its texts become tokens and features."""

    name: str
    suffix: str
    stages: tuple[dict[str, Any], ...]  # of pretraining, each from the one before
    preprocessing: dict[str, Any] = field(default_factory=dict)
    tfidf: dict[str, Any] = field(default_factory=dict)
    finetuning: dict[str, Any] = field(default_factory=dict)  # hyperparameters, of a pretrained model

    @property
    def model(self) -> str:
        """Return what the table calls the pretrained model."""
        return " + ".join(stage["task"] for stage in self.stages)


# Chosen on training rows that are not among the few.
BENCHMARKS = (
    Benchmark(
        "banking77",
        "csv",
        (
            {
                "task": "masked-tokens",
                "hyperparameters": {"precision": "bf16", "optimizer": "muon", "weight_decay": 0.05},
            },
        ),
        tfidf={"ngram_range": (1, 2), "sublinear_tf": True},
    ),
    Benchmark(
        "crosswoz_domain",
        "jsonl",
        (
            {"task": "masked-tokens", "hyperparameters": {"precision": "bf16"}},
            {
                "task": "contrastive-texts",
                "task_config": {"positives": "next-rows"},  # turns of dialogues follow each other
                "hyperparameters": {"precision": "bf16", "learning_rate": 5e-4, "batch_size": 64, "max_steps": 320},
            },
        ),
        {"tokenizer": "characters"},
        {"analyzer": "char", "ngram_range": (1, 3)},
        {"head_initialization": "linear-probe", "learning_rate": 1e-4, "epochs": 20},
    ),
)


def read(data: Path, name: str, suffix: str, directory: Path) -> Path:
    """Ingest a file of the data folder as an upload would be."""
    path = directory / f"{name}.arrow"
    if not path.exists():
        ingest(data / f"{name}.{suffix}", f"{name}.{suffix}", path, IngestOptions())
    return path


class Seconds(Silent):
    """The processor seconds of a training, of all attempts that its checkpoints led to."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "seconds.json"
        self._before = json.loads(self._path.read_text()) if self._path.exists() else 0.0
        self._started = process_time()

    def on_checkpoint(self, path: Path, position: Any) -> None:
        """Write down what it took until this checkpoint."""
        self._path.write_text(json.dumps(self.count()))

    def count(self) -> float:
        """Return the seconds so far."""
        return float(self._before + process_time() - self._started)


def run(spec: TrainingSpec, tables: dict[str, Path], base: Path | None, directory: Path) -> dict[str, Any]:
    """Train, or go on; return the test metrics and processor seconds, and leave the model in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    seconds = Seconds(directory)
    checkpoints = directory / "checkpoints"
    steps = sorted(checkpoints.glob("step-*"))
    saved = checkpoint.read(steps[-1]) if steps else None
    fitted = Design.from_dict(saved.design) if saved else None
    pin(spec.seed, 1)
    prepared = prepare(spec, tables, base=base, fitted=fitted, device=choose_device("cpu"))
    pin(spec.seed, 1)
    plan = Plan(spec.hyperparameters, None, spec.seed, checkpoints, spec.checkpointing)
    outcome = train(prepared, plan, seconds, saved)
    save(prepared.design, outcome.weights, directory)
    return {**outcome.position.metrics, "seconds": seconds.count()}


def pretrained(benchmark: Benchmark, data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, whose stages are made if they are not there."""
    base: Path | None = None
    for stage in benchmark.stages:
        directory = work / f"{benchmark.name}-{stage['task']}"
        if not (directory / "model.safetensors").exists():
            fields = {
                "architecture": "bert",
                "preprocessing": {} if base else benchmark.preprocessing,
                "split": {"validation": 0.0},
                **stage,
                **settings,
            }
            rows = read(data, f"{benchmark.name}_unlabeled", benchmark.suffix, work)
            found = run(TrainingSpec(kind="pretrain", **fields), {"train": rows}, base, directory)
            print(f"{benchmark.name}: {stage['task']} in {found['seconds']:.0f} processor seconds", flush=True)
        base = directory
    assert base is not None
    return base


def finetuned(few: Path, test: Path, base: Path | None, seed: int, preprocessing: Any, **more: Any) -> dict[str, Any]:
    """Return the metrics of one finetuning."""
    spec = TrainingSpec(
        kind="finetune", task=TASK, architecture="bert", columns=Columns(target="label"), seed=seed,
        preprocessing={} if base else preprocessing, split={"validation": 0.0}, **more,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, {"train": few, "test": test}, base, Path(directory))
    return {**found["test"], "seconds": found["seconds"]}


def classical(benchmark: Benchmark, few: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Fit a logistic regression on TF-IDF; measured with the same metrics."""
    started = process_time()
    texts, others = (table.column("text").to_pylist() for table in (few, test))
    vectors = TfidfVectorizer(**benchmark.tfidf).fit(texts)
    labels = few.column("label").to_pylist()
    model = LogisticRegression(C=10, max_iter=2000).fit(vectors.transform(texts), labels)
    right = np.array(model.predict(vectors.transform(others))) == np.array(test.column("label").to_pylist())
    return {"accuracy": float(as_tensor(right).double().mean()), "seconds": process_time() - started}


def apart(benchmark: Benchmark, data: Path, work: Path, few: Path) -> Path:
    """Return training rows that are not among the few, to choose settings by."""
    whole = open_table(read(data, f"{benchmark.name}_train", benchmark.suffix, work))
    known = set(open_table(few).column("text").to_pylist())
    rows = [row for row, text in enumerate(whole.column("text").to_pylist()) if text not in known]
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:CHOOSING_ROWS])
    return write(whole.take(chosen), work / f"{benchmark.name}-apart.arrow")


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per model and seed."""
    few = read(options.data, f"{benchmark.name}_{'train' if options.all_labels else 'few10'}", benchmark.suffix, work)
    if options.choose:
        test = apart(benchmark, options.data, work, few)
    else:
        test = read(options.data, f"{benchmark.name}_test", benchmark.suffix, work)
    place = {"dataset": benchmark.name, "rows": len(open_table(few))}

    def baseline() -> dict[str, float]:
        return kept(classical(benchmark, open_table(few), open_table(test)))

    def own() -> Path:
        return pretrained(benchmark, options.data, work, json.loads(options.pretrain))

    def network(model: str, seed: int) -> dict[str, float]:
        imported = IMPORTED_ALL if options.all_labels else IMPORTED
        base, more = start(options, model, own, {"hyperparameters": benchmark.finetuning}, imported)
        return kept(finetuned(few, test, base, seed, benchmark.preprocessing, **more))

    networks = models(options, benchmark.model)
    if not options.only:
        yield {**place, "model": "TF-IDF, logistic regression", "seed": 0}, baseline
    for seed in range(options.seeds):
        for model in {"pretrained": networks[:1], "scratch": networks[1:]}.get(options.only, networks):
            yield {**place, "model": model, "seed": seed}, partial(network, model, seed)


def kept(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table."""
    return {name: round(found[name], 5) for name in ("accuracy", "f1", "seconds") if found.get(name) is not None}


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = ["| dataset | labelled rows | model | runs | accuracy | seconds |", "|---|---|---|---|---|---|"]
    for (dataset, rows, model), group in grouped(results).items():
        accuracy = spread([result["accuracy"] for result in group])
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {dataset} | {rows} | {model} | {len(group)} | {accuracy} | {seconds:.0f} |")
    return "\n".join(lines)


def foreign(parser: argparse.ArgumentParser) -> None:
    """Add the options of a base model that was not pretrained here."""
    parser.add_argument("--base", type=Path, default=None, help="directory of a model to start from instead")
    parser.add_argument("--called", default="", help="what the table calls that model")


def models(options: argparse.Namespace, own: str) -> tuple[str, ...]:
    """Return what the table calls the networks that are compared, `own` the one that is pretrained here."""
    return (own, SCRATCH) if options.base is None else (f"imported {options.called}",)


def start(
    options: argparse.Namespace,
    model: str,
    own: Callable[[], Path],
    chosen: dict[str, Any],
    imported: dict[str, Any] = IMPORTED,
) -> tuple[Path | None, dict[str, Any]]:
    """Return the base model of a network, and its settings; `chosen` are those of what `own` gives, `imported` those of
    a model from elsewhere.
    """
    if options.base is not None:
        return options.base, {**imported, **json.loads(options.finetune)}
    if model == SCRATCH:
        return None, json.loads(options.scratch)
    return own(), {**chosen, **json.loads(options.finetune)}


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "training rows that are not among the few")
    foreign(parser)
    parser.add_argument("--only", choices=("pretrained", "scratch"), default=None, help="these networks alone")
    parser.add_argument("--all-labels", action="store_true", help="learn from the whole training file")
    report = few_labels.Report(RESULTS, "Label efficiency of texts", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
