"""How fast a large file comes in, and what it takes: this API beside a bare Starlette application that throws it away.

    python benchmarks/uploads.py [--mebibytes 1024] [--large-mebibytes 4096] [--runs 7]

Sends a generated CSV as a form with curl, in turn to the API (no workers) and to a sink which reads the body and keeps
nothing; takes the median of the runs, the API's peak of resident memory, and how long /livez took meanwhile, which
is the event loop's lag seen from outside. Then sends a sparse file in parts with this package's own client, and files
that were made to do harm to an API with workers. Needs about twice the larger file in the temporary directory. Prints
the table and writes benchmarks/results/uploads.json and .md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from media_files import hostile_archives
from servers import Stack, free_port, wait_for_port
from support import upload

from anneal.transport import Transport
from anneal.uploads import upload_in_parts

RESULTS = Path(__file__).parent / "results"
LEAST_RATIO, MOST_RSS_MB, MOST_LAG_MS = 0.5, 500, 100
MIB = 1 << 20
SINK = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def sink(request):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(str(size), 201)

app = Starlette(routes=[Route("/api/v1/datasets", sink, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
"""


@contextmanager
def sink() -> Iterator[str]:
    """Run the bare application."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SINK, str(port)])
    try:
        wait_for_port(port, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def generate(path: Path, mebibytes: int) -> None:
    """Write a CSV of that size."""
    draw = random.Random(1)
    lines = "".join(f"{draw.random()},{draw.randrange(10**6)},{draw.choice('abc')}\n" for _ in range(40_000))
    block = lines.encode()[:MIB]
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(block)


def send(url: str, key: str, path: Path) -> float:
    """Send a file as a form and return the seconds it took."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "-F", f"file=@{path}"]
    command += ["-H", f"Authorization: Bearer {key}", "-H", "Expect:", f"{url}/api/v1/datasets"]
    code, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert code == "201", code
    return float(seconds)


class Watch:
    """The API's memory and answers while something else happens."""

    def __init__(self, stack: Stack) -> None:
        self._url = f"{stack.url}/livez"
        self._process = Path(f"/proc/{stack.processes['api'].pid}")
        self._over = threading.Event()
        self.answers_ms: list[float] = []

    def __enter__(self) -> Watch:
        (self._process / "clear_refs").write_text("5")  # the peak begins anew
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        lines = (self._process / "status").read_text().splitlines()
        self.peak_mb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def _ask(self) -> None:
        with httpx.Client() as client:
            while not self._over.wait(0.02):
                began = time.monotonic()
                client.get(self._url)
                self.answers_ms.append((time.monotonic() - began) * 1000)

    def result(self) -> dict[str, float]:
        """Return the peak of memory and the times of the answers."""
        quantiles = statistics.quantiles(self.answers_ms, n=100, method="inclusive")
        return {"peak_rss_mb": self.peak_mb, "livez_p99_ms": quantiles[-1], "livez_max_ms": max(self.answers_ms)}


@contextmanager
def product(directory: Path, *, workers: bool = False) -> Iterator[Stack]:
    """Run the API, quick to delete what nothing points at."""
    stack = Stack(directory / "product", {"ANNEAL_ARTIFACT_GRACE_S": "5"})
    try:
        stack.up(workers=workers)
        time.sleep(10)  # what the API imports when it has started is no part of this
        yield stack
    finally:
        stack.down()


def whole(mebibytes: int, runs: int) -> dict[str, Any]:
    """Compare sending one file to both, in turn."""
    with tempfile.TemporaryDirectory() as name, product(Path(name)) as stack, sink() as bare:
        path = Path(name) / "rows.csv"
        generate(path, mebibytes)
        ours, theirs = [], []
        with Watch(stack) as watch:
            for _ in range(runs):
                theirs.append(send(bare, "none", path))
                ours.append(send(stack.url, stack.key, path))
    mine, bare_s = statistics.median(ours), statistics.median(theirs)
    return {"mebibytes": mebibytes, "seconds": ours, "sink_seconds": theirs, "ratio": bare_s / mine,
            "mib_per_s": mebibytes / mine, "sink_mib_per_s": mebibytes / bare_s, **watch.result()}  # fmt: skip


