"""English to Chinese from 27,498 pairs of Tatoeba, and from 2,000, with and without pretraining by denoising.

    python benchmarks/translation.py [--data DIRECTORY] [--datasets all few2000] [--seeds 3] [--work DIRECTORY]

Copying the source, and the target of the nearest training source (TF-IDF of words and pairs of words), are beside it;
a model is to have twice the chrF of both. The epochs are meant to take ten minutes on two cores, 1,200 processor
seconds, at most, of all pairs those of pretraining among them, which the seconds of a pretrained model count.
Denoising learns from both columns of all training pairs as single sentences, without who belongs to whom. Everything
is measured on the test file, greedily and with a beam of 4. With --choose on the dev file instead, by which settings
are compared.
Prints the table and writes benchmarks/results/translation.json and .md. With --work models stay there, and trainings go
on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import few_labels
import numpy as np
import pyarrow as pa
from label_efficiency import grouped, spread, write
from sklearn.feature_extraction.text import TfidfVectorizer
from text_labels import read, run

from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.prediction import Predictor
from learning.translation_scores import bleu, chrf

RESULTS = Path(__file__).parent / "results" / "translation.json"
NAME, TASK, BEAM = "tatoeba_en_zh", "translation", 4
NETWORK = {"architecture": "seq2seq", "architecture_config": {"layers": 2, "width": 192}}
ADAM = {"betas": (0.9, 0.98), "learning_rate": 2e-3}


@dataclass(frozen=True)
class Benchmark:
    """Training pairs, and for how long a network learns from them."""

    name: str
    file: str
    settings: dict[str, Any] = field(default_factory=dict)
    finetuning: dict[str, Any] = field(default_factory=dict)  # where a pretrained model has others


# Those of all pairs were chosen on the dev file, by which pretrained weights in half the epochs are better by far.
BENCHMARKS = (
    Benchmark("all", "train", {"epochs": 16, "batch_size": 64, "dropout": 0.2}, {"epochs": 8}),
    Benchmark("few2000", "few2000", {"epochs": 40, "batch_size": 32, "dropout": 0.2}),
)
MODELS = ("from scratch", "denoising")
PRETRAINING = {"epochs": 5, "batch_size": 64}


def pretrained(options: argparse.Namespace, work: Path) -> Path:
    """Return the directory of the base model, made if it is not there."""
    directory = work / "base"
    if not (directory / "model.safetensors").exists():
        rows = open_table(read(options.data, f"{NAME}_train", "jsonl", work))
        texts = [text for name in ("source", "target") for text in rows.column(name).to_pylist()]
        mixed = np.random.default_rng(0).permutation(len(texts))
        table = write(pa.table({"text": [texts[place] for place in mixed]}), work / "texts.arrow")
        spec = TrainingSpec(
            kind="pretrain", task="denoising", split={"validation": 0.0},
            hyperparameters={**ADAM, **PRETRAINING, **json.loads(options.pretrain)}, **NETWORK,
        )  # fmt: skip
        found = run(spec, {"train": table}, None, directory)
        print(f"pretrained in {found['seconds']:.0f} processor seconds", flush=True)
    return directory


def network(benchmark: Benchmark, model: str, seed: int, options: argparse.Namespace, work: Path) -> dict[str, float]:
    """Return the figures of one training."""
    base = pretrained(options, work) if model == "denoising" else None
    more = {**benchmark.finetuning, **json.loads(options.finetune)} if base else json.loads(options.scratch)
    spec = TrainingSpec(
        kind="finetune", task=TASK, columns=Columns(text="source", target="target"), seed=seed,
        split={"validation": 0.0}, hyperparameters={**ADAM, **benchmark.settings, **more}, **NETWORK,
    )  # fmt: skip
    directory = work / f"{benchmark.name}-{model.replace(' ', '-')}-{seed}"
    rows = read(options.data, f"{NAME}_{benchmark.file}", "jsonl", work)
    found = run(spec, {"train": rows}, base, directory)
    sources, wanted = asked_for(options, work)
    predictor = Predictor(directory)
    figures: dict[str, float] = {}
    for name, width in (("", 1), ("_beam", BEAM)):
        answers = predictor.predict(sources, predictor.options({"beam_width": width})).outputs
        figures |= scored([str((answer or {})["translation"]) for answer in answers], wanted, name)
    before = json.loads((base / "seconds.json").read_text()) if base else 0.0
    return {**figures, "seconds": round(before + found["seconds"])}


def asked_for(options: argparse.Namespace, work: Path) -> tuple[list[str], list[str]]:
    """Return sources and targets to be measured on."""
    table = open_table(read(options.data, f"{NAME}_{'dev' if options.choose else 'test'}", "jsonl", work))
    return table.column("source").to_pylist(), table.column("target").to_pylist()


def scored(found: list[str], wanted: list[str], name: str = "") -> dict[str, float]:
    """Return the figures of translations."""
    exact = sum(map(str.__eq__, found, wanted)) / len(wanted)
    return {
        f"chrf{name}": round(chrf(found, wanted), 3),
        f"bleu{name}": round(bleu(found, wanted), 3),
        f"exact{name}": exact,
    }


def nearest(rows: pa.Table, sources: list[str]) -> list[str]:
    """Return the target of the training source that is most like each source."""
    known = rows.column("source").to_pylist()
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+").fit(known)
    places = (vectors.transform(sources) @ vectors.transform(known).T).toarray().argmax(1)
    targets = rows.column("target").to_pylist()
    return [targets[place] for place in places]


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield one run per model and seed."""
    rows = open_table(read(options.data, f"{NAME}_{benchmark.file}", "jsonl", work))
    place = {"dataset": benchmark.name, "rows": rows.num_rows}

    def copied() -> dict[str, float]:
        sources, wanted = asked_for(options, work)
        return {**scored(sources, wanted), "seconds": 0}

    def retrieved() -> dict[str, float]:
        started = process_time()
        sources, wanted = asked_for(options, work)
        return {**scored(nearest(rows, sources), wanted), "seconds": round(process_time() - started)}

    yield {**place, "model": "copying", "seed": 0}, copied
    yield {**place, "model": "nearest neighbour", "seed": 0}, retrieved
    for seed in range(options.seeds):
        for model in MODELS:
            yield {**place, "model": model, "seed": seed}, partial(network, benchmark, model, seed, options, work)


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = [
        "| pairs | model | runs | chrF | BLEU | exact | chrF, beam | BLEU, beam | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (_, rows, model), group in grouped(results).items():
        names = ("chrf", "bleu", "exact", "chrf_beam", "bleu_beam")
        cells = [spread([one[name] for one in group]) if name in group[0] else "" for name in names]
        seconds = np.mean([one["seconds"] for one in group])
        lines.append(f"| {rows} | {model} | {len(group)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "the dev file")
    report = few_labels.Report(RESULTS, "Translation", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
