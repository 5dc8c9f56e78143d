"""How fast recordings are read, learned from and written down: on one core, in one run.

    python benchmarks/speech.py [--rounds 3] [--quick]

Recordings are noise of 1.5 to 3 s at 16,000 samples a second, as WAV; transcripts have eight letters a second. Networks
are `small`, batches have 16 rows, one thread. Times are of the processor; each contestant in turn, medians. Features:
decoding and the log-mel spectrogram. Training: batches, views, schedule and steps as a job has them, beside forward,
backward and step on one fixed batch of the same rows, a step of each in turn; two passes before that are not counted,
in which convolutions are compiled for most of the lengths that a job of hundreds of steps meets. Transcribing: from a
WAV of a minute to text and words, heard in windows of five seconds, by the likeliest path.
Prints a table and writes benchmarks/results/speech.json and .md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any, cast

import numpy as np
import pyarrow as pa
import soundfile
import torch

from learning import audio
from learning.config import Columns, Hyperparameters, Split, TrainingSpec
from learning.data import epoch_order
from learning.media_types import MEDIA_TYPES
from learning.modalities.audio import AudioState
from learning.model import save
from learning.optimization import learning_rate, make_stepper
from learning.prediction import Predictor
from learning.preparation import Prepared, prepare

RESULTS = Path(__file__).parent / "results"
ARCHITECTURES = ("deepspeech", "conv-transformer")
RATE, BATCH, ROWS, LETTERS_A_SECOND, MINUTE = 16_000, 16, 128, 8, 60
WARMING = 2 * ROWS // BATCH  # steps
LETTERS = [*"abcdefghijklmnopqrstuvwxyz "]
# What is measured, and the least that is accepted.
BARS = {"features": 200.0, **{f"training, {one}": 0.85 for one in ARCHITECTURES}} | {
    f"transcribing, {one}": 50.0 for one in ARCHITECTURES
}


def recording(seconds: float, generator: np.random.Generator) -> bytes:
    """Return noise whose loudness changes, as a WAV file."""
    loudness_N = np.repeat(generator.uniform(0.01, 0.3, int(seconds * 20) + 1), RATE // 20)[: int(seconds * RATE)]
    file = BytesIO()
    soundfile.write(file, loudness_N * generator.normal(size=len(loudness_N)), RATE, "PCM_16", format="WAV")
    return file.getvalue()


def table() -> pa.Table:
    """Return recordings with random transcripts."""
    generator = np.random.default_rng(0)
    seconds_N = generator.uniform(1.5, 3, ROWS)
    contents = [recording(seconds, generator) for seconds in seconds_N]
    texts = ["".join(generator.choice(LETTERS, int(seconds * LETTERS_A_SECOND))) for seconds in seconds_N]
    cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in contents]
    return pa.table({"audio": pa.array(cells, MEDIA_TYPES["audio"]), "text": texts})


def prepared(architecture: str) -> tuple[TrainingSpec, Prepared]:
    """Prepare as a job is."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "train.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, (rows := table()).schema) as writer:
            writer.write_table(rows)
        spec = TrainingSpec(
            kind="finetune",
            task="speech-recognition",
            architecture=architecture,
            columns=Columns(target="text"),
            hyperparameters=Hyperparameters(epochs=100, batch_size=BATCH),
            split=Split(validation=0.0),
            device="cpu",
        )
        torch.manual_seed(0)
        return spec, prepare(spec, {"train": path}, device=torch.device("cpu"))


def features() -> float:
    """Return seconds of recordings by the second."""
    _, ready = prepared(ARCHITECTURES[0])
    rows = table()
    modality, state = ready.design.modality, ready.design.inputs
    begin = process_time()
    encoded = modality.encode(rows, state)
    seconds: float = float(encoded["length_B"].sum()) * cast("AudioState", state).frame_seconds
    return seconds / (process_time() - begin)


