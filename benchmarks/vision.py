"""How fast images are decoded and ResNet-18 learns from them: this service's loop beside its peers, in one run.

    python benchmarks/vision.py [--quick]

Training is on one core, decoding on all. Prints tables and writes benchmarks/results/vision.json and .md. Wants the
dependency group `bench`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from clock import Clock
from photographs import photograph
from tabular import Pipe, processor
from tabular_peers import Run
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from trainer_peer import trainer

from learning.config import Columns, Hyperparameters, Split, TrainingSpec
from learning.data import open_table
from learning.device import is_slow
from learning.ingestion import IngestOptions, ingest
from learning.modalities.image import Image, ImageConfig
from learning.preparation import Prepared, prepare
from learning.training import Plan, train

RESULTS = Path(__file__).parent / "results"
SIDE, CLASSES, BATCH, RATE = 32, 10, 32, 1e-3
# Longer sides of JPEG files: small ones as in data sets for learning, and what a telephone shrinks a picture to.
JPEG_SIDES = (128, 512)
# Ours over another's rate, in each precision.
BARS = (("ours", "HF Trainer", {"fp32": 1.4, "bf16": 1.6}), ("ours", "floor", {"fp32": 0.93, "bf16": 0.93}))
LEAST_OF_PILLOW = 0.9


def archive(path: Path, images: int, width: int, height: int, file_format: str, **options: Any) -> list[bytes]:
    """Write a zip of pictures in folders of ten classes; return the files."""
    generator = np.random.default_rng(3)
    files = [photograph(generator, width, height, file_format, **options) for _ in range(images)]
    with zipfile.ZipFile(path, "w") as zipped:
        for number, content in enumerate(files):
            zipped.writestr(f"class-{number % CLASSES}/{number}.{file_format.lower()}", content)
    return files


def prepared(rows: Path, epochs: int, precision: str, augmentation: str) -> tuple[TrainingSpec, Prepared]:
    """Prepare as a job is, but without validation rows."""
    spec = TrainingSpec(
        kind="finetune",
        task="image-classification",
        task_config={"augmentation": augmentation, "label_smoothing": 0.0},
        architecture="resnet",
        architecture_config={"size": "18", "stem": "7x7/4"},
        columns=Columns(target="label"),
        hyperparameters=Hyperparameters(epochs=epochs, batch_size=BATCH, learning_rate=RATE, precision=precision),
        split=Split(validation=0.0),
        device="cpu",
    )
    torch.manual_seed(0)
    return spec, prepare(spec, {"train": rows}, device=torch.device("cpu"))


def job(epochs: int, rows: Path, precision: str, augmentation: str, pipe: Pipe) -> Run:
    """A job's training, as the worker's child runs it; its seconds end with the last step, before the evaluation."""
    spec, ready = prepared(rows, epochs, precision, augmentation)
    # The callback tells of files under its own directory.
    checkpoints = Path(tempfile.mkdtemp(dir=pipe.assignment.directory)) / "checkpoints"
    plan = Plan(spec.hyperparameters, None, spec.seed, checkpoints)
    clock = Clock()

    def run() -> float:
        start = perf_counter()
        with Path(os.devnull).open("w") as log, redirect_stderr(log), clock.running():
            train(ready, plan, pipe.reporter())
        return clock.last_at - start

    return run


def their_network() -> nn.Module:
    """Return Transformers' ResNet-18 with a new head."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    shape: dict[str, Any] = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    shape |= {"embedding_size": 64, "num_labels": CLASSES}
    return ResNetForImageClassification(ResNetConfig(**shape))


def floor(epochs: int, rows: Path, precision: str) -> Run:
    """Forward, backward and fused step of our network on one batch that never changes."""
    _, ready = prepared(rows, 1, precision, "none")
    network = ready.network.train()
    batch = next(iter(ready.train.batches(torch.arange(BATCH), BATCH)))
    image_BCHW = batch["image_BCHW"].float()
    target_B = torch.arange(BATCH) % CLASSES
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)
    steps = epochs * (len(ready.train) // BATCH)

    def run() -> None:
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                outputs = network({"image_BCHW": image_BCHW})
            functional.cross_entropy(outputs.float(), target_B).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


class _Rows(Dataset[dict[str, Tensor]]):
    """Images decoded and normalised beforehand, which the clock does not see."""

    def __init__(self, rows: Path) -> None:
        table = open_table(rows)
        state = Image().fit(table, Columns(target="label"), ImageConfig())
        self._pixels_NCHW = Image().encode(table, state)["image_BCHW"].float() / 128 - 1
        names = table.column("label").to_pylist()
        self._target_N = torch.tensor([int(name.rpartition("-")[2]) for name in names])

    def __len__(self) -> int:
        return len(self._target_N)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self._pixels_NCHW[index], "labels": self._target_N[index]}


def hugging_face_trainer(epochs: int, rows: Path, precision: str) -> Run:
    """Return what trains by transformers.Trainer."""
    return trainer(their_network(), _Rows(rows), epochs, BATCH, RATE, bf16=precision == "bf16")


def seconds_of(run: Run) -> float:
    """Return the seconds that a run says it took, or those of the clock."""
    start = perf_counter()
    told = run()
    return told if isinstance(told, float) else perf_counter() - start


