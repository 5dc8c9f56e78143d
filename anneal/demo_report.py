"""The demonstration's result: from scratch beside pretrained."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from anneal.progress import duration
from anneal.scores import mean_and_deviation

METRICS = ("accuracy", "precision", "recall", "f1", "auc")

Columns = Mapping[str, Sequence[Mapping[str, float]]]
"""Per column of the table, each seed's scores by metric."""


def print_report(columns: Columns, verdicts: Mapping[str, str], seconds: float, positive: str) -> None:
    """Print the scores as mean ± standard deviation over the seeds, and what the service says of them."""
    console = Console()
    seeds = len(verdicts)
    table = Table(title=f"Held-out rows, mean ± sd of {seeds} seeds (positive class: {positive})")
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in METRICS:
        table.add_row(metric, *(_cell(scores, metric) for scores in columns.values()))
    console.print()
    console.print(table)
    console.print("[bold]The service's verdict[/]")
    for name, verdict in verdicts.items():
        console.print(f"  {name}: {verdict}", markup=False)
    console.print(f"Start to result: {duration(seconds)}.")


def report_json(columns: Columns, verdicts: Mapping[str, str], seconds: float) -> None:
    """Print every seed's scores, the verdicts and the seconds it took as JSON."""
    scores = {name: [dict(seed) for seed in seeds] for name, seeds in columns.items()}
    print(json.dumps({"scores": scores, "verdicts": dict(verdicts), "seconds": round(seconds, 1)}, indent=2))


def _cell(seeds: Sequence[Mapping[str, float]], metric: str) -> str:
    values = [scores[metric] for scores in seeds if scores.get(metric) is not None]
    if not values:
        return "-"
    average, deviation = mean_and_deviation(values)
    return f"{average:.3f} ± {deviation:.3f}"