def training(architecture: str, steps: int) -> dict[str, float]:
    """Return frames by the second of a job's steps, and of steps on one batch, whose rows are as long in the mean.

    Each has a step in turn, so that a machine that is slower for a while is so for both.
    """
    contestants = {"ours": steps_of_a_job(architecture), "floor": steps_on_one_batch(architecture)}
    for _ in range(WARMING):
        next(contestants["ours"])
    next(contestants["floor"])
    frames, seconds = dict.fromkeys(contestants, 0), dict.fromkeys(contestants, 0.0)
    for _ in range(steps):
        for name, contestant in contestants.items():
            begin = process_time()
            frames[name] += next(contestant)
            seconds[name] += process_time() - begin
    return {name: frames[name] / seconds[name] for name in contestants}


def steps_of_a_job(architecture: str) -> Iterator[int]:
    """Take the steps of a job, each with the making of its batch; yields the frames of each."""
    spec, ready = prepared(architecture)
    stepper = make_stepper(ready.design, ready.network.train(), spec.hyperparameters)
    step = 0
    for epoch in count():
        for batch in ready.train.batches(epoch_order(len(ready.train), 0, epoch), BATCH):
            stepper(batch, learning_rate(step, ready.resolved, spec.hyperparameters))
            step += 1
            yield len(batch["frame_SF"])


def steps_on_one_batch(architecture: str) -> Iterator[int]:
    """Take steps of forward, backward and optimizer on one batch, changed by nothing; yields the frames of each."""
    _, ready = prepared(architecture)
    network, task = ready.network.train(), ready.design.task
    batches = sorted(ready.train.batches(torch.arange(len(ready.train)), BATCH), key=lambda one: len(one["frame_SF"]))
    batch = batches[len(batches) // 2]
    state = ready.design.targets.model_copy(update={"view": None})
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    while True:
        task.loss(network, batch, state).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield len(batch["frame_SF"])


def transcribing(architecture: str) -> float:
    """Return seconds of a recording by the second."""
    _, ready = prepared(architecture)
    content = recording(MINUTE, np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as directory:
        save(ready.design, ready.network.state_dict(), Path(directory))
        predictor = Predictor(Path(directory))
    predictor.predict([content[: 44 + 2 * RATE]])
    begin = process_time()
    answer = predictor.predict([content]).outputs[0]
    seconds = process_time() - begin
    assert answer is not None
    return MINUTE / seconds


def measure(rounds: int, steps: int) -> dict[str, list[Any]]:
    """Return what each contestant did in each round."""
    found: dict[str, list[Any]] = defaultdict(list)
    contests: dict[str, Callable[[], Any]] = {"features": features}
    for one in ARCHITECTURES:
        contests[f"training, {one}"] = partial(training, one, steps)
        contests[f"transcribing, {one}"] = partial(transcribing, one)
    for number in range(rounds):
        for name, contest in contests.items():
            found[name].append(contest())
            print(number, name, found[name][-1], flush=True)
    return found


def summarise(found: dict[str, list[Any]]) -> str:
    """Return the table."""
    lines = ["| | median | at least |", "|---|---|---|"]
    for name, bar in BARS.items():
        if name.startswith("training"):
            ours, least = (statistics.median(one[key] for one in found[name]) for key in ("ours", "floor"))
            ratio = statistics.median(one["ours"] / one["floor"] for one in found[name])
            lines.append(f"| {name}: {ours:,.0f} frames a second, floor {least:,.0f} | {ratio:.2f} | {bar:.2f} |")
        else:
            lines.append(f"| {name}, times real time | {statistics.median(found[name]):,.0f} | {bar:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few steps, nothing written: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(1 if options.quick else options.rounds, 4 if options.quick else 24)
    report = summarise(found)
    print(report)
    if not options.quick:
        about = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        (RESULTS / "speech.json").write_text(json.dumps({**about, "runs": found}, indent=1) + "\n")
        title = "# How fast recordings are read, learned from and written down"
        (RESULTS / "speech.md").write_text(f"{title}\n\n{(__doc__ or '').split(chr(10) * 2)[2]}\n\n{report}\n")


if __name__ == "__main__":
    main()
