"""Small tables and real training runs for the tests of learning."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from media_files import tone

from learning import audio
from learning.architectures import default_for
from learning.config import TrainingSpec
from learning.device import choose_device, pin
from learning.images import encode_png, inspect
from learning.media_types import MEDIA_TYPES
from learning.model import save
from learning.preparation import Prepared, prepare
from learning.tasks import TASKS
from learning.training import Outcome, Plan, train

CLASSES = "tabular-classification"
NUMBERS = "tabular-regression"
TEXTS = "text-classification"
IMAGES = "image-classification"
TAGS = "token-classification"
SHADES = "image-regression"
THINGS = "object-detection"
SOUNDS = "audio-classification"
SPEECH = "speech-recognition"
WRITING = "text-generation"
TRANSLATING = "translation"
FACES = "image-embedding"
VOICES = "speaker-embedding"
IMAGE_LABELS = "multi-label-image-classification"
TEXT_LABELS = "multi-label-text-classification"
MOODS = "text-regression"
TARGETS = {name: {"target": "label"} for name in (CLASSES, TEXTS, IMAGES, SOUNDS, FACES, VOICES)}
TARGETS |= {name: {"target": "amount"} for name in (NUMBERS, SHADES, MOODS)}
TARGETS |= {TAGS: {"target": "tags"}, THINGS: {"target": "objects"}, SPEECH: {"target": "text"}}
TARGETS |= {IMAGE_LABELS: {"target": "labels"}, TEXT_LABELS: {"targets": ["pleased", "chinese"]}}
TARGETS |= {TRANSLATING: {"text": "text", "target": "label"}}
TARGETS |= {WRITING: {"text": "text", "target": "label"}, "next-token-prediction": {"text": "text"}}
# Options of an architecture and a modality by which its networks are tiny, and of a task by which it can be exact.
TINY = {
    "bert": {"layers": 2, "width": 32, "heads": 2},
    "gpt": {"layers": 2, "width": 32, "heads": 2},
    "llama": {"layers": 2, "width": 32, "heads": 2},
    "seq2seq": {"layers": 1, "width": 32, "heads": 2},
    "resnet": {"depths": [1, 1], "widths": [8, 16]},
    "vgg": {"size": "tiny"},
    "flatten-mlp": {"hidden_sizes": [32]},
    "conv-transformer": {"size": "tiny"},
    "deepspeech": {"size": "tiny"},
    "speaker-net": {"size": "tiny"},
}
# Learning rates of tiny networks that start with smaller steps.
RATES = {"gpt": 1e-2, "llama": 1e-2}
# What a task is asked for when it is to learn from so few rows.
MILD = {
    "contrastive-images": {"augmentation": "drawn", "prototypes": 8},
    "contrastive-audio": {"augmentation": "masks", "prototypes": 8},
    THINGS: {"detector_config": {"stride": 2, "width": 16}},
}
SHORT_TEXTS = {"text": {"vocabulary_size": 120, "max_length": 16}}
# Tasks that write have bytes for tokens, of which a text has more.
BYTES = {name: {"max_length": 48} for name in (WRITING, TRANSLATING, "denoising", "next-token-prediction")}
SMALL = {THINGS: {"size": 16}}
EXACT = {
    TEXTS: {"label_smoothing": 0.0, "token_masking": 0.0},
    **{name: {"token_masking": 0.0} for name in (TAGS, MOODS, TEXT_LABELS)},
    IMAGES: {"label_smoothing": 0.0, "augmentation": "none"},
    SHADES: {"augmentation": "none"},
    IMAGE_LABELS: {"augmentation": "none"},
    THINGS: {"augmentation": "none", **MILD[THINGS]},
    SOUNDS: {"label_smoothing": 0.0, "augmentation": "none"},
    SPEECH: {"augmentation": "none"},
    TRANSLATING: {"label_smoothing": 0.0},
    **{name: {"augmentation": "none", "embedding_size": 16, "margin": 0.0} for name in (FACES, VOICES)},
}
# What a task's score is at best, where that is not 1.
BEST_SCORES = {TRANSLATING: 100}
# Losses below which examples are known by heart, where it is no cross-entropy or square.
LEAST_LOSSES = {THINGS: 0.1, IMAGE_LABELS: 0.05, TEXT_LABELS: 0.05}


@dataclass
class Recorder:
    """A callback that remembers, and that asks to stop after so many steps."""

    stop_after: int | None = None
    evaluations: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    progress: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    steps: int = 0

    def on_step(self, progress):
        self.progress.append(progress)

    def on_evaluation(self, split, step, epoch, values):
        self.evaluations.append((split, step, values))

    def on_checkpoint(self, path, position):
        self.checkpoints.append(path)

    def should_stop(self):
        self.steps += 1
        return self.steps == self.stop_after


@dataclass
class Run:
    prepared: Prepared
    outcome: Outcome
    recorder: Recorder

    @property
    def metrics(self) -> dict[str, Any]:
        return self.outcome.position.metrics


def small_table(rows: int = 40, seed: int = 0) -> pa.Table:
    """Two numbers, a small integer, a category, a boolean and a date; both targets follow from them."""
    generator = np.random.default_rng(seed)
    age, income = generator.normal(40, 10, rows), generator.normal(0, 1, rows)
    city = generator.choice(["Basel", "Bern", "Chur"], rows)
    member = generator.integers(0, 2, rows).astype(bool)
    amount = 3 * (age - 40) / 10 + 2 * (city == "Bern") - member
    days = generator.integers(0, 1000, rows)
    return pa.table(
        {
            "age": age,
            "income": income,
            "children": generator.integers(0, 4, rows),
            "city": city,
            "member": member,
            "since": pa.array(days * 86_400_000_000, pa.timestamp("us")),
            "amount": amount,
            "label": np.where(amount > np.median(amount), "high", "low"),
        }
    )


_TAGS = {"card": "B-thing", "order": "B-thing", "app": "B-thing", "这个餐馆": "B-place", "我的订单": "B-thing"} | {
    "my": "B-owner", "annoys": "B-feeling", "pleases": "B-feeling", "me": "I-feeling"
}  # fmt: skip


def small_texts(rows: int = 40, seed: int = 0) -> pa.Table:
    """Sentences in two languages, their words, what these are about, whether they please and how much; and a date."""
    generator = np.random.default_rng(seed)
    openings = ["the card", "my order", "this app", "这个餐馆", "我的订单"]
    fillers = ["really", "again", "today", "今天", "and so on", "as ever"]
    good, bad = ["works", "pleases me", "很好"], ["fails", "annoys me", "很差"]
    pleased = generator.integers(0, 2, rows).astype(bool)
    texts = [
        " ".join(
            [generator.choice(openings), *generator.choice(fillers, generator.integers(0, 4)), generator.choice(words)]
        )
        for words in (good if each else bad for each in pleased)
    ]
    days = pa.array(generator.integers(0, 1000, rows) * 86_400_000_000, pa.timestamp("us"))
    words = [text.split() for text in texts]
    return pa.table(
        {
            "text": texts,
            "since": days,
            "label": np.where(pleased, "good", "bad"),
            "pleased": pleased,
            "chinese": [not text.isascii() for text in texts],
            "amount": [3.0 * up + ("card" in text) for up, text in zip(pleased, texts, strict=True)],
            "tokens": words,
            "tags": [[_TAGS.get(word, "O") for word in row] for row in words],
        }
    )


def small_images(rows: int = 40, seed: int = 0) -> pa.Table:
    """Patches of colour with a bright corner, which one it is and where, and how bright all is; few are squares."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 2, rows).astype(bool)
    cells, amounts, objects = [], [], []
    for down in low:
        height, width = generator.integers(9, 13, 2)
        patches = generator.integers(0, 120, (3, 3, 3), dtype=np.uint8)
        pixels = patches.repeat(4, 0).repeat(4, 1)[:height, :width].copy()
        pixels[slice(-4, None) if down else slice(4), :5] += 120
        amounts.append(float(pixels.mean()))
        top = float(height - 4 if down else 0)
        objects.append([{"label": "low" if down else "high", "x": 0.0, "y": top, "width": 5.0, "height": 4.0}])
        content = encode_png(pixels)
        cells.append({"bytes": content, **inspect(content)._asdict()})
    return pa.table(
        {
            "image": pa.array(cells, MEDIA_TYPES["image"]),
            "objects": pa.array(objects, MEDIA_TYPES["objects"]),
            "amount": amounts,
            "label": np.where(low, "low", "high"),
            "labels": [["low", "down"] if down else [] for down in low],
            "file": [f"{number}.png" for number in range(rows)],
        }
    )


