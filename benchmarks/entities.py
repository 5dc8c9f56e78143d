"""What pretraining gives where entities are found: from scratch and a classical baseline beside it.

    python benchmarks/entities.py [--data DIRECTORY] [--datasets wnut17 ...] [--seeds 3] [--work DIRECTORY]

Networks have the default settings. The base model learns from the tokens of the training file, once; two hundred tagged
sentences or all of them are learned from, or with --refit also those of the development file, by which settings were
chosen before; everything is measured on the test file, F1 of whole entities. With --choose it is measured on the
development file.
Prints the table and writes benchmarks/results/entities.json and .md. With --work the base model stays there, is used
again, and its training goes on where it was stopped. With --base a model from elsewhere is finetuned instead.
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
from label_efficiency import grouped, spread, write
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from text_labels import foreign, models, read, run, start

from learning.config import TrainingSpec
from learning.data import open_table
from learning.entities import Tally, numbered, spans

RESULTS = Path(__file__).parent / "results" / "entities.json"
TASK = "token-classification"
FEW = 200


@dataclass(frozen=True)
class Benchmark:
    """A dataset's files, and whether its few sentences are a file of their own."""

    name: str
    suffix: str
    few: str | None = None


BENCHMARKS = (Benchmark("wnut17", "jsonl", "wnut17_few200"), Benchmark("uner_zh", "conll"))


def pretrained(benchmark: Benchmark, data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Return the directory of the base model, made if it is not there."""
    directory = work / f"{benchmark.name}-base"
    if not (directory / "model.safetensors").exists():
        spec = TrainingSpec(
            kind="pretrain", task="masked-tokens", architecture="bert", columns={"text": "tokens"}, **settings
        )
        rows = read(data, f"{benchmark.name}_train", benchmark.suffix, work)
        found = run(spec, {"train": rows}, None, directory)
        print(f"{benchmark.name}: pretrained in {found['seconds']:.0f} processor seconds", flush=True)
    return directory


def finetuned(rows: Path, test: Path, base: Path | None, seed: int, **more: Any) -> dict[str, Any]:
    """Return the metrics of one finetuning."""
    spec = TrainingSpec(
        kind="finetune", task=TASK, architecture="bert", columns={"target": "tags"}, seed=seed,
        split={"validation": 0.0}, **more,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        found = run(spec, {"train": rows, "test": test}, base, Path(directory))
    return {**found["test"], "seconds": found["seconds"]}


def features(words: list[str], place: int) -> dict[str, Any]:
    """Return what a classical tagger knows of a word: itself, its form and ends, and its neighbours."""
    found: dict[str, Any] = {}
    for step in (-2, -1, 0, 1, 2):
        word = words[place + step] if 0 <= place + step < len(words) else ""
        found[f"word{step}"] = word.lower()
        found[f"form{step}"] = (word.istitle(), word.isupper(), word.isdigit(), word.isalpha()).__repr__()
    word = words[place]
    return {**found, **{f"ends{n}": word[-n:] for n in (1, 2, 3)}, **{f"begins{n}": word[:n] for n in (1, 2, 3)}}


def classical(rows: pa.Table, test: pa.Table) -> dict[str, Any]:
    """Fit a logistic regression of each word's tag; measured with the same metrics."""
    started = process_time()
    described = [
        [features(words, place) for place in range(len(words))]
        for table in (rows, test)
        for words in table.column("tokens").to_pylist()
    ]
    known, others = described[: len(rows)], described[len(rows) :]
    vectors = DictVectorizer()
    inputs = vectors.fit_transform([word for row in known for word in row])
    tags = [tag for row in rows.column("tags").to_pylist() for tag in row]
    model = LogisticRegression(C=10, max_iter=300).fit(inputs, tags)
    kinds = sorted({tag[2:] for tag in tags if tag != "O"})
    number = {kind: place for place, kind in enumerate(kinds)}
    tally = Tally(kinds)
    for row, wanted in zip(others, test.column("tags").to_pylist(), strict=True):
        found = model.predict(vectors.transform(row)).tolist()
        tally.add(spans(numbered(wanted, number)), spans(numbered(found, number)))
    return {"f1": tally.metrics()["f1"], "seconds": process_time() - started}


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per number of rows, model and seed."""
    whole = read(options.data, f"{benchmark.name}_train", benchmark.suffix, work)
    dev, test = (read(options.data, f"{benchmark.name}_{part}", benchmark.suffix, work) for part in ("dev", "test"))
    if benchmark.few is not None:
        few = read(options.data, benchmark.few, benchmark.suffix, work)
    else:
        few = write(open_table(whole).slice(0, FEW), work / f"{benchmark.name}-few.arrow")

    def baseline(rows: Path) -> dict[str, float]:
        return kept(classical(open_table(rows), open_table(measured_on)))

    def own() -> Path:
        return pretrained(benchmark, options.data, work, json.loads(options.pretrain))

    def network(rows: Path, model: str, seed: int) -> dict[str, float]:
        base, more = start(options, model, own, {})
        return kept(finetuned(rows, measured_on, base, seed, **more))

    measured_on = dev if options.choose else test
    learned_from = (few, whole) if options.all else (few,)
    if options.refit:
        both = pa.concat_tables([open_table(whole), open_table(dev)])
        learned_from = (write(both, work / f"{benchmark.name}-both.arrow"),)
    for rows in learned_from:
        place = {"dataset": benchmark.name, "rows": len(open_table(rows))}
        yield {**place, "model": "logistic regression", "seed": 0}, partial(baseline, rows)
        for seed in range(options.seeds):
            for model in models(options, "masked-tokens"):
                yield {**place, "model": model, "seed": seed}, partial(network, rows, model, seed)


def kept(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table."""
    return {name: round(found[name], 5) for name in ("f1", "precision", "recall", "seconds") if name in found}


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = ["| dataset | tagged sentences | model | runs | F1 | seconds |", "|---|---|---|---|---|---|"]
    for (dataset, rows, model), group in grouped(results).items():
        score = spread([result["f1"] for result in group])
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {dataset} | {rows} | {model} | {len(group)} | {score} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "the development file")
    foreign(parser)
    parser.add_argument("--all", action="store_true", help="learn from all tagged sentences too, which takes longer")
    parser.add_argument("--refit", action="store_true", help="learn from those of the training and development file")
    report = few_labels.Report(RESULTS, "Label efficiency of entities", about, TASK, summarise)
    options = parser.parse_args()
    if options.choose and options.refit:
        parser.error("--choose measures on the development file, which --refit learns from: give one of them")
    few_labels.measure_all(options, BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
