"""What the benchmarks of few labels share: their options, their runs one dataset after the other, their pages.

Each has a list of benchmarks with a name, yields runs with a dataset, a number of rows, a model and a seed, and begins
with a docstring of three parts: what it measures, how it is called, and how it measures, with --choose last.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from label_efficiency import ROOT, group_of

from learning.device import choose_device, describe

Result = dict[str, Any]
# Which run it is, and what makes its figures; it is not called where they are known.
Run = tuple[Result, Callable[[], Result]]


class Named(Protocol):
    """A benchmark."""

    @property
    def name(self) -> str:
        """Return its dataset."""
        ...


@dataclass(frozen=True)
class Report:
    """Where results are written, as what, and how they become a table."""

    path: Path  # of the JSON; the page lies beside it
    title: str
    about: str  # the script's docstring
    task: str
    summarise: Callable[[list[Result]], str]

    def earlier(self) -> list[Result]:
        """Return the results that were written before."""
        found: list[Result] = json.loads(self.path.read_text())["results"] if self.path.exists() else []
        return found

    def store(self, results: list[Result], order: Sequence[str]) -> None:
        """Write results and the page."""
        results = sorted(results, key=lambda result: (order.index(result["dataset"]), result["rows"], result["model"]))
        about = {"machine": describe(choose_device("cpu")), "task": self.task}
        self.path.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
        what, _, how = self.about.split("\n\n")
        self.path.with_suffix(".md").write_text(
            f"# {self.title}\n\n{what}\n{how.partition('With --choose')[0]}\nMean and standard deviation "
            f"over seeds; one thread; processor seconds of one run.\n\n{self.summarise(results)}\n"
        )


def options(about: str, benchmarks: Sequence[Named], choosing: str) -> ArgumentParser:
    """Return the options that each has; `choosing` says on what settings are compared."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data", help="folder of the data files")
    parser.add_argument("--datasets", nargs="*", default=[benchmark.name for benchmark in benchmarks])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None, help="where the base model is kept")
    parser.add_argument("--missing", action="store_true", help="only the runs whose results are not written yet")
    parser.add_argument("--choose", action="store_true", help=f"measure on {choosing}")
    for run, what in (("pretrain", "pretraining"), ("finetune", "finetuning"), ("scratch", "training from scratch")):
        parser.add_argument(f"--{run}", default="{}", help=f"other settings of {what}, as JSON")
    return parser


def measure_all(
    asked: Namespace,
    benchmarks: Sequence[Named],
    measure: Callable[[Any, Namespace, Path], Iterable[Run]],
    report: Report,
) -> None:
    """Measure each dataset that is asked for; print each result and, unless it only chooses, write it at once."""
    torch.set_num_threads(1)
    results: list[Result] = []
    earlier = [] if asked.choose else report.earlier()
    with tempfile.TemporaryDirectory() as directory:
        work = asked.work or Path(directory)
        work.mkdir(parents=True, exist_ok=True)
        for benchmark in (benchmark for benchmark in benchmarks if benchmark.name in asked.datasets):
            for run, figures in measure(benchmark, asked, work):
                if asked.missing and any(run.items() <= result.items() for result in earlier):
                    continue
                if not asked.missing:
                    earlier = [result for result in earlier if group_of(result) != group_of(run)]
                results.append({**run, **figures()})
                print(*results[-1].values(), flush=True)
                if not asked.choose:
                    report.store(earlier + results, [benchmark.name for benchmark in benchmarks])
    print(report.summarise(results), flush=True)
