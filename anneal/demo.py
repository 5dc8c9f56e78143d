"""The demonstration, over REST: pretrain on unlabelled rows, finetune on few labelled ones, predict, compare.

Breast Cancer Wisconsin (Diagnostic), see data/README.md. Every number shown comes from the service's answers.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from anneal.client import Client
from anneal.datasets import Dataset
from anneal.demo_report import print_report, report_json
from anneal.errors import AnnealError
from anneal.jobs import Job
from anneal.launcher import Launcher, LauncherSettings, free_port
from anneal.progress import duration, job_bar
from anneal.rows import read_rows
from anneal.scores import binary_scores

TARGET = "diagnosis"
POSITIVE = "malignant"
SEEDS = (0, 1, 2)
BASE_MODEL = "breast-cancer-base"
MODEL = "breast-cancer"
BATCH = 100
JOB_TIMEOUT_S = 300.0
FILES = {
    "unlabeled": "breast_cancer_unlabeled.csv",
    "few": "breast_cancer_few10.csv",
    "test": "breast_cancer_test.csv",
}


@dataclass(frozen=True)
class Run:
    """One seed's finetuned model: its own scores, computed here, and the service's comparison."""

    seed: int
    ref: str
    scores: dict[str, float]
    comparison: dict[str, Any]


def run_demo(*, keep: bool, as_json: bool, environment: Mapping[str, str]) -> None:
    """Run the demonstration in a temporary directory on a free port, and leave nothing behind."""
    began = time.monotonic()
    console = Console(stderr=True)
    # A production database or broker named in the caller's environment must not be touched.
    clean = {name: value for name, value in environment.items() if not name.startswith("ANNEAL_")}
    with TemporaryDirectory(prefix="anneal-demo-", ignore_cleanup_errors=True) as folder:
        settings = LauncherSettings(Path(folder) / "data", port=free_port(), environment=clean)
        console.print(f"[bold]1/5[/] Starting a service at {settings.url}")
        with Launcher(settings, say=console.print) as launcher, launcher.tended():
            key = launcher.key_path.read_text(encoding="utf-8").strip()
            with Client(settings.url, key) as client:
                runs = _runs(client, console, settings)
                seconds = time.monotonic() - began
                _report(client, runs, seconds, settings, as_json=as_json, keep=keep)
            if keep:
                launcher.run()
        console.print(f"Everything is stopped and removed. {duration(time.monotonic() - began)} in all.")


def _runs(client: Client, console: Console, settings: LauncherSettings) -> list[Run]:
    try:
        console.print("[bold]2/5[/] Uploading three datasets")
        datasets = _upload(client, console)
        console.print(f"[bold]3/5[/] Pretraining on {datasets['unlabeled'].num_rows} rows without a diagnosis")
        _pretrain(client, datasets, console)
        console.print(
            f"[bold]4/5[/] Finetuning on {datasets['few'].num_rows} labelled rows, {len(SEEDS)} seeds, "
            "each beside a twin from scratch"
        )
        jobs = _finetune(client, datasets, console)
        console.print(f"[bold]5/5[/] Predicting {datasets['test'].num_rows} held-out rows with each model")
        rows = _data_rows("test")
        return [_score(client, seed, job, rows) for seed, job in zip(SEEDS, jobs, strict=True)]
    except AnnealError:
        for log in sorted((settings.data_dir / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-20:]
            console.print(f"The end of {log.name}:", *lines, sep="\n", markup=False)
        raise


def _upload(client: Client, console: Console) -> dict[str, Dataset]:
    datasets = {}
    for part, name in FILES.items():
        with as_file(files("anneal.data") / name) as path:
            datasets[part] = client.datasets.upload(path, name=path.stem)
    for part, dataset in datasets.items():
        dataset.wait(timeout=JOB_TIMEOUT_S)
        console.print(f"    {FILES[part]}: {dataset.num_rows} rows, {len(dataset.columns)} columns")
    return datasets


def _pretrain(client: Client, datasets: Mapping[str, Dataset], console: Console) -> Job:
    job = client.jobs.create(
        "pretrain", task="masked-features", dataset=datasets["unlabeled"], model=BASE_MODEL, seed=0
    )
    with job_bar("    pretraining", console) as show:
        return job.wait(progress=show, timeout=JOB_TIMEOUT_S)


def _finetune(client: Client, datasets: Mapping[str, Dataset], console: Console) -> list[Job]:
    jobs = [
        client.jobs.create(
            "finetune",
            task="tabular-classification",
            dataset={"train": datasets["few"], "test": datasets["test"]},
            target=TARGET,
            base_model=BASE_MODEL,
            model=MODEL,
            compare=True,
            seed=seed,
            name=f"seed {seed}",
        )
        for seed in SEEDS
    ]
    for seed, job in zip(SEEDS, jobs, strict=True):
        with job_bar(f"    finetuning, seed {seed}", console) as show:
            job.wait(progress=show, timeout=JOB_TIMEOUT_S)
    return jobs


def _score(client: Client, seed: int, job: Job, rows: list[dict[str, Any]]) -> Run:
    """Predict the held-out rows without their diagnosis and score the answers."""
    result = job.to_dict()["result"]
    inputs = [{name: value for name, value in row.items() if name != TARGET} for row in rows]
    outputs = []
    for start in range(0, len(inputs), BATCH):
        answer = client.predict(result["ref"], inputs[start : start + BATCH]).to_dict()
        if answer.get("errors"):
            raise AnnealError(f"Prediction failed: {answer['errors'][0]['message']}")
        outputs += answer["outputs"]
    scores = binary_scores(
        [str(row[TARGET]) for row in rows],
        [str(output["label"]) for output in outputs],
        [float(output["probabilities"][POSITIVE]) for output in outputs],
        POSITIVE,
    )
    return Run(seed, result["ref"], scores, result.get("comparison") or {})


def _report(
    client: Client,
    runs: list[Run],
    seconds: float,
    settings: LauncherSettings,
    *,
    as_json: bool,
    keep: bool,
) -> None:
    columns = {
        "from scratch": [run.comparison.get("scratch") or {} for run in runs],
        "pretrained": [run.comparison.get("pretrained") or {} for run in runs],
        "pretrained, scored from predictions": [run.scores for run in runs],
    }
    verdicts = {f"seed {run.seed}": str(run.comparison.get("verdict")) for run in runs}
    if as_json:
        report_json(columns, verdicts, seconds)
        return
    curl = str(client.models.schema(runs[0].ref).curl)
    print_report(columns, verdicts, seconds, POSITIVE)
    stays = "" if keep else "    (with `anneal demo --keep`, which leaves the service running)"
    Console(soft_wrap=True).print(
        f"\nOne prediction from a shell:{stays}\n"
        f"  export ANNEAL_API_KEY=$(cat {settings.data_dir / 'api_key'})\n  {curl}\n",
        markup=False,
        highlight=False,
    )


def _data_rows(part: str) -> list[dict[str, Any]]:
    with as_file(files("anneal.data") / FILES[part]) as path:
        return read_rows(path)
