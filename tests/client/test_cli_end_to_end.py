"""The command line against the running product: what it prints, and an exit code that equals the outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from media_files import png
from registered import register_faces
from servers import REPOSITORY, Stack

from anneal import Client
from anneal.errors import JobFailed, NotFound

DATA = REPOSITORY / "anneal" / "data"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def anneal(embedded: Stack, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A runner of the command line with the running product's address and key."""
    folder = tmp_path_factory.mktemp("cli")
    environment = {**os.environ, "ANNEAL_URL": embedded.url, "ANNEAL_API_KEY": embedded.key}

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "anneal", *arguments],
            env={**environment, **changes},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def rows(anneal: Run) -> str:
    uploaded = anneal("datasets", "upload", str(DATA / "breast_cancer_train.csv"), "--json")
    assert uploaded.returncode == 0, uploaded.stderr
    return str(json.loads(uploaded.stdout)["id"])


def test_a_dataset_predicted_to_a_file(anneal: Run, rows: str, tmp_path: Path) -> None:
    options = ("--kind", "finetune", "--task", "tabular-classification", "--target", "diagnosis", "--model", "filed")
    assert anneal("jobs", "submit", *options, "--dataset", rows, "--set", "epochs=1", "--wait").returncode == 0
    wanted = tmp_path / "answers.csv"
    done = anneal("predict", "filed", "--dataset", rows, "--output", str(wanted), "--keep", "diagnosis")
    assert done.returncode == 0, done.stderr
    assert "0 of them with an error" in done.stderr
    lines = wanted.read_text().splitlines()
    assert lines[0].startswith("index,diagnosis,label,score,")
    assert len(lines) == len((DATA / "breast_cancer_train.csv").read_text().splitlines())
    assert anneal("predict", "filed", "--dataset", rows, "--output", "x.xlsx").returncode == 2
    assert anneal("predict", "filed").returncode == 2


def test_from_upload_to_prediction(anneal: Run, rows: str) -> None:
    options = ("--kind", "finetune", "--task", "tabular-classification", "--target", "diagnosis")
    submitted = anneal(
        "jobs", "submit", *options, "--dataset", rows, "--model", "cli", "--set", "epochs=3", "--wait", "--json"
    )
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)
    assert job["result"]["ref"] == "cli:1"
    assert "validation" in anneal("jobs", "logs", job["id"]).stdout
    listed = json.loads(anneal("jobs", "list", "--json").stdout)
    assert job["id"] in [entry["id"] for entry in listed["data"]]
    assert anneal("models", "alias", "cli", "production", "1").returncode == 0
    predicted = anneal("predict", "cli@production", "--file", str(DATA / "breast_cancer_test.csv"), "--json")
    assert predicted.returncode == 0, predicted.stderr
    decoder, text, outputs = json.JSONDecoder(), predicted.stdout.strip(), 0
    while text:  # one answer after the other, for 100 rows each
        answer, end = decoder.raw_decode(text)
        outputs, text = outputs + len(answer["outputs"]), text[end:].strip()
    assert outputs == 113


def test_looking_before_and_after(anneal: Run, rows: str) -> None:
    """A dry run, what is kept of a job, a model out of a checkpoint, and the queue."""
    options = ("--kind", "finetune", "--task", "tabular-classification", "--dataset", rows, "--set", "epochs=3")
    looked = anneal("jobs", "submit", *options, "--target", "diagnosis", "--dry-run")
    assert looked.returncode == 0, looked.stderr
    assert "steps" in looked.stdout
    wrong = anneal("jobs", "submit", *options, "--target", "diagnosys", "--dry-run")
    assert wrong.returncode == 1
    assert "/columns/target" in wrong.stdout
    assert "diagnosis" in wrong.stdout
    submitted = anneal("jobs", "submit", *options, "--target", "diagnosis", "--model", "looked", "--wait", "--json")
    job_id = json.loads(submitted.stdout)["id"]
    (kept,) = json.loads(anneal("jobs", "checkpoints", job_id, "--json").stdout)
    assert kept["id"] in anneal("jobs", "checkpoints", job_id).stdout
    promoted = anneal("jobs", "promote", job_id, kept["id"], "--model", "by-hand", "--json")
    assert json.loads(promoted.stdout)["ref"] == "by-hand:1"
    assert anneal("jobs", "logs", job_id, "--tail", "1").stdout.count("\n") == 1
    queue = anneal("queue")
    assert "Nothing waits" in queue.stdout
    assert "idle" in queue.stdout
    assert {worker["online"] for worker in json.loads(anneal("queue", "--json").stdout)["workers"]} == {True}


def test_webhooks(anneal: Run) -> None:
    refused = anneal("webhooks", "create", "http://127.0.0.1:9/")
    assert refused.returncode == 1
    assert "private address" in refused.stderr
    assert "No webhooks" in anneal("webhooks", "list").stdout
    created = anneal("webhooks", "create", "http://192.0.2.1/", "--event", "job.failed")
    assert created.returncode in (0, 1)  # a machine without a network may take that for private
    for command in ("deliveries", "test", "rotate", "delete"):
        assert "whk_none" in anneal("webhooks", command, "whk_none").stderr


