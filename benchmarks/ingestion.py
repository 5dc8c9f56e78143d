"""How fast a table is ingested: a generated CSV of mixed types, ours against pyarrow's own way from CSV to Parquet.

    python benchmarks/ingestion.py [--rows 10000000] [--times 3] [--source table.csv]

Each contestant is a fresh process on one core with one thread, in turn; the file is in the page cache for both. Ours
is all that the child process of an upload does (`learning.ingestion.ingest`): encoding, exact types over all rows,
row numbers of every mistake, statistics, rows that repeat, warnings, the canonical Arrow file. pyarrow's guesses the
types from its first block and stops at the first mistake. Memory is the process's highest resident set, anonymous and
mapped files together, as the kernel counts it (VmHWM), and the highest of each part, sampled.
With `--source` the file is kept there, or taken from there. Prints its table and writes
benchmarks/results/ingestion.json and .md. Needs three times the file's size of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

RESULTS = Path(__file__).parent / "results"
CHUNK_ROWS = 100_000
LEAST_RATIO, MOST_BYTES = 0.5, 500 << 20
SENTENCE = "the quick brown fox jumps over a lazy dog while seven wizards brew strong black tea"
WORDS = np.array(SENTENCE.split(" "))


def generate(path: Path, rows: int) -> None:
    """Write a CSV of about 107 bytes a row: ids, numbers, categories, dates, booleans, some missing, a little prose."""
    generator = np.random.default_rng(7)
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            options = arrow_csv.WriteOptions(include_header=start == 0, quoting_style="needed")
            arrow_csv.write_csv(chunk(generator, start, count), file, options)


def chunk(generator: np.random.Generator, start: int, count: int) -> pa.Table:
    """Return some rows."""
    words = WORDS[generator.integers(0, len(WORDS), (count, 7))]
    score = pa.array(generator.normal(50, 12, count).round(3), mask=generator.random(count) < 0.03)
    seconds = 1_600_000_000 + generator.integers(0, 10**8, count)
    return pa.table(
        {
            "id": np.arange(start, start + count),
            "amount": (generator.gamma(2, 150, count)).round(2),
            "score": score,
            "visits": generator.poisson(6, count),
            "member": generator.random(count) < 0.4,
            "seen": pa.array(seconds, pa.timestamp("s")),
            "city": np.array([f"city-{n}" for n in range(500)])[generator.integers(0, 500, count)],
            "code": [f"{n:08x}" for n in generator.integers(0, 2**31, count)],
            "note": [" ".join(row) for row in words.tolist()],
            "label": np.array(["low", "medium", "high"])[generator.integers(0, 3, count)],
        }
    )


def ours(source: Path, destination: Path) -> None:
    """Ingest the file as an upload's child does."""
    from learning.ingestion import IngestOptions, ingest

    ingest(source, "table.csv", destination, IngestOptions())


def arrows(source: Path, destination: Path) -> None:
    """Stream the file into Parquet with pyarrow alone, one thread."""
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    options = arrow_csv.ReadOptions(use_threads=False)
    with (
        arrow_csv.open_csv(source, read_options=options) as reader,
        pq.ParquetWriter(destination, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


CONTESTANTS = {"ours": ours, "pyarrow": arrows}


def contest(name: str, source: Path, destination: Path) -> dict[str, Any]:
    """Do a contestant's work in this process; return its seconds and the memory it took."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    peaks = {"RssAnon": 0, "RssFile": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for part, size in memory().items():
                if part in peaks:
                    peaks[part] = max(peaks[part], size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = perf_counter()
    try:
        CONTESTANTS[name](source, destination)
        seconds = perf_counter() - start
    finally:
        over.set()
        watcher.join()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "VmHWM": memory()["VmHWM"], **peaks}


def memory() -> dict[str, int]:
    """Return what the kernel says of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmHWM", "RssAnon", "RssFile")))
    return {name: int(value.split()[0]) << 10 for name, value in pairs}


def measure(rows: int, times: int, kept: Path | None) -> dict[str, Any]:
    """Return the medians of every contestant."""
    with tempfile.TemporaryDirectory(prefix="anneal-ingestion-") as directory:
        source, destination = kept or Path(directory) / "table.csv", Path(directory) / "out"
        if not source.exists():
            generate(source, rows)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        for _ in range(times):
            for name, found in runs.items():
                command = [sys.executable, __file__, "--contestant", name, str(source), str(destination)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                destination.unlink()
        size = source.stat().st_size
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]} for name, found in runs.items()
    }
    ratios = [theirs["seconds"] / own["seconds"] for own, theirs in zip(runs["ours"], runs["pyarrow"], strict=True)]
    return {
        "rows": rows,
        "bytes": size,
        "times": times,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "pyarrow": pa.__version__,
        "contestants": medians,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def met(true: bool) -> str:
    """Return how a bar came out."""
    return "met" if true else "MISSED"


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{found['rows']:,} rows, {found['bytes'] / 2**30:.2f} GiB, one thread, {found['machine']}, "
        f"median of {found['times']}.",
        "",
        "| contestant | seconds | CPU seconds | MiB/s | peak resident MiB | anonymous | mapped files |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in found["contestants"].items():
        sizes = " | ".join(f"{run[part] / 2**20:.0f}" for part in ("VmHWM", "RssAnon", "RssFile"))
        rate = found["bytes"] / 2**20 / run["seconds"]
        lines.append(f"| {name} | {run['seconds']:.2f} | {run['cpu_seconds']:.2f} | {rate:.0f} | {sizes} |")
    ratio, peak = found["ratio"], found["contestants"]["ours"]["VmHWM"]
    lines += [
        "",
        "| | measured | wanted | |",
        "|---|---:|---:|---|",
        f"| ours over pyarrow's throughput | {ratio:.2f} | at least {LEAST_RATIO} | {met(ratio >= LEAST_RATIO)} |",
        f"| peak resident, MiB | {peak / 2**20:.0f} | under {MOST_BYTES >> 20} | {met(peak < MOST_BYTES)} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--source", type=Path, help="where the file is, or is to be kept")
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "SOURCE", "DESTINATION"))
    asked = parser.parse_args()
    if asked.contestant:
        name, source, destination = asked.contestant
        print(json.dumps(contest(name, Path(source), Path(destination))))
        return
    found = measure(asked.rows, asked.times, asked.source)
    print(table(found))
    (RESULTS / "ingestion.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "ingestion.md").write_text(f"# Ingestion\n\n{table(found)}")


if __name__ == "__main__":
    main()
