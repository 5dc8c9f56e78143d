"""How fast small networks train: this service's loop beside its peers, on one core, in one run.

    python benchmarks/tabular.py [--quick]

Prints a table and writes benchmarks/results/tabular.json and .md. Wants the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch
from clock import Clock, TimedExamples, TimedStepper
from tabular_peers import BATCH, PEERS, RATE, Case, Run

from learning.config import Checkpointing, Columns, Hyperparameters, Split, TrainingSpec
from learning.data import epoch_order
from learning.optimization import learning_rate, make_stepper
from learning.preparation import Prepared, prepare
from learning.tasks.classification import ClassificationState
from learning.tasks.tabular_classification import TabularClassification
from learning.training import Plan, train
from workers.training_run import _Reporter

RESULTS = Path(__file__).parent / "results"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SMALL = Case("1000x10, 10-10-1", 1000, 10, (10,), 1)
LARGE = Case("455x30, 30-256-256-2", 455, 30, (256, 256), 2)
CHECKPOINT_S = 2.0
# Ours over another's rate: the least that is accepted, and what is aimed at.
BARS = (
    (SMALL, "ours", "HF Trainer", 4.0, None),
    (SMALL, "ours", "DataLoader loop", 2.0, 10.0),
    (SMALL, "ours", "scikit-learn", 1.0, 4.7),
    (SMALL, "ours, by autograd", "floor", 0.85, None),
    (SMALL, "ours, by autograd", "HF Trainer", 4.0, None),
    (SMALL, "ours, by autograd", "DataLoader loop", 2.0, None),
    (LARGE, "ours", "HF Trainer", 2.0, None),
)
MOST_OVERHEAD = 0.02


class Pipe:
    """What the worker's child has instead of a callback's listener: JSON lines to another process."""

    def __init__(self) -> None:
        self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1)
        self.stop_requested = False
        self.assignment = SimpleNamespace(directory=tempfile.mkdtemp())

    def send(self, kind: str, **message: Any) -> None:
        """Say something."""
        assert self._reader.stdin is not None
        self._reader.stdin.write(json.dumps({"type": kind, **message}, allow_nan=False) + "\n")

    def reporter(self) -> _Reporter:
        """Return the worker's own callback."""
        return _Reporter(self, "scratch")  # type: ignore[arg-type] # all of a channel that it uses


class Unlinked(TabularClassification):
    """The same task, keeping to itself what its gradient is: autograd has to find it."""

    def link(self, state: ClassificationState) -> None:
        """Return nothing."""


def prepared(case: Case, epochs: int) -> tuple[TrainingSpec, Prepared]:
    """Prepare as a job is, but without validation rows: what was learned is measured once, at the end."""
    values_NF, target_N = case.data()
    columns = {f"x{column}": values_NF[:, column] for column in range(case.inputs)}
    table = pa.table({**columns, "y": pa.array([f"c{label}" for label in target_N])})
    path = Path(tempfile.mkdtemp()) / "train.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    spec = TrainingSpec(
        kind="finetune",
        task="tabular-classification",
        architecture="mlp",
        architecture_config={"hidden_sizes": case.hidden},
        columns=Columns(target="y"),
        hyperparameters=Hyperparameters(epochs=epochs, batch_size=BATCH, learning_rate=RATE, dropout=0.0),
        split=Split(validation=0.0),
        device="cpu",
    )
    torch.manual_seed(0)
    return spec, prepare(spec, {"train": path}, device=torch.device("cpu"))


