"""How well faces are identified and verified: our embeddings, from scratch, beside pixels and a classical baseline.

    python benchmarks/faces.py [--data DIRECTORY] [--seeds 3] [--work DIRECTORY] [--scratch JSON]

`identify`: learned from two pictures of each of 15 people, who are enrolled by these two; each test picture, another of
the same people, is identified by the nearest of the 30 (`nearest`), as a gallery does it, or by what training made of a
person (`centre`), where a support vector machine has its own classes. `verify`: learned from all pictures of 15 people;
the pairs are of five others, by the list that is in the archive. Images are grey squares of 64 pixels. Nothing learns
from the five, and no model is pretrained. With --choose nothing is tested: settings are compared on training pictures
that are not among the two, and on the pairs of four of the training people, who are then not learned from.
Prints the table and writes benchmarks/results/faces.json and .md.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import few_labels
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from label_efficiency import grouped, spread, write
from sklearn.svm import SVC
from text_labels import read, run

from learning import verification
from learning.config import Columns, TrainingSpec
from learning.data import open_table
from learning.modalities.image import Image, ImageConfig
from learning.prediction import Predictor

RESULTS = Path(__file__).parent / "results" / "faces.json"
TASK = "image-embedding"
MODELS = (PIXELS, MACHINE, SCRATCH) = ("pixels", "support vector machine", "from scratch")
FIGURES = ("nearest", "centre", "auc", "eer", "tar_at_far_1")
IDENTIFY, VERIFY = "identify", "verify"
SIDE = 64
EMBEDDED_AT_ONCE = 64


@dataclass(frozen=True)
class Benchmark:
    """What is asked; and, chosen by --choose, how pictures are changed in training and the network if not the usual."""

    name: str
    augmentation: str
    network: dict[str, Any] = field(default_factory=dict)


BENCHMARKS = (
    Benchmark(IDENTIFY, "photo", {"widths": (32, 64, 128, 256), "depths": (1, 1, 1, 1)}),
    Benchmark(VERIFY, "drawn"),
)


class Question(NamedTuple):
    """Pictures to learn from, pictures to ask about, and which two of these are a pair, if not each two."""

    learned: pa.Table
    asked: pa.Table
    pairs: list[tuple[int, int, bool]] | None


def _subjects(table: pa.Table) -> np.ndarray[Any, Any]:
    return np.array(table.column("label").to_pylist())


def identification(data: Path, work: Path, choose: bool) -> Question:
    """Return two pictures of each person, and others of the same people."""
    few = open_table(read(data, "cmu_faces_few2", "zip", work))
    if not choose:
        return Question(few, open_table(read(data, "cmu_faces_test", "zip", work)), None)
    whole = open_table(read(data, "cmu_faces_train", "zip", work))
    known = {cell["bytes"] for cell in few.column("image").to_pylist()}
    rows = [row for row, cell in enumerate(whole.column("image").to_pylist()) if cell["bytes"] not in known]
    return Question(few, whole.take(rows), None)


def verifying(data: Path, work: Path, choose: bool) -> Question:
    """Return all pictures of some people, and pairs of others' pictures."""
    whole = open_table(read(data, "cmu_faces_train", "zip", work))
    if choose:
        held = pc.is_in(whole.column("label"), pa.array(sorted(set(_subjects(whole)))[::4]))
        return Question(whole.filter(pc.invert(held)), whole.filter(held), None)
    others = open_table(read(data, "cmu_faces_openset", "zip", work))
    number = {name: row for row, name in enumerate(others.column("file").to_pylist())}
    with zipfile.ZipFile(data / "cmu_faces_openset.zip") as archive:
        lines = csv.DictReader(io.StringIO(archive.read("pairs.csv").decode()))
        listed = [(number[line["image1"]], number[line["image2"]], line["same"] == "1") for line in lines]
    return Question(whole, others, listed)


def judged(question: Question, learned_NE: torch.Tensor, asked_NE: torch.Tensor) -> dict[str, Any]:
    """Return how well these vectors, of length 1, do what the question asks."""
    if question.pairs is None and set(_subjects(question.asked)) <= set(_subjects(question.learned)):
        nearest = (asked_NE @ learned_NE.T).argmax(1).numpy()
        right = _subjects(question.learned)[nearest] == _subjects(question.asked)
        return {"nearest": float(right.mean())}
    if question.pairs is None:
        codes = torch.from_numpy(np.unique(_subjects(question.asked), return_inverse=True)[1])
        found = verification.pairs(asked_NE, codes)
    else:
        score_P = torch.stack([asked_NE[one] @ asked_NE[other] for one, other, _ in question.pairs])
        same_P = torch.tensor([same for _, _, same in question.pairs])
        found = verification.Pairs(score_P[same_P], score_P[~same_P])
    (point,) = verification.operating_points(found, (0.01,))
    return {
        "auc": verification.auc(found),
        "eer": verification.equal_error_rate(found),
        "tar_at_far_1": point.true_accept_rate,
    }


