"""How many tokens a second texts are written with over HTTP, beside Transformers' own `generate`, in one run.

    python benchmarks/generation.py [--quick]

A GPT of 4 layers and width 256 with random weights, prompts of about 30 bytes, the likeliest token each time. The API
process has one core, and the clients the other; each client asks for one text after the other. The peer is a loop
in a process of its own on the same core, without HTTP, on the same files: one prompt at a time, or padded batches of
as many prompts as there are clients, each of which is written until its longest text has ended. Texts are of equal
lengths, or of any length between a few tokens and as many. Counted are the tokens that were asked for.
Prints a table and writes benchmarks/results/generation.json and .md. Wants the dependency group `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from registered import register_writer
from servers import Stack
from serving import CLIENT_CORE, RESULTS, SERVER_CORE, on_core
from serving_peers import ONE_THREAD

LAYERS, WIDTH, LONGEST = 4, 256, 512
CLIENTS = (1, 16)
TOKENS, FEWEST = 128, 8
PEER = """\
import json, os, sys, time, torch, transformers
directory, core = sys.argv[1], int(sys.argv[2])
os.sched_setaffinity(0, {core})
torch.set_num_threads(1)
model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(directory, padding_side="left")
model.generation_config.eos_token_id = None
def write(part):
    read = tokenizer([one["prompt"] for one in part], add_special_tokens=False, padding=True, return_tensors="pt")
    most = max(one["tokens"] for one in part)
    with torch.inference_mode():
        found = model.generate(
            input_ids=read.input_ids, attention_mask=read.attention_mask, do_sample=False,
            max_new_tokens=most, min_new_tokens=most, pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=tokenizer.all_special_ids,
        )
    return [row[: one["tokens"]].tolist() for row, one in zip(found[:, read.input_ids.shape[1] :], part)]
for line in sys.stdin:
    asked = json.loads(line)
    began, size, texts = time.perf_counter(), asked["size"], []
    for first in range(0, len(asked["requests"]), size):
        texts += write(asked["requests"][first : first + size])
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "texts": [tokenizer.decode(text) for text in texts]}), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens per second of one kind of texts."""

    texts: str
    clients: int
    ours: float
    alone: float  # Transformers, one prompt at a time
    padded: float  # Transformers, a batch of as many as there are clients

    @property
    def ratio(self) -> float:
        """Ours over the better of the two."""
        return self.ours / max(self.alone, self.padded)


def requests(kind: str, count: int) -> list[dict[str, Any]]:
    """Return prompts and how many tokens are to follow."""
    draw = random.Random(kind)
    return [
        {
            "prompt": "".join(draw.choices("etaoin shrdlu", k=draw.randint(20, 40))),
            "tokens": TOKENS if kind == "equal" else draw.randint(FEWEST, TOKENS),
        }
        for _ in range(count)
    ]


class Peer:
    """Transformers in a process of its own."""

    def __init__(self, directory: Path) -> None:
        """Load a model."""
        (directory / "peer.py").write_text(PEER)
        self.process = subprocess.Popen(
            [sys.executable, directory / "peer.py", directory / "model", str(SERVER_CORE)],
            env={**os.environ, **ONE_THREAD, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write(self, asked: list[dict[str, Any]], size: int) -> tuple[float, list[str]]:
        """Return tokens per second and the texts."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"requests": asked, "size": size}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return sum(one["tokens"] for one in asked) / answer["seconds"], answer["texts"]


def ours(stack: Stack, asked: list[dict[str, Any]], clients: int) -> tuple[float, list[str]]:
    """Return tokens per second of so many clients together, and the texts."""

    def ask(one: dict[str, Any]) -> dict[str, Any]:
        body = {"inputs": [one["prompt"]], "parameters": {"max_new_tokens": one["tokens"]}}
        found: dict[str, Any] = client.post("/models/text/predict", json=body).json()["outputs"][0]
        assert found["completion_tokens"] == one["tokens"], found
        return found

    limits = httpx.Limits(max_connections=clients)
    with stack.client(limits=limits, timeout=600) as client, ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        answers = list(pool.map(ask, asked))
        seconds = time.perf_counter() - began
    return sum(one["completion_tokens"] for one in answers) / seconds, [one["text"] for one in answers]


def measure(directory: Path, count: int, rounds: int) -> list[Line]:
    """Return medians of rounds in turn."""
    stack = Stack(directory / "stack", dict(ONE_THREAD))
    lines = []
    with ExitStack() as ends:
        ends.callback(stack.down)
        stack.up(workers=False)
        register_writer(stack, "text", LAYERS, WIDTH, LONGEST)
        (directory / "model").mkdir()
        with stack.client() as api:
            for file in api.get("/models/text/versions/1/files").json()["data"]:
                content = api.get(f"/models/text/versions/1/files/{file['path']}").content
                (directory / "model" / file["path"]).write_bytes(content)
        peer = Peer(directory)
        ends.callback(peer.process.kill)
        on_core(stack.processes["api"].pid, SERVER_CORE)
        os.sched_setaffinity(0, {CLIENT_CORE})
        agree(stack, peer)
        for kind in ("equal", "mixed"):
            for clients in CLIENTS:
                asked = requests(kind, max(count, 2 * clients))
                turns = [
                    (ours(stack, asked, clients)[0], peer.write(asked, 1)[0], peer.write(asked, clients)[0])
                    for _ in range(rounds)
                ]
                lines.append(Line(kind, clients, *map(statistics.median, zip(*turns, strict=True))))
    return lines


def agree(stack: Stack, peer: Peer) -> None:
    """Check that the two write the same before either is measured; also the first, slower, round of each."""
    asked = requests("equal", 4)
    mine, theirs = ours(stack, asked, 4)[1], peer.write(asked, 1)[1]
    same = sum(one == other.rstrip("\ufffd") for one, other in zip(mine, theirs, strict=True))
    assert same >= 3, (mine, theirs)  # two tokens may be equally likely to the last digits


def report(lines: list[Line], rounds: int) -> str:
    """Return the table."""
    table = [
        f"GPT, {LAYERS} layers of width {WIDTH}, on one core; tokens a second, medians of {rounds} rounds in turn.",
        "Ours over HTTP, Transformers' `generate` in a process without.",
        "",
        "| texts | clients | ours | generate, one at a time | generate, padded batch | ours over the better |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        rates = " | ".join(f"{rate:.4g}" for rate in (line.ours, line.alone, line.padded))
        table.append(f"| {line.texts} | {line.clients} | {rates} | {line.ratio:.3g} |")
    return "\n".join(table) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="to see that it runs; writes no results")
    options = parser.parse_args()
    count, rounds = (4, 1) if options.quick else (64, 3)
    with tempfile.TemporaryDirectory() as directory:
        lines = measure(Path(directory), count, rounds)
    table = report(lines, rounds)
    print(table)
    if not options.quick:
        found = [{**asdict(line), "ratio": line.ratio} for line in lines]
        (RESULTS / "generation.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "generation.md").write_text(table)


if __name__ == "__main__":
    main()