def compete(rows: Path, images: int, precision: str, repetitions: int, epochs: int) -> dict[str, dict[str, float]]:
    """Measure everybody in turn, again and again, so that what disturbs one disturbs all; return images per second."""
    pipe = Pipe()
    ways: dict[str, Callable[[int], Run]] = {
        "ours": partial(job, rows=rows, precision=precision, augmentation="none", pipe=pipe),
        "ours, photographs changed": partial(job, rows=rows, precision=precision, augmentation="photo", pipe=pipe),
        "floor": partial(floor, rows=rows, precision=precision),
        "HF Trainer": partial(hugging_face_trainer, rows=rows, precision=precision),
    }
    for way in ways.values():
        way(1)()  # what happens at the first use only
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            rates[name].append(epochs * images / seconds_of(way(epochs)))
    return {
        name: {"median": statistics.median(all_of), "lowest": min(all_of), "highest": max(all_of)}
        for name, all_of in rates.items()
    }


@contextmanager
def one_core() -> Any:
    """Keep this process to one core meanwhile."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def decode(scratch: Path, side: int, images: int, repetitions: int) -> dict[str, float]:
    """Return images per second of Pillow's decoder on one core, and of ours on all: a job's part, and with upload."""
    from PIL import Image as Pillow

    source, canonical = scratch / f"{side}.zip", scratch / f"{side}.arrow"
    files = archive(source, images, side, side * 3 // 4, "JPEG", quality=85)
    found: dict[str, list[float]] = {"Pillow, one core": [], "stored to tensors": [], "zip to tensors": []}
    for _ in range(repetitions):
        start = perf_counter()
        with one_core():
            for content in files:
                Pillow.open(io.BytesIO(content)).load()
        found["Pillow, one core"].append(images / (perf_counter() - start))
        start = perf_counter()
        canonical.unlink(missing_ok=True)
        ingest(source, source.name, canonical, IngestOptions())
        stored = perf_counter()
        table = open_table(canonical)
        state = Image().fit(table, Columns(target="label"), ImageConfig(normalization="none"))
        Image().encode(table, state)
        found["stored to tensors"].append(images / (perf_counter() - stored))
        found["zip to tensors"].append(images / (perf_counter() - start))
    return {name: statistics.median(rates) for name, rates in found.items()}


def judge(results: dict[str, Any]) -> str:
    """Return the bars as a table."""
    lines = ["| bar | wanted | reached | |", "|---|---:|---:|---|"]
    for ours, other, least in BARS:
        for precision, rates in results["training"].items():
            reached = rates[ours]["median"] / rates[other]["median"]
            lines.append(_verdict(f"{precision}: {ours} over {other}", least[precision], reached))
    for side, rates in results["decoding"].items():
        for ours in ("stored to tensors", "zip to tensors"):
            reached = rates[ours] / rates["Pillow, one core"] / results["host"]["cores"]
            lines.append(_verdict(f"JPEG, {side} px: {ours} over Pillow times cores", LEAST_OF_PILLOW, reached))
    return "\n".join(lines)


def _verdict(what: str, least: float, reached: float) -> str:
    return f"| {what} | {least:g} | {reached:.2f} | {'met' if reached >= least else 'missed'} |"


def report(results: dict[str, Any], repetitions: int) -> str:
    """Return the results as Markdown."""
    host, training = results["host"], results["training"]
    lines = [
        f"{host['processor']}, {host['cores']} cores, torch {host['torch']}; medians of {repetitions} runs.",
        "" if "bf16" in training else "This processor has no instructions for bf16: nothing was measured in it.\n",
        f"| ResNet-18, {SIDE} px, batch {BATCH}, one core | {' | '.join(f'{name} images/s' for name in training)} |",
        "|---|" + "---:|" * len(training),
    ]
    for name in training["fp32"]:
        rates = [f"{training[precision][name]['median']:,.0f}" for precision in training]
        lines.append(f"| {name} | {' | '.join(rates)} |")
    lines += ["", f"| JPEG, images/s | {' | '.join(f'{side} px' for side in results['decoding'])} |"]
    lines += ["|---|" + "---:|" * len(results["decoding"])]
    columns = list(results["decoding"].values())
    for name in columns[0]:
        lines.append(f"| {name} | {' | '.join(f'{rates[name]:,.0f}' for rates in columns)} |")
    return "\n".join([*lines, "", judge(results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes, to see that it runs")
    quick = parser.parse_args().quick
    images, jpegs, repetitions, epochs = (128, 100, 1, 2) if quick else (1024, 1000, 3, 3)
    results: dict[str, Any] = {
        "host": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(),
                 "torch": torch.__version__},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="anneal-vision-") as directory:
        scratch = Path(directory)
        results["decoding"] = {side: decode(scratch, side, jpegs, repetitions) for side in JPEG_SIDES}
        archive(scratch / "train.zip", images, SIDE, SIDE, "PNG")
        rows = scratch / "train.arrow"
        ingest(scratch / "train.zip", "train.zip", rows, IngestOptions())
        with one_core():
            precisions = ("fp32",) if is_slow("bf16", torch.device("cpu")) else ("fp32", "bf16")
            results["training"] = {
                precision: compete(rows, images, precision, repetitions, epochs) for precision in precisions
            }
    text = report(results, repetitions)
    print(text)
    if not quick:
        (RESULTS / "vision.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "vision.md").write_text(f"# Vision\n\n{text}\n")


if __name__ == "__main__":
    main()
