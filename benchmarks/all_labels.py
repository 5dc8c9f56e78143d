"""Tabular models on whole training sets beside the classical baseline, five seeds, measured once on the test file.

    python benchmarks/all_labels.py [--data DIRECTORY] [--seeds 5] [--cross-validate]

Three datasets take the default settings. breast_cancer, with 456 rows, takes those that twice-repeated ten-fold
cross-validation within its training rows prefers; `--cross-validate` prints that choice and looks at no test row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from label_efficiency import RESULTS, ROOT, read, run, write
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from learning.config import TrainingSpec
from learning.data import open_table

# What was compared on breast_cancer; the first to be listed is the default.
CANDIDATES: dict[str, dict[str, Any]] = {
    "default": {},
    "standard scaling": {"preprocessing": {"scaling": "standard"}},
    "standard scaling, one layer": {
        "preprocessing": {"scaling": "standard"},
        "architecture_config": {"hidden_sizes": [256]},
    },
    "standard scaling, weight decay 10": {
        "preprocessing": {"scaling": "standard"},
        "hyperparameters": {"weight_decay": 10.0},
    },
    "standard scaling, one layer, tanh, weight decay 5": {
        "preprocessing": {"scaling": "standard"},
        "architecture_config": {"hidden_sizes": [256], "activation": "tanh"},
        "hyperparameters": {"weight_decay": 5.0},
    },
}
CHOSEN = "standard scaling, one layer, tanh, weight decay 5"

# dataset: target, task, settings, metric, the classical baseline's score on the same test file, the score to reach
DATASETS: dict[str, tuple[str, str, dict[str, Any], str, str, float]] = {
    "breast_cancer": (
        "diagnosis", "tabular-classification", CANDIDATES[CHOSEN], "accuracy", "logistic regression 0.973", 0.973,
    ),
    "credit_default": ("default_next_month", "tabular-classification", {}, "auc", "boosting 0.783", 0.775),
    "bike_sharing": ("cnt", "tabular-regression", {}, "r2", "boosting 0.951", 0.93),
    "diabetes": ("progression", "tabular-regression", {}, "r2", "ridge 0.343", 0.34),
}  # fmt: skip


def spec(name: str, settings: dict[str, Any], seed: int) -> TrainingSpec:
    """Return the training of one seed."""
    target, task = DATASETS[name][:2]
    return TrainingSpec.model_validate(
        {
            "kind": "finetune",
            "task": task,
            "architecture": "mlp",
            "columns": {"target": target},
            "seed": seed,
            **settings,
        }
    )


def score(name: str, settings: dict[str, Any], tables: dict[str, Path], seed: int, directory: Path) -> float:
    """Train once; return the dataset's metric on the test part."""
    return float(run(spec(name, settings, seed), tables, None, directory)[DATASETS[name][3]])


def folds(table: pa.Table, directory: Path) -> Iterator[dict[str, Path]]:
    """Yield ten folds, twice."""
    for repeat in (1, 2):
        order = np.random.default_rng(repeat).permutation(len(table))
        for fold in range(10):
            held = np.isin(np.arange(len(table)), order[fold::10])
            parts = {"train": np.flatnonzero(~held), "test": np.flatnonzero(held)}
            yield {
                part: write(table.take(rows), directory / f"{repeat}-{fold}-{part}.arrow")
                for part, rows in parts.items()
            }


def cross_validate(data: Path, directory: Path) -> None:
    """Print the mean accuracy of every candidate over the folds of breast_cancer's training rows."""
    parts = list(folds(open_table(read(data, "breast_cancer_train", directory)), directory))
    print(f"{np.mean([_baseline(tables) for tables in parts]):.4f}  logistic regression")
    for name, settings in CANDIDATES.items():
        scores = [
            score("breast_cancer", settings, tables, number % 3, directory) for number, tables in enumerate(parts)
        ]
        print(f"{np.mean(scores):.4f}  {name}", flush=True)


def _baseline(tables: dict[str, Path]) -> float:
    train, test = (open_table(tables[part]) for part in ("train", "test"))
    names = [name for name in train.column_names if name != "diagnosis"]
    rows, others = (np.stack([table.column(name).to_numpy() for name in names], 1) for table in (train, test))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(rows, train.column("diagnosis").to_pylist())
    return float(model.score(others, test.column("diagnosis").to_pylist()))


def main() -> None:
    """Measure, print the table, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cross-validate", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        if options.cross_validate:
            cross_validate(options.data, directory)
            return
        lines = ["| dataset | metric | mean ± sd | seeds | classical | to reach |", "|---|---|---|---|---|---|"]
        for name, (_, _, settings, metric, classical, bar) in DATASETS.items():
            tables = {part: read(options.data, f"{name}_{part}", directory) for part in ("train", "test")}
            found = [score(name, settings, tables, seed, directory) for seed in range(options.seeds)]
            cells = (name, metric, f"{np.mean(found):.4f} ± {np.std(found):.4f}", options.seeds, classical, bar)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
            print(lines[-1], flush=True)
    text = f"# Whole training sets\n\n{(__doc__ or '').split(chr(10) * 2, 2)[2]}\n" + "\n".join(lines) + "\n"
    (RESULTS / "all_labels.md").write_text(text)
    (RESULTS / "all_labels.json").write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
