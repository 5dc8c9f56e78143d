"""How fast BERT trains on texts of unequal lengths: this service's loop beside its peers, on one core, in one run.

    python benchmarks/text.py [--quick]

BERT of 4 layers and width 256, rows log-normal in length with a mean of 25 tokens and at most 256, batches of 32,
dropout 0.1, fused AdamW, one thread. Rates are tokens that are no padding, by processor seconds, after as many steps
that are not measured; medians of rounds, as are the ratios of rates in a round.
Prints a table and writes benchmarks/results/text.json and .md. Wants the dependency group `bench`.
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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from learning.config import Columns, Hyperparameters, Split, TrainingSpec
from learning.data import epoch_order
from learning.device import is_slow
from learning.interfaces import Batch
from learning.optimization import learning_rate, make_stepper
from learning.packing import PackedExamples
from learning.preparation import Prepared, prepare
from learning.product_rows import spare_rows

RESULTS = Path(__file__).parent / "results"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
BATCH, MEAN, LONGEST, ROWS, VOCABULARY, DROPOUT, RATE = 32, 25, 256, 6_400, 4_000, 0.1, 5e-4
FIRST_CHARACTER = 0x4E00
PADDED, GROUPED = "HF Trainer, padded to the longest", "HF Trainer, group_by_length"
# Ours, another, and the least ratio of the rates that is accepted.
BARS = (
    (("fp32", "ours"), ("fp32", PADDED), 3.0),
    (("fp32", "ours"), ("fp32", GROUPED), 1.5),
    (("fp32", "ours"), ("fp32", "floor"), 0.85),
    (("bf16", "ours"), ("fp32", PADDED), 5.5),
    (("bf16", "ours"), ("bf16", GROUPED), 1.35),
    (("bf16", "ours"), ("bf16", "floor"), 0.72),
)


@dataclass
class Rate:
    """What a contestant did: tokens that are no padding, the share that is, and processor seconds."""

    tokens: int
    padding: float
    seconds: float

    @property
    def per_second(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def texts() -> pa.Table:
    """Return random texts of characters, one token each, and a label; the first and last token belong to the length."""
    generator = np.random.default_rng(0)
    sigma = 0.7
    length_N = generator.lognormal(np.log(MEAN) - sigma**2 / 2, sigma, ROWS).round().clip(3, LONGEST).astype(int)
    characters = [
        "".join(map(chr, FIRST_CHARACTER + generator.integers(0, VOCABULARY - 5, length - 2))) for length in length_N
    ]
    return pa.table({"text": characters, "label": generator.choice(["a", "b"], ROWS)})


def prepared(precision: str) -> tuple[TrainingSpec, Prepared]:
    """Prepare as a job is."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "train.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, (table := texts()).schema) as writer:
            writer.write_table(table)
        spec = TrainingSpec(
            kind="finetune",
            task="text-classification",
            architecture="bert",
            preprocessing={"tokenizer": "characters", "vocabulary_size": VOCABULARY, "max_length": LONGEST},
            columns=Columns(target="label"),
            hyperparameters=Hyperparameters(
                epochs=10, batch_size=BATCH, learning_rate=RATE, dropout=DROPOUT, precision=precision
            ),
            split=Split(validation=0.0),
            device="cpu",
        )
        torch.manual_seed(0)
        return spec, prepare(spec, {"train": path}, device=torch.device("cpu"))


def ours(precision: str, steps: int) -> Rate:
    """Batches, schedule and steps as `learning.training` takes them."""
    spec, ready = prepared(precision)
    stepper = make_stepper(ready.design, ready.network.train(), spec.hyperparameters)
    batches = ready.train.batches(epoch_order(len(ready.train), 0, 0), BATCH)
    tokens, places, begin = 0, 0, 0.0
    for step, batch in zip(range(2 * steps), batches, strict=False):
        if step == steps:
            begin = process_time()
        stepper(batch, learning_rate(step, ready.resolved, spec.hyperparameters))
        if begin:
            tokens += len(batch["token_S"])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                places += len(batch["token_S"]) + spare_rows(len(batch["token_S"]), torch.device("cpu"))
    return Rate(tokens, 1 - tokens / places, process_time() - begin)


