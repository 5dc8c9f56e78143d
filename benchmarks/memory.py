"""How much memory ingestion and pretraining take on a text file that is larger than it.

    python benchmarks/memory.py --task masked-tokens --mib 2048

Each part is a process of its own, as in a job; what it holds is read from the kernel all the while. "anonymous" is what
it has allocated; pages of mapped files that happen to be in memory count beside, since the kernel takes them back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_MIB = 1024
_BLOCK_LINES = 100_000
_SYLLABLES = [
    f"{first}{vowel}{last}" for first in "bdfgklmnprstvz" for vowel in "aeiou" for last in ("", "n", "s", "r")
]


def write_text(path: Path, mib: int) -> int:
    """Write lines of drawn words, some tens of characters each, and return how many lines there are."""
    draw = random.Random(0)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(30_000)]
    cumulated = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(words))))
    block = [" ".join(draw.choices(words, cum_weights=cumulated, k=draw.randint(3, 14))) for _ in range(_BLOCK_LINES)]
    repeats, size = 0, 0
    with path.open("w") as file:
        while size < mib << 20:
            draw.shuffle(block)
            repeats += 1
            size += file.write("".join(f"{line} {repeats}.\n" for line in block))
    return repeats * _BLOCK_LINES


def ingested(source: Path, target: Path) -> dict[str, Any]:
    """Make a dataset of the file."""
    from learning.ingestion import IngestOptions, ingest

    return {"rows": ingest(source, source.name, target, IngestOptions()).num_rows}


def pretrained(table: Path, task: str, steps: int, directory: Path) -> dict[str, Any]:
    """Pretrain a tiny network for some steps, as a job's child does."""
    from learning.architectures import default_for
    from learning.config import Hyperparameters, TrainingSpec
    from learning.device import choose_device, pin
    from learning.preparation import prepare
    from learning.tasks import task_named
    from learning.training import Plan, train

    class Silent:
        def on_step(self, progress: Any) -> None: ...
        def on_evaluation(self, split: str, step: int, epoch: float, values: dict[str, Any]) -> None: ...
        def on_checkpoint(self, path: Any, position: Any) -> None: ...
        def should_stop(self) -> bool:
            return False

    pin(0, 1)
    spec = TrainingSpec(
        kind="pretrain", task=task, architecture=default_for(task_named(task)),
        architecture_config={"layers": 1, "width": 32, "heads": 2},
        hyperparameters=Hyperparameters(max_steps=steps, batch_size=32), split={"validation": 0.001},
    )  # fmt: skip
    prepared = prepare(spec, {"train": table}, device=choose_device("cpu"))
    begin = time.monotonic()
    train(prepared, Plan(spec.hyperparameters, None, 0, directory, spec.checkpointing), Silent())
    return {"rows": len(prepared.train), "training_s": round(time.monotonic() - begin, 1)}


def measured(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a function in a process of its own; return what it returned, how long it took and the most it held."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    begin = time.monotonic()
    process = context.Process(target=_child, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    found: dict[str, Any] = mine.recv()
    process.join()
    return {**found, "seconds": round(time.monotonic() - begin, 1)}


def _child(pipe: Any, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    peaks: dict[str, int] = {}

    def watch() -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            held = {line.split(":")[0]: int(line.split()[1]) >> 10 for line in lines if line.startswith(("Rss", "VmR"))}
            for name, mib in held.items():
                peaks[name] = max(peaks.get(name, 0), mib)
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    found = function(*arguments)
    pipe.send({**found, "anonymous_mib": peaks["RssAnon"], "resident_mib": peaks["VmRSS"]})
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--task", default="masked-tokens")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--directory", type=Path, help="where to keep the file and its dataset; default: nowhere")
    asked = parser.parse_args()
    directory = asked.directory or Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        _measure_all(directory, asked.mib, asked.task, asked.steps)
    finally:
        if asked.directory is None:
            shutil.rmtree(directory)


def _measure_all(directory: Path, mib: int, task: str, steps: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    source, table = directory / f"{mib}.txt", directory / f"{mib}.arrow"
    if not source.exists():
        print(json.dumps({"mib": mib, "lines": write_text(source, mib)}), flush=True)
    if not table.exists():
        print(json.dumps({"part": "ingestion", **measured(ingested, source, table)}), flush=True)
    found = measured(pretrained, table, task, steps, directory / "run")
    print(json.dumps({"part": task, **found, "met": found["anonymous_mib"] < MOST_MIB}), flush=True)


if __name__ == "__main__":
    main()
