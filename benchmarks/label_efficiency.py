"""What pretraining gives on tables with few labels: from scratch and classical baselines beside it.

    python benchmarks/label_efficiency.py [--data DIRECTORY] [--datasets breast_cancer ...] [--seeds 3] [--draws 3]

Every network has the default settings. Few labelled rows are the given file (draw 0) and fresh draws from the training
rows; base models learn from the training rows without their labels. Everything is measured on the test file.
Prints the table and writes benchmarks/results/label_efficiency.json and .md, keeping other datasets' earlier results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV

from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.device import choose_device, describe, pin
from learning.ingestion import IngestOptions, ingest
from learning.modalities.tabular import Tabular, TabularConfig
from learning.model import save
from learning.preparation import prepare
from learning.tasks import TASKS
from learning.training import Plan, train

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PRETRAINING = ("masked-features", "contrastive-features")
SHOWN = ("accuracy", "auc", "r2")


@dataclass(frozen=True)
class Benchmark:
    """A dataset, what to predict, and how few rows are few: per class, or in all for a number."""

    name: str
    target: str
    task: str
    few: int
    few_file: str | None = None


BENCHMARKS = (
    Benchmark("breast_cancer", "diagnosis", "tabular-classification", 10, "breast_cancer_few10"),
    Benchmark("credit_default", "default_next_month", "tabular-classification", 100, "credit_default_few100"),
    Benchmark("bike_sharing", "cnt", "tabular-regression", 200),
    Benchmark("diabetes", "progression", "tabular-regression", 50),
)


def _leaf(rows: int) -> int:
    """Return the least rows of a leaf: scikit-learn's 20, but fewer where 20 rows are all there is."""
    return min(20, max(1, rows // 10))


CLASSICAL: dict[str, dict[str, Callable[[int], Any]]] = {
    "tabular-classification": {
        "logistic regression": lambda rows: LogisticRegression(max_iter=5000),
        "gradient boosting": lambda rows: HistGradientBoostingClassifier(min_samples_leaf=_leaf(rows), random_state=0),
    },
    "tabular-regression": {
        "ridge": lambda rows: RidgeCV(np.logspace(-2, 4, 25)),
        "gradient boosting": lambda rows: HistGradientBoostingRegressor(min_samples_leaf=_leaf(rows), random_state=0),
    },
}


class Silent:
    """A callback that hears nothing and never stops."""

    def on_step(self, progress: dict[str, Any]) -> None:
        """Hear nothing."""

    def on_evaluation(self, split: str, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Hear nothing."""

    def on_checkpoint(self, path: Path, position: Any) -> None:
        """Hear nothing."""

    def should_stop(self) -> bool:
        """Never stop."""
        return False


def run(spec: TrainingSpec, tables: dict[str, Path], base: Path | None, directory: Path) -> dict[str, Any]:
    """Train; return the metrics of the last part there is and the seconds, and leave the model in `directory`."""
    started = perf_counter()
    pin(spec.seed, 1)
    prepared = prepare(spec, tables, base=base, device=choose_device("cpu"))
    plan = Plan(spec.hyperparameters, spec.early_stopping, spec.seed, directory / "checkpoints")
    outcome = train(prepared, plan, Silent())
    save(prepared.design, outcome.weights, directory)
    return {**outcome.position.metrics.get("test", {}), "seconds": perf_counter() - started}


def classical(which: str, benchmark: Benchmark, few: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Fit scikit-learn on the same features, scaled on the same rows; measure with the same metrics."""
    started = perf_counter()
    task, columns, modality = TASKS[benchmark.task], Columns(target=benchmark.target), Tabular()
    inputs = modality.fit(few, columns, TabularConfig())
    state: Any = task.fit(few, columns, task.Config(), inputs)
    rows, others = (modality.encode(table, inputs)["inputs_BF"].numpy() for table in (few, test))
    targets = next(iter(task.targets(few, state, {}).values())).numpy().reshape(len(few))
    model = CLASSICAL[benchmark.task][which](len(few)).fit(rows, targets)
    if benchmark.task == "tabular-classification":
        predictions = model.predict_proba(others)
    else:
        predictions = model.predict(others)[:, None] * state.deviations[0] + state.means[0]
    metrics = task.metrics(as_tensor(predictions), task.targets(test, state, {}), state)
    return {**metrics, "seconds": perf_counter() - started}


def as_tensor(values: Any) -> Any:
    """Return an array as a tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))


def draw(train_rows: pa.Table, benchmark: Benchmark, number: int) -> pa.Table:
    """Return a fresh draw of few labelled rows: as many of each class, or as many in all."""
    generator = np.random.default_rng((20_260, number))
    if benchmark.task == "tabular-regression":
        return train_rows.take(np.sort(generator.permutation(len(train_rows))[: benchmark.few]))
    labels = np.array(train_rows.column(benchmark.target).to_pylist())
    parts = [generator.permutation(np.flatnonzero(labels == label))[: benchmark.few] for label in np.unique(labels)]
    return train_rows.take(np.sort(np.concatenate(parts)))


def write(table: pa.Table, path: Path) -> Path:
    """Write a table as the Arrow file that training reads."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return path


def read(data: Path, name: str, directory: Path) -> Path:
    """Ingest a CSV file of the data folder as an upload would be."""
    path = directory / f"{name}.arrow"
    ingest(data / f"{name}.csv", f"{name}.csv", path, IngestOptions())
    return path


def measure(benchmark: Benchmark, data: Path, seeds: int, draws: int, directory: Path) -> Iterator[dict[str, Any]]:
    """Yield one result per model, draw and seed."""
    train_path, test_path = (read(data, f"{benchmark.name}_{part}", directory) for part in ("train", "test"))
    whole, test = open_table(train_path), open_table(test_path)
    bases = {task: pretrained(benchmark, task, train_path, directory) for task in PRETRAINING}
    samples: dict[tuple[str, int], Path] = {("all", 0): train_path}
    if benchmark.few_file:
        samples["few", 0] = read(data, benchmark.few_file, directory)
    for number in range(1, draws + 1):
        samples["few", number] = write(draw(whole, benchmark, number), directory / f"draw{number}.arrow")
    for (labels, number), path in samples.items():
        place = {"dataset": benchmark.name, "labels": labels, "rows": len(open_table(path)), "draw": number}
        for seed in range(seeds):
            for model, base in {"from scratch": None, **bases}.items():
                spec = TrainingSpec(
                    kind="finetune",
                    task=benchmark.task,
                    architecture="mlp",
                    columns=Columns(target=benchmark.target),
                    seed=seed,
                )
                found = run(spec, {"train": path, "test": test_path}, base, directory / "model")
                yield {**place, "model": model, "seed": seed, **kept(found)}
        for model in CLASSICAL[benchmark.task]:
            yield {**place, "model": model, "seed": 0, **kept(classical(model, benchmark, open_table(path), test))}


def pretrained(benchmark: Benchmark, task: str, train_path: Path, directory: Path) -> Path:
    """Return the directory of a base model of the training rows without the target."""
    columns = Columns(ignore=(benchmark.target,))
    spec = TrainingSpec(kind="pretrain", task=task, architecture="mlp", columns=columns)
    found = run(spec, {"train": train_path}, None, directory / task)
    print(f"{benchmark.name}: {task} took {found['seconds']:.1f} s", flush=True)
    return directory / task


def kept(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table."""
    return {name: round(found[name], 5) for name in (*SHOWN, "seconds") if found.get(name) is not None}


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over draws and seeds."""
    lines = [
        "| dataset | labelled rows | model | runs | accuracy | AUC | R2 | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (dataset, rows, model), group in grouped(results).items():
        figures = [spread([result[name] for result in group if name in result]) for name in SHOWN]
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {dataset} | {rows} | {model} | {len(group)} | {' | '.join(figures)} | {seconds:.1f} |")
    return "\n".join(lines)


def group_of(result: dict[str, Any]) -> tuple[str, int, str]:
    """Return which runs a result stands beside: those of its dataset, number of rows and model."""
    return result["dataset"], result["rows"], result["model"]


def grouped(results: list[dict[str, Any]]) -> dict[tuple[str, int, str], list[dict[str, Any]]]:
    """Return the results by their groups, in the order in which these begin."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(group_of(result), []).append(result)
    return groups


def spread(values: list[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data", help="folder of the CSV files")
    parser.add_argument("--datasets", nargs="*", default=[benchmark.name for benchmark in BENCHMARKS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3, help="fresh draws of few labelled rows beside the given file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    results: list[dict[str, Any]] = []
    for benchmark in (benchmark for benchmark in BENCHMARKS if benchmark.name in options.datasets):
        with tempfile.TemporaryDirectory() as directory:
            results += measure(benchmark, options.data, options.seeds, options.draws, Path(directory))
        print(summarise([result for result in results if result["dataset"] == benchmark.name]), flush=True)
    store(results, {"machine": describe(choose_device("cpu"))})


def store(results: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Write the results beside those of the datasets that were not run this time."""
    path = RESULTS / "label_efficiency.json"
    path.parent.mkdir(exist_ok=True)
    run_now = {result["dataset"] for result in results}
    earlier = json.loads(path.read_text())["results"] if path.exists() else []
    results = [result for result in earlier if result["dataset"] not in run_now] + results
    path.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    what, _, how = (__doc__ or "").split("\n\n")
    how = how.rpartition("Prints")[0]
    path.with_suffix(".md").write_text(
        f"# Label efficiency\n\n{what}\n{how}\nMean and standard deviation over draws and seeds; one thread.\n\n"
        f"{summarise(results)}\n"
    )


if __name__ == "__main__":
    main()