def small_sounds(rows: int = 40, seed: int = 0) -> pa.Table:
    """Tones that rise or fall, of unequal lengths; what they say, as a transcript; and how long they are."""
    generator = np.random.default_rng(seed)
    rising = generator.integers(0, 2, rows).astype(bool)
    seconds = generator.uniform(0.08, 0.25, rows)
    contents = [
        tone(length, pitch=generator.uniform(400, 900), rise=2.5 if up else 0.4)
        for up, length in zip(rising, seconds, strict=True)
    ]
    cells = [{"bytes": content, **audio.inspect(content)._asdict()} for content in contents]
    return pa.table(
        {
            "audio": pa.array(cells, MEDIA_TYPES["audio"]),
            "amount": seconds,
            "label": np.where(rising, "rising", "falling"),
            "text": np.where(rising, "up", "下"),
            "file": [f"{number}.wav" for number in range(rows)],
        }
    )


def table_for(task: str, rows: int = 40, seed: int = 0) -> pa.Table:
    """A small table of the task's modality."""
    made = {"tabular": small_table, "text": small_texts, "image": small_images, "audio": small_sounds}
    return made[TASKS[task].modality](rows, seed)


def write(table: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def spec_of(task: str, kind: str = "finetune", **fields: Any) -> TrainingSpec:
    """A specification of a tiny network that leaves the other targets out of the inputs."""
    columns, modality = TARGETS.get(task, {}), TASKS[task].modality
    targets = ("label",) if modality == "text" else ("amount", "label")
    fields = {
        "architecture": default_for(TASKS[task]),
        "columns": {**columns, "ignore": [name for name in targets if name != columns.get("target")]},
        "preprocessing": SHORT_TEXTS.get(modality, {}) | BYTES.get(task, {}) | SMALL.get(task, {}),
        "task_config": MILD.get(task, {}),
        **fields,
    }
    if fields["architecture"] in TINY:
        fields["architecture_config"] = {**TINY[fields["architecture"]], **fields.get("architecture_config", {})}
    return TrainingSpec(kind=kind, task=task, **fields)


def run(
    spec: TrainingSpec,
    tables: dict[str, Path],
    directory: Path,
    recorder: Recorder | None = None,
    resume: Any = None,
    **sources: Path,
) -> Run:
    pin(spec.seed, 1)
    prepared = prepare(spec, tables, device=choose_device("cpu"), **sources)
    recorder = recorder or Recorder()
    plan = Plan(spec.hyperparameters, spec.early_stopping, spec.seed, directory, spec.checkpointing)
    return Run(prepared, train(prepared, plan, recorder, resume), recorder)


def saved(result: Run, directory: Path) -> Path:
    save(result.prepared.design, result.outcome.weights, directory)
    return directory