def job(
    case: Case,
    epochs: int,
    pipe: Pipe,
    *,
    autograd: bool = False,
    clock: Clock | None = None,
    checkpoint_every_s: float = 30.0,
) -> Run:
    """The whole of a job's training, as the worker's child runs it: reports, evaluation, last checkpoint."""
    spec, ready = prepared(case, epochs)
    if autograd:
        ready = replace(ready, design=replace(ready.design, task=Unlinked()))
    if clock is not None:
        ready = replace(ready, train=TimedExamples(ready.train, clock))
    checkpoints = Path(pipe.assignment.directory) / "checkpoints"
    every = Checkpointing(every_s=checkpoint_every_s)
    plan = Plan(spec.hyperparameters, spec.early_stopping, spec.seed, checkpoints, every)

    def run() -> None:
        with Path(os.devnull).open("w") as log, redirect_stderr(log):
            train(ready, plan, pipe.reporter())

    return run


@dataclass
class Contestant:
    """Somebody's way to train, and what was measured of it."""

    name: str
    set_up: Callable[[int], Run]
    epochs: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def calibrate(self, seconds: float) -> None:
        """Choose the epochs that take about this long, apart from what is done once a run."""
        self.set_up(2)()  # what happens at the first use only
        few, many = (self._seconds(self.set_up(epochs)) for epochs in (2, 22))
        self.epochs = max(5, round(20 * seconds / max(many - few, 1e-3)))

    @staticmethod
    def _seconds(run: Run) -> float:
        start = perf_counter()
        run()
        return perf_counter() - start

    def measure(self) -> None:
        """Run once."""
        run = self.set_up(self.epochs)
        start, cpu_start = perf_counter(), process_time()
        run()
        self.seconds.append(perf_counter() - start)
        self.cpu_seconds.append(process_time() - cpu_start)

    def rates(self, rows: int) -> dict[str, float]:
        """Return samples per second of the clock's time, and of the processor's, which other processes leave alone."""
        samples = self.epochs * rows
        return {
            "median": samples / statistics.median(self.seconds),
            "lowest": samples / max(self.seconds),
            "highest": samples / min(self.seconds),
            "median_by_processor_time": samples / statistics.median(self.cpu_seconds),
        }