def floor(precision: str, steps: int) -> Rate:
    """Forward, backward and step on one full batch of rows of one length."""
    _, ready = prepared(precision)
    network, task, state = ready.network.train(), ready.design.task, ready.design.targets
    batch: Batch = {
        "token_S": torch.randint(5, VOCABULARY, (BATCH * MEAN,), dtype=torch.int32),
        "length_B": torch.full((BATCH,), MEAN),
        "target_B": torch.randint(2, (BATCH,)).float(),
    }
    optimizer = torch.optim.AdamW(network.parameters(), RATE, fused=True)
    begin = 0.0
    for step in range(steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = task.loss(network, batch, state)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        begin = process_time() if step == 0 else begin
    return Rate(BATCH * MEAN * steps, 0.0, process_time() - begin)


class HfRows(torch.utils.data.Dataset[dict[str, Any]]):
    """The same rows as lists of token numbers."""

    def __init__(self, examples: PackedExamples) -> None:
        self.rows = list(rows(whole(examples)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def whole(examples: PackedExamples) -> Batch:
    """Return all rows as one batch."""
    parts = list(examples.everything())
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a batch."""
    for tokens, target in zip(batch["token_S"].split(batch["length_B"].tolist()), batch["target_B"], strict=True):
        yield {"input_ids": tokens.tolist(), "labels": int(target)}


def hf_trainer(strategy: str) -> Callable[[str, int], Rate]:
    """Transformers' Trainer, no logging, no saving; batches padded to their longest row."""

    def contest(precision: str, steps: int) -> Rate:
        from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

        _, ready = prepared(precision)
        assert isinstance(ready.train, PackedExamples)
        seen = {"tokens": 0, "places": 0, "begin": 0.0, "end": 0.0}

        def collate(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            tokens = [torch.tensor(row["input_ids"]) for row in chosen]
            padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
            lengths = torch.tensor([len(row) for row in tokens])
            if seen["begin"]:
                seen["tokens"] += int(lengths.sum())
                seen["places"] += padded.numel()
            mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
            return {
                "input_ids": padded,
                "attention_mask": mask.long(),
                "labels": torch.tensor([row["labels"] for row in chosen]),
            }

        class Watch(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
                seen["end"] = process_time()
                if state.global_step == steps:
                    seen["begin"] = process_time()

        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
            max_position_embeddings=LONGEST,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as directory:
            arguments = TrainingArguments(
                output_dir=directory, per_device_train_batch_size=BATCH, max_steps=2 * steps, learning_rate=RATE,
                use_cpu=True, bf16=precision == "bf16", optim="adamw_torch_fused", train_sampling_strategy=strategy,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
            )  # fmt: skip
            Trainer(
                BertForSequenceClassification(config), arguments, data_collator=collate,
                train_dataset=HfRows(ready.train), callbacks=[Watch()],
            ).train()  # fmt: skip
        tokens, places = int(seen["tokens"]), seen["places"]
        return Rate(tokens, 1 - tokens / places, seen["end"] - seen["begin"])

    return contest


CONTESTANTS: dict[str, Callable[[str, int], Rate]] = {
    "ours": ours,
    "floor": floor,
    PADDED: hf_trainer("random"),
    GROUPED: hf_trainer("group_by_length"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: to see that it runs")
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="these contestants")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # libraries read it when they are loaded
        sys.exit(subprocess.call([sys.executable, *sys.argv], env={**os.environ, **ONE_THREAD}))
    torch.set_num_threads(1)
    steps, rounds = (8, 1) if options.quick else (60, 3)
    precisions = ["fp32"] if is_slow("bf16", torch.device("cpu")) else ["fp32", "bf16"]
    measured: dict[tuple[str, str], list[Rate]] = {}
    for _ in range(rounds):
        for precision in precisions:
            for name in options.only:
                found = CONTESTANTS[name](precision, steps)
                measured.setdefault((precision, name), []).append(found)
                print(f"{precision} {name}: {found.per_second:.0f} tokens/s, {found.padding:.1%} padding", flush=True)
    text = report(measured, precisions)
    print(text)
    if not options.quick:
        results = [
            {"precision": key[0], "contestant": key[1], **asdict(rate)}
            for key, all_ in measured.items()
            for rate in all_
        ]
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "text.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "text.md").write_text(text + "\n")


def report(measured: dict[tuple[str, str], list[Rate]], precisions: list[str]) -> str:
    """Return the table and the bars."""
    rates = {key: statistics.median(rate.per_second for rate in found) for key, found in measured.items()}
    lines = [
        "# Training on texts", "", (__doc__ or "").split("\n\n")[2].rpartition("Prints")[0].strip(), "",
        f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}.", "",
        "| precision | contestant | tokens/s | of the floor | padding |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for (precision, name), rate in rates.items():
        share = rate / rates.get((precision, "floor"), float("nan"))
        padding = measured[precision, name][0].padding
        lines.append(f"| {precision} | {name} | {rate:,.0f} | {share:.0%} | {padding:.1%} |")
    lines += ["", "| bar | wanted | found |", "|---|---|---|"]
    for one, other, least in BARS:
        if one in rates and other in rates:
            rounds = zip(measured[one], measured[other], strict=True)
            found = statistics.median(mine.per_second / theirs.per_second for mine, theirs in rounds)
            lines.append(f"| {' '.join(one)} over {' '.join(other)} | {least} | {found:.2f} |")
    if "bf16" not in precisions:
        lines += ["", "This processor has no instructions for bf16: nothing was measured in it."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
