"""How fast an archive of many small images is ingested, against unpacking it and asking Pillow whether each is whole.

    python benchmarks/image_ingestion.py [--images 50000] [--times 3]

Each contestant is a fresh process on one core, in turn; the archive is in the page cache for both. Ours is all that the
child process of an upload does (`learning.ingestion.ingest`): every picture decoded, its size and format kept, the
statistics, pictures that repeat, the canonical Arrow file. The other is `unzip` into a directory, then Pillow's
`verify`, which checks a PNG's checksums and decodes nothing. Prints its table and writes
benchmarks/results/image_ingestion.json and .md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ingestion import met

RESULTS = Path(__file__).parent / "results"
SIDE, CLASSES = 28, 10
MOST_RATIO = 2.0


def generate(path: Path, images: int) -> None:
    """Write a zip of PNGs of 28 x 28 grey pixels, smooth with some noise, in folders of ten classes."""
    from PIL import Image

    generator = np.random.default_rng(7)
    ramp_HW = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 4
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(images):
            pixels_HW = (ramp_HW + generator.integers(0, 24, (SIDE, SIDE)) + number % 13).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels_HW).save(buffer, "PNG")
            archive.writestr(f"class-{number % CLASSES}/{number}.png", buffer.getvalue())


def ours(source: Path, directory: Path) -> None:
    """Ingest the archive as an upload's child does."""
    from learning.ingestion import IngestOptions, ingest

    ingest(source, "images.zip", directory / "images.arrow", IngestOptions())


def unzip_and_verify(source: Path, directory: Path) -> None:
    """Unpack, then ask Pillow about each file."""
    from PIL import Image

    subprocess.run(["unzip", "-q", str(source), "-d", str(directory)], check=True)
    for path in directory.rglob("*.png"):
        with Image.open(path) as image:
            image.verify()


CONTESTANTS = {"ours": ours, "unzip and Pillow": unzip_and_verify}


def contest(name: str, source: Path, directory: Path) -> float:
    """Do a contestant's work in this process, on one core; return its seconds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = perf_counter()
    CONTESTANTS[name](source, directory)
    return perf_counter() - start


def measure(images: int, times: int) -> dict[str, Any]:
    """Return every contestant's seconds, and the median of the ratios."""
    with tempfile.TemporaryDirectory(prefix="anneal-images-") as scratch:
        source = Path(scratch) / "images.zip"
        generate(source, images)
        runs: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for _ in range(times):
            for name, seconds in runs.items():
                directory = Path(scratch) / "out"
                directory.mkdir()
                command = [sys.executable, __file__, "--contestant", name, str(source), str(directory)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                seconds.append(float(done.stdout.splitlines()[-1]))
                shutil.rmtree(directory)
        size = source.stat().st_size
    ratios = [own / other for own, other in zip(*runs.values(), strict=True)]
    return {"images": images, "bytes": size, "seconds": runs, "ratios": ratios, "ratio": statistics.median(ratios)}


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{found['images']:,} PNGs of {SIDE} x {SIDE} pixels, {found['bytes'] / 2**20:.0f} MiB, one core, median of "
        f"{len(found['ratios'])}.",
        "",
        "| contestant | seconds | images/s |",
        "|---|---:|---:|",
    ]
    for name, seconds in found["seconds"].items():
        median = statistics.median(seconds)
        lines.append(f"| {name} | {median:.2f} | {found['images'] / median:.0f} |")
    ratio = found["ratio"]
    lines += ["", f"Our time over theirs: {ratio:.2f}, wanted at most {MOST_RATIO:g}: {met(ratio <= MOST_RATIO)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "SOURCE", "DIRECTORY"))
    asked = parser.parse_args()
    if asked.contestant:
        name, source, directory = asked.contestant
        print(contest(name, Path(source), Path(directory)))
        return
    found = measure(asked.images, asked.times)
    print(table(found))
    (RESULTS / "image_ingestion.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "image_ingestion.md").write_text(f"# Ingestion of images\n\n{table(found)}")


if __name__ == "__main__":
    main()