def compete(case: Case, pipe: Pipe, repetitions: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measure everybody in turn, again and again, so that what disturbs one disturbs all."""
    contestants = [
        Contestant("ours", lambda epochs: job(case, epochs, pipe)),
        Contestant("ours, by autograd", lambda epochs: job(case, epochs, pipe, autograd=True)),
        *(Contestant(name, partial(peer, case)) for name, peer in PEERS.items()),
    ]
    for contestant in contestants:
        contestant.calibrate(seconds)
    for _ in range(repetitions):
        for contestant in contestants:
            contestant.measure()
    return {contestant.name: contestant.rates(case.rows) for contestant in contestants}


def bare(case: Case, epochs: int, clock: Clock | None = None) -> Run:
    """The same steps on the same batches; no schedule, reports, questions, evaluation or checkpoints."""
    spec, ready = prepared(case, epochs)
    examples, resolved = ready.train, ready.resolved
    stepper = make_stepper(ready.design, ready.network.train(), spec.hyperparameters)
    order = epoch_order
    if clock is not None:
        examples, stepper, order = TimedExamples(examples, clock), TimedStepper(stepper, clock), clock.timed_order
    # The job's own, so that the weights are too: a step takes longer where its numbers have become very small.
    rates = iter([learning_rate(step, resolved, spec.hyperparameters) for step in range(resolved.total_steps)])

    def run() -> None:
        for epoch in range(epochs):
            for batch in examples.batches(order(case.rows, spec.seed, epoch), BATCH):
                stepper(batch, next(rates))

    return run


def overhead(case: Case, pipe: Pipe, repetitions: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measure what a job does beside steps and batches, until the last step and, apart, after it.

    Twice: the fastest job beside the fastest run of bare steps, which wants a quiet machine; and by a clock inside the
    job, which does not. What that clock finds in bare steps is its own.
    """
    alone = Contestant("bare", lambda epochs: bare(case, epochs))
    alone.calibrate(seconds)
    every = {f"checkpoint every {interval:g} s": interval for interval in (30.0, CHECKPOINT_S)}
    jobs = {
        name: Contestant(name, partial(job, case, pipe=pipe, checkpoint_every_s=interval), alone.epochs)
        for name, interval in every.items()
    }
    clocks: dict[str, list[Clock]] = {name: [] for name in (alone.name, *jobs)}
    for _ in range(repetitions):
        alone.measure()
        clocks[alone.name].append(clock := Clock())
        bare(case, alone.epochs, clock)()
        for name, whole in jobs.items():
            whole.measure()
            clock = Clock()
            run = job(case, alone.epochs, pipe, clock=clock, checkpoint_every_s=every[name])
            with clock.running():
                run()
            clocks[name].append(clock)
    shares = {name: statistics.median(clock.share_of_all_else() for clock in found) for name, found in clocks.items()}
    results = {}
    for name, whole in jobs.items():
        end = statistics.median(clock.after_the_last for clock in clocks[name])
        results[name] = {
            "share": (min(whole.seconds) - end) / min(alone.seconds) - 1,
            "share_by_clock": shares[name] - shares[alone.name],
            "share_of_the_clock": shares[alone.name],
            "seconds": statistics.median(whole.seconds),
            "seconds_after_the_last_step": end,
        }
    return results


def table(case: Case, rates: dict[str, dict[str, float]]) -> str:
    lines = [f"| {case.name} | samples/s | of the floor | over a DataLoader loop |", "|---|---:|---:|---:|"]
    for name, rate in rates.items():
        of_floor, over_loop = (rate["median"] / rates[other]["median"] for other in ("floor", "DataLoader loop"))
        lines.append(f"| {name} | {rate['median']:,.0f} | {of_floor:.2f} | {over_loop:.1f} |")
    return "\n".join(lines)


def judge(results: dict[str, Any]) -> list[str]:
    lines = ["| bar | wanted | reached | |", "|---|---:|---:|---|"]
    for case, ours, other, least, aim in BARS:
        rates = results[case.name]
        reached = rates[ours]["median"] / rates[other]["median"]
        wanted = f"{least:g}" if aim is None else f"{least:g} (aim {aim:g})"
        verdict = "missed" if reached < least else "met" if aim is None or reached >= aim else "met, aim missed"
        lines.append(f"| {case.name}: {ours} over {other} | {wanted} | {reached:.2f} | {verdict} |")
    for name, values in results["overhead"].items():
        shares = f"{values['share']:.1%}, by clock {values['share_by_clock']:.1%}"
        end = 1e3 * values["seconds_after_the_last_step"]
        # By the clock: runs side by side differ by several times the bound on their own.
        verdict = "met" if values["share_by_clock"] <= MOST_OVERHEAD else "missed"
        if not name.endswith(" 30 s"):
            verdict = "shown: fifteen times the default's checkpoints"
        what = f"{LARGE.name}: time beside steps, {name} (and {end:.0f} ms at the end)"
        lines.append(f"| {what} | at most {MOST_OVERHEAD:.0%} | {shares} | {verdict} |")
    return lines


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs")
    quick = parser.parse_args().quick
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # The libraries read these when they are loaded.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    pipe = Pipe()  # before the pinning: who listens has a core of its own
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    repetitions, seconds = (2, 0.05) if quick else (7, 0.7)
    results: dict[str, Any] = {
        "host": {
            "processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg(), "torch": torch.__version__,
        },
    }  # fmt: skip
    for case in (SMALL, LARGE):
        results[case.name] = compete(case, pipe, repetitions, seconds)
    results["overhead"] = overhead(LARGE, pipe, 2 if quick else 5, 0.3 if quick else 2.2)
    host = results["host"]
    report = "\n\n".join((
        f"{host['processor']}, one core of {host['cores']}, torch {host['torch']}; medians of {repetitions} runs.",
        *(table(case, results[case.name]) for case in (SMALL, LARGE)),
        "\n".join(judge(results)),
    ))  # fmt: skip
    print(report)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "tabular.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "tabular.md").write_text(report + "\n")


if __name__ == "__main__":
    main()