def in_parts(mebibytes: int) -> dict[str, Any]:
    """Send a sparse file in parts."""
    with tempfile.TemporaryDirectory() as name, product(Path(name)) as stack:
        path = Path(name) / "sparse.bin"
        with path.open("wb") as file:
            file.truncate(mebibytes * MIB)
        transport = Transport(stack.url, stack.key)
        with Watch(stack) as watch:
            seconds = timed(lambda: upload_in_parts(transport, path, None))
        transport.close()
    return {"mebibytes": mebibytes, "seconds": seconds, "mib_per_s": mebibytes / seconds, **watch.result()}


def hostile() -> dict[str, Any]:
    """Send files that were made to do harm, each refused before the next is sent."""
    names = b",".join(b"%d" % n for n in range(1_000_000))
    files = {"long.csv": b"a,b\n1,2\n3," + b"x" * (24 * MIB), "wide.csv": names + b"\n" + names + b"\n",
             "deep.jsonl": b'{"a":' + b"[" * MIB, "quote.csv": b'a,b\n"' + b"x,y\n" * (4 * MIB)}  # fmt: skip
    files |= {f"{name}.zip": content for name, (_, content) in hostile_archives().items()}
    with (
        tempfile.TemporaryDirectory() as name,
        product(Path(name), workers=True) as stack,
        stack.client() as api,
        Watch(stack) as watch,
    ):
        for filename, content in files.items():
            assert upload(api, content, filename)["status"] == "invalid", filename
    return {"files": len(files), **watch.result()}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def report(one: dict[str, Any], parts: dict[str, Any], harm: dict[str, Any]) -> str:
    """Return the table."""

    def met(yes: bool) -> str:
        return "met" if yes else "MISSED"

    measured = (one, parts, harm)
    small = max(part["peak_rss_mb"] for part in measured) < MOST_RSS_MB
    prompt = max(part["livez_max_ms"] for part in measured) < MOST_LAG_MS
    lines = [
        f"A CSV of {one['mebibytes']} MiB sent with curl as a form, median of {len(one['seconds'])} runs in turn with "
        "a bare Starlette application that reads the body and keeps nothing; then a sparse file in parts.",
        "",
        "| | MiB | MiB/s | of the sink | peak RSS, MB | /livez meanwhile: p99, most, ms |",
        "|---|---:|---:|---:|---:|---:|",
        f"| bare sink | {one['mebibytes']} | {one['sink_mib_per_s']:.0f} | 1 | | |",
        f"| the API, one form | {one['mebibytes']} | {one['mib_per_s']:.0f} | {one['ratio']:.2f} | "
        f"{one['peak_rss_mb']:.0f} | {one['livez_p99_ms']:.0f}, {one['livez_max_ms']:.0f} |",
        f"| the API, in parts, hashed by the client, each synced, then joined | {parts['mebibytes']} | "
        f"{parts['mib_per_s']:.0f} | | {parts['peak_rss_mb']:.0f} | {parts['livez_p99_ms']:.0f}, "
        f"{parts['livez_max_ms']:.0f} |",
        f"| the API, {harm['files']} files made to do harm, beside workers | | | | {harm['peak_rss_mb']:.0f} | "
        f"{harm['livez_p99_ms']:.0f}, {harm['livez_max_ms']:.0f} |",
        "",
        f"Wanted: at least {LEAST_RATIO} of the sink ({met(one['ratio'] >= LEAST_RATIO)}), less than {MOST_RSS_MB} MB "
        f"({met(small)}), /livez within {MOST_LAG_MS} ms ({met(prompt)}). What the API has stored is hashed, on the "
        "disk and synced; the sink keeps nothing.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--large-mebibytes", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    one, parts, harm = whole(options.mebibytes, options.runs), in_parts(options.large_mebibytes), hostile()
    table = report(one, parts, harm)
    print(table)
    (RESULTS / "uploads.json").write_text(
        json.dumps({"whole": one, "in_parts": parts, "hostile": harm}, indent=1) + "\n"
    )
    (RESULTS / "uploads.md").write_text(table)


if __name__ == "__main__":
    main()