def network(question: Question, seed: int, settings: dict[str, Any], work: Path) -> dict[str, Any]:
    """Learn embeddings and judge them."""
    spec = TrainingSpec(
        **{
            "kind": "finetune", "task": TASK, "architecture": "resnet", "columns": Columns(target="label"),
            "preprocessing": {"size": SIDE}, "seed": seed, "split": {"validation": 0.0}, **settings,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=work) as directory:
        files = {
            "train": write(question.learned, Path(directory) / "train.arrow"),
            "test": write(question.asked, Path(directory) / "test.arrow"),
        }
        found = run(spec, files, None, Path(directory) / "model")
        predictor = Predictor(Path(directory) / "model")
        vectors = [_embedded(predictor, table) for table in (question.learned, question.asked)]
    centre = {} if found["test"]["accuracy"] is None else {"centre": found["test"]["accuracy"]}
    return {**judged(question, *vectors), **centre, "seconds": found["seconds"]}


def _embedded(predictor: Predictor, table: pa.Table) -> torch.Tensor:
    rows = predictor.parse([cell["bytes"] for cell in table.column("image").to_pylist()]).rows
    parts = [rows[start : start + EMBEDDED_AT_ONCE] for start in range(0, len(rows), EMBEDDED_AT_ONCE)]
    return torch.tensor([one["embedding"] for part in parts for one in predictor.embed(part)])


def pixels(question: Question) -> dict[str, Any]:
    """Judge the pictures themselves, less their own mean, as vectors."""
    started = process_time()
    vectors = [torch.from_numpy(values - values.mean(1, keepdims=True)) for values in _pixels(question)]
    judgement = judged(question, *(torch.nn.functional.normalize(values, dim=1) for values in vectors))
    return {**judgement, "seconds": process_time() - started}


def machine(question: Question) -> dict[str, Any]:
    """Fit a support vector machine with an RBF kernel on pixels."""
    started = process_time()
    learned, asked = _pixels(question)
    model = SVC(C=10).fit(learned, _subjects(question.learned))
    right = model.predict(asked) == _subjects(question.asked)
    return {"centre": float(right.mean()), "seconds": process_time() - started}


def _pixels(question: Question) -> list[np.ndarray[Any, Any]]:
    state = Image().fit(question.learned, Columns(), ImageConfig(size=SIDE))
    tables = (question.learned, question.asked)
    return [Image().encode(table, state)["image_BCHW"].flatten(1).numpy() / 255 for table in tables]


def measure(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> Iterator[few_labels.Run]:
    """Yield each run, by model and seed, and what measures it."""
    ask = identification if benchmark.name == IDENTIFY else verifying
    question = ask(options.data, work, options.choose)
    place = {"dataset": benchmark.name, "rows": len(question.learned)}

    def rounded(make: Any) -> dict[str, float]:
        return {name: round(value, 5) for name, value in make().items()}

    yield {**place, "model": PIXELS, "seed": 0}, partial(rounded, partial(pixels, question))
    if benchmark.name == IDENTIFY:
        yield {**place, "model": MACHINE, "seed": 0}, partial(rounded, partial(machine, question))
    for seed in range(options.seeds):
        settings = {
            "task_config": {"augmentation": benchmark.augmentation},
            "architecture_config": benchmark.network,
            **json.loads(options.scratch),
        }
        train = partial(network, question, seed, settings, work)
        yield {**place, "model": SCRATCH, "seed": seed}, partial(rounded, train)


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table: mean and deviation over seeds."""
    lines = ["| question | pictures | model | runs | nearest | centre | AUC | EER | TAR at FAR 1 % | seconds |"]
    lines.append("|" + "---|" * 10)
    for (question, rows, model), group in grouped(results).items():
        figures = " | ".join(spread([result[name] for result in group]) if name in group[0] else "" for name in FIGURES)
        seconds = np.mean([result["seconds"] for result in group])
        lines.append(f"| {question} | {rows} | {model} | {len(group)} | {figures} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    about = __doc__ or ""
    parser = few_labels.options(about, BENCHMARKS, "training pictures and people that are left out")
    report = few_labels.Report(RESULTS, "Faces: identification and verification", about, TASK, summarise)
    few_labels.measure_all(parser.parse_args(), BENCHMARKS, measure, report)


if __name__ == "__main__":
    main()