def test_galleries(anneal: Run, embedded: Stack, tmp_path: Path) -> None:
    register_faces(embedded, "visitors")
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    one, two = str(tmp_path / "1.png"), str(tmp_path / "2.png")
    made = anneal("galleries", "create", "door", "visitors", "--threshold", "0.9")
    assert "Threshold 0.9, given" in made.stderr + made.stdout, made
    first = anneal("galleries", "enrol", "door", "Ada", one, "--json")
    subject = json.loads(first.stdout)
    for further in (two, one):  # the one that she has already is left out
        again = anneal("galleries", "enrol", "door", "Ada", further)
        assert "by 2 files" in again.stderr + again.stdout
    assert "Ada" in anneal("galleries", "subjects", "door").stdout
    assert "door" in anneal("galleries", "list").stdout
    (answer,) = json.loads(anneal("galleries", "identify", "door", one, "--json").stdout)["outputs"]
    assert answer["subject"]["id"] == subject["id"]
    assert "Ada" in anneal("galleries", "identify", "door", one, two).stdout
    verified = anneal("galleries", "verify", "door", one, "--subject", "Ada")
    assert (verified.returncode, "the same" in verified.stderr + verified.stdout) == (0, True)
    assert anneal("galleries", "verify", "door", one, two, "--threshold", "1").returncode == 1
    assert anneal("galleries", "verify", "door", one).returncode == 2
    register_faces(embedded, "visitors", size=24)
    moved = json.loads(anneal("galleries", "move", "door", "visitors", "--json").stdout)
    assert (moved["model"], moved["samples"], moved["move"]) == ("visitors:2", 2, None)
    assert anneal("galleries", "forget", "door", subject["id"]).returncode == 0
    assert json.loads(anneal("galleries", "show", "door", "--json").stdout)["samples"] == 0
    assert anneal("galleries", "delete", "door").returncode == 0
    assert "No gallery" in anneal("galleries", "show", "door").stderr


def test_a_job_that_fails_fails_the_command(anneal: Run, rows: str, tmp_path: Path) -> None:
    request = tmp_path / "job.json"
    body = {
        "kind": "finetune",
        "task": "tabular-classification",
        "dataset": rows,
        "columns": {"target": "diagnosis"},
        "hyperparameters": {"optimizer": "sgd", "learning_rate": 10, "momentum": 0.99, "epochs": 50},
        "preprocessing": {"scaling": "none"},
    }
    request.write_text(json.dumps(body))
    failed = anneal("jobs", "submit", str(request), "--wait")
    assert failed.returncode == 1
    assert "diverged" in failed.stderr
    assert "learning_rate" in failed.stderr


def test_wrong_turns_are_told_apart(anneal: Run, rows: str, tmp_path: Path) -> None:
    wrong = anneal("jobs", "submit", "--kind", "finetune", "--task", "tabular-classification", "--target", "diagnosi",
                   "--dataset", rows)  # fmt: skip
    assert wrong.returncode == 1
    assert 'Did you mean "diagnosis"?' in " ".join(wrong.stderr.split())
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("age,label\n1,a\n2,b\nabc,a\n4,b\n5,a\n")
    invalid = anneal("datasets", "upload", str(ragged))
    assert invalid.returncode == 1
    assert '"abc"' in invalid.stderr
    assert "Row 3" in invalid.stderr
    assert anneal("jobs", "list", ANNEAL_API_KEY="key_x.wrong").returncode == 1
    away = anneal("jobs", "list", ANNEAL_URL="http://127.0.0.1:9")
    assert away.returncode == 3
    assert "Traceback" not in away.stderr
    assert anneal("jobs", "submit", "--no-such-option").returncode == 2


def test_keys(anneal: Run) -> None:
    made = json.loads(anneal("keys", "create", "reader", "--scope", "models", "--json").stdout)
    assert anneal("models", "list", ANNEAL_API_KEY=made["key"]).returncode == 0
    refused = anneal("jobs", "list", ANNEAL_API_KEY=made["key"])
    assert refused.returncode == 1
    assert "scope" in refused.stderr
    assert anneal("keys", "revoke", made["id"]).returncode == 0
    assert anneal("models", "list", ANNEAL_API_KEY=made["key"]).returncode == 1


def test_the_python_client(embedded: Stack, rows: str) -> None:
    with Client(embedded.url, embedded.key) as client:
        job = client.jobs.create(
            "finetune", dataset=rows, task="tabular-classification", target="diagnosis", model="python",
            hyperparameters={"epochs": 3},
        ).wait()  # fmt: skip
        assert [event.type for event in job.events()][-1] == "succeeded"
        example = client.models.schema(job.result.ref).example.to_dict()
        answer = client.predict(job.result.ref, [example, {"mean_radius": 1}])
        assert answer.outputs[0].label in ("benign", "malignant")
        assert answer.errors[0].index == 1
        with pytest.raises(NotFound, match="No job"):
            client.jobs.get("job_none")
        diverging = client.jobs.create(
            "finetune", dataset=rows, task="tabular-classification", target="diagnosis",
            hyperparameters={"optimizer": "sgd", "learning_rate": 10, "momentum": 0.99, "epochs": 50},
            preprocessing={"scaling": "none"},
        )  # fmt: skip
        with pytest.raises(JobFailed, match="diverged"):
            diverging.wait()
